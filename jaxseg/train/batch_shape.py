"""Derives the training batch's shape from one example, and checks that network and machine can take it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxseg.data import threads
from jaxseg.data.augment import augmented
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.train.build import Experiment
from jaxseg.train.devices import hosts
from jaxseg.train.state import make_init
from jaxseg.train.step import make_apply
from jaxseg.types import UserError


def check(experiment: Experiment, model: nn.Module, task: Any, source: Any) -> tuple[int, ...]:
  """Returns the shape (1, h, w, c) of a training image.

  Args:
    experiment: defines batch size and transforms.
    model: its network.
    task: its task, with the model's further inputs.
    source: the training split.

  Raises:
    UserError: an image size that the network cannot take, a batch larger than this machine's memory, or
      one that leaves a batch norm a single value per channel.
  """
  [example] = threads.examples(source, [0])
  example = augmented(example, experiment.transforms, np.random.default_rng(0))
  rule = model.size_rule
  for name, size in zip(('height', 'width'), example['image'].shape[:2], strict=True):
    if not rule.allows(size):
      raise UserError(
        f'training images have {name} {size}, which {experiment.config["model"]["name"]} cannot take; '
        f'the nearest it can: {rule.nearest(size)}: set --config.augment.crop.size=HEIGHT,WIDTH'
      )
  _check_memory(experiment, example['image'])
  _check_batch_norm(experiment, task, example)
  return (1, *example['image'].shape)


def _check_memory(experiment: Experiment, image: np.ndarray) -> None:
  """Refuses a batch whose images alone exceed this machine's memory."""
  needed = experiment.settings.batch_size // hosts.count() * image.nbytes
  available = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if needed > available:
    raise UserError(
      f'config.batch_size={experiment.settings.batch_size}: a batch of images of {image.shape[0]} x '
      f'{image.shape[1]} pixels has {needed >> 20:,} MB, and this machine {available >> 20:,}: lower it, or '
      'config.augment.crop.size'
    )


def _check_batch_norm(experiment: Experiment, task: Any, example: Mapping[str, Any]) -> None:
  """Refuses a batch that leaves a batch norm one value per channel: variance 0, a constant output.

  Statistics are shared over devices and hosts, so only a batch of one image can do this. The network
  is traced, not run.
  """
  settings, single, model = experiment.settings, [], experiment.model()
  if settings.batch_size // settings.accumulate > 1:
    return

  def record(call, args, kwargs, context):
    if isinstance(context.module, BatchNorm) and math.prod(args[0].shape[:-1]) == 1:
      uses_running_average = args[1] if len(args) > 1 else kwargs['use_running_average']
      single.extend([] if uses_running_average else ['/'.join(context.module.scope.path)])
    return call(*args, **kwargs)

  arrays = {k: v for k, v in example.items() if isinstance(v, np.ndarray)}
  batch = {k: jax.ShapeDtypeStruct((1, *v.shape), v.dtype) for k, v in arrays.items()}
  init = make_init(model, optax.identity(), batch['image'].shape)
  state = jax.eval_shape(init, jax.random.key(0))
  apply = make_apply(model, task, experiment.preprocess)
  with nn.intercept_methods(record):
    jax.eval_shape(apply, state.params, state.batch_stats, batch, jax.random.key(0))
  if single:
    height, width = example['image'].shape[:2]
    raise UserError(
      f'config.batch_size={settings.batch_size}'
      + f' with config.accumulate={settings.accumulate}' * (settings.accumulate > 1)
      + f': of one image of {height} x {width} pixels the batch norm {single[0]} gets one value a '
      f'channel, from which nothing is learnt: set --config.batch_size={2 * settings.accumulate} or more'
    )
