"""BatchNorm's population statistics as caffe-segnet has them: from a pass over the training set.

caffe-segnet keeps no running averages. Once trained, a network sees the training set again, with
batch statistics and without dropout or augmentation; the means and variances of the batches are
averaged, the variances corrected by m / (m - 1), m being the number of values that each was taken
from (SegNet-Tutorial, Scripts/compute_bn_statistics.py; arXiv:1511.00561 does not say).

Training itself never reads these statistics. So with `config.population_pass` a checkpoint holds the
pass made with its own parameters, a function of nothing else, and a resumed run ends in the same
bits. A run that is stopped by a signal saves its running averages instead: there is no time for a
pass, and the next checkpoint has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from jaxseg.data import threads
from jaxseg.data.loader import eval_batches
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.train import build
from jaxseg.train.devices import hosts, parallel
from jaxseg.types import Array, Batch

Statistics = Callable[[dict, Batch], Any]


def make_batch_statistics(
  model: nn.Module, preprocess: Callable[[Array], Array], *, axis_name: str | None = None
) -> Statistics:
  """Makes statistics(variables, batch) -> the batch_stats that this batch alone would leave.

  Args:
    model: its BatchNorms come from `model.norm`.
    preprocess: maps uint8 images to the model's float images.
    axis_name: the mapped axis under pmap, None under jit.

  Returns:
    A pure function of variables and {'image': [b, h, w, c]}; 'mean' is the mean of each channel over
    the batch, 'var' its variance times m / (m - 1).
  """
  model = model.clone(norm=partial(model.norm, momentum=0.0))  # nothing is kept of what was before

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
  """Returns the mean over batches of `statistics(variables, batch)`; every batch counts the same."""
  total, count = None, 0
  for batch in batches:
    found = statistics(variables, batch)
    total = found if total is None else jax.tree.map(jnp.add, total, found)
    count += 1
  return jax.tree.map(lambda t: t / count, total)


def full_batches(sizes: Sequence[tuple[int, int]], batch_size: int, seed: int) -> list[int]:
  """Orders images so that batches of one size are full.

  Args:
    sizes: (height, width) of each image.
    batch_size: the images of a size begin again from the first until they fill its last batch, as
      a Caffe data layer does.
    seed: the order is shuffled, as in training: neighbours in a video look too much alike.

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
  """The pass of a run: `batch_stats = passing(variables)`.

  Args:
    config: of the run; batches are as large as those that BatchNorm sees in training, images are
      whole, at the training's scale (`resize`).
    source: the training split, which tells sizes through `size(i)`.
  """

  def __init__(self, config: ConfigDict, source: Any):
    self._config, self._source = config, source
    self._batch_size = config.batch_size // config.accumulate
    self._wrapper = parallel.build(config.parallel, '', self._batch_size)
    axis_name = self._wrapper.axis_name
    self._model = build.model_from(config, axis_name)
    self._preprocess = build.preprocessing_from(config)
    statistics = make_batch_statistics(self._model, self._preprocess, axis_name=axis_name)
    self._statistics = self._wrapper.wrap_eval(statistics)

  def __call__(self, variables: dict[str, Any]) -> Any:
    """Returns the population statistics of these variables, as numpy arrays."""
    variables = self._wrapper.place_state(variables)
    placed = (self._wrapper.place_batch({'image': batch['image']}) for batch in self._batches())
    return jax.device_get(population_statistics(self._statistics, variables, placed))

  def _batches(self) -> Iterable[Batch]:
    name, timeout = getattr(self._source, 'file_name', None), self._config.data_timeout
    every = range(len(self._source))
    sizes = list(threads.results(self._source.size, every, name=name, timeout=timeout))
    return eval_batches(
      self._source,
      batch_size=self._batch_size,
      size_rule=self._model.size_rule,
      scale=self._config.resize or 1.0,
      fill=self._preprocess.fill,
      mirror_border=build.mirror_border_from(self._config),
      indices=full_batches(sizes, self._batch_size, self._config.seed),
      **hosts.share(),
      timeout=self._config.data_timeout,
      num_threads=self._config.num_threads,
    )
