"""Batches for training and evaluation, made in threads; reproducible for any number of threads or hosts.

The path of a batch from the files to the loss:

  datasets/NAME.py     lists the raw files of a split and reads one example of them
  data/records.py      builds the cache of records once; data/source.py decodes example i on request
  data/views.py        Resized gives all one size (data.image_size), Stretched one contrast; Cached keeps
                       examples in memory. train/train.py, `_load_data`, stacks these sources
  data/order.py        chooses the next example; `_read`, here, reads and checks it
  data/augment.py      applies the config's augmentation (data/transforms.py), then what the task adds
                       (data/objects.py), with a random generator of its own
  here                 `train_batches`: `_stack` collects b of them in arrays [b, h, w, ...], Grain's
                       threads prefetch some batches, and `Batches` waits for them, up to `timeout`
  train/loop.py        takes the next batch; train/devices/parallel.py splits it over the devices
  train/step.py        nn/preprocessing.py -> models/NAME.py -> losses of tasks/NAME.py

In evaluation data/frame.py pads whole images instead of the transforms. Nothing here depends on JAX:
the host's index and count are arguments, batches are numpy arrays.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grain
import numpy as np

from jaxseg.data import threads
from jaxseg.data.augment import augmented
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Example, size_of
from jaxseg.data.image_files import TYPES
from jaxseg.data.order import Order, kinds
from jaxseg.types import UserError

_TRAIN_KEYS = ('image', 'label', 'weight', 'index')


class Batches:
  """An iterator over batches made in the background.

  Attributes:
    waited_seconds: total time that `next` has waited for batches.

  `next` raises errors of the source and the transforms; StuckError if no example was finished for
  `timeout` seconds (0: waits for ever); UserError if a thread tried to exit the process.
  """

  def __init__(self, iterator: Iterator, activity: threads.Activity, timeout: float):
    self._iterator, self._activity, self._timeout = iterator, activity, timeout
    self._pool = ThreadPoolExecutor(1, 'batches')  # waits for Grain, which has no timeout
    self._next: Future | None = self._ahead()
    self.waited_seconds = 0.0

  def __iter__(self) -> Batches:
    return self

  def __next__(self) -> dict:
    begin = time.perf_counter()
    try:
      if self._next is None or (batch := self._take()) is None:
        raise StopIteration
    except Exception:  # the end or a failure: no batch follows either
      self.close()
      raise
    finally:
      self.waited_seconds += time.perf_counter() - begin
    self._next = self._ahead()
    return batch

  def _ahead(self) -> Future:
    """The next batch, or None at the end: a future with a StopIteration would keep the caller's arrays alive."""
    return self._pool.submit(next, self._iterator, None)

  def _take(self) -> dict | None:
    self._activity.wait(self._next, self._timeout)
    try:
      return self._next.result()
    except Exception as error:
      # Grain adds a note of its own to every exception.
      error.__notes__ = [n for n in getattr(error, '__notes__', ()) if 'Grain' not in n]
      raise
    except SystemExit as error:
      raise UserError(
        f'a thread that makes batches ended with {type(error).__name__}: {error}, with '
        f'{self._activity.in_progress()} under way: a dataset must not end the process'
      ) from error

  def close(self) -> None:
    """Drops pending batches and stops the threads; then `next` raises StopIteration."""
    if self._next is not None:
      self._next = None
      self._pool.submit(self._iterator.close)
      self._pool.shutdown(wait=False)


def train_batches(
  source,
  transforms: Sequence,
  *,
  seed: int,
  batch_size: int,
  start_step: int = 0,
  shard_index: int = 0,
  shard_count: int = 1,
  num_threads: int = 2,
  prefetch: int = 4,
  replacement: bool = False,
  timeout: float = 0.0,
) -> Batches:
  """Endless training batches; batch `step` is a pure function of seed, step and data.

  It does not depend on threads, hosts or interruptions: position p of the endless stream of examples
  has its own generator, derived from (seed, p), and its index in data/order.py: batches may span
  epochs, so that a set smaller than a batch works too.

  Args:
    source: random access to examples, `len(source)` and `source[i]`.
    transforms: called in order as `transform(example, rng)`, see augment.augmented; they must give all
      images one size. Entries named in a transform's `makes` go into the batch too.
    seed: 0 or larger; all randomness is derived from it.
    batch_size: examples per step over all hosts.
    start_step: step of the first batch (resume).
    shard_index: index of this host, from 0.
    shard_count: number of hosts, which must divide batch_size; each yields its shard.
    num_threads: threads that make batches, 0: one at a time in the caller's; `prefetch`: batches to
      keep ready.
    replacement: draw examples with replacement (FCN's recipe) instead of once per epoch.
    timeout: see Batches.

  Returns:
    Dicts: 'image' [b,h,w,c] of the source's dtype, 'label' uint8 [b,h,w], 'index' int64 [b] in the
    source, and 'weight' float32 [b,h,w] if the source has weights.
  """
  local = _local_size(batch_size, shard_index, shard_count)
  if not len(source):
    raise UserError('the training set holds no image: check data_dir and the split')

  order = Order(seed, kinds(source, transforms, timeout), batch_size, replacement)

  def example(position: int) -> Example:
    rng = np.random.default_rng([seed, 1, position])
    index = order.index(position, rng)
    with activity.track(index):
      another = lambda: _read(source, order.another(position, rng))  # noqa: E731
      first = {**_read(source, index), 'index': np.int64(index)}
      return augmented(first, transforms, rng, another)

  def batch(step: int) -> dict:
    start = step * batch_size + shard_index * local
    return _stack((example(start + i) for i in range(local)), local, keys)

  keys = (*_TRAIN_KEYS, *(k for transform in transforms for k in getattr(transform, 'makes', ())))
  activity = threads.Activity(getattr(source, 'file_name', None))
  steps = range(start_step, sys.maxsize)
  return Batches(_in_threads(batch, steps, num_threads, prefetch), activity, timeout)


