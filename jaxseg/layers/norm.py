"""Batch normalisation and local response normalisation, statistics in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxseg.types import Array


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last (Ioffe and Szegedy, arXiv:1502.03167).

  Parameters `scale`, `bias` and statistics `batch_stats/mean`, `batch_stats/var` are those of
  `flax.linen.BatchNorm`. The variance is the biased one, computed in float32 in two passes (the
  mean of squared differences), for normalising and for the running average alike; PyTorch stores
  the unbiased one.

  Attributes:
    momentum: what the running averages keep of their old value at each step.
    epsilon: added to the variance.
    axis_name: mapped axis (pmap, shard_map) over which statistics are shared; None under plain
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
    if use_running_average:
      mean, var = mean_state.value, var_state.value
    else:
      mean, var = self._statistics(x)
      if not self.is_initializing():
        keep = self.momentum
        mean_state.value = keep * mean_state.value + (1 - keep) * mean
        var_state.value = keep * var_state.value + (1 - keep) * var
    dtype = self.dtype or jnp.result_type(x, scale)
    shape = (1,) * (x.ndim - 1) + (features,)
    factor = (scale * lax.rsqrt(var + self.epsilon)).reshape(shape)
    y = (x.astype(jnp.float32) - mean.reshape(shape)) * factor + bias.reshape(shape)
    return y.astype(dtype)

  def _statistics(self, x: Array) -> tuple[Array, Array]:
    axes = tuple(range(x.ndim - 1))
    mapped = self.axis_name is not None and not self.is_initializing()
    share = (lambda t: lax.pmean(t, self.axis_name)) if mapped else (lambda t: t)
    x = x.astype(jnp.float32)
    mean = share(x.mean(axes))
    var = share(jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes))
    return mean, var


def local_response_norm(
  x: Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
  """Divides by a power of the local energy across channels (Caffe's LRN, SegNet-Basic's input).

  x / (k + alpha / size * sum of x^2 over the `size` channels around) ** beta.

  Args:
    x: [...,c] float.
    size: odd number of channels in the sum; missing ones count as zero.

  Returns:
    The shape and dtype of x; computed in float32.
  """
  half = size // 2
  wide = x.astype(jnp.float32)
  energy = lax.reduce_window(
    jnp.square(wide),
    0.0,
    lax.add,
    (1,) * (x.ndim - 1) + (size,),
    (1,) * x.ndim,
    ((0, 0),) * (x.ndim - 1) + ((half, size - 1 - half),),
  )
  return (wide * (k + alpha / size * energy) ** -beta).astype(x.dtype)
