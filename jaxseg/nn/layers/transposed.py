"""Transposed convolution, fast on a CPU too.

On a TPU it is XLA's own: interleaving pixels by a reshape is slow there, because memory tiles span
images and channels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.layers import pairs
from jaxseg.nn.layers.split_rows import by_rows, rows_are_split, shifted
from jaxseg.nn.precision import chosen
from jaxseg.types import Array


class ConvTranspose(nn.ConvTranspose):
  """`flax.linen.ConvTranspose` of [b,h,w,c], same fields and parameters, fast on a CPU too.

  Its kernel [kh,kw,in,out] is not flipped; with `transpose_kernel` it is [kh,kw,out,in] and flipped,
  as in Keras, Caffe and PyTorch. There is neither `kernel_dilation` nor `mask`.
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.kernel_dilation is not None or self.mask is not None:
      raise NotImplementedError('ConvTranspose has neither kernel_dilation nor mask')
    channels = (x.shape[-1], self.features)
    shape = (*self.kernel_size, *(reversed(channels) if self.transpose_kernel else channels))
    kernel, bias = self.param('kernel', self.kernel_init, shape, self.param_dtype), None
    if self.use_bias:
      bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    options = dict(transpose_kernel=self.transpose_kernel, precision=self.precision)
    y = conv_transpose(x, kernel, tuple(self.strides or (1, 1)), self.padding, **options)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def conv_transpose(
  x: Array,
  kernel: Array,
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  *,
  transpose_kernel: bool = False,
  precision=None,
) -> Array:
  """`lax.conv_transpose` of x [b,h,w,i] with kernel [kh,kw,i,o] (not flipped), in NHWC.

  1-D worked example, kernel symmetric: [5, 8] with [1, 2, 1], stride 2 -> [5, 10, 13, 16, 8].

  Args:
    strides: (down, right).
    padding: 'VALID' gives (n - 1) * stride + max(k, stride), 'SAME' n * stride; pairs as in lax.
    transpose_kernel: the kernel is [kh,kw,o,i] and flipped.
  """
  strides, sides, precision = tuple(strides), kernel.shape[:2], chosen(precision)
  if strides == sides and padding in ('SAME', 'VALID'):
    kernel = kernel.swapaxes(2, 3) if transpose_kernel else kernel[::-1, ::-1]
    blocks = functools.partial(_spread_blocks, precision=precision)
    native = functools.partial(_native_blocks, precision=precision)
    if strides == (2, 2) and not rows_are_split() and pairs.fill_lanes(kernel.shape[3]):
      native = functools.partial(pairs.spread_pairs, precision=precision)
    return by_rows(lax.platform_dependent(by_rows(x), kernel, tpu=native, default=blocks))
  if transpose_kernel:
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  if rows_are_split() and padding == 'SAME':
    return _transposed_by_rows(x, kernel[::-1, ::-1], strides, precision)
  static = all(isinstance(size, int) for size in x.shape)
  if isinstance(padding, str) and static and min(sides) > 1 and x.dtype == kernel.dtype:
    return _transposed(strides, padding, precision, x, kernel)
  return by_rows(lax.conv_transpose(by_rows(x), kernel, strides, padding, precision=precision))


