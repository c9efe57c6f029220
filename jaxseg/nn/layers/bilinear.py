"""Bilinear upsampling: FCN's fixed transposed convolution, and resizing.

On a TPU an axis is interpolated by a product with the matrix of all weights: interleaving pixels by a
reshape is slow there, because memory tiles span images and channels.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn.layers.split_rows import by_rows, rows_are_split, shifted
from jaxseg.types import Array

_FEW = 6  # up to this many rows or columns, resizing is one small product, also with split rows


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

  The output length is (n - 1) * factor + 2 * factor = (n + 1) * factor; it fades to zero at the border.

  Args:
    x: [b,h,w,c] float.
    factor: of the upsampling; 2, 8, 16 and 32 in the paper (kernels 4, 16, 32 and 64).
    size: (height, width) to crop to; None: no crop.
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
  start = offset or tuple(
    (length - target) // 2 for length, target in zip(x.shape[1:3], size, strict=True)
  )
  stop = tuple(first + target for first, target in zip(start, size, strict=True))
  if min(start) < 0 or stop[0] > x.shape[1] or stop[1] > x.shape[2]:
    raise ValueError(f'upsample_bilinear: no crop {size} at {start} in {tuple(x.shape[1:3])}')
  return by_rows(x[:, start[0] : stop[0], start[1] : stop[1]])


def _rows_at(x: Array, points: np.ndarray) -> Array:
  """Interpolates split rows of x [b,h,w,c] at fractional points, zeros beyond its ends.

  A device needs only its own and one neighbour's rows: there are factor * h `points`, the i-th within
  one row of i // factor.
  """
  b, h, w, c = x.shape
  x, y = by_rows(x, 1), 0.0
  for near in (-1, 0, 1):
    distance = np.abs(points.reshape(h, -1) - np.arange(h)[:, None] - near)
    weight = jnp.asarray(np.maximum(0, 1 - distance), x.dtype).reshape(1, h, -1, 1, 1)
    y += shifted(x, 1, near)[:, :, None] * weight
  return by_rows(y.reshape(b, len(points), w, c))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _upsample_line(axis: int, factor: int, x: Array) -> Array:
  """Upsamples one axis, n -> (n + 1) * factor; every output interpolates two neighbouring pixels.

  Autodiff would reduce over the factor with a strided loop, some forty times slower on a CPU.
  """
  forms = (functools.partial(form, axis, factor) for form in (_line_by_product, _line_by_shifts))
  tpu, default = forms
  return lax.platform_dependent(x, tpu=tpu, default=default)


def _line_by_shifts(axis: int, factor: int, x: Array) -> Array:
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


def _line_by_product(axis: int, factor: int, x: Array) -> Array:
  return _weighted(x, axis, _line_points(x.shape[axis], factor))


def _line_points(n: int, factor: int) -> Array:
  """Input coordinates of the (n + 1) * factor outputs; inputs are zero beyond 0..n-1."""
  return (jnp.arange((n + 1) * factor, dtype=jnp.float32) + 0.5) / factor - 1


def _upsample_line_backward(axis: int, factor: int, _, g: Array) -> tuple[Array]:
  forms = (functools.partial(form, axis, factor) for form in (_back_by_product, _back_by_slices))
  tpu, default = forms
  return (lax.platform_dependent(g, tpu=tpu, default=default),)


def _back_by_slices(axis: int, factor: int, g: Array) -> Array:
  n = g.shape[axis] // factor - 1
  total = 0.0
  for start, weight in enumerate(_bilinear_line(2 * factor).tolist()):
    stop = start + (n - 1) * factor + 1
    total += weight * lax.slice_in_dim(g, start, stop, factor, axis).astype(jnp.float32)
  return total.astype(g.dtype)


def _back_by_product(axis: int, factor: int, g: Array) -> Array:
  n = g.shape[axis] // factor - 1
  return _product(g, axis, _weights(n, _line_points(n, factor)).T)


_upsample_line.defvjp(lambda *args: (_upsample_line(*args), None), _upsample_line_backward)


def _weighted(x: Array, axis: int, points: Array) -> Array:
  """Interpolates x along an axis at `points` [m], zeros beyond its ends, as one product."""
  return _product(x, axis, _weights(x.shape[axis], points))


def _weights(n: int, points: Array) -> Array:
  """Bilinear weights of n pixels at m points, float32 [m,n]."""
  pixel = jnp.arange(n, dtype=jnp.float32)
  return jnp.maximum(0, 1 - jnp.abs(points[:, None] - pixel[None]))


def _product(x: Array, axis: int, matrix: Array) -> Array:
  """matrix [m,n] times x along an axis of length n, at the full precision of x's dtype."""
  exact = dict(precision=lax.Precision.HIGHEST if x.dtype == jnp.float32 else None)
  return jnp.moveaxis(jnp.tensordot(x, matrix.astype(x.dtype), ((axis,), (1,)), **exact), -1, axis)


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
    # The transposed convolution of the edge-padded image samples the same points.
    pads = [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    wide = _upsample_line(axis, factor, jnp.pad(x, pads, mode='edge'))
    start = factor + factor // 2
    return lax.slice_in_dim(wide, start, start + length, axis=axis)
  return _weighted(x, axis, _points(n, length, align_corners, jnp))


def _points(n: int, length: int, align_corners: bool, xp) -> Array:
  """Input coordinates (n inputs) of `length` outputs, with numpy or jax.numpy as `xp`."""
  i = xp.arange(length, dtype=xp.float32)
  if align_corners:
    return i * xp.float32(n - 1) / xp.maximum(xp.float32(length - 1), 1)
  ratio = xp.float32(n) / xp.float32(length)  # dividing first keeps half and double sizes exact
  return xp.clip((i + 0.5) * ratio - 0.5, 0, n - 1)
