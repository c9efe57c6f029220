"""Convolutions as one matrix product (1x1 kernels, large kernels over a small map), and of an image in a border."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.layers import pairs

TILE = 8  # channels that an image in a border gets
NHWC = ('NHWC', 'HWIO', 'NHWC')


def native(pads, precision, x, kernel, strides=(1, 1), groups=1):
  options = dict(dimension_numbers=NHWC, feature_group_count=groups, precision=precision)
  return lax.conv_general_dilated(x, kernel, strides, pads, **options)


def _by_platform(**forms: Callable) -> Callable:
  """Returns a convolution with a form (how, precision, x, kernel) and its gradient for each platform."""

  @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
  def convolve(how, precision, x, kernel):
    bound = {name: functools.partial(form, how, precision) for name, form in forms.items()}
    return lax.platform_dependent(x, kernel, **bound)

  def forward(how, precision, x, kernel):
    return convolve(how, precision, x, kernel), (x, kernel)

  def backward(how, precision, saved, g):
    def gradient_of(form):
      return lambda x, kernel, g: jax.vjp(functools.partial(form, how, precision), x, kernel)[1](g)

    gradients = {name: gradient_of(form) for name, form in forms.items()}
    return lax.platform_dependent(*saved, g, **gradients)

  convolve.defvjp(forward, backward)
  return convolve


def _features_in_front(convolve, precision, x, kernel):
  """1x1 convolution to few features, which as the last axis would leave a TPU's lanes mostly empty."""
  del convolve
  if pairs.fill_lanes(x.shape[3], x.shape[2]):
    return pairs.score_pairs(precision, x, kernel)
  contract = (((0,), (3,)), ((), ()))
  return jnp.moveaxis(lax.dot_general(kernel[0, 0], x, contract, precision=precision), 0, -1)


def _border_first(how, precision, x, kernel):
  """A convolution of an image with a border around it, which is laid there first, with channels of zeros.

  If the convolution itself adds a border wider than its kernel, a TPU's weight gradient reverses the whole
  map of the output's gradient.
  """
  _, (rows, columns) = how  # the convolution of other devices, and the border
  in_pairs = are_of_pairs(x, kernel, (rows, columns)) and not any(n % 2 for n in columns)
  if in_pairs:
    x, (kernel, _) = pairs.paired(x), pairs.kernel_of_pairs(kernel, 0)
    columns = tuple(n // 2 for n in columns)
  zeros = (0, -x.shape[3] % TILE)
  x = jnp.pad(x, ((0, 0), rows, columns, zeros))
  y = native('VALID', precision, x, jnp.pad(kernel, ((0, 0), (0, 0), zeros, (0, 0))))
  return pairs.unpaired(y) if in_pairs else y


def are_of_pairs(x, kernel, pads) -> bool:
  """Whether a TPU should convolve pairs of columns: x and output of even width, few features.

  Kernels of one pixel are left alone: before and after them are maps of many channels, as such.
  """
  _, side, inputs, features = kernel.shape
  widths = x.shape[2], x.shape[2] + sum(pads[1]) - side + 1
  few = features if pairs.fill_lanes(features) else max(inputs, features)
  return side > 1 and pairs.fill_lanes(few, *widths)


def _windows_product(pads, precision, x, kernel):
  """The convolution as one float32 matrix product over all windows (im2col)."""
  kh, kw, inputs, features = kernel.shape
  dtype, x, kernel = x.dtype, x.astype(jnp.float32), kernel.astype(jnp.float32)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
  windows = [x[:, i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
  return lax.dot_general(
    jnp.concatenate(windows, axis=-1),
    kernel.reshape(kh * kw * inputs, features),
    (((3,), (0,)), ((), ())),
    precision=precision,
  ).astype(dtype)


def _pixels_product(strides, precision, x, kernel):
  """A 1x1 convolution as a matrix product: a stride only skips pixels."""
  rows, columns = strides
  x = x[:, ::rows, ::columns]
  product = _matmul(precision, x.reshape(-1, x.shape[-1]), kernel[0, 0])
  return product.reshape(*x.shape[:3], kernel.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(precision, x, matrix):
  return jnp.matmul(x, matrix, precision=precision)


def _matmul_forward(precision, x, matrix):
  return _matmul(precision, x, matrix), (x, matrix)


def _matmul_backward(precision, saved, g):
  """XLA transposes the first factor of the matrix gradient by a copy, so the narrow one goes first."""
  x, matrix = saved
  matmul = functools.partial(jnp.matmul, precision=precision)
  narrow = x.shape[1] <= g.shape[1]
  return matmul(g, matrix.T), matmul(x.T, g) if narrow else matmul(g.T, x).T


_matmul.defvjp(_matmul_forward, _matmul_backward)
convolve_windows = _by_platform(cpu=_windows_product, default=native)
convolve_pixels = _by_platform(
  cpu=_pixels_product,
  default=lambda strides, *args: native('VALID', *args, strides=strides),
)
convolve_narrow = _by_platform(
  tpu=_features_in_front, default=lambda convolve, precision, x, kernel: convolve(x, kernel)
)
convolve_pairs = _by_platform(
  tpu=lambda how, *args: pairs.convolve_pairs(how[1], *args),
  default=lambda how, precision, x, kernel: how[0](x, kernel),
)
convolve_in_border = _by_platform(
  tpu=_border_first, default=lambda how, precision, x, kernel: how[0](x, kernel)
)
