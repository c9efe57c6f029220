"""The same networks with the standard layers of Flax and lax, for comparison with ours."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn import layers as fast
from jaxseg.tools.stand_ins import stand_ins
from jaxseg.types import Array


def layers(active: bool = True) -> contextlib.AbstractContextManager[None]:
  """A context in which our models and backbones are traced with stock layers."""
  return stand_ins(_STOCK if active else {})


def with_stock_norm(model: nn.Module, axis_name: str | None = None) -> nn.Module:
  """Returns the model with `flax.linen.BatchNorm`."""
  return model.clone(norm=functools.partial(nn.BatchNorm, momentum=0.9, axis_name=axis_name))


def max_pool(
  x: Array,
  window: int = 2,
  stride: int = 2,
  padding: str | Sequence[tuple[int, int]] = 'VALID',
  *,
  ceil: bool = False,
) -> Array:
  """`nn.max_pool`, with padding for Caffe's partial windows."""
  if ceil:
    padding = tuple((0, -(n - window) % stride) for n in x.shape[1:3])
  return nn.max_pool(x, (window, window), (stride, stride), padding)


def max_pool_argmax(x: Array) -> tuple[Array, Array]:
  """Stacks the windows and takes their maximum and its index."""
  b, h, w, c = x.shape
  padded = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
  rows, columns = (h + 1) // 2, (w + 1) // 2
  windows = padded.reshape(b, rows, 2, columns, 2, c).transpose(0, 1, 3, 5, 2, 4)
  windows = windows.reshape(b, rows, columns, c, 4)
  return windows.max(-1), windows.argmax(-1)


def max_unpool(x: Array, index: Array, size: tuple[int, int]) -> Array:
  """Each value times the one-hot of its index."""
  b, rows, columns, c = x.shape
  windows = x[..., None] * jax.nn.one_hot(index, 4, dtype=x.dtype)
  spread = windows.reshape(b, rows, columns, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
  return spread.reshape(b, 2 * rows, 2 * columns, c)[:, : size[0], : size[1]]


def upsample_bilinear(
  x: Array, factor: int, *, size: tuple[int, int] | None = None, offset: tuple[int, int] = (0, 0)
) -> Array:
  """The depthwise transposed convolution that defines it, cropped to `size` at `offset`."""
  channels, side = x.shape[-1], 2 * factor
  kernel = jnp.asarray(fast.bilinear_kernel(side), x.dtype)[..., None, None]
  y = lax.conv_general_dilated(
    x,
    jnp.broadcast_to(kernel, (side, side, 1, channels)),
    (1, 1),
    ((side - 1,) * 2,) * 2,
    lhs_dilation=(factor, factor),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=channels,
  )
  if size is None:
    return y
  return y[:, offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]


_STOCK = {
  fast.concatenate: functools.partial(jnp.concatenate, axis=-1),
  fast.laid_out_by_class: lambda logits: logits,
  fast.Conv: nn.Conv,
  fast.ConvTranspose: nn.ConvTranspose,
  fast.max_pool: max_pool,
  fast.max_pool_argmax: max_pool_argmax,
  fast.max_unpool: max_unpool,
  fast.upsample_bilinear: upsample_bilinear,
}
