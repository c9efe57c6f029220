"""Chooses a network and its training schedule by the images and the device; rules in plan.py."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.prepare.survey import Survey
from jaxseg.types import SizeRule

_SHARE = 0.5  # of the device's memory that a step may take
_WORKSPACE = 1.5  # residuals, plus gradients of activations and the compiler's buffers
_SAME = dict(padding='same', batch_norm=True, dropout_rate=0.2)
_FCN = dict(stride=8, batch_norm=True, aligned=True, dropout_rate=0.2)
_NETWORKS = {  # from scratch, without and with an accelerator
  'unet': (dict(width=16, **_SAME), dict(width=32, **_SAME)),
  'fcn': (dict(width=16, **_FCN), dict(width=32, **_FCN)),
  'segnet': (dict(variant='basic', width=24), dict(variant='vgg16', width=32)),
  'pspnet': (dict(width=12), dict(width=32)),
}
OBJECTS = 'mask_rcnn'  # the network for instance segmentation, see objects.py
NETWORKS = (*_NETWORKS, OBJECTS)
_STATES = 4  # float32 copies of the parameters: values, gradient, Adam's two moments


@dataclasses.dataclass(frozen=True)
class Machine:
  """The devices: kind, count and memory of each in bytes."""

  kind: str
  count: int
  memory: int
  is_accelerator: bool

  @property
  def budget(self) -> float:
    """Bytes available to a step."""
    return _SHARE * self.memory


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A network, with its name and options, and how to train it.

  Sizes are in pixels of images resized by `scale`. The last three are for instance segmentation: keys of
  the groups `loss`, `optim` and `eval`.
  """

  model: dict[str, Any]
  learning_rate: float
  scale: float
  crop: tuple[int, int]
  batch_size: int
  eval_batch_size: int
  num_steps: int
  step_bytes: int
  objects: dict[str, Any] = dataclasses.field(default_factory=dict)
  optim: dict[str, Any] = dataclasses.field(default_factory=dict)
  score: dict[str, Any] = dataclasses.field(default_factory=dict)


def machine() -> Machine:
  """Returns this process's devices; without an accelerator, memory is the system's."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return Machine('CPU', 1, memory, is_accelerator=False)
  memory = (device.memory_stats() or {}).get('bytes_limit', 16 << 30)
  return Machine(device.device_kind, jax.local_device_count(), memory, is_accelerator=True)


def make_recipe(train: Survey, device: Machine, network: str = 'unet') -> Recipe:
  """Fits a network, crop and batch to the training images and the device; rules in plan.py."""
  fast, images = device.is_accelerator, train.histogram.num_images
  largest, most = (512, 16) if fast else (128, 8)
  sides = np.median([*train.sizes.elements()], axis=0)
  scale = 0.5 if min(sides) > 2 * largest else 1.0
  sides = [scale * float(side) for side in sides]
  budget, batch = device.budget, 0
  while not batch:
    options, crop = fit(network, sides, largest, fast=fast)
    model = models.load(network)(len(train.histogram.counts), **options)
    fixed, each = step_bytes(model, crop, len(train.channels.mean))
    batch = power_of_two(min(most, images, (budget - fixed) / each * device.count))
    batch = max(batch, int(largest <= 32))
    largest //= 2
  biggest = max(h * w for h, w in train.sizes) * scale**2
  crops = images * max(math.prod(sides) / math.prod(crop), 1)  # needed to cover all images once
  eval_each = each * biggest / math.prod(crop) / 2  # evaluation stores no residuals
  return Recipe(
    model={'name': network} | options,
    learning_rate=1e-3 if network == 'unet' else 2e-3,
    scale=scale,
    crop=crop,
    batch_size=batch,
    eval_batch_size=max(1, power_of_two(min(batch, budget / eval_each))),
    num_steps=count_steps(crops, batch, is_accelerator=fast),
    step_bytes=int(fixed + each * batch / device.count),
  )


def fit(
  network: str, sides: Sequence[float], largest: int, *, fast: bool
) -> tuple[dict[str, Any], tuple[int, int]]:
  """Returns a network's options and an allowed crop (height, width) close to `sides`."""
  limits = [min(int(side), largest) for side in sides]
  options = dict(_NETWORKS[network][fast])
  if network == 'unet':  # at least four pixels at the bottom
    options['depth'] = min(max(int(math.log2(max(min(limits), 1) / 4)), 1), 4)
  rule = models.load(network)(2, **options).size_rule
  return options, tuple(_at_most(rule, side) for side in limits)


def count_steps(crops: float, batch_size: int, *, is_accelerator: bool) -> int:
  """Returns the steps of 100 epochs of crops, a multiple of ten within plan.py's limits."""
  tens = round(10 * crops / batch_size)
  return min(max(10 * tens, 200), 20_000 if is_accelerator else 1000)


def step_bytes(
  model,
  crop: tuple[int, int],
  channels: int,
  inputs: Callable[[int], Mapping[str, Any]] = lambda batch: {},
) -> tuple[int, int]:
  """Estimates a training step's memory: bytes that do not depend on the batch, and bytes per image.

  The first are the parameters, their gradient and Adam's moments. The second are the residuals that JAX
  stores for the backward pass (of jax.vjp, traced by shape: nothing is computed), and half as much again
  for gradients and buffers. `inputs` maps a batch size to the shapes of the network's other training
  inputs.
  """

  def residuals(batch: int) -> tuple[int, int]:
    image = jax.ShapeDtypeStruct((batch, *crop, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def backward(variables, image, further):
      def forward(params):
        rngs = {stream: jax.random.key(0) for stream in ('dropout', 'sample')}
        options = dict(train=True, rngs=rngs, mutable=['batch_stats'], **further)
        return model.apply({**variables, 'params': params}, image, **options)[0]

      return jax.vjp(forward, variables['params'])[1]

    kept = jax.eval_shape(backward, variables, image, inputs(batch))
    return _bytes(kept), _bytes(variables['params'])

  (one, params), (two, _) = residuals(1), residuals(2)
  return _STATES * params, int(_WORKSPACE * (two - one))


def _at_most(rule: SizeRule, size: int) -> int:
  """Returns the largest allowed size up to `size`, else the smallest allowed."""
  return max(size - (size - rule.offset) % rule.multiple, rule.at_least(1))


def power_of_two(number: float) -> int:
  """Returns the largest power of two up to a number; 0 below 1."""
  return 1 << int(math.log2(number)) if number >= 1 else 0


def _bytes(tree: Any) -> int:
  return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
