"""Identifies an initialiser's distribution from samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxseg.nn.layers import bilinear_kernel

_INPUTS, _SAMPLES = 24, 60_000  # input channels; outputs follow, so that fans differ
# Maximum over standard deviation: sqrt(3) if uniform; above 3 for 60,000 normal samples.
_UNIFORM = (1.70, 1.76)


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
