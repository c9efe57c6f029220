"""Ways up: transposed convolution, FCN's fixed bilinear one, and bilinear resizing."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.layers.split_rows import by_rows, rows_are_split
from jaxseg.types import Array

_FEW = 6  # rows or columns up to which resizing is one small product, also where rows are split


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
  strides, sides = tuple(strides), kernel.shape[:2]
  if strides == sides and padding in ('SAME', 'VALID'):
    kernel = kernel.swapaxes(2, 3) if transpose_kernel else kernel[::-1, ::-1]
    return by_rows(_spread_blocks(by_rows(x), kernel, precision))
  if transpose_kernel:
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  if rows_are_split() and padding == 'SAME':
    return _transposed_by_rows(x, kernel[::-1, ::-1], strides, precision)
  static = all(isinstance(size, int) for size in x.shape)
  if isinstance(padding, str) and static and min(sides) > 1 and x.dtype == kernel.dtype:
    return _transposed(strides, padding, precision, x, kernel)
  return by_rows(lax.conv_transpose(by_rows(x), kernel, strides, padding, precision=precision))


def _transposed_by_rows(x: Array, kernel: Array, strides, precision) -> Array:
  """Padding 'SAME': every pixel's block of the output, from the pixel and those beside it.

  XLA gathers all rows for the gradient of a transposed convolution. In one dimension, output
  s * k + j is the sum over d of x[k + d] * kernel[j + cut - s * d], wherever there is such a tap.
  """
  axes = [
    (side, step, _cut_before(side, step, 'SAME'))
    for side, step in zip(kernel.shape[:2], strides, strict=True)
  ]
  near = [range(-((k - 1 - cut) // s), (s - 1 + cut) // s + 1) for k, s, cut in axes]
  x, zero = by_rows(x), jnp.zeros((), kernel.dtype)
  parts, kernels = [], []
  for offsets in itertools.product(*near):
    parts.append(_shifted(_shifted(x, 1, offsets[0]), 2, offsets[1]))
    first = [s * d - cut for (_, s, cut), d in zip(axes, offsets, strict=True)]
    pads = [(low, s - k - low, 0) for (k, s, _), low in zip(axes, first, strict=True)]
    kernels.append(lax.pad(kernel, zero, (*pads, (0, 0, 0), (0, 0, 0))))
  y = _spread_blocks(jnp.concatenate(parts, -1), jnp.concatenate(kernels, 2), precision)
  return by_rows(y)


def _shifted(x: Array, axis: int, n: int) -> Array:
  """x[i + n] at i along an axis, zeros beyond the ends."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (-n, n, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), pads) if n else x


