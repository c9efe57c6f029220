"""Faster CPU forms of convolution and its gradients; other devices use XLA's, a TPU with three exceptions.

XLA's CPU weight gradient of a small kernel over a large map runs at a third of the speed of its
forward pass. Here it is a matrix product: the kernel's windows of a few rows (im2col), as many as fit
the cache, times the output's gradient, summed over blocks of rows. XLA convolves bfloat16 in float32,
but a matrix product that accumulates in float32 uses the CPU's bfloat16 instructions: with many
channels the value and the input's gradient are such products too. A 1x1 kernel is a plain matrix
product, forward and backward: XLA's weight gradient takes three times as long. So is a large kernel over
a small map (FCN's fc6): XLA takes a hundred times as long if the kernel is larger than the map.
Everything else is left to XLA, which is faster there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.layers import products
from jaxseg.nn.layers.depthwise import depthwise
from jaxseg.nn.layers.split_rows import by_rows, rows_are_split
from jaxseg.nn.precision import chosen
from jaxseg.types import Array

_MAX_KERNEL = 3  # for larger kernels XLA's gradient is fast enough
_MAX_NARROW = 32  # features of a 1x1 convolution that a TPU should have as the first axis
_MIN_PIXELS = 16384  # batch * height * width of the output from which blocks of rows are faster
_MAX_SMALL_MAP = 1024  # height * width of the output up to which a larger kernel is one product
_MAX_WINDOW_BYTES = 2**26  # of all its windows in float32
_MIN_BFLOAT16_CHANNELS = 8  # an image's three channels are too few for a bfloat16 product
_MIN_PRODUCT_CHANNELS = 128  # of a bfloat16 convolution, from which im2col pays off
_BLOCK_BYTES = 4 * 2**20  # of a block's windows in float32: fits the caches


def conv_general_dilated(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **options: Any,
) -> Array:
  """`lax.conv_general_dilated`, same arguments and values, with a gradient that is fast on a CPU.

  Covers NHWC inputs [b,h,w,i] with HWIO kernels [kh,kw,i,o], stride 1, no dilation, no groups,
  float32 or (from 8 channels) bfloat16: kernels up to 3x3 on large maps, larger ones on small maps;
  in bfloat16 also kernels up to 3x3 on any map, from 128 channels; in float32 also 1x1 kernels of any
  stride on any map; and depthwise kernels [kh,kw,1,i] of any size and stride, see depthwise.py.
  Any other call is the native one. Covered calls are differentiable in reverse mode only. On other
  devices, and with rows split over devices, all calls are native, except on a TPU 1x1 kernels to few
  features, images padded by more than the kernel's size, and maps of pairs of columns (see pairs.py).
  """
  options['precision'] = chosen(options.get('precision'))
  native = functools.partial(
    lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
  )
  if rows_are_split():
    reach = _reach(lhs, rhs, window_strides, padding, options.get('rhs_dilation'))
    return by_rows(native(by_rows(lhs, reach), rhs))
  strides, groups = tuple(window_strides), options.get('feature_group_count', 1)
  if not _is_covered(lhs, rhs, **options | {'feature_group_count': 1}):
    return native(lhs, rhs)
  form = (_cpu_form if groups == 1 else _depthwise_form)(lhs, rhs, strides, padding)
  convolve = functools.partial(form, options['precision']) if form else native
  if groups == 1 and strides == (1, 1):
    pads = _pads(lhs, rhs, strides, padding)
    how = convolve, pads  # on other devices; and the rows and columns to pad
    if _is_in_border(lhs, rhs, padding):
      return products.convolve_in_border(how, options['precision'], lhs, rhs)
    if rhs.shape[3] <= _MAX_NARROW and _is_of_pixels(rhs, padding):
      return products.convolve_narrow(convolve, options['precision'], lhs, rhs)
    if products.are_of_pairs(lhs, rhs, pads):
      return products.convolve_pairs(how, options['precision'], lhs, rhs)
  return convolve(lhs, rhs)


class Conv(nn.Conv):
  """`flax.linen.Conv`, same fields and parameters, with gradients that are fast on a CPU."""

  conv_general_dilated: Callable | None = conv_general_dilated


def _reach(lhs, rhs, strides, padding, dilation) -> int:
  """Returns how many rows above or below its own an output row reads."""
  beyond = (dilation or (1,))[0] * (rhs.shape[0] - 1)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(lhs.shape[1:2], (beyond + 1,), strides[:1], padding)
  above = int(padding[0][0])
  return max(above, beyond - above)


def _is_covered(
  lhs,
  rhs,
  *,
  dimension_numbers=None,
  precision=None,
  preferred_element_type=None,
  **dilations_and_groups,
) -> bool:
  """Whether these are NHWC and HWIO of static size, float32 or bfloat16, without dilation or groups."""
  if preferred_element_type is not None or lhs.ndim != 4 or lhs.dtype != rhs.dtype:
    return False
  layout, nhwc = (
    lax.conv_dimension_numbers(lhs.shape, rhs.shape, order)
    for order in (dimension_numbers, products.NHWC)
  )
  return (
    layout == nhwc
    and all(isinstance(size, int) for size in (*lhs.shape, *rhs.shape))
    and all(np.all(np.equal(n, 1)) for n in dilations_and_groups.values() if n is not None)
    and (lhs.dtype == jnp.float32 or lhs.dtype == jnp.bfloat16)
  )


def _is_left_to_xla(x: Array) -> bool:
  return x.dtype == jnp.bfloat16 and x.shape[3] < _MIN_BFLOAT16_CHANNELS


def _is_in_border(lhs, rhs, padding) -> bool:
  """Whether an image gets a border wider than the kernel on all sides."""
  pads = _pads(lhs, rhs, (1, 1), padding)
  wide = all(min(pad) > side for pad, side in zip(pads, rhs.shape[:2], strict=True))
  return wide and lhs.shape[3] < products.TILE


def _depthwise_form(lhs, rhs, strides, padding) -> Callable | None:
  """The same for a grouped convolution with one channel in and out per group, and no negative pad."""
  pads = _pads(lhs, rhs, strides, padding)
  if rhs.shape[2:] != (1, lhs.shape[3]) or min(map(min, pads)) < 0 or _is_left_to_xla(lhs):
    return None
  return functools.partial(depthwise, strides, pads)


def _pads(lhs, rhs, strides, padding) -> tuple[tuple[int, int], ...]:
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
  return tuple((int(low), int(high)) for low, high in padding)


def _is_of_pixels(rhs, padding) -> bool:
  unpadded = padding in ('SAME', 'VALID') if isinstance(padding, str) else not np.any(padding)
  return rhs.shape[:2] == (1, 1) and unpadded


def _cpu_form(lhs, rhs, strides, padding) -> Callable | None:
  """Returns the form (precision, lhs, rhs) that is fastest on a CPU; None: lax's."""
  sides = rhs.shape[:2]
  if _is_left_to_xla(lhs):
    return None
  if _is_of_pixels(rhs, padding) and lhs.dtype == jnp.float32:
    return functools.partial(products.convolve_pixels, strides)
  if strides != (1, 1):
    return None
  pads = _pads(lhs, rhs, strides, padding)
  height, width = (
    n + sum(pad) - side + 1 for n, pad, side in zip(lhs.shape[1:3], pads, sides, strict=True)
  )
  pixels = lhs.shape[0] * height * width
  if min(map(min, pads)) < 0:
    return None
  if max(sides) <= _MAX_KERNEL:
    large = pixels >= _MIN_PIXELS or _by_product(lhs)
    return functools.partial(_convolve_blocks, pads) if large else None
  window_bytes = 4 * pixels * math.prod(rhs.shape[:3])
  small = height * width <= _MAX_SMALL_MAP and window_bytes <= _MAX_WINDOW_BYTES
  return functools.partial(products.convolve_windows, pads) if small else None