def _transposed_by_rows(x: Array, kernel: Array, strides, precision) -> Array:
  """Padding 'SAME' with split rows: computes each pixel's output block from its neighbourhood.

  XLA would gather all rows for the gradient of a transposed convolution. In one dimension, output
  s * k + j is the sum over d of x[k + d] * kernel[j + cut - s * d], over the taps that exist.
  """
  axes = [
    (side, step, _cut_before(side, step, 'SAME'))
    for side, step in zip(kernel.shape[:2], strides, strict=True)
  ]
  near = [range(-((k - 1 - cut) // s), (s - 1 + cut) // s + 1) for k, s, cut in axes]
  x, zero = by_rows(x), jnp.zeros((), kernel.dtype)
  parts, kernels = [], []
  for offsets in itertools.product(*near):
    parts.append(shifted(shifted(x, 1, offsets[0]), 2, offsets[1]))
    first = [s * d - cut for (_, s, cut), d in zip(axes, offsets, strict=True)]
    pads = [(low, s - k - low, 0) for (k, s, _), low in zip(axes, first, strict=True)]
    kernels.append(lax.pad(kernel, zero, (*pads, (0, 0, 0), (0, 0, 0))))
  y = _spread_blocks(jnp.concatenate(parts, -1), jnp.concatenate(kernels, 2), precision)
  return by_rows(y)


def _native_blocks(x: Array, kernel: Array, precision) -> Array:
  """Equals _spread_blocks."""
  strides = kernel.shape[:2]
  return lax.conv_transpose(x, kernel[::-1, ::-1], strides, 'VALID', precision=precision)


def _spread_blocks(x: Array, kernel: Array, precision) -> Array:
  """Every pixel gives a separate block of the output, by one matrix product."""
  (b, h, w, i), (kh, kw, _, o) = x.shape, kernel.shape
  matrix = kernel.transpose(2, 0, 1, 3).reshape(i, kh * kw * o)
  y = lax.dot_general(x, matrix, (((3,), (0,)), ((), ())), precision=precision)
  return y.reshape(b, h, w, kh, kw, o).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * kh, w * kw, o)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _transposed(strides, padding, precision, x, kernel):
  return lax.conv_transpose(x, kernel, strides, padding, precision=precision)


def _transposed_forward(strides, padding, precision, x, kernel):
  return _transposed(strides, padding, precision, x, kernel), (x, kernel)


def _transposed_backward(strides, padding, precision, saved, g):
  x, kernel = saved
  native = functools.partial(
    lax.conv_transpose, strides=strides, padding=padding, precision=precision
  )
  (dx,) = jax.vjp(lambda x: native(x, kernel), x)[1](g)
  dkernel = lax.platform_dependent(
    x,
    g,
    cpu=functools.partial(_kernel_gradient, strides, kernel.shape[:2], padding, precision),
    default=lambda x, g: jax.vjp(lambda k: native(x, k), kernel)[1](g)[0],
  )
  return dx, dkernel


_transposed.defvjp(_transposed_forward, _transposed_backward)


def _kernel_gradient(strides, sides, padding, precision, x, g):
  """Weight gradient [kh,kw,i,o] as products of x with the blocks of g that each pixel contributes to.

  XLA's own runs at 1 to 3 GFLOP/s on a CPU, because it multiplies by the zeros between pixels.
  """
  (b, h, w, i), o, (down, right) = x.shape, g.shape[-1], strides
  reach = [-(-side // stride) for side, stride in zip(sides, strides, strict=True)]
  pads = [(0, 0, 0)]
  for axis, n, side, stride, steps in zip((1, 2), (h, w), sides, strides, reach, strict=True):
    low = _cut_before(side, stride, padding)
    pads.append((low, (n + steps - 1) * stride - g.shape[axis] - low, 0))
  g = lax.pad(g, jnp.zeros((), g.dtype), (*pads, (0, 0, 0)))
  g = g.reshape(b, h + reach[0] - 1, down, w + reach[1] - 1, right, o)
  g = g.transpose(0, 1, 3, 2, 4, 5).reshape(*g.shape[:2], g.shape[3], down * right * o)
  contract = (((0, 1, 2), (0, 1, 2)), ((), ()))
  parts = [
    lax.dot_general(x, g[:, a : a + h, c : c + w], contract, precision=precision)
    for a, c in itertools.product(*map(range, reach))
  ]
  grid = jnp.stack(parts).reshape(*reach, i, down, right, o)
  full = grid.transpose(0, 3, 1, 4, 2, 5).reshape(reach[0] * down, reach[1] * right, i, o)
  return full[: sides[0], : sides[1]][::-1, ::-1]


def _cut_before(side: int, stride: int, padding: str) -> int:
  """Returns how many leading values of the full transposed convolution lax's `padding` drops."""
  if padding == 'VALID' or stride > side - 1:
    return 0
  return side - 1 - -(-(side + stride - 2) // 2)
