"""Pairs of columns, which fill a TPU's lanes: the same values and gradients as single columns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg.nn.backbones.resnet import ResNet
from jaxseg.nn.layers import (
  concatenate,
  conv_general_dilated,
  conv_transpose,
  max_pool,
  max_pool_argmax,
  max_unpool,
  pairs,
  single_columns,
)
from tests.layer_tools import NHWC, check_convolution, normal


def _row(*values):
  return jnp.array(values, jnp.float32)[None, None, :, None]


def test_a_kernel_of_pairs_by_hand():
  """Taps a b c, one column padded: left of a pair reads a of the pair before, b and c of its own."""
  kernel, left = pairs.kernel_of_pairs(_row(2.0, 3.0, 5.0)[0, ..., None], 1)
  assert left == 1
  np.testing.assert_array_equal(kernel[0], [[[0, 0], [2, 0]], [[3, 2], [5, 3]], [[0, 5], [0, 0]]])
  unpadded, left = pairs.kernel_of_pairs(_row(2.0, 3.0, 5.0)[0, ..., None], 0)
  assert left == 0
  np.testing.assert_array_equal(unpadded[0], [[[2, 0], [3, 2]], [[5, 3], [0, 5]]])


def test_pairs_by_hand():
  x = _row(1, 2, 3, 4)
  np.testing.assert_array_equal(pairs.paired(x)[0, 0], [[1, 2], [3, 4]])
  np.testing.assert_array_equal(pairs.unpaired(pairs.paired(x)), x)


@pytest.mark.parametrize('features', [33, 64])
@pytest.mark.parametrize(
  ('side', 'columns'),
  [(3, (1, 1)), (3, (0, 0)), (1, (0, 0)), (7, (3, 3)), (4, (2, 1)), (3, (4, 4))],
)
def test_convolution_of_pairs(side, columns, features, form):
  padding = ((side // 2, side // 2), columns)
  check_convolution((2, 3, 8, 2), (side, side, 2, features), (1, 1), padding, jnp.float32, 1e-4)


@pytest.mark.parametrize(
  ('features', 'width', 'padding', 'platform', 'is_of_pairs'),
  [
    (64, 8, 'SAME', 'tpu', True),
    (64, 8, 'VALID', 'tpu', True),
    (64, 8, 'SAME', 'cuda', False),
    (64, 7, 'SAME', 'tpu', False),
    (64, 8, ((1, 1), (0, 1)), 'tpu', False),
    (65, 8, 'SAME', 'tpu', False),
    (32, 8, 'SAME', 'tpu', False),
  ],
)
def test_pairs_where_they_fill_lanes_on_a_tpu_alone(
  features, width, padding, platform, is_of_pairs
):
  x, kernel = jnp.ones((1, 4, width, 5)), jnp.ones((3, 3, 5, features))
  convolve = functools.partial(
    conv_general_dilated, window_strides=(1, 1), padding=padding, dimension_numbers=NHWC
  )
  text = jax.jit(convolve).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
  assert (f'x10x{2 * features}xf32' in text) == is_of_pairs


def test_a_resnet_takes_columns_one_by_one(monkeypatch):
  """Its maps of 64 channels lie between maps of 256: to pair them would cost two copies."""

  def lower(function, *args):
    return jax.jit(function).trace(*args).lower(lowering_platforms=('tpu',))

  x, kernel = jnp.ones((1, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
  convolve = functools.partial(
    conv_general_dilated, window_strides=(1, 1), padding='SAME', dimension_numbers=NHWC
  )
  monkeypatch.delattr(pairs, 'paired')
  with pytest.raises(NameError, match='paired'):
    lower(convolve, x, kernel)
  with single_columns():
    lower(convolve, x, kernel)
  net = ResNet(stage_sizes=(1, 1, 1, 1))
  lower(lambda: net.init(jax.random.key(0), jnp.ones((1, 64, 64, 3)), train=False))


@pytest.mark.parametrize(
  ('width', 'columns', 'is_of_pairs'),
  [(4, (10, 10), True), (4, (9, 11), False), (5, (10, 9), False)],
)
def test_an_image_in_a_border_is_convolved_in_pairs(width, columns, is_of_pairs, form):
  padding = ((9, 10), columns)
  check_convolution((2, 3, width, 3), (3, 3, 3, 64), (1, 1), padding, jnp.float32, 1e-4)
  if form == 'tpu':
    x, kernel = normal(0, (2, 3, width, 3)), normal(1, (3, 3, 3, 64))
    text = str(
      jax.make_jaxpr(lambda *a: conv_general_dilated(*a, (1, 1), padding, dimension_numbers=NHWC))(
        x, kernel
      )
    )
    assert ('f32[2,22,12,8]' in text and 'f32[3,2,8,128]' in text) == is_of_pairs


def test_transposed_convolution_of_pairs(form):
  x, kernel = normal(0, (2, 3, 5, 4)), normal(1, (2, 2, 4, 64))
  for transposed in (False, True):
    given = kernel.swapaxes(2, 3) if transposed else kernel
    ours = functools.partial(
      conv_transpose, strides=(2, 2), padding='VALID', transpose_kernel=transposed
    )
    theirs = functools.partial(
      lax.conv_transpose,
      strides=(2, 2),
      padding='VALID',
      transpose_kernel=transposed,
      dimension_numbers=NHWC,
    )
    value, pull = jax.vjp(ours, x, given)
    expected, expected_pull = jax.vjp(theirs, x, given)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(pull(jnp.cos(value)), expected_pull(jnp.cos(value)), strict=True):
      np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def _columns(size):
  """[1, *size, 64] of distinct values, in another order in each channel."""
  count = size[0] * size[1]
  orders = [np.random.default_rng(c).permutation(count) for c in range(64)]
  return jnp.asarray(np.stack(orders, -1).reshape(1, *size, 64), jnp.float32)


@pytest.mark.parametrize('size', [(4, 6), (5, 6), (4, 7)])
def test_pooling_of_pairs(size, form):
  x = _columns(size)
  blocks = np.full((1, -(-size[0] // 2) * 2, -(-size[1] // 2) * 2, 64), -1.0)
  blocks[:, : size[0], : size[1]] = x
  b, h, w, c = blocks.shape
  windows = blocks.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
  windows = windows.reshape(b, h // 2, w // 2, c, 4)
  np.testing.assert_array_equal(max_pool(x, ceil=True), windows.max(-1))
  pooled, index = max_pool_argmax(x)
  np.testing.assert_array_equal(pooled, windows.max(-1))
  np.testing.assert_array_equal(index, windows.argmax(-1))
  over = pooled.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]
  spread = np.where(x == over, x, 0)
  np.testing.assert_array_equal(max_unpool(pooled, index, size), spread)
  for pool in (functools.partial(max_pool, ceil=True), lambda x: max_pool_argmax(x)[0]):
    gradient = jax.grad(lambda x, pool=pool: jnp.square(pool(x)).sum())(x)
    np.testing.assert_array_equal(gradient, 2 * spread)


def test_score_of_pairs(form):
  check_convolution((2, 3, 6, 64), (1, 1, 64, 3), (1, 1), 'SAME')


def test_concatenation_of_pairs(form):
  maps = [normal(seed, (2, 3, 4, 64)) for seed in (0, 1)]
  value, pull = jax.vjp(lambda *maps: concatenate(maps), *maps)
  np.testing.assert_array_equal(value, np.concatenate(maps, -1))
  for got, expected in zip(pull(value), maps, strict=True):
    np.testing.assert_array_equal(got, expected)
  narrow = [x[..., :5] for x in maps]
  np.testing.assert_array_equal(concatenate(narrow), np.concatenate(narrow, -1))