# Small kernels over large maps: products of blocks of rows.


def _convolve_blocks(pads, precision, x, kernel):
  if any(max(pad) >= side for pad, side in zip(pads, kernel.shape[:2], strict=True)):
    # The input gradient would have negative pads, which XLA's CPU backend can get wrong.
    x, pads = jnp.pad(x, ((0, 0), *pads, (0, 0))), ((0, 0), (0, 0))
  return _convolve(pads, precision, x, kernel)


def _by_product(x: Array) -> bool:
  return x.dtype == jnp.bfloat16 and x.shape[-1] >= _MIN_PRODUCT_CHANNELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(pads, precision, x, kernel):
  native = functools.partial(products.native, pads, precision)
  if not _by_product(x):
    return native(x, kernel)
  product = functools.partial(_product_of_blocks, pads, precision)
  return lax.platform_dependent(x, kernel, cpu=product, default=native)


def _convolve_forward(pads, precision, x, kernel):
  return _convolve(pads, precision, x, kernel), (x, kernel)


def _convolve_backward(pads, precision, saved, g):
  x, kernel = saved
  native = functools.partial(products.native, pads, precision)

  def dx(g, kernel):
    return jax.vjp(lambda x: native(x, kernel), x)[1](g)[0]

  def dkernel(x, g):
    return jax.vjp(lambda k: native(x, k), kernel)[1](g)[0]

  if _by_product(g):
    on_cpu = functools.partial(_input_gradient, pads, precision)
    dx = functools.partial(lax.platform_dependent, cpu=on_cpu, default=dx)
  if math.prod(g.shape[:3]) >= _MIN_PIXELS:
    on_cpu = functools.partial(_kernel_gradient, kernel.shape[:2], pads, precision)
    dkernel = functools.partial(lax.platform_dependent, cpu=on_cpu, default=dkernel)
  return dx(g, kernel), dkernel(x, g)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _product_of_blocks(pads, precision, x, kernel):
  """The convolution as matrix products for a few rows at a time, accumulated in float32."""
  kh, kw, inputs, features = kernel.shape
  (top, bottom), columns = pads
  b, height = x.shape[0], x.shape[1] + top + bottom - kh + 1
  width = x.shape[2] + sum(columns) - kw + 1
  rows, blocks = _rows_and_blocks(height, b * width * kh * kw * inputs * x.dtype.itemsize)
  x = jnp.pad(x, ((0, 0), (top, bottom + blocks * rows - height), columns, (0, 0)))
  matrix = kernel.reshape(kh * kw * inputs, features)

  def block_of(_, block):
    product = lax.dot_general(
      _windows(x, block * rows, rows, kh, kw),
      matrix,
      (((3,), (0,)), ((), ())),
      precision=precision,
      preferred_element_type=jnp.float32,
    )
    return None, product.astype(x.dtype)

  _, y = lax.scan(block_of, None, jnp.arange(blocks))
  y = y.transpose(1, 0, 2, 3, 4).reshape(b, blocks * rows, width, features)
  return y[:, :height]


