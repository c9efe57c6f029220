"""Transposed convolution, FCN's bilinear upsampling and resizing against numbers and lax."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg.nn.layers import (
  ConvTranspose,
  bilinear_kernel,
  conv_transpose,
  resize_bilinear,
  upsample_bilinear,
)
from tests.layer_tools import assert_close, check_on_devices, normal, value_and_gradients


def test_worked_example(form):
  x = jnp.array([5.0, 8.0]).reshape(1, 1, 2, 1)
  kernel = jnp.array([1.0, 2.0, 1.0]).reshape(1, 3, 1, 1)
  y = conv_transpose(x, kernel, (1, 2), 'VALID')
  np.testing.assert_array_equal(y.reshape(-1), [5, 10, 13, 16, 8])


def test_worked_example_gradient_in_two_dimensions(form):
  x = jnp.array([[5.0, 8.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
  kernel = jnp.array([[1.0, 2, 1], [0, 0, 0], [0, 0, 0]]).reshape(3, 3, 1, 1)[::-1]
  weight = jnp.arange(25.0).reshape(1, 5, 5, 1)  # only its first row meets x's first row

  def weighted(x, kernel):
    y = conv_transpose(x, kernel, (2, 2), 'VALID')
    return (y * weight).sum(), y

  (_, y), (dx, dkernel) = jax.value_and_grad(weighted, (0, 1), has_aux=True)(x, kernel)
  np.testing.assert_array_equal(y[0, :, :, 0], [[5, 10, 13, 16, 8]] + [[0] * 5] * 4)
  np.testing.assert_array_equal(dx[0, :, :, 0], [[4, 12], [44, 52]])
  # kernel column j (flipped) meets weight[row, 2 - j] for x = 5 and weight[row, 4 - j] for x = 8
  row = np.array([5 * 2 + 8 * 4, 5 * 1 + 8 * 3, 5 * 0 + 8 * 2])
  np.testing.assert_array_equal(dkernel[:, :, 0, 0], [row + 13 * 10, row + 13 * 5, row])


def test_two_by_two_is_blocks_of_the_flipped_kernel(form):
  x = jnp.array([[1.0, 10.0]]).reshape(1, 1, 2, 1)
  kernel = jnp.array([[1.0, 2], [3, 4]]).reshape(2, 2, 1, 1)
  want = [[4, 3, 40, 30], [2, 1, 20, 10]]
  np.testing.assert_array_equal(conv_transpose(x, kernel, (2, 2), 'SAME')[0, :, :, 0], want)
  want = [[1, 2, 10, 20], [3, 4, 30, 40]]
  y = conv_transpose(x, kernel, (2, 2), 'SAME', transpose_kernel=True)
  np.testing.assert_array_equal(y[0, :, :, 0], want)


@pytest.mark.parametrize(
  ('sides', 'strides', 'padding', 'transpose_kernel'),
  [
    ((2, 2), (2, 2), 'SAME', False),
    ((2, 2), (2, 2), 'VALID', True),
    ((3, 3), (2, 2), 'SAME', True),  # the Keras U-Net
    ((4, 4), (2, 2), 'VALID', False),  # FCN's learned upsampling
    ((2, 5), (3, 2), 'VALID', False),
    ((2, 5), (3, 2), 'SAME', True),
    ((3, 2), (1, 1), 'SAME', False),
    ((3, 3), (2, 2), ((1, 2), (2, 1)), True),
  ],
)
def test_equals_lax(sides, strides, padding, transpose_kernel):
  x = normal(0, (2, 3, 5, 4))
  kernel = normal(1, (*sides, *((3, 4) if transpose_kernel else (4, 3))))
  options = dict(transpose_kernel=transpose_kernel)
  got, want = (
    value_and_gradients(lambda x, k, f=f: f(x, k, strides, padding, **options), x, kernel)
    for f in (conv_transpose, lax.conv_transpose)
  )
  assert_close(got, want, 1e-5)


@pytest.mark.parametrize('side', [2, 3])
def test_equals_lax_in_bfloat16(side):
  x = normal(0, (2, 3, 5, 4), jnp.bfloat16)
  kernel = normal(1, (side, side, 4, 3), jnp.bfloat16)
  got, want = (
    value_and_gradients(lambda x, k, f=f: f(x, k, (2, 2), 'SAME'), x, kernel)
    for f in (conv_transpose, lax.conv_transpose)
  )
  assert_close(got, want, 1e-2)


@pytest.mark.parametrize(
  ('side', 'options'), [(2, dict()), (3, dict(use_bias=False, transpose_kernel=True))]
)
def test_layer_is_nn_conv_transpose(side, options):
  x = normal(2, (1, 3, 4, 5))
  ours, theirs = (
    layer(6, (side, side), (2, 2), **options) for layer in (ConvTranspose, nn.ConvTranspose)
  )
  variables = theirs.init(jax.random.key(0), x)
  assert_close(ours.init(jax.random.key(0), x), variables, 0)
  got, want = (value_and_gradients(layer.apply, variables, x) for layer in (ours, theirs))
  assert_close(got, want, 1e-5)


def test_layer_on_pmap_and_mesh_equals_one_device():
  class Up(nn.Module):
    @nn.compact
    def __call__(self, x):
      return ConvTranspose(4, (3, 3), (2, 2))(ConvTranspose(6, (2, 2), (2, 2))(x))

  check_on_devices(Up(), normal(2, (2, 3, 4, 5)))


def test_bilinear_kernel_by_hand():
  line = np.array([1, 3, 3, 1]) / 4
  np.testing.assert_array_equal(bilinear_kernel(4), np.outer(line, line).astype(np.float32))
  np.testing.assert_array_equal(
    bilinear_kernel(3), np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
  )
  assert bilinear_kernel(4).dtype == np.float32


def test_upsample_by_hand(form):
  x = jnp.array([4.0, 8.0]).reshape(1, 1, 2, 1)
  y = upsample_bilinear(x, 2)
  row = np.array([1, 3, 5, 7, 6, 2])  # 4 * [1,3,3,1]/4 and, two further, 8 * [1,3,3,1]/4
  np.testing.assert_array_equal(y[0, :, :, 0], np.outer([0.25, 0.75, 0.75, 0.25], row))
  gradient = jax.grad(lambda x: upsample_bilinear(x, 2)[:, 1, 2:4].sum())(x)
  np.testing.assert_array_equal(gradient.reshape(-1), [0.75 * (0.75 + 0.25), 0.75 * (0.25 + 0.75)])


def _depthwise(x, factor):
  """The definition: a depthwise transposed convolution with the fixed kernel."""
  line = jnp.asarray(bilinear_kernel(2 * factor), x.dtype)[:, :, None, None]
  channels = [x[..., c : c + 1] for c in range(x.shape[-1])]
  strides = (factor, factor)
  return jnp.concatenate([lax.conv_transpose(c, line, strides, 'VALID') for c in channels], -1)


@pytest.mark.parametrize('factor', [2, 3, 8, 32])
def test_upsample_equals_the_transposed_convolution(factor, form):
  x = normal(0, (1, 2, 3, 2))
  got, want = (
    value_and_gradients(lambda x, f=f: f(x, factor), x) for f in (upsample_bilinear, _depthwise)
  )
  assert got[0].shape == (1, 3 * factor, 4 * factor, 2)
  assert_close(got, want, 1e-5)


def test_upsample_crops():
  x = normal(0, (1, 3, 4, 2), jnp.bfloat16)
  whole = upsample_bilinear(x, 2)
  assert whole.dtype == jnp.bfloat16
  np.testing.assert_array_equal(upsample_bilinear(x, 2, size=(6, 8)), whole[:, 1:7, 1:9])
  cropped = upsample_bilinear(x, 2, size=(3, 4), offset=(2, 5))
  np.testing.assert_array_equal(cropped, whole[:, 2:5, 5:9])
  with pytest.raises(ValueError, match='no crop'):
    upsample_bilinear(x, 2, size=(9, 8))


def test_resize_by_hand(form):
  x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
  np.testing.assert_array_equal(resize_bilinear(x, (1, 4)).reshape(-1), [0, 1, 3, 4])
  aligned = resize_bilinear(x, (1, 5), align_corners=True).reshape(-1)
  np.testing.assert_array_equal(aligned, [0, 1, 2, 3, 4])
  gradient = jax.grad(lambda x: resize_bilinear(x, (1, 4))[0, 0, :2].sum())(x)
  np.testing.assert_array_equal(gradient.reshape(-1), [1.75, 0.25])
  line = jnp.array([0.0, 3.0, 6.0, 9.0]).reshape(1, 1, 4, 1)
  np.testing.assert_array_equal(resize_bilinear(line, (1, 2)).reshape(-1), [1.5, 7.5])
  aligned = resize_bilinear(line, (1, 2), align_corners=True).reshape(-1)
  np.testing.assert_array_equal(aligned, [0, 9])


@pytest.mark.parametrize('size', [(10, 32), (5, 12), (7, 3)])
def test_resize_equals_jax_image(size):
  x = normal(0, (2, 5, 4, 3))
  got = value_and_gradients(lambda x: resize_bilinear(x, size), x)
  theirs = functools.partial(jax.image.resize, shape=(2, *size, 3), method='bilinear')
  assert_close(got, value_and_gradients(lambda x: theirs(x, antialias=False), x), 1e-5)


def test_symbolic_export():
  def up(x):
    h, w = x.shape[1:3]
    x = conv_transpose(x, jnp.ones((2, 2, 3, 3)), (2, 2), 'SAME')
    x = conv_transpose(x, jnp.ones((3, 3, 3, 3)), (2, 2), 'SAME')
    x = upsample_bilinear(x, 2, size=(8 * h, 8 * w), offset=(1, 1))
    x = resize_bilinear(x, (16 * h, 16 * w))
    return resize_bilinear(x, (17 * h, 17 * w), align_corners=True)

  shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, 4*h, 4*w, 3'), jnp.float32)
  exported = jax.export.export(jax.jit(up))(shape)
  image = normal(0, (2, 4, 8, 3))
  np.testing.assert_allclose(exported.call(image), up(image), rtol=1e-4, atol=1e-4)