def eval_batches(
  source,
  frame: Frame,
  *,
  batch_size: int,
  shard_index: int = 0,
  shard_count: int = 1,
  indices: Sequence[int] | None = None,
  num_threads: int = 2,
  prefetch: int = 2,
  timeout: float = 0.0,
) -> Batches:
  """Every image exactly once, in batches of one input size of the network.

  Images are grouped by that size in the order of `indices`, so that a network is compiled once per
  size; a group's last batch is padded with black images. Every host computes the same list of batches
  and loads its own slice of each, so that all run the same programs in the same order. Sizes come from
  `source.size(i)` if it exists (as in `Cached`), else each image is read once more; batch_size 1
  needs no sizes.

  Args:
    source: random access to examples, `len(source)` and `source[i]`.
    frame: places an image of any size.
    batch_size: images of a batch over all hosts.
    shard_index: index of this host, from 0.
    shard_count: number of hosts, which must divide batch_size; each yields its shard.
    indices: of the examples, in order; None: all.
    num_threads, prefetch: see train_batches.
    timeout: see Batches.

  Returns:
    An iterator of dicts: 'image' [b,H,W,c] of the source's dtype, the network's input for this host's
    images, and 'examples', the list of the source's examples, each with its 'index' in the source;
    fewer than b in a padded batch.
  """
  local = _local_size(batch_size, shard_index, shard_count)
  indices = [int(i) for i in (range(len(source)) if indices is None else indices)]
  if not indices:
    raise UserError('there is no image to evaluate: check data_dir and the split')
  plan = _plan(source, indices, frame, batch_size, max(num_threads, 1), timeout)

  def batch(number: int) -> dict:
    mine = plan[number][shard_index * local : (shard_index + 1) * local]
    examples, images = [], None
    # A host without an image in this batch needs the shape of the batch's first.
    for row, index in enumerate(mine or plan[number][:1]):
      with activity.track(index):
        example = _read(source, index)
        placed = frame.place(example['image'])
      if images is None:
        images = np.zeros((local, *placed.shape), placed.dtype)
      if mine:
        images[row] = placed
        examples.append({**example, 'index': index})
    return {'image': images, 'examples': examples}

  activity = threads.Activity(getattr(source, 'file_name', None))
  return Batches(_in_threads(batch, range(len(plan)), num_threads, prefetch), activity, timeout)


def _plan(
  source, indices: list[int], frame: Frame, batch_size: int, num_threads: int, timeout: float
) -> list[list[int]]:
  """Groups indices by the network's input size into batches, full ones first, the rest at the end."""
  if batch_size == 1:
    return [[i] for i in indices]
  read = getattr(source, 'size', None) or (lambda index: size_of(_read(source, index)))
  name = getattr(source, 'file_name', None)
  sizes = threads.results(read, indices, name=name, num_threads=num_threads, timeout=timeout)
  batches, groups = [], {}
  for index, size in zip(indices, sizes, strict=True):
    group = groups.setdefault(frame.input(size), [])
    group.append(index)
    if len(group) == batch_size:
      batches.append(group.copy())
      group.clear()
  return batches + [group for group in groups.values() if group]


def _local_size(batch_size: int, shard_index: int, shard_count: int) -> int:
  if not 0 <= shard_index < shard_count:
    raise UserError(f'shard_index is {shard_index}: with {shard_count} hosts 0..{shard_count - 1}')
  if batch_size < 1 or batch_size % shard_count:
    raise UserError(
      f'batch_size is {batch_size}: it must be a positive multiple of the {shard_count} hosts'
    )
  return batch_size // shard_count


def _in_threads(
  batch: Callable[[int], dict], steps: range, num_threads: int, prefetch: int
) -> Iterator:
  """Returns an iterator of batch(step) for each step, prefetched in threads."""
  # `Batches` itself holds one more batch. Grain warns if there are more threads than places in the buffer.
  buffer = max(prefetch - 1, num_threads) if num_threads else 0
  reading = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=buffer)
  dataset = grain.MapDataset.range(steps.start, steps.stop).map(batch)
  return iter(dataset.to_iter_dataset(reading))


def _read(source, index: int) -> Example:
  """Reads one example and rejects what later code would silently misinterpret."""
  example = source[index]
  image, label = example['image'], example['label']
  fits = image.dtype in TYPES and label.dtype == np.uint8
  if not fits or image.ndim != 3 or image.shape[:2] != label.shape:
    raise UserError(
      f'{example.get("file_name", f"example {index}")}: image {image.dtype} {image.shape}, label '
      f'{label.dtype} {label.shape}; allowed are {", ".join(TYPES)} (h, w, channels) and '
      'uint8 (h, w)'
    )
  return example


def _stack(examples: Iterable[Example], count: int, keys: Sequence[str]) -> dict[str, Any]:
  """Stacks the entries that a step uses; names, instances and the like are dropped.

  Each example is copied into the batch before the next is made, which reuses its memory while still in
  the CPU's cache: twice as fast as np.stack over a list.
  """
  batch = {}
  for row, example in enumerate(examples):
    if not row:
      arrays = {key: np.asarray(example[key]) for key in keys if example.get(key) is not None}
      batch = {k: np.empty((count, *a.shape), a.dtype) for k, a in arrays.items()}
    if example['image'].shape != batch['image'].shape[1:]:
      raise UserError(
        f'a batch holds images of shapes {batch["image"].shape[1:]} and {example["image"].shape}: '
        'set config.augment.crop.size=(h, w), or batch_size=1'
      )
    for key, array in batch.items():
      array[row] = example[key]
  return batch
