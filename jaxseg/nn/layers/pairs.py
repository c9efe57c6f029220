"""Pairs of columns: two neighbouring pixels of a row as one of twice the channels, which fills a TPU's lanes.

A TPU has the channels in its 128 lanes. A map of 64 channels leaves half of them empty, in memory, in every
addition and, in a convolution of 64 to 64, in three quarters of the matrix unit. With pairs of columns all are
full, though half of the kernel of pairs is zeros. Each layer pairs what it reads and unpairs what it
returns: XLA cancels the two reshapes, also across elementwise operations and sums in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.layers.split_rows import rows_are_split
from jaxseg.types import Array

_LANES = 128  # of the last axis of an array in a TPU's memory
_in_pairs: ContextVar[bool] = ContextVar('in_pairs', default=True)


@contextlib.contextmanager
def single_columns() -> Iterator[None]:
  """While open, layers take columns one by one: where narrow maps lie between wide ones, as a bottleneck's."""
  token = _in_pairs.set(False)
  try:
    yield
  finally:
    _in_pairs.reset(token)


def fill_lanes(features: int, *widths: int) -> bool:
  """Whether pairs of columns of maps of these (static) widths fill the lanes better than single columns."""
  narrow = _LANES // 4 < features <= _LANES // 2
  return _in_pairs.get() and narrow and all(width % 2 == 0 for width in widths)


def paired(x: Array) -> Array:
  """[b,h,w,c] -> [b,h,w/2,2c], of even width: the channels of the left column come first."""
  b, h, w, c = x.shape
  return x.reshape(b, h, w // 2, 2 * c)


def unpaired(x: Array) -> Array:
  """[b,h,w,2c] -> [b,h,2w,c], the inverse of `paired`."""
  b, h, w, c = x.shape
  return x.reshape(b, h, 2 * w, c // 2)


def kernel_of_pairs(kernel: Array, left: int) -> tuple[Array, int]:
  """Returns the kernel [kh,n,2i,2o] that convolves pairs, and the pairs to pad on the left.

  Column t (0, 1) of output pair j is column 2j + t, and reads column 2j + t + k - left at tap k: this is
  column s of pair j + d for the one d with 2d + s = t + k - left. Pairs whose columns no tap reads
  have zeros.

  Args:
    kernel: [kh,kw,i,o].
    left: columns that the convolution pads on the left.
  """
  kw = kernel.shape[1]
  first, last = -((left + 1) // 2), (kw - left) // 2  # d of the first and the last tap of pairs
  taps = last - first + 1
  before = 1 - left - 2 * first
  wide = jnp.pad(kernel, ((0, 0), (before, 2 * taps + 1 - before - kw), (0, 0), (0, 0)))
  block = [[wide[:, 1 + s - t :: 2][:, :taps] for t in (0, 1)] for s in (0, 1)]
  return jnp.concatenate([jnp.concatenate(row, axis=3) for row in block], axis=2), -first


def convolve_pairs(pads, precision, x: Array, kernel: Array) -> Array:
  """Convolution of step 1 of x [b,h,w,i] with kernel [kh,kw,i,o]; input and output of even width."""
  rows, columns = pads
  width = x.shape[2] + sum(columns) - kernel.shape[1] + 1
  pairs_kernel, left = kernel_of_pairs(kernel, columns[0])
  right = (width - x.shape[2]) // 2 - left + pairs_kernel.shape[1] - 1
  y = lax.conv_general_dilated(
    paired(x),
    pairs_kernel,
    (1, 1),
    (rows, (left, right)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision,
  )
  return unpaired(y)


def score_pairs(precision, x: Array, kernel: Array) -> Array:
  """1x1 convolution of x [b,h,w,i], w even, to few features: kernel [1,1,i,o], with them in front meanwhile."""
  (b, h, w, inputs), features = x.shape, kernel.shape[3]
  matrix, zeros = kernel[0, 0], jnp.zeros((inputs, features), kernel.dtype)
  matrix = jnp.block([[matrix, zeros], [zeros, matrix]])
  y = lax.dot_general(matrix, paired(x), (((0,), (3,)), ((), ())), precision=precision)
  y = y.reshape(2, features, b, h, w // 2)
  return y.transpose(2, 3, 4, 0, 1).reshape(b, h, w, features)


def concatenate(maps: Sequence[Array]) -> Array:
  """Concatenates the channels of maps [b,h,w,c_i]; on a TPU pairs with pairs, if all are of such."""
  pixels = [not isinstance(m.shape[2], int) or not fill_lanes(m.shape[3], m.shape[2]) for m in maps]
  if any(pixels) or rows_are_split():
    return jnp.concatenate(maps, axis=-1)
  plain = lambda *maps: jnp.concatenate(maps, axis=-1)  # noqa: E731
  return lax.platform_dependent(*maps, tpu=_concatenate_pairs, default=plain)


def _concatenate_pairs(*maps):
  left, right = zip(*(jnp.split(paired(x), 2, axis=-1) for x in maps), strict=True)
  return unpaired(jnp.concatenate(left + right, axis=-1))


def spread_pairs(x: Array, kernel: Array, precision) -> Array:
  """Transposed convolution of step 2 of x [b,h,w,i] with kernel [2,2,i,o]: a pair for each pixel and row.

  Its kernel is not flipped, see transposed.py. Returns [b,2h,2w,o].
  """
  kh, kw, inputs, features = kernel.shape
  kernel = kernel[::-1].swapaxes(1, 2).reshape(kh, 1, inputs, kw * features)
  return unpaired(lax.conv_transpose(x, kernel, (kh, 1), 'VALID', precision=precision))


def pool_pairs(odd_row: int, x: Array) -> Array:
  """2x2 maximum of step 2 of float x [b,h,w,c], w even, h + odd_row (0, 1) too: [b,ceil(h/2),w/2,c].

  Of equal maxima the upper one in the left column gets the gradient.
  """
  shape, pads = (1, 2, 1, 1), ((0, 0), (0, odd_row), (0, 0), (0, 0))
  return _larger_half(lax.reduce_window(paired(x), -jnp.inf, lax.max, shape, shape, pads))


@jax.custom_vjp
def _larger_half(x: Array) -> Array:
  """[b,h,w,2c] -> [b,h,w,c]; where both are equal, the gradient goes to the first."""
  return jnp.maximum(*jnp.split(x, 2, axis=-1))


def _larger_half_forward(x):
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.maximum(first, second), (second > first).astype(x.dtype)


def _larger_half_backward(is_second, g):
  part = g * is_second  # selections would be two passes over the map more
  return (jnp.concatenate([g - part, part], axis=-1),)


_larger_half.defvjp(_larger_half_forward, _larger_half_backward)


def corners_of_pairs(x: Array) -> list[Array]:
  """The four pixels of each 2x2 window of x [b,h,w,c], h and w even: each [b,h/2,w/2,c]."""
  x = paired(x)
  return [half for row in (0, 1) for half in jnp.split(x[:, row::2], 2, axis=-1)]


def scatter_pairs(odd_row: int, x: Array, index: Array) -> Array:
  """Writes x [b,h,w,c] to the corner `index` (0 1 / 2 3) of each window: [b,2h-odd_row,2w,c]."""
  spread = 0
  for row in (0, 1):
    halves = [jnp.where(index == 2 * row + column, x, 0) for column in (0, 1)]
    edges = ((0, 0, 0), (row, 1 - row - odd_row, 1), (0, 0, 0), (0, 0, 0))
    spread += lax.pad(jnp.concatenate(halves, axis=-1), jnp.zeros((), x.dtype), edges)
  return unpaired(spread)
