"""BatchNorm's population statistics as in caffe-segnet: from a pass over the training set.

caffe-segnet keeps no running averages. After training it runs the training set through the network
with batch statistics, without dropout or augmentation, and averages the means and variances of the
batches, the variances times m / (m - 1), where m is the number of values behind each
(SegNet-Tutorial, Scripts/compute_bn_statistics.py; arXiv:1511.00561 does not say).

Training itself never reads these statistics. So with `config.eval.population_pass` the statistics in a
checkpoint depend on its parameters alone, and a resumed run stays bit-identical. A run stopped by a
signal saves its running averages instead: there is no time for a pass, and the next checkpoint has one.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxseg.data import threads
from jaxseg.data.loader import eval_batches
from jaxseg.data.transforms import Resize
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.train.build import Experiment
from jaxseg.train.devices import hosts, parallel
from jaxseg.types import Array, Batch

Statistics = Callable[[dict, Batch], Any]


def make_batch_statistics(
  model: nn.Module, preprocess: Callable[[Array], Array], *, axis_name: str | None = None
) -> Statistics:
  """Makes statistics(variables, batch) -> the batch_stats of this batch alone.

  Args:
    model: makes its BatchNorms by `model.norm`.
    preprocess: maps uint8 images to the model's float images.
    axis_name: the mapped axis under pmap, None under jit.

  Returns:
    A pure function of variables and {'image': [b, h, w, c]}; 'mean' is the mean of each channel over
    the batch, 'var' its variance times m / (m - 1).
  """
  model = model.clone(norm=partial(model.norm, momentum=0.0))  # forget the previous average

  def statistics(variables: dict, batch: Batch) -> Any:
    counts = {}
    devices = jax.lax.axis_size(axis_name) if axis_name else 1

    def count(next_function, args, kwargs, context):
      if isinstance(context.module, BatchNorm):
        x = args[0]
        counts[context.module.scope.path] = devices * x.size // x.shape[-1]
      return next_function(*args, **kwargs)

    with nn.intercept_methods(count):
      _, updated = model.apply(
        variables, preprocess(batch['image']), train=True, dropout=False, mutable=['batch_stats']
      )
    flat = traverse_util.flatten_dict(updated['batch_stats'])
    for path, m in counts.items():
      flat[*path, 'var'] = flat[*path, 'var'] * (m / max(m - 1, 1))
    return traverse_util.unflatten_dict(flat)

  return statistics


def population_statistics(
  statistics: Statistics, variables: dict[str, Any], batches: Iterable[Batch]
) -> Any:
  """Returns the mean of `statistics(variables, batch)`, with equal weight for every batch."""
  total, count = None, 0
  for batch in batches:
    of_batch = statistics(variables, batch)
    total = of_batch if total is None else jax.tree.map(jnp.add, total, of_batch)
    count += 1
  return jax.tree.map(lambda t: t / count, total)


def full_batches(sizes: Sequence[tuple[int, int]], batch_size: int, seed: int) -> list[int]:
  """Orders images so that batches of one size are full.

  Args:
    sizes: (height, width) of each image.
    batch_size: the images of a size are repeated from the first to fill the last batch, as in a
      Caffe data layer.
    seed: shuffles the order, because neighbouring video frames look too much alike.

  Returns:
    Indices, every image at least once.
  """
  order = np.random.default_rng([seed, 2]).permutation(len(sizes)).tolist()
  groups: dict[tuple[int, int], list[int]] = {}
  for index in order:
    groups.setdefault(tuple(sizes[index]), []).append(index)
  filled = (np.resize(g, -(-len(g) // batch_size) * batch_size).tolist() for g in groups.values())
  return [index for group in filled for index in group]


class PopulationPass:
  """The population pass of a run: `batch_stats = population_pass(variables)`.

  Args:
    experiment: sets the batch size, that of a training micro-batch, and the scale (its transform
      `resize`) of the uncropped images.
    source: the training split, whose `size(i)` is (height, width).
  """

  def __init__(self, experiment: Experiment, source: Any):
    self._experiment, self._source, settings = experiment, source, experiment.settings
    self._batch_size = settings.batch_size // settings.accumulate
    self._wrapper = parallel.build(settings.parallel, '', self._batch_size)
    axis_name = self._wrapper.axis_name
    model = experiment.model(axis_name)
    resized = (t.scale for t in experiment.transforms if isinstance(t, Resize) and t.scale)
    self._frame = experiment.frame(model, scale=next(resized, 1.0))
    statistics = make_batch_statistics(model, experiment.preprocess, axis_name=axis_name)
    self._statistics = self._wrapper.wrap_eval(statistics)

  def __call__(self, variables: dict[str, Any]) -> Any:
    """Returns the population statistics of these variables, as numpy arrays."""
    variables = self._wrapper.place_state(variables)
    placed = (self._wrapper.place_batch({'image': batch['image']}) for batch in self._batches())
    return jax.device_get(population_statistics(self._statistics, variables, placed))

  def _batches(self) -> Iterable[Batch]:
    data, source = self._experiment.data, self._source
    name = getattr(source, 'file_name', None)
    sizes = threads.results(source.size, range(len(source)), name=name, timeout=data.timeout)
    return eval_batches(
      source,
      self._frame,
      batch_size=self._batch_size,
      indices=full_batches(list(sizes), self._batch_size, self._experiment.settings.seed),
      timeout=data.timeout,
      num_threads=data.num_threads,
      **hosts.share(),
    )
