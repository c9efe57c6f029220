"""Batches for training and evaluation, made in threads, the same for any number of threads or hosts.

Nothing here knows of JAX: the host's number and count are arguments, batches are numpy arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import grain
import numpy as np

from jaxseg.data import checks, geometry, threads, watch
from jaxseg.data.geometry import Example, Fill
from jaxseg.data.views import remember
from jaxseg.data.watch import Prefetched
from jaxseg.types import VOID, SizeRule, UserError

__all__ = ['Prefetched', 'eval_batches', 'remember', 'train_batches']

_TRAIN_KEYS = ('image', 'label', 'weight', 'index')
_EVAL_KEYS = ('image', 'label', 'index', 'height', 'width', 'valid')


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
) -> Prefetched:
  """Endless training batches; batch `step` is a pure function of seed, step and data.

  The examples of a step and their augmentation do not depend on threads, hosts or where the run
  was interrupted: position p of the endless stream has its own generator, derived from (seed, p).
  Each epoch is a fresh permutation of the data; batches run across the ends of epochs, so that a
  dataset smaller than a batch works too.

  Args:
    source: random access to examples, `len(source)` and `source[i]`.
    transforms: called in order as `transform(example, rng)`; they must give all images one size.
      What one of them makes for the step, by the names in its `makes`, goes into the batch too.
    seed: 0 or larger; anything else that is random follows from it.
    batch_size: examples of a step over all hosts together.
    start_step: the first batch is that of this step (resume).
    shard_index: number of this host, 0 <= shard_index < shard_count.
    shard_count: number of hosts; must divide batch_size. Each yields batch_size / shard_count.
    num_threads: threads that make batches; 0 makes them inside `next`.
    prefetch: batches kept ready.
    replacement: each example is drawn independently from all data (FCN's recipe) instead of once
      an epoch.
    timeout: seconds without any example finished after which `next` raises StuckError; 0 = never.

  Returns:
    A `Prefetched` iterator of dicts: 'image' uint8 [b,h,w,c], 'label' uint8 [b,h,w], 'weight'
    float32 [b,h,w] where the source has weights, 'index' int64 [b], the place in the source.
    What the source or a transform raises comes out of `next` as it is.
  """
  local = _local_size(batch_size, shard_index, shard_count)
  seed = checks.whole('seed', seed, most=2**32 - 1)
  start_step = checks.whole('start_step', start_step)
  count = len(source)
  if not count:
    raise UserError('the training set holds no image: check data_dir and the split')

  # Not Grain's shuffle: it takes 0.1 to 5 ms an example where there are fewer than 1000 of them.
  @functools.lru_cache(maxsize=4)
  def order(epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)

  def example(position: int) -> Example:
    rng = np.random.default_rng([seed, 1, position])
    epoch, place = divmod(position, count)
    index = int(rng.integers(count) if replacement else order(epoch)[place])
    with progress.making(index):
      result = {**_read(source, index), 'index': np.int64(index)}
      for transform in transforms:
        result = transform(result, rng)
    return result

  keys = (*_TRAIN_KEYS, *(k for transform in transforms for k in getattr(transform, 'makes', ())))

  def batch(step: int) -> dict:
    first = step * batch_size + shard_index * local
    return _stack((example(first + i) for i in range(local)), local, keys)

  progress = watch.Progress(getattr(source, 'file_name', None))
  steps = range(start_step, sys.maxsize)
  return _start(steps, batch, num_threads, prefetch, progress, timeout)


def _local_size(batch_size: int, shard_index: int, shard_count: int) -> int:
  if not 0 <= shard_index < shard_count:
    raise UserError(f'shard_index is {shard_index}: with {shard_count} hosts 0..{shard_count - 1}')
  if batch_size < 1 or batch_size % shard_count:
    raise UserError(
      f'batch_size is {batch_size}: it must be a positive multiple of the {shard_count} hosts'
    )
  return batch_size // shard_count


def _start(
  steps: range,
  batch: Callable,
  num_threads: int,
  prefetch: int,
  progress: watch.Progress,
  timeout: float,
) -> Prefetched:
  # Grain warns where the buffer is smaller than the number of threads: some would always rest.
  watched = num_threads and timeout
  buffer = max(prefetch - bool(watched), num_threads) if num_threads else 0  # a watch holds one too
  reading = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=buffer)
  dataset = grain.MapDataset.range(steps.start, steps.stop).map(batch)
  iterator = iter(dataset.to_iter_dataset(reading))
  return Prefetched(watch.Watched(iterator, progress, timeout) if watched else iterator)


def _read(source, index: int) -> Example:
  """Reads one example and refuses what the rest would silently take for something else."""
  example = source[int(index)]
  image, label = example['image'], example['label']
  whole = image.dtype == label.dtype == np.uint8
  if not whole or image.ndim != 3 or image.shape[:2] != label.shape:
    raise UserError(
      f'{example.get("file_name", f"example {index}")}: image {image.dtype} {image.shape}, label '
      f'{label.dtype} {label.shape}; allowed are uint8 (h, w, channels) and uint8 (h, w)'
    )
  return example


def _stack(examples: Iterable[Example], count: int, keys: Sequence[str]) -> dict:
  """Stacks the entries that a step uses; names, instances and the like are left out.

  Each example is copied into the batch before the next is made, so that the next finds its memory
  warm: twice as fast as np.stack over a list.
  """
  batch = {}
  for place, example in enumerate(examples):
    if not place:
      arrays = {key: np.asarray(example[key]) for key in keys if example.get(key) is not None}
      batch = {k: np.empty((count, *a.shape), a.dtype) for k, a in arrays.items()}
    if example['image'].shape != batch['image'].shape[1:]:
      raise UserError(
        f'a batch holds images of shapes {batch["image"].shape[1:]} and {example["image"].shape}: '
        'set crop=(h, w) or resize=(h, w), or batch_size=1'
      )
    for key, whole in batch.items():
      whole[place] = example[key]
  return batch


def eval_batches(
  source,
  *,
  batch_size: int,
  size_rule: SizeRule,
  scale: float = 1.0,
  fill: Fill = (0,),
  mirror_border: bool | None = None,
  min_multiple: int = 1,
  shard_index: int = 0,
  shard_count: int = 1,
  indices: Sequence[int] | None = None,
  num_threads: int = 2,
  prefetch: int = 2,
  timeout: float = 0.0,
) -> Prefetched:
  """Every image exactly once at its own size; the images of a batch share one padded size.

  Geometry. An image [h,w] is padded right and below to a canvas, the canvas is resized by `scale`
  and gets the network's margin on all four sides; the label is padded to the canvas with void and
  never resized. The canvas is chosen so that the network's output is the canvas times `scale`:

    output size  = allowed input size - 2 * margin, at least ceil(scale * h)
    canvas size  = output size / scale; at scale 1 they are equal

  So evaluation is the same for all: resize the logits to the label's size (half-pixel centres; at
  scale 1 there is nothing to do), compare; the prediction of example i is [:height[i], :width[i]].
  An image's canvas depends on nothing but its own size: the score is the same for any batch size.

  Batches. Images are grouped by size in the order of `indices`, so that a network is compiled once
  a size; a group's last batch is filled with void examples. Every host works out the same list of
  batches and loads its own slice of each, so that all run the same programs in the same order.
  Sizes come from `source.size(i)` where there is such a method (`remember` gives one), else each
  image is read once more; with batch_size 1 no sizes are needed. Memory holds `prefetch` batches.

  Args:
    source: random access to examples, `len(source)` and `source[i]`.
    batch_size: examples of a batch over all hosts together.
    size_rule: input sizes that the network takes, and its margin.
    scale: factor of the image, not of the label, for networks trained at a reduced size.
    fill: colour of constant padding, 0..255.
    mirror_border: mirror the image outwards instead; None: exactly where the rule has a margin.
    min_multiple: rounds output sizes up further, for fewer different ones.
    shard_index: number of this host, 0 <= shard_index < shard_count.
    shard_count: number of hosts; must divide batch_size.
    indices: places in the source to go through, in this order; None: all.
    num_threads: threads that make batches; 0 makes them inside `next`.
    prefetch: batches kept ready.
    timeout: as in `train_batches`.

  Returns:
    A `Prefetched` iterator of dicts: 'image' uint8 [b,H,W,c], 'label' uint8 [b,h,w] on the canvas,
    'index' int64 [b] (-1 for a filling example), 'height' and 'width' int32 [b], the image's own
    size, and 'valid' bool [b].
  """
  local = _local_size(batch_size, shard_index, shard_count)
  checks.whole('min_multiple', min_multiple, least=1)
  fill = checks.colour('fill', fill)
  mirrored = size_rule.margin > 0 if mirror_border is None else mirror_border
  frame = _Frame(size_rule, checks.factor('scale', scale), min_multiple, mirrored, fill)
  indices = range(len(source)) if indices is None else [int(i) for i in indices]
  if not len(indices):
    raise UserError('there is no image to evaluate: check data_dir and the split')
  plan = _plan(source, indices, frame, batch_size, num_threads, timeout)

  def examples(chosen: list[int]) -> Iterator[dict]:
    mine = chosen[shard_index * local : (shard_index + 1) * local]
    # Where this host has no image of the batch, the batch's first lends its shape.
    for index in mine or chosen[:1]:
      with progress.making(index):
        placed = frame.place(index, _read(source, index))
      if mine:
        yield placed
    for _ in range(local - len(mine)):
      yield frame.blank(placed)

  def batch(step: int) -> dict:
    return _stack(examples(plan[step]), local, _EVAL_KEYS)

  progress = watch.Progress(getattr(source, 'file_name', None))
  return _start(range(len(plan)), batch, num_threads, prefetch, progress, timeout)


def _plan(
  source, indices, frame: _Frame, batch_size: int, num_threads: int, timeout: float
) -> list[list[int]]:
  """Groups indices by canvas into batches, each emitted when full, the rest at the end."""
  if batch_size == 1:
    return [[i] for i in indices]

  def size(index: int) -> tuple[int, int]:
    ask = getattr(source, 'size', None)
    return tuple(ask(index)) if ask else _read(source, index)['image'].shape[:2]

  reading = dict(num_threads=max(num_threads, 1), timeout=timeout)
  sizes = threads.results(size, indices, name=getattr(source, 'file_name', None), **reading)
  batches, groups = [], {}
  for index, (height, width) in zip(indices, sizes, strict=True):
    group = groups.setdefault((frame.output(height), frame.output(width)), [])
    group.append(index)
    if len(group) == batch_size:
      batches.append(group.copy())
      group.clear()
  return batches + [group for group in groups.values() if group]


@dataclasses.dataclass(frozen=True)
class _Frame:
  """Where images lie on their canvas; see `eval_batches`."""

  rule: SizeRule
  scale: float
  multiple: int
  mirrored: bool
  fill: Fill

  def output(self, length: int) -> int:
    """Size of the network's output for an image `length` pixels high or wide."""
    scaled = math.ceil(round(length * self.scale, 6))  # 0.1 * 30 is 3, not 3.0000000000000004
    scaled += -scaled % self.multiple
    return self.rule.at_least(scaled + 2 * self.rule.margin) - 2 * self.rule.margin

  def place(self, index: int, example: Example) -> dict:
    image, label = example['image'], example['label']
    height, width = label.shape
    output = self.output(height), self.output(width)
    canvas = tuple(round(out / self.scale) for out in output)
    if self.scale != 1:
      image = self._scaled(image, canvas, output)
    margin = self.rule.margin
    below, right = (out - have for out, have in zip(output, image.shape[:2], strict=True))
    ground = geometry.pad({'label': label}, 0, canvas[0] - height, 0, canvas[1] - width)
    return {
      'image': self._border(image, margin, margin + below, margin, margin + right),
      'label': ground['label'],
      'index': np.int64(index),
      'height': np.int32(height),
      'width': np.int32(width),
      'valid': np.bool_(True),
    }

  def _scaled(self, image: np.ndarray, canvas, output) -> np.ndarray:
    """Resizes image and canvas as one, so that the way back is exact, then drops the border."""
    pairs = list(zip(image.shape[:2], canvas, output, strict=True))
    below, right = (whole - have for have, whole, _ in pairs)
    resized = geometry.resize_image(self._border(image, 0, below, 0, right), output)
    height, width = (min(out, math.ceil(have * out / whole)) for have, whole, out in pairs)
    return resized[:height, :width]

  def _border(self, image: np.ndarray, *sides: int) -> np.ndarray:
    if self.mirrored:
      return geometry.mirror_array(image, *sides)
    return geometry.pad({'image': image}, *sides, self.fill)['image']

  def blank(self, like: dict) -> dict:
    """An example of the same shapes that counts for nothing."""
    return {
      'image': np.zeros_like(like['image']),
      'label': np.full_like(like['label'], VOID),
      'index': np.int64(-1),
      'height': np.int32(0),
      'width': np.int32(0),
      'valid': np.bool_(False),
    }
