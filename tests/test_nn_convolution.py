"""The fast convolution equals lax's in value and gradient, on one device and on several."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg.nn.layers import Conv, conv_general_dilated, convolution, laid_out_by_class
from tests.layer_tools import NHWC, assert_close, check_convolution, check_on_devices, normal


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Tiny maps take the blocked weight gradient too, in blocks of a few rows."""
  monkeypatch.setattr(convolution, '_MIN_PIXELS', 1)
  monkeypatch.setattr(convolution, '_BLOCK_BYTES', 4096)


def _inputs(shape, kernel_shape, dtype=jnp.float32):
  return normal(0, shape, dtype), normal(1, kernel_shape, dtype)


def test_hand_written_gradient():
  x = jnp.arange(1.0, 7.0).reshape(1, 2, 3, 1)  # 1 2 3 / 4 5 6
  kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1, 1)

  def weighted(x, kernel):
    y = conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=NHWC)
    return (y.reshape(4) * jnp.array([1.0, 0, 0, 2])).sum(), y

  (_, y), (dx, dkernel) = jax.value_and_grad(weighted, (0, 1), has_aux=True)(x, kernel)
  np.testing.assert_array_equal(y.reshape(2, 2), [[21, 32], [54, 65]])
  np.testing.assert_array_equal(dx.reshape(2, 3), [[1, 10, 0], [0, 2, 20]])
  np.testing.assert_array_equal(dkernel.reshape(2), [1 * 1 + 2 * 5, 1 * 2 + 2 * 6])


@pytest.mark.parametrize(
  ('sides', 'padding', 'dtype', 'tolerance'),
  [
    ((3, 3), 'SAME', jnp.float32, 1e-5),
    ((3, 3), 'SAME', jnp.bfloat16, 1e-2),
    ((3, 3), ((5, 0), (1, 3)), jnp.float32, 1e-5),  # FCN pads its first convolution by 100
    ((2, 3), 'VALID', jnp.float32, 1e-5),
    ((1, 1), 'SAME', jnp.float32, 1e-5),
    ((7, 7), 'SAME', jnp.float32, 1e-5),  # one product of windows, as in FCN's fc6
    ((7, 7), 'VALID', jnp.float32, 1e-5),
    ((4, 5), ((0, 2), (7, 1)), jnp.float32, 1e-5),
    ((7, 7), 'SAME', jnp.bfloat16, 1e-2),
  ],
)
def test_equals_lax(sides, padding, dtype, tolerance):
  check_convolution((2, 11, 7, 9), (*sides, 9, 6), (1, 1), padding, dtype, tolerance)


