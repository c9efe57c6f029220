"""Measures what a function does to positions, scales and neighbours, and which distribution an initialiser has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.nn.layers import bilinear_kernel

_INPUTS, _SAMPLES = 24, 60_000  # input channels; outputs follow, so that fans differ
# Maximum over standard deviation: sqrt(3) if uniform; above 3 for 60,000 normal samples.
_UNIFORM = (1.70, 1.76)


def pair(values: Sequence[Any]) -> str:
  """Formats a pair, as one number if both are equal."""
  return str(values[0]) if len(set(values)) == 1 else str(tuple(values))


def _positions(shape: Sequence[int]) -> np.ndarray:
  """An image [1, h, w, c] whose values are their own flat indices."""
  return np.arange(np.prod(shape[1:]), dtype=np.float64).reshape(1, *shape[1:])


def crop(function: Callable, x: Any, offset: int, size: tuple[int, int]) -> str:
  first = int(function(_positions(x.shape), offset, size).flat[0]) // x.shape[-1]
  return 'crop at ' + pair(divmod(first, x.shape[2]))


def scale(function: Callable, x: Any, factor: float) -> str:
  return f'times {function(np.ones((1,) * x.ndim), factor).item():g}'


def join(function: Callable, x: Any, skip: Any) -> str:
  """Joins an image of -1 with one of positions: the result reveals order and margin."""
  below = np.full((1, *x.shape[1:]), -1, np.float32)
  with jax.ensure_compile_time_eval():
    joined = function(below, _positions(skip.shape).astype(np.float32))
  corner = np.asarray(joined)[0, 0, 0]
  order = 'skip, up' if corner[0] >= 0 else 'up, skip'
  first = int(corner[corner >= 0].min()) // skip.shape[-1]
  return f'join {order}; skip from {pair(divmod(first, skip.shape[2]))}'


METHODS = {'crop': crop, 'scale': scale, 'join': join}  # of models, by name


def rounding(pool: Callable) -> str:
  """Pools five rows, to three or to two?"""
  pooled = jax.eval_shape(lambda: pool(jnp.zeros((1, 5, 5, 1))))
  return 'ceil' if jax.tree.leaves(pooled)[0].shape[1] == 3 else 'floor'


def double(function: Callable) -> str:
  """Doubles 0, 1: are there values in between?"""
  step = np.asarray(jax.jit(function)(np.array([0, 1], np.float32).reshape(1, 1, 2, 1)))
  return 'nearest' if set(step.flat) == {0, 1} else 'blended'


def align(function: Callable, size: int, options: Mapping[str, Any], side: int = 32) -> str:
  """Aligns a whole map to one bin; its channels are one-hot columns, so the result is each one's weight."""
  columns = np.broadcast_to(np.eye(side, dtype=np.float32), (side, side, side))
  box = np.array([[0, 0, side, side]], np.float32)
  cut = jax.jit(lambda x: function([x], [1], box, jnp.zeros(1, int), 1, **options))
  weights = np.asarray(cut(columns)).ravel()
  points = np.count_nonzero(np.diff(weights > 0, prepend=False, append=False)) // 2
  shift = side / 2 - weights @ np.arange(side)
  return f'align {size}x{size}, {points}x{points} points, shift {shift:g}'


def describe_initializer(initializer: Any, shape: Sequence[int]) -> str:
  """Describes an initialiser by its samples.

  Args:
    initializer: (key, shape, dtype) -> array.
    shape: of the parameter: [kh, kw, in, out], [in, out] or [c].

  Returns:
    The value of a constant ('0'); 'bilinear' if a transposed convolution interpolates each channel; else
    for example 'normal 2/in': the distribution, and the variance as a simple number over the fan 'in'
    (kh kw inputs), 'out' (kh kw outputs) or 'avg' (their mean). 'normal 2/in' is He's and MSRA's,
    'uniform 1/in' Caffe's xavier, 'uniform 1/avg' Glorot's. If no fan fits, the standard deviation:
    'normal sd 0.01'.
  """
  if len(shape) < 2:
    return _constant(np.asarray(initializer(jax.random.key(0), tuple(shape), np.float32)))
  if len(shape) == 4 and shape[0] > 3:
    values = np.asarray(initializer(jax.random.key(0), (*shape[:2], 2, 2), np.float32))
    filters = np.einsum('hw,io->hwio', bilinear_kernel(shape[0]), np.eye(2))
    if np.allclose(values, filters, atol=1e-6):
      return 'bilinear'
  window = tuple(shape[:-2])
  area = int(np.prod(window))
  outputs = _SAMPLES // (area * _INPUTS)
  values = np.asarray(initializer(jax.random.key(0), (*window, _INPUTS, outputs), np.float32))
  if np.ptp(values) == 0:
    return _constant(values)
  variance = float(values.var())
  uniform = _UNIFORM[0] < np.abs(values).max() / variance**0.5 < _UNIFORM[1]
  kind = 'uniform' if uniform else 'normal'
  fans = {'in': _INPUTS, 'out': outputs, 'avg': (_INPUTS + outputs) / 2}
  scale, gains = variance * area, {'2': 2, '1': 1, '1/3': 1 / 3}
  errors = {
    f'{gain}/{fan}': abs(scale * channels / number - 1)
    for gain, number in gains.items()
    for fan, channels in fans.items()
  }
  nearest = min(errors, key=errors.get)
  return f'{kind} {nearest}' if errors[nearest] < 0.05 else f'{kind} sd {variance**0.5:.2g}'


def _constant(values: np.ndarray) -> str:
  return f'{float(values.flat[0]):g}' if np.ptp(values) == 0 else 'not constant'
