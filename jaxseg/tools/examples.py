"""Synthetic batches and states with which tools trace and time a training step."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxseg.config import parts
from jaxseg.data.augment import augmented
from jaxseg.train.build import Experiment
from jaxseg.types import Batch, UserError

_SQUARE = 32  # side of the objects, in pixels


def training_size(experiment: Experiment) -> tuple[int, int]:
  """Returns (height, width) of the largest training image, or if unknown of the first one, transformed.

  Raises:
    UserError: neither the config nor the dataset specifies it, and there are no images.
  """
  steps, data = dict(experiment.config['augment']), experiment.config['data']
  cut = steps.get('crop', {}).get('size'), steps.get('pad', {}).get('size')
  whole = data.get('image_size'), getattr(parts.load('datasets', data['name']), 'SIZE', None)
  known = next((size for size in (*cut, *whole) if size), None)
  if known:
    return tuple(known)
  try:
    example = experiment.source(experiment.data.train_split)[0]
  except UserError as error:
    raise UserError(f'give --crop=HEIGHT,WIDTH, for the images are not at hand: {error}') from None
  example = augmented(example, experiment.transforms, np.random.default_rng(0))
  return tuple(example['image'].shape[:2])


def make_batch(experiment: Experiment, shape: tuple[int, int, int, int]) -> Batch:
  """Returns random images uint8 [b,h,w,c] and labels [b,h,w], and weights and objects if needed.

  Objects are squares in a grid, of class 1, as many as the task allows; all images have the same.
  """
  random, loss = np.random.default_rng(0), experiment.config['loss']
  label = random.integers(0, experiment.settings.num_classes, shape[:3], dtype=np.uint8)
  batch = {'image': random.integers(0, 256, shape, dtype=np.uint8), 'label': label}
  if loss.get('pixel_weights'):
    batch['weight'] = np.ones(shape[:3], np.float32)
  example = {'instances': _squares(*shape[1:3], loss.get('max_instances', 0))}
  example['instance_classes'] = np.ones(example['instances'].max(), np.uint8)
  for transform in experiment.task.transforms:
    example = transform(example, random)
    batch |= {name: np.stack([example[name]] * shape[0]) for name in transform.makes}
  return batch


def _squares(height: int, width: int, count: int) -> np.ndarray:
  """Returns uint16 [h,w]: the first `count` squares of the grid, numbered by rows from 1."""
  rows, columns = np.arange(height) // _SQUARE, np.arange(width) // _SQUARE
  ids = 1 + rows[:, None] * (columns[-1] + 1) + columns
  return np.where(ids <= count, ids, 0).astype(np.uint16)


def make_state(shapes: Any) -> Any:
  """Returns numpy arrays for a tree of shapes: kernels by He, identity batch norm, the rest zero.

  Faster than the models' initialisers, whose program compiles longer than a small network's step.
  """
  random = np.random.default_rng(0)

  def values(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    name = str(getattr(path[-1], 'key', ''))
    if name == 'kernel':
      spread = np.float32((2 / np.prod(leaf.shape[:-1])) ** 0.5)
      return spread * random.standard_normal(leaf.shape, np.float32)
    return np.full(leaf.shape, name in ('scale', 'var'), leaf.dtype)

  return jax.tree_util.tree_map_with_path(values, shapes)
