"""Max pooling, argmax and unpooling without select-and-scatter; adaptive average pooling.

The gradient of XLA's windowed maximum (select-and-scatter) is some thirty times slower than its
forward pass on a CPU and not deterministic on a GPU. There the pixels of a window are strided slices,
so that index and gradient are elementwise: the four corners of a 2x2 window, or all pixels of an
overlapping window (but not with rows split over devices). A TPU has instructions for both directions
and keeps XLA's own; but interleaving pixels by a reshape is slow there, because memory tiles span images
and channels, so unpooling pads between pixels instead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.layers import pairs
from jaxseg.nn.layers.split_rows import by_rows, rows_are_split
from jaxseg.types import Array


def max_pool(
  x: Array,
  window: int = 2,
  stride: int = 2,
  padding: str | Sequence[tuple[int, int]] = 'VALID',
  *,
  ceil: bool = False,
) -> Array:
  """Maximum over square windows.

  Args:
    x: [b,h,w,c], float or integer.
    window, stride: side and step of the window, in pixels.
    padding: 'VALID', 'SAME' or ((top, bottom), (left, right)); padded with the lowest value.
    ceil: Caffe's rule for the output size: includes a last, partial window.

  Returns:
    [b,h',w',c] of x's dtype. Gradients, in reverse mode only, go to the first (row-major) maximum
    of a window; on a TPU, where columns are paired, to the first by columns (see pairs.py).
  """
  unpadded = padding == 'VALID' if isinstance(padding, str) else not any(map(any, padding))
  if (window, stride) == (2, 2) and unpadded:
    if not ceil:
      x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    odd = _lacking(x.shape[1]), _lacking(x.shape[2])
    pads = tuple((0, n) for n in odd)
    on_tpu = functools.partial(_windowed, 2, 2, pads)
    if odd[1] == 0 and _is_of_pairs(x) and jnp.issubdtype(x.dtype, jnp.floating):
      on_tpu = functools.partial(pairs.pool_pairs, odd[0])
    return by_rows(
      lax.platform_dependent(by_rows(x), tpu=on_tpu, default=lambda x: _pool(odd, x)[0])
    )
  pads = padding
  if isinstance(padding, str):
    pads = lax.padtype_to_pads(x.shape[1:3], (window, window), (stride, stride), padding)
  if ceil:
    pads = [_ceil_pad(n, window, stride, pad) for n, pad in zip(x.shape[1:3], pads, strict=True)]
  x, how = by_rows(x, window - 1), (window, stride, tuple(map(tuple, pads)))
  if rows_are_split():  # slices would gather them: XLA keeps its own gradient
    return by_rows(_windowed(*how, x))
  slices = functools.partial(_overlapping, *how, x.shape[1:3])
  return lax.platform_dependent(x, tpu=functools.partial(_windowed, *how), default=slices)


def max_pool_argmax(x: Array) -> tuple[Array, Array]:
  """2x2 maximum with stride 2, and each maximum's position in its window (SegNet, section 3).

  Args:
    x: [b,h,w,c]; an odd size ends in a window of one row or column (Caffe's ceil mode).

  Returns:
    pooled: [b,ceil(h/2),ceil(w/2),c] of x's dtype.
    index: uint8 of the same shape: 0 1 / 2 3, row-major in the window; the first maximum wins.
  """
  pooled, index = _pool((_lacking(x.shape[1]), _lacking(x.shape[2])), by_rows(x))
  return by_rows(pooled), by_rows(index)


def max_unpool(x: Array, index: Array, size: tuple[int, int]) -> Array:
  """Writes each value where the pooling found its maximum, zeros elsewhere (SegNet, section 3).

  Args:
    x: [b,h',w',c].
    index: uint8 [b,h',w',c] from `max_pool_argmax`.
    size: (h, w) of the map before pooling, h' = ceil(h/2), w' = ceil(w/2).

  Returns:
    [b,h,w,c] of x's dtype.
  """
  rows, columns = size
  odd = _lacking(rows), _lacking(columns)
  if ((rows + odd[0]) // 2, (columns + odd[1]) // 2) != tuple(x.shape[1:3]):
    raise ValueError(f'max_unpool: size {size} does not pool to {tuple(x.shape[1:3])}')
  return by_rows(_unpool(odd, x, index))


def adaptive_average_pool(x: Array, bins: int) -> Array:
  """Means over a grid of bins that covers the map (PSPNet's pyramid, arXiv:1612.01105).

  Along a side of n pixels, bin i is [floor(i n / bins), ceil((i + 1) n / bins)), as in PyTorch's
  adaptive pooling: if bins does not divide n, neighbours overlap; if bins > n, pixels repeat.

  Args:
    x: [b,h,w,c] float; h and w may be dimension variables of `jax.export`.
    bins: number of bins along each side.

  Returns:
    [b,bins,bins,c] of x's dtype; sums are at least float32.
  """
  dtype, number = x.dtype, jnp.arange(bins)
  wide = jnp.promote_types(dtype, jnp.float32)
  exact = dict(precision=lax.Precision.HIGHEST, preferred_element_type=wide)
  for axis in (1, 2):
    n = x.shape[axis]
    begin, end = number * n // bins, ((number + 1) * n + bins - 1) // bins
    pixel = jnp.arange(n)[None]
    member = (begin[:, None] <= pixel) & (pixel < end[:, None])
    total = jnp.tensordot(x, member.astype(x.dtype), ((axis,), (1,)), **exact)
    size = (end - begin).astype(wide).reshape(1, 1, 1, -1)
    x = jnp.moveaxis(total / size, -1, axis)
  return x.astype(dtype)


def _lacking(n: int) -> int:
  """Returns n % 2, in a form that lets `jax.export` halve a symbolic n + _lacking(n)."""
  return 2 * ((n + 1) // 2) - n


def _lowest(dtype):
  return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _pad(x: Array, rows: tuple[int, int], columns: tuple[int, int], fill) -> Array:
  """Pads x [b,h,w,c]; negative numbers crop."""
  edges = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
  return lax.pad(x, jnp.array(fill, x.dtype), edges)


# Overlapping windows, and all others that are not 2x2.


def _ceil_pad(n: int, window: int, stride: int, pad: tuple[int, int]) -> tuple[int, int]:
  low, high = pad
  steps = -(-(n + low + high - window) // stride)
  if steps * stride >= n + low:  # Caffe drops a window that starts beyond the image
    steps -= 1
  return low, max(high, steps * stride + window - n - low)


def _windowed(window, stride, pads, x):
  shape, steps = (1, window, window, 1), (1, stride, stride, 1)
  return lax.reduce_window(x, _lowest(x.dtype), lax.max, shape, steps, ((0, 0), *pads, (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _overlapping(window, stride, pads, size, x):
  """Pools x [b, *size, c]; the gradient needs the size."""
  return _windowed(window, stride, pads, x)


def _overlapping_forward(window, stride, pads, size, x):
  """Saves each maximum's position in its window (row-major)."""
  dtype, x = x.dtype, _pad(_wide(x), *pads, _lowest(_wide(x).dtype))
  rows, columns = (max(0, n - window + 1) for n in x.shape[1:3])
  pooled = x[:, :rows:stride, :columns:stride]
  index = jnp.zeros(pooled.shape, jnp.uint8 if window < 16 else jnp.int32)
  for corner in range(1, window**2):
    i, j = divmod(corner, window)
    other = x[:, i : rows + i : stride, j : columns + j : stride]
    index = jnp.where(other > pooled, jnp.array(corner, index.dtype), index)
    pooled = jnp.maximum(pooled, other)
  return pooled.astype(dtype), index


def _wide(x: Array) -> Array:
  """Converts bfloat16 once; a CPU would do it for every comparison and addition."""
  return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def _overlapping_backward(window, stride, pads, size, index, g):
  """Sums, for each pixel of a stride x stride block, the gradients of the windows that cover it."""
  dtype, g = g.dtype, _wide(g)
  reach = (window - 1) // stride  # blocks that a window extends over, beside its first
  empty = jnp.pad(jnp.zeros_like(g), ((0, 0), (0, reach), (0, reach), (0, 0)))
  blocks = [[empty] * stride for _ in range(stride)]
  for corner in range(window**2):
    (down, row), (right, column) = (divmod(n, stride) for n in divmod(corner, window))
    part = jnp.where(index == corner, g, 0)
    edges = ((0, 0), (down, reach - down), (right, reach - right), (0, 0))
    blocks[row][column] += jnp.pad(part, edges)
  dx = jnp.stack([jnp.stack(row, axis=3) for row in blocks], axis=2)
  b, height, _, width, _, c = dx.shape
  dx = dx.reshape(b, height * stride, width * stride, c)
  edges = ((-low, low + n - m) for n, m, (low, _) in zip(size, dx.shape[1:3], pads, strict=True))
  return (_pad(dx, *edges, 0).astype(dtype),)


_overlapping.defvjp(_overlapping_forward, _overlapping_backward)


# 2x2 windows: pooling and unpooling are each other's gradients.


def _is_of_pairs(x: Array, columns: int = 1) -> bool:
  """Whether a TPU should take x [b,h,w,c], each of its columns that many, as pairs of columns."""
  static = isinstance(x.shape[2], int) and not rows_are_split()
  return static and pairs.fill_lanes(x.shape[3], columns * x.shape[2])


def _corners(x: Array, odd: tuple[int, int], fill) -> list[Array]:
  x = _pad(x, (0, odd[0]), (0, odd[1]), fill)
  if odd[1] == 0 and _is_of_pairs(x):
    return lax.platform_dependent(x, tpu=pairs.corners_of_pairs, default=_corners_of_pixels)
  return _corners_of_pixels(x)


def _corners_of_pixels(x: Array) -> list[Array]:
  starts = [(0, row, column, 0) for row in (0, 1) for column in (0, 1)]
  return [
    lax.slice(x, start, x.shape, (1, 2, 2, 1)) for start in starts
  ]  # works for symbolic sizes too


def _select(index: Array, corners: list[Array]) -> Array:
  a, b, c, d = corners
  return jnp.where(index < 2, jnp.where(index == 0, a, b), jnp.where(index == 2, c, d))


def _scatter(x: Array, index: Array, odd: tuple[int, int]) -> Array:
  """Writes x [b,h,w,c] to the corner `index` of each window."""
  default = functools.partial(_scatter_by_reshape, odd)
  tpu = functools.partial(_scatter_by_pads, odd)
  if odd[1] == 0 and _is_of_pairs(x, columns=2):
    tpu = functools.partial(pairs.scatter_pairs, odd[0])
  return lax.platform_dependent(x, index, tpu=tpu, default=default)


def _scatter_by_pads(odd, x, index):
  """For each corner pads zeros between pixels, which a TPU fuses into the following convolution."""
  spread = 0
  for corner in range(4):
    row, column = divmod(corner, 2)
    edges = ((0, 0, 0), (row, 1 - row - odd[0], 1), (column, 1 - column - odd[1], 1), (0, 0, 0))
    chosen = jnp.where(index == corner, x, 0)
    spread += lax.pad(chosen, jnp.zeros((), x.dtype), edges)
  return spread


def _scatter_by_reshape(odd, x, index):
  b, h, w, c = x.shape
  corner = lax.broadcasted_iota(index.dtype, (1, 1, 2, 1, 2, 1), 2) * 2
  corner += lax.broadcasted_iota(index.dtype, (1, 1, 2, 1, 2, 1), 4)
  spread = jnp.where(index[:, :, None, :, None] == corner, x[:, :, None, :, None], 0)
  return spread.reshape(b, 2 * h, 2 * w, c)[:, : 2 * h - odd[0], : 2 * w - odd[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool(odd, x):
  a, b, c, d = _corners(x, odd, _lowest(x.dtype))
  top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
  index = jnp.where(bottom > top, 2 + (d > c).astype(jnp.uint8), (b > a).astype(jnp.uint8))
  return jnp.maximum(top, bottom), index


def _pool_forward(odd, x):
  pooled, index = _pool(odd, x)
  return (pooled, index), index


_pool.defvjp(_pool_forward, lambda odd, index, g: (_scatter(g[0], index, odd),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unpool(odd, x, index):
  return _scatter(x, index, odd)


_unpool.defvjp(
  lambda odd, x, index: (_scatter(x, index, odd), index),
  lambda odd, index, g: (_select(index, _corners(g, odd, 0)), None),
)