def _input_gradient(pads, precision, g, kernel):
  """Input gradient [b,h,w,i] from g [b,h',w',o]: a convolution with the flipped kernel."""
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  pads = tuple(
    (side - 1 - low, side - 1 - high)
    for side, (low, high) in zip(kernel.shape[:2], pads, strict=True)
  )
  return _product_of_blocks(pads, precision, g, flipped)


def _kernel_gradient(sides, pads, precision, x, g):
  """Weight gradient [kh,kw,i,o] from x [b,h,w,i] and the output's gradient g [b,h',w',o].

  Images are summed last, so that a batch sharded over devices is reduced only once.
  """
  (b, height, width, features), (kh, kw), inputs = g.shape, sides, x.shape[-1]
  rows, blocks = _rows_and_blocks(height, 4 * b * width * kh * kw * inputs)
  padding_rows = blocks * rows - height  # rows of zeros, which add nothing
  (top, bottom), columns = pads
  x = jnp.pad(x, ((0, 0), (top, bottom + padding_rows), columns, (0, 0)))
  g = jnp.pad(g, ((0, 0), (0, padding_rows), (0, 0), (0, 0)))

  def add_block(total, block):
    windows = _windows(x, block * rows, rows, kh, kw).reshape(b, rows * width, -1)
    part = lax.dynamic_slice_in_dim(g, block * rows, rows, axis=1).reshape(b, -1, features)
    product = lax.dot_general(
      part,
      windows,
      (((1,), (1,)), ((0,), (0,))),
      precision=precision,
      preferred_element_type=jnp.float32,
    )
    return total + product, None

  total = jnp.zeros((b, features, kh * kw * inputs), jnp.float32)
  total, _ = lax.scan(add_block, total, jnp.arange(blocks))
  return total.sum(0).T.reshape(kh, kw, inputs, features).astype(x.dtype)


def _rows_and_blocks(height: int, row_bytes: int) -> tuple[int, int]:
  """Returns the number of rows whose windows fit the caches, and the number of such blocks."""
  rows = max(1, min(height, _BLOCK_BYTES // row_bytes))
  blocks = -(-height // rows)
  return -(-height // blocks), blocks


def _windows(x: Array, first: Array, rows: int, kh: int, kw: int) -> Array:
  """im2col of some rows of padded x: [b,rows,w',kh*kw*i]."""
  width = x.shape[2] - kw + 1
  band = lax.dynamic_slice_in_dim(x, first, rows + kh - 1, axis=1)
  parts = [band[:, i : i + rows, j : j + width] for i in range(kh) for j in range(kw)]
  return jnp.concatenate(parts, axis=-1)