@pytest.mark.parametrize('strides', [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize(
  'padding', ['SAME', 'SAME_LOWER', 'VALID', ((0, 0), (0, 0)), ((1, 0), (0, 2))]
)
def test_one_pixel_kernels_of_any_stride_equal_lax(strides, padding):
  check_convolution((2, 11, 8, 5), (1, 1, 5, 6), strides, padding)


@pytest.mark.parametrize(
  'options',
  [
    dict(window_strides=(2, 2)),
    dict(rhs_dilation=(2, 2)),
    dict(lhs_dilation=(2, 1), padding=((1, 1), (1, 1))),
    dict(feature_group_count=2),
    dict(padding=((-1, 1), (0, 0))),
    dict(dimension_numbers=('NHWC', 'HWIO', 'NCHW')),
  ],
)
def test_other_calls_are_native(options):
  options = dict(window_strides=(1, 1), padding='SAME', dimension_numbers=NHWC) | options
  x, kernel = _inputs((1, 8, 8, 4), (3, 3, 4 // options.get('feature_group_count', 1), 4))
  ours, theirs = (
    jax.make_jaxpr(lambda x, k, f=f: f(x, k, **options))(x, kernel)
    for f in (conv_general_dilated, lax.conv_general_dilated)
  )
  assert str(ours) == str(theirs)


def test_small_maps_and_large_kernels_are_native(monkeypatch):
  def is_custom(x, kernel):
    convolve = functools.partial(conv_general_dilated, dimension_numbers=NHWC)
    program = jax.make_jaxpr(lambda x, k: convolve(x, k, (1, 1), 'SAME'))(x, kernel)
    return 'custom_vjp' in str(program)

  monkeypatch.setattr(convolution, '_MIN_PIXELS', 16384)
  assert is_custom(*_inputs((1, 128, 128, 1), (3, 3, 1, 1)))
  assert not is_custom(*_inputs((1, 128, 127, 1), (3, 3, 1, 1)))
  assert not is_custom(*_inputs((1, 128, 128, 1), (7, 7, 1, 1)))
  assert is_custom(*_inputs((1, 4, 4, 8), (1, 1, 8, 1)))
  assert is_custom(*_inputs((1, 128, 128, 8), (3, 3, 8, 1), jnp.bfloat16))
  assert not is_custom(*_inputs((1, 128, 128, 3), (3, 3, 3, 1), jnp.bfloat16))


def _layer_gradients(layer, variables, x):
  def loss(variables, x):
    return jnp.sin(layer.apply(variables, x)).sum()

  return jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, x)


@pytest.mark.parametrize('wrap', [lambda m: m, nn.remat], ids=['plain', 'remat'])
def test_layer_is_nn_conv(wrap):
  x = normal(1, (2, 9, 6, 3))
  ours, theirs = wrap(Conv)(4, (3, 3)), nn.Conv(4, (3, 3))
  variables = theirs.init(jax.random.key(0), x)
  same = ours.init(jax.random.key(0), x)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, variables))
  got, want = (_layer_gradients(layer, variables, x) for layer in (ours, theirs))
  assert_close(got, want, 1e-5)


@pytest.mark.parametrize(
  ('sides', 'padding', 'channels'),
  [
    ((3, 3), 'SAME', (9, 6)),
    ((3, 3), 'VALID', (9, 6)),
    ((3, 2), ((2, 1), (0, 1)), (9, 6)),
    ((1, 1), 'VALID', (9, 6)),
    ((3, 3), 'SAME', (9, 4)),  # products forward, native input gradient
    ((3, 3), 'SAME', (4, 9)),  # the other way round
  ],
)
@pytest.mark.parametrize('min_pixels', [1, 10**9])
def test_bfloat16_products_equal_lax(sides, padding, channels, min_pixels, monkeypatch):
  monkeypatch.setattr(convolution, '_MIN_PRODUCT_CHANNELS', 6)
  monkeypatch.setattr(convolution, '_MIN_BFLOAT16_CHANNELS', 1)
  monkeypatch.setattr(convolution, '_MIN_PIXELS', min_pixels)
  check_convolution(
    (2, 11, 7, channels[0]), (*sides, *channels), (1, 1), padding, jnp.bfloat16, 1e-2
  )


def test_bfloat16_takes_the_product_from_128_channels():
  def has_product(channels, dtype):
    x, kernel = _inputs((1, 8, 8, channels), (3, 3, channels, 2), dtype)
    program = jax.make_jaxpr(
      lambda x, k: conv_general_dilated(x, k, (1, 1), 'SAME', dimension_numbers=NHWC)
    )
    return 'dot_general' in str(program(x, kernel))

  assert has_product(128, jnp.bfloat16)
  assert not has_product(127, jnp.bfloat16)
  assert not has_product(128, jnp.float32)


def test_pmap_and_mesh_equal_one_device():
  check_on_devices(Conv(4, (3, 3)), normal(1, (4, 9, 6, 3)))


def test_vmap_and_symbolic_export():
  x, kernel = _inputs((3, 2, 5, 6, 2), (3, 3, 2, 4))

  def convolve(x):
    return conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=NHWC)

  per_image = jax.vmap(jax.grad(lambda x: jnp.sin(convolve(x)).sum()))(x)
  want = jnp.stack([jax.grad(lambda x: jnp.sin(convolve(x)).sum())(one) for one in x])
  np.testing.assert_allclose(per_image, want, rtol=1e-5, atol=1e-5)

  shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, 4*h, 4*w, 2'), jnp.float32)
  exported = jax.export.export(jax.jit(convolve), platforms=('cpu', 'cuda', 'tpu'))(shape)
  image = jnp.ones((1, 8, 12, 2))
  np.testing.assert_allclose(exported.call(image), convolve(image), rtol=1e-6)


def test_a_1x1_convolution_to_few_features_on_a_tpu(form):
  check_convolution((2, 5, 6, 8), (1, 1, 8, 3), (1, 1), 'SAME')


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_an_image_in_a_wide_border_on_a_tpu(dtype, tolerance, form):
  check_convolution((2, 5, 6, 3), (3, 3, 3, 4), (1, 1), ((5, 4), (4, 6)), dtype, tolerance)


@pytest.mark.parametrize(
  ('padding', 'laid'), [(((9, 9), (9, 9)), True), (((9, 9), (1, 1)), False), ('SAME', False)]
)
def test_on_a_tpu_alone_a_wide_border_is_laid_first(padding, laid):
  x, kernel = _inputs((1, 4, 4, 3), (3, 3, 3, 2), jnp.bfloat16)
  convolve = functools.partial(
    conv_general_dilated, window_strides=(1, 1), padding=padding, dimension_numbers=NHWC
  )
  for platform, expected in (('tpu', laid), ('cuda', False)):
    text = jax.jit(convolve).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ('tensor<1x22x22x8xbf16>, tensor<3x3x8x2xbf16>' in text) == expected


def test_classes_lie_in_front_on_a_tpu_alone(form):
  logits = normal(0, (2, 4, 5, 3))
  value, pull = jax.vjp(laid_out_by_class, logits)
  np.testing.assert_array_equal(value, logits)
  np.testing.assert_array_equal(pull(2 * logits)[0], 2 * logits)


@pytest.mark.parametrize('classes, platform, asked', [(3, 'tpu', 2), (65, 'tpu', 0), (3, 'cpu', 0)])
def test_a_layout_is_asked_for_where_classes_are_few(classes, platform, asked):
  square = jax.grad(lambda x: jnp.square(laid_out_by_class(x)).sum())
  traced = jax.jit(square).trace(jax.ShapeDtypeStruct((2, 4, 5, classes), jnp.float32))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('@LayoutConstraint') == asked
