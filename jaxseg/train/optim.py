"""Optimisers and schedules of the papers, all through optax."""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

_NEVER = 2**31 - 2  # beyond its limit, optax would apply what is not finite
Multipliers = tuple[tuple[str, float, float], ...]


def make_schedule(
  kind: str,
  learning_rate: float,
  num_steps: int,
  *,
  warmup_steps: int = 0,
  steps: tuple[int, ...] = (),
  factor: float = 0.1,
  power: float = 0.9,
) -> optax.Schedule:
  """Returns step -> learning rate.

  Args:
    kind: 'constant' | 'step' (times `factor` at each of `steps`) | 'poly' ((1 - t)^power, PSPNet and
      DeepLab) | 'cosine' (to 0 at num_steps).
    learning_rate: the rate at the start, or after warm-up.
    num_steps: where 'poly' and 'cosine' reach 0.
    warmup_steps: linear from 0 over this many steps; the schedule's own clock starts at 0 too.
    steps: for 'step'.
    factor: for 'step'.
    power: for 'poly'.
  """
  schedule = {
    'constant': lambda: optax.constant_schedule(learning_rate),
    'step': lambda: optax.piecewise_constant_schedule(
      learning_rate, {int(s): factor for s in steps}
    ),
    'poly': lambda: optax.polynomial_schedule(learning_rate, 0.0, power, num_steps),
    'cosine': lambda: optax.cosine_decay_schedule(learning_rate, num_steps),
  }[kind]()
  if not warmup_steps:
    return schedule
  return lambda step: schedule(step) * jax.numpy.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(
  name: str,
  schedule: optax.Schedule,
  *,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  multipliers: Multipliers = (),
  clip_norm: float = 0.0,
  skip_not_finite: bool = False,
) -> optax.GradientTransformation:
  """Builds an optimiser.

  Args:
    name: 'sgd' (torch's: decay is added to the gradient, the rate multiplies the velocity) |
      'caffe_sgd' (the rate is inside the velocity, v <- m v + lr (g + wd w), w <- w - v: the same at a
      constant rate, different when the rate changes) | 'adam' | 'adamw' (decoupled decay).
    schedule: step -> learning rate.
    momentum: of sgd.
    weight_decay: coupled L2 for all but 'adamw'.
    multipliers: (pattern, rate multiplier, decay multiplier): the first pattern that is found in a
      parameter's 'layer/kernel' path rules it; (1, 1) where none is. Caffe's `lr_mult`, `decay_mult`;
      a rate multiplier of 0 fixes the parameter.
    clip_norm: largest global norm of the gradient, 0 = off.
    skip_not_finite: wrap all in optax.apply_if_finite, which leaves the state as it was where a
      gradient is not finite, and counts; when to give up is for whoever reads the count.
  """
  rate = scale_by_path(multipliers, which=1)
  decay = add_decay_by_path(weight_decay, multipliers) if weight_decay else optax.identity()
  lr = optax.scale_by_schedule(schedule)
  core = {
    'sgd': [decay, optax.trace(momentum) if momentum else optax.identity(), rate, lr],
    'caffe_sgd': [decay, rate, lr, optax.trace(momentum)],
    'adam': [decay, optax.scale_by_adam(), rate, lr],
    'adamw': [optax.scale_by_adam(), decay, rate, lr],
  }[name]
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  tx = optax.chain(*clip, *core, optax.scale(-1.0))
  return optax.apply_if_finite(tx, max_consecutive_errors=_NEVER) if skip_not_finite else tx


def path_name(path: tuple[Any, ...]) -> str:
  """Returns 'layer/kernel' for a path of jax.tree_util."""
  return '/'.join(str(getattr(p, 'key', getattr(p, 'name', p))) for p in path)


def multiplier_of(name: str, multipliers: Multipliers, which: int) -> float:
  """Returns the rate (which=1) or decay (which=2) multiplier of the parameter called `name`."""
  for rule in multipliers:
    if re.search(rule[0], name):
      return float(rule[which])
  return 1.0


def scale_by_path(multipliers: Multipliers, which: int) -> optax.GradientTransformation:
  """Multiplies each update by its parameter's multiplier."""
  if not multipliers:
    return optax.identity()

  def scale(path, update):
    return update * multiplier_of(path_name(path), multipliers, which)

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def add_decay_by_path(
  weight_decay: float, multipliers: Multipliers
) -> optax.GradientTransformation:
  """Adds weight_decay * multiplier * parameter to each update."""

  def add(path, update, param):
    return update + weight_decay * multiplier_of(path_name(path), multipliers, 2) * param

  return optax.stateless(
    lambda updates, params: jax.tree_util.tree_map_with_path(add, updates, params)
  )
