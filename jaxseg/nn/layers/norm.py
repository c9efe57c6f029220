"""Batch normalisation, local response and local contrast normalisation, with float32 statistics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.types import Array


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last (Ioffe and Szegedy, arXiv:1502.03167).

  Parameters `scale`, `bias` and statistics `batch_stats/mean`, `batch_stats/var` are those of
  `flax.linen.BatchNorm`. The variance is biased, for normalising and for the running average alike
  (PyTorch stores the unbiased one), and computed in float32 as the mean squared difference from the mean
  (on a TPU from the running mean, then corrected: one pass over the map instead of two).

  Attributes:
    momentum: weight of the old value in the running averages.
    epsilon: added to the variance.
    axis_name: mapped axis (pmap, shard_map) over which statistics are averaged; None under plain
      jit, where a sharded batch is one batch anyway.
    dtype: dtype of the result; None promotes input and parameters.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  axis_name: str | None = None
  dtype: Any = None
  scale_init: Callable = nn.initializers.ones_init()
  bias_init: Callable = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: Array, use_running_average: bool) -> Array:
    """Normalises x [...,c]; with batch statistics unless `use_running_average`."""
    features = x.shape[-1]
    scale = self.param('scale', self.scale_init, (features,), jnp.float32)
    bias = self.param('bias', self.bias_init, (features,), jnp.float32)
    mean_state = self.variable('batch_stats', 'mean', jnp.zeros, (features,), jnp.float32)
    var_state = self.variable('batch_stats', 'var', jnp.ones, (features,), jnp.float32)
    dtype = self.dtype or jnp.result_type(x, scale)
    if use_running_average:
      inverse = lax.rsqrt(var_state.value + self.epsilon)
      return _affine(x, mean_state.value, inverse, scale, bias).astype(dtype)
    axis_name = None if self.is_initializing() else self.axis_name
    near = mean_state.value
    y, mean, var = _normalize(axis_name, self.epsilon, dtype, x, scale, bias, near)
    if not self.is_initializing():
      momentum = self.momentum
      mean_state.value = momentum * mean_state.value + (1 - momentum) * mean
      var_state.value = momentum * var_state.value + (1 - momentum) * var
    return y


def _row(values: Array, x: Array) -> Array:
  """[c] -> [1,...,c], which broadcasts to x."""
  return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _affine(x: Array, mean: Array, inverse: Array, scale: Array, bias: Array) -> Array:
  mean, factor, bias = (_row(t, x) for t in (mean, inverse * scale, bias))
  return (x.astype(jnp.float32) - mean) * factor + bias


def _moments(axis_name: str | None, x: Array, near: Array) -> tuple[Array, Array]:
  """Returns mean and biased variance [c] of float32 x over all devices of the axis."""
  mean, var = lax.platform_dependent(
    x, near, tpu=_moments_in_one_pass, default=_moments_in_two_passes
  )
  if axis_name is None:
    return mean, var
  total = lax.pmean(mean, axis_name)
  return total, lax.pmean(var + jnp.square(mean - total), axis_name)


def _moments_in_two_passes(x, near):
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes)
  return mean, jnp.square(x - _row(mean, x)).mean(axes)


def _moments_in_one_pass(x, near):
  """Both sums at once; accurate if `near` is close to the mean, as running averages soon are."""
  axes = tuple(range(x.ndim - 1))
  beside = x - _row(near, x)
  shift = beside.mean(axes)
  return near + shift, jnp.maximum(jnp.square(beside).mean(axes) - jnp.square(shift), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _normalize(axis_name, epsilon, dtype, x, scale, bias, near):
  """Normalised x, mean and variance; gradients flow through the first only."""
  return _normalize_forward(axis_name, epsilon, dtype, x, scale, bias, near)[0]


def _normalize_forward(axis_name, epsilon, dtype, x, scale, bias, near):
  mean, var = _moments(axis_name, x.astype(jnp.float32), near)
  inverse = lax.rsqrt(var + epsilon)
  y = _affine(x, mean, inverse, scale, bias).astype(dtype)
  return (y, mean, var), (x, mean, inverse, scale)


def _normalize_backward(axis_name, epsilon, dtype, saved, cotangents):
  """Both sums in one pass over the input; autodiff of two passes would save three more arrays."""
  x, mean, inverse, scale = saved
  g = cotangents[0].astype(jnp.float32)
  unit = _affine(x, mean, inverse, jnp.ones_like(scale), jnp.zeros_like(scale))
  axes = tuple(range(x.ndim - 1))
  bias_gradient, scale_gradient = g.sum(axes), (g * unit).sum(axes)
  count = x.size // x.shape[-1]
  shift, slope = bias_gradient / count, scale_gradient / count
  if axis_name is not None:
    shift, slope = lax.pmean((shift, slope), axis_name)
  dx = (g - _row(shift, x) - unit * _row(slope, x)) * _row(inverse * scale, x)
  # These two are this device's parts: the training step sums all gradients over the devices.
  return dx.astype(x.dtype), scale_gradient, bias_gradient, None


_normalize.defvjp(_normalize_forward, _normalize_backward)


def local_response_norm(
  x: Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
  """Divides by a power of the local energy across channels (Caffe's LRN, SegNet-Basic's input).

  x / (k + alpha / size * sum of x^2 over the `size` neighbouring channels) ** beta.

  Args:
    x: [...,c] float.
    size: odd number of channels in the sum; missing ones count as zero.

  Returns:
    The shape and dtype of x; computed in float32.
  """
  half = size // 2
  x32 = x.astype(jnp.float32)
  ones, pads = (1,) * (x.ndim - 1), ((0, 0),) * (x.ndim - 1)
  window, pads = (*ones, size), (*pads, (half, size - 1 - half))
  energy = lax.reduce_window(jnp.square(x32), 0.0, lax.add, window, (*ones, 1), pads)
  return (x32 * (k + alpha / size * energy) ** -beta).astype(x.dtype)


def local_contrast_norm(x: Array, size: int = 9) -> Array:
  """Subtracts the local mean and divides by the local deviation (Jarrett et al., ICCV 2009, section 2.1).

  v = x - mean of x, y = v / max(c, sqrt(mean of v^2)), where the means are over all channels of a
  window, with Gaussian weights of sigma a sixth of it, and c is the mean deviation over the image, at
  least 1e-3 (a constant image gives 0). At the border the weights inside the image are renormalised.

  Args:
    x: [b,h,w,c] float.
    size: odd side of the window.

  Returns:
    The shape and dtype of x; computed in float32.
  """
  distance = (jnp.arange(size) - size // 2) / (size / 6)
  weights = jnp.exp(-(distance**2) / 2)

  def blur(plane: Array) -> Array:  # [b,h,w,1]
    for shape in ((size, 1, 1, 1), (1, size, 1, 1)):
      plane = lax.conv_general_dilated(
        plane,
        weights.reshape(shape),
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=lax.Precision.HIGHEST,
      )
    return plane

  x32 = x.astype(jnp.float32)
  coverage = blur(jnp.ones_like(x32[:1, ..., :1]))
  x32 -= blur(x32.mean(axis=-1, keepdims=True)) / coverage
  energy = blur(jnp.square(x32).mean(axis=-1, keepdims=True)) / coverage
  deviation = jnp.sqrt(energy + jnp.finfo(jnp.float32).tiny)  # sqrt has no gradient at 0
  least = jnp.maximum(deviation.mean(axis=(1, 2), keepdims=True), 1e-3)
  return (x32 / jnp.maximum(deviation, least)).astype(x.dtype)
