"""From a config to the parts that it names: source, transforms, model, task, optimiser.

Shared by training, evaluation and prediction, so that a workdir is read exactly as it was trained.
"""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxseg import datasets, models, tasks
from jaxseg.data import label_check, watch
from jaxseg.data.geometry import by_short_side
from jaxseg.data.objects import Instances
from jaxseg.data.resized import Resized
from jaxseg.data.statistics import median_frequency_weights
from jaxseg.data.transforms import make_train_transforms
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.train import optim
from jaxseg.types import UserError


def set_up_jax(config: ConfigDict) -> None:
  """Devices of a CPU, persistent compile cache and, where asked for, deterministic operations.

  XLA runs many operations of a training step on one core; a device for each core keeps all busy.
  """
  try:
    jax.config.update('jax_num_cpu_devices', config.cpu_devices or len(os.sched_getaffinity(0)))
  except RuntimeError:  # JAX has started already, with the devices it has
    pass
  if config.deterministic and '--xla_gpu_deterministic_ops' not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_deterministic_ops=true'
  if config.compile_cache:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compile_cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def source_from(config: ConfigDict, split: str):
  """Returns the dataset's split, checked against the config's classes and channels.

  Raises:
    UserError: no such dataset, split, folder or option, or another number of classes.
    StuckError: a read that does not end within config.data_timeout.
  """
  dataset = datasets.load(config.dataset)
  options = config.dataset_options.to_dict()
  if dataset.NUM_CLASSES is None:  # it follows from the user's files, which may have mistakes
    options = {'num_classes': config.num_classes} | options
  try:
    with watch.patient(config.data_timeout):
      source = dataset.source(
        split, data_dir=config.data_dir or None, cache_dir=config.cache_dir or None, **options
      )
  except TypeError as e:
    raise UserError(f'config.dataset_options={options}: {_reason(e)}') from e
  for key in ('num_classes', 'channels'):
    if getattr(source, key) != config[key]:
      raise UserError(
        f'config.{key}={config[key]}, but {config.dataset} has {getattr(source, key)}: '
        f'add --config.{key}={getattr(source, key)}'
      )
  return Resized(source, config.image_size) if config.image_size else source


def transforms_from(config: ConfigDict) -> tuple:
  """Returns the training transforms that the config's augmentation keys name."""
  keys = (
    'flip vertical_flip rotate rotate_share rotate90 brightness contrast saturation shift blur '
    'elastic mirror sides pad_label short_side long_side'
  ).split()
  transforms = make_train_transforms(
    crop=config.crop or None,
    resize=config.resize or None,
    scale=config.scale or None,
    pad=config.pad or None,
    fill=preprocessing_from(config).fill,
    **{key: config[key] for key in keys},
  )
  if config.task == 'instance':
    transforms += (Instances(config.max_instances, config.max_layers, config.min_area),)
  return transforms


def network_size_from(config: ConfigDict, size: tuple[int, int]) -> tuple[int, int]:
  """Returns height and width at which a network of instances sees an image, but for eval_scales."""
  if config.short_side:
    return by_short_side(size, int(config.short_side[-1]), config.long_side)
  return tuple(config.image_size) or size


def mirror_border_from(config: ConfigDict) -> bool | None:
  """Returns whether evaluated images are mirrored outwards; None: where the network eats a margin."""
  return False if config.pad else None  # trained with a canvas of one colour: evaluated with it


def preprocessing_from(config: ConfigDict) -> Preprocessing:
  return Preprocessing(tuple(config.mean), tuple(config.std), config.channel_order)


def task_from(config: ConfigDict, source: Any = None):
  """Builds the task; `source` (the training split) is needed for class_weights='median_frequency'."""
  weights = config.class_weights or None
  if weights == 'median_frequency':
    with watch.patient(config.data_timeout):
      histogram = label_check.scan(source, cache_dir=config.cache_dir or None) if source else None
    weights = tuple(median_frequency_weights(histogram).tolist()) if histogram else None
  return _task(
    config,
    loss=config.loss,
    normalize=config.normalize,
    class_weights=weights,
    use_pixel_weights=config.pixel_weights,
    aux_weight=config.aux_weight,
    absent=config.absent,
    dice=config.dice,
  )


def _task(config: ConfigDict, **options: Any):
  """Builds the task from those of the options that it has."""
  cls = tasks.load(config.task)
  known = {field.name for field in dataclasses.fields(cls)}
  options = {key: value for key, value in options.items() if key in known}
  return cls(num_classes=config.num_classes, **options)


def model_from(config: ConfigDict, axis_name: str | None = None):
  """Builds the model; BatchNorm averages over `axis_name`, which the wrapper of the step provides.

  Raises:
    UserError: no such model or option, naming those that there are.
  """
  cls = models.load(config.model)
  outputs = _task(config, loss=config.loss).num_outputs
  options = {**config.model_options.to_dict()}
  known = {f.name for f in dataclasses.fields(cls)} - {
    'parent',
    'name',
    'num_classes',
    'norm',
    'dtype',
  }
  unknown = sorted(set(options) - known)
  if unknown:
    raise UserError(
      f'config.model_options.{unknown[0]}: {config.model} has no such option; '
      f'it has {", ".join(sorted(known))}'
    )
  norm = partial(BatchNorm, axis_name=axis_name)
  return cls(num_classes=outputs, norm=norm, dtype=jnp.dtype(config.dtype), **options)


def optimizer_from(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the optimiser and its schedule (step -> learning rate)."""
  schedule = optim.make_schedule(
    config.schedule,
    config.learning_rate,
    config.num_steps,
    warmup_steps=config.warmup_steps,
    steps=config.schedule_steps,
    factor=config.schedule_factor,
    power=config.schedule_power,
  )
  tx = optim.make_optimizer(
    config.optimizer,
    schedule,
    momentum=config.momentum,
    weight_decay=config.weight_decay,
    multipliers=config.multipliers,
    clip_norm=config.clip_norm,
    skip_not_finite=config.apply_if_finite > 0,
  )
  return tx, schedule


def _reason(error: TypeError) -> str:
  return str(error).replace('source() ', '')