def _spread_blocks(x: Array, kernel: Array, precision) -> Array:
  """Every pixel becomes its own block of the output: one matrix product, no overlap."""
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
  """Weight gradient [kh,kw,i,o] as products of x with the blocks of g that each pixel reaches.

  XLA's own runs at 1 to 3 GFLOP/s on a CPU, because it multiplies with the zeros between pixels.
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
  """How many of the full transposed convolution's leading values lax's `padding` drops."""
  if padding == 'VALID' or stride > side - 1:
    return 0
  return side - 1 - -(-(side + stride - 2) // 2)


def bilinear_kernel(size: int) -> np.ndarray:
  """The bilinear filter of FCN (surgery.py): float32 [size,size]."""
  line = _bilinear_line(size)
  return np.outer(line, line)


def _bilinear_line(size: int) -> np.ndarray:
  """float32 [size]: 1 at the centre, falling to zero half a size away."""
  half = (size + 1) // 2
  centre = half - 1 if size % 2 else half - 0.5
  return (1 - np.abs(np.arange(size) - centre) / half).astype(np.float32)


def upsample_bilinear(
  x: Array,
  factor: int,
  *,
  size: tuple[int, int] | None = None,
  offset: tuple[int, int] | None = None,
) -> Array:
  """FCN's fixed upsampling: depthwise transposed convolution, bilinear kernel 2 * factor, VALID.

  Output (n - 1) * factor + 2 * factor = (n + 1) * factor long; it fades to zero at the border.

  Args:
    x: [b,h,w,c] float.
    factor: how many times larger; 2, 8, 16 and 32 in the paper (kernels 4, 16, 32 and 64).
    size: (height, width) to crop to; None keeps all.
    offset: (row, column) where the crop starts; None centres it.

  Returns:
    [b,h',w',c] of x's dtype.
  """
  length = x.shape[1] * factor
  if rows_are_split() and size and offset and (size[0], offset[0]) == (length, factor // 2):
    x, offset = _rows_at(x, (np.arange(length) + 0.5) / factor - 0.5), (0, offset[1])
  else:
    x = _upsample_line(1, factor, x)
  x = _upsample_line(2, factor, x)
  if size is None:
    return by_rows(x)
  start = offset or tuple((have - want) // 2 for have, want in zip(x.shape[1:3], size, strict=True))
  stop = tuple(first + want for first, want in zip(start, size, strict=True))
  if min(start) < 0 or stop[0] > x.shape[1] or stop[1] > x.shape[2]:
    raise ValueError(f'upsample_bilinear: no crop {size} at {start} in {tuple(x.shape[1:3])}')
  return by_rows(x[:, start[0] : stop[0], start[1] : stop[1]])


def _rows_at(x: Array, points: np.ndarray) -> Array:
  """Rows of x [b,h,w,c] at fractional points, zeros beyond its ends, where rows are split.

  All of a device's rows come from its own and one neighbour's: there are factor * h `points`, the
  i-th within a row of i // factor.
  """
  b, h, w, c = x.shape
  x, y = by_rows(x, 1), 0.0
  for near in (-1, 0, 1):
    distance = np.abs(points.reshape(h, -1) - np.arange(h)[:, None] - near)
    weight = jnp.asarray(np.maximum(0, 1 - distance), x.dtype).reshape(1, h, -1, 1, 1)
    y += _shifted(x, 1, near)[:, :, None] * weight
  return by_rows(y.reshape(b, len(points), w, c))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _upsample_line(axis: int, factor: int, x: Array) -> Array:
  """One axis: n -> (n + 1) * factor; every output mixes the pixel before and the one after.

  Autodiff would reduce over the factor with a strided loop, some forty times slower on a CPU.
  """
  n = x.shape[axis]
  pads = [(0, 0)] * x.ndim
  pads[axis] = (1, 1)
  padded = jnp.expand_dims(jnp.pad(x, pads), axis + 1)
  before = lax.slice_in_dim(padded, 0, n + 1, axis=axis)
  after = lax.slice_in_dim(padded, 1, n + 2, axis=axis)
  shape = [1] * (x.ndim + 1)
  shape[axis + 1] = factor
  rising, falling = jnp.asarray(_bilinear_line(2 * factor), x.dtype).reshape(2, *shape)
  y = after * rising + before * falling
  return y.reshape(*x.shape[:axis], (n + 1) * factor, *x.shape[axis + 1 :])


def _upsample_line_backward(axis: int, factor: int, _, g: Array) -> tuple[Array]:
  n = g.shape[axis] // factor - 1
  total = 0.0
  for start, weight in enumerate(_bilinear_line(2 * factor).tolist()):
    stop = start + (n - 1) * factor + 1
    total += weight * lax.slice_in_dim(g, start, stop, factor, axis).astype(jnp.float32)
  return (total.astype(g.dtype),)


_upsample_line.defvjp(lambda *args: (_upsample_line(*args), None), _upsample_line_backward)


def resize_bilinear(x: Array, size: tuple[int, int], *, align_corners: bool = False) -> Array:
  """Bilinear resizing, never antialiased.

  Args:
    x: [b,h,w,c] float.
    size: (height, width) of the output.
    align_corners: False: pixels are areas, output i samples (i + 0.5) * n / m - 0.5, clamped;
      True: corners keep their values, output i samples i * (n - 1) / (m - 1).

  Returns:
    [b,height,width,c] of x's dtype.
  """
  for axis, length in zip((1, 2), size, strict=True):
    x = _resize_line(x, axis, length, align_corners)
  return x


def _resize_line(x: Array, axis: int, length: int, align_corners: bool) -> Array:
  n = x.shape[axis]
  factor, rest = divmod(length, n)
  divides = isinstance(factor, int) and isinstance(rest, int) and rest == 0
  if divides and factor == 1:
    return x
  if divides and axis == 1 and rows_are_split():
    return _rows_at(x, _points(n, length, align_corners, np))
  few = isinstance(n, int) and n <= _FEW
  if divides and factor % 2 == 0 and not align_corners and not few:
    # The transposed convolution on an image whose border is repeated samples the same points.
    pads = [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    wide = _upsample_line(axis, factor, jnp.pad(x, pads, mode='edge'))
    start = factor + factor // 2
    return lax.slice_in_dim(wide, start, start + length, axis=axis)
  points = _points(n, length, align_corners, jnp)
  pixel = jnp.arange(n, dtype=jnp.float32)
  weight = jnp.maximum(0, 1 - jnp.abs(points[:, None] - pixel[None])).astype(x.dtype)
  return jnp.moveaxis(jnp.tensordot(x, weight, ((axis,), (1,))), -1, axis)


def _points(n: int, length: int, align_corners: bool, xp) -> Array:
  """Where each of `length` outputs samples the n inputs, with numpy or jax.numpy as `xp`."""
  i = xp.arange(length, dtype=xp.float32)
  if align_corners:
    return i * xp.float32(n - 1) / xp.maximum(xp.float32(length - 1), 1)
  return xp.clip((i + 0.5) * xp.float32(n) / xp.float32(length) - 0.5, 0, n - 1)
