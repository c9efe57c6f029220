"""Pooling and unpooling, values and gradients written out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.nn.layers import adaptive_average_pool, max_pool, max_pool_argmax, max_unpool


def _map(rows, dtype=jnp.float32):
  return jnp.array(rows, dtype)[None, :, :, None]


def _flat(x):
  return np.asarray(x[0, :, :, 0], np.float32)


def test_argmax_by_hand_first_of_ties_wins():
  x = _map([[1, 2, 5, 5], [4, 3, 5, 5], [0, -1, -2, -3], [0, 7, -4, -2]])
  pooled, index = max_pool_argmax(x)
  np.testing.assert_array_equal(_flat(pooled), [[4, 5], [7, -2]])
  np.testing.assert_array_equal(_flat(index), [[2, 0], [3, 0]])
  assert index.dtype == jnp.uint8


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_gradient_goes_to_the_first_maximum(dtype, form):
  x = _map([[1, 2, 5, 5], [4, 3, 5, 5], [0, -1, -2, -3], [0, 7, -4, -2]], dtype)
  weight = _map([[10, 20], [30, 40]], dtype)
  gradient = jax.grad(lambda x: (max_pool(x) * weight).sum())(x)
  np.testing.assert_array_equal(
    _flat(gradient), [[0, 0, 20, 0], [10, 0, 0, 0], [0, 0, 40, 0], [0, 30, 0, 0]]
  )
  assert gradient.dtype == dtype


def test_odd_size_with_and_without_ceil(form):
  x = _map([[1, 2, -3], [4, 3, -5], [-6, -7, -8]])
  np.testing.assert_array_equal(_flat(max_pool(x)), [[4]])
  np.testing.assert_array_equal(_flat(max_pool(x, ceil=True)), [[4, -3], [-6, -8]])
  pooled, index = max_pool_argmax(x)
  np.testing.assert_array_equal(_flat(index), [[2, 0], [0, 0]])
  weight = _map([[1, 2], [3, 4]])
  gradient = jax.grad(lambda x: (max_pool(x, ceil=True) * weight).sum())(x)
  np.testing.assert_array_equal(_flat(gradient), [[0, 0, 2], [1, 0, 0], [3, 0, 4]])
  gradient = jax.grad(lambda x: max_pool(x).sum())(x)
  np.testing.assert_array_equal(_flat(gradient), [[0, 0, 0], [1, 0, 0], [0, 0, 0]])
  restored = max_unpool(pooled, index, (3, 3))
  np.testing.assert_array_equal(_flat(restored), [[0, 0, -3], [4, 0, 0], [-6, 0, -8]])


def test_unpool_by_hand_value_and_gradient(form):
  x, index = _map([[5, 6]]), _map([[1, 2]], jnp.uint8)
  np.testing.assert_array_equal(_flat(max_unpool(x, index, (2, 4))), [[0, 5, 0, 0], [0, 0, 6, 0]])
  weight = _map([[1, 2, 3, 4], [5, 6, 7, 8]])
  gradient = jax.grad(lambda x: (max_unpool(x, index, (2, 4)) * weight).sum())(x)
  np.testing.assert_array_equal(_flat(gradient), [[2, 7]])
  odd = max_unpool(x, _map([[1, 0]], jnp.uint8), (1, 3))
  np.testing.assert_array_equal(_flat(odd), [[0, 5, 6]])


def test_unpool_of_argmax_pool_is_a_scatter():
  x = jax.random.randint(jax.random.key(0), (2, 7, 10, 3), 0, 4).astype(jnp.float32)  # many ties
  pooled, index = max_pool_argmax(x)
  got = np.asarray(max_unpool(pooled, index, (7, 10)))
  want = np.zeros_like(got)
  for b, i, j, c in np.ndindex(*pooled.shape):
    window = np.asarray(x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c])
    row, column = np.unravel_index(window.argmax(), window.shape)
    want[b, 2 * i + row, 2 * j + column, c] = window.max()
  np.testing.assert_array_equal(got, want)


def test_wrong_size_is_refused():
  pooled, index = max_pool_argmax(jnp.ones((1, 4, 4, 1)))
  with pytest.raises(ValueError, match='does not pool to'):
    max_unpool(pooled, index, (5, 4))


@pytest.mark.parametrize('shape', [(2, 6, 8, 3), (1, 5, 7, 2)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_equals_flax(shape, dtype):
  x = jax.random.randint(jax.random.key(0), shape, -3, 3).astype(dtype)

  def compare(ours, theirs):
    for a, b in zip(
      jax.jit(jax.value_and_grad(lambda x: (ours(x).astype(jnp.float32) ** 3).sum()))(x),
      jax.jit(jax.value_and_grad(lambda x: (theirs(x).astype(jnp.float32) ** 3).sum()))(x),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)

  compare(max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
  pad = ((0, shape[1] % 2), (0, shape[2] % 2))
  compare(lambda x: max_pool(x, ceil=True), lambda x: nn.max_pool(x, (2, 2), (2, 2), pad))


@pytest.mark.parametrize(
  ('window', 'stride', 'pad'),
  [
    (3, 2, ((1, 1), (1, 1))),
    (3, 1, ((1, 1), (2, 0))),
    (4, 3, ((0, 0), (2, 1))),
    (5, 2, ((2, 2), (2, 2))),
    (1, 2, ((0, 0), (0, 0))),
    (2, 3, ((0, 1), (0, 0))),
    (12, 1, ((0, 0), (0, 0))),  # larger than the map
  ],
)
@pytest.mark.parametrize('shape', [(2, 9, 8, 3), (1, 7, 11, 2)])
def test_windows_of_any_side_and_stride_equal_flax(window, stride, pad, shape):
  """Small whole numbers: many ties, and sums without rounding."""
  x = jax.random.randint(jax.random.key(0), shape, -3, 3).astype(jnp.float32)

  def run(pool):
    return jax.jit(jax.value_and_grad(lambda x: (pool(x) ** 3).sum()))(x)

  ours = run(lambda x: max_pool(x, window, stride, pad))
  theirs = run(lambda x: nn.max_pool(x, (window, window), (stride, stride), pad))
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_gradient_of_overlapping_windows_by_hand(form):
  """3x3 windows at stride 2 over 5x5: the centre is the maximum of all four, a corner of none."""
  x = jnp.zeros((5, 5)).at[2, 2].set(9).at[0, 0].set(5)[None, :, :, None]
  weight = jnp.array([[1.0, 2], [3, 4]])[None, :, :, None]
  gradient = jax.grad(lambda x: (max_pool(x, 3, 2) * weight).sum())(x)
  np.testing.assert_array_equal(
    _flat(gradient), np.zeros((5, 5)) + 10 * (np.eye(5) * [0, 0, 1, 0, 0])
  )


def test_other_windows_with_ceil(form):
  x = _map([[1, 2, 3, 9], [4, 5, 6, 8], [0, 0, 0, 7], [0, 1, 2, 3]])
  np.testing.assert_array_equal(_flat(max_pool(x, 3, 2)), [[6]])
  np.testing.assert_array_equal(_flat(max_pool(x, 3, 2, ceil=True)), [[6, 9], [2, 7]])
  # 3 long, padded by 1 at both ends: a third window would begin in the padding, so none
  line = _map([[1, 2, 3]])
  np.testing.assert_array_equal(_flat(max_pool(line, 1, 2, ((0, 0), (0, 0)), ceil=True)), [[1, 3]])
  np.testing.assert_array_equal(
    _flat(max_pool(_map([[1, 2, 3]] * 3), 2, 2, ((1, 1), (1, 1)), ceil=True)), [[1, 3], [1, 3]]
  )


def test_integers_infinities_and_nan():
  assert int(max_pool(jnp.full((1, 3, 3, 1), -5, jnp.int32), ceil=True).max()) == -5
  pooled, index = max_pool_argmax(jnp.full((1, 3, 3, 1), -jnp.inf))
  assert bool((index == 0).all()) and bool((pooled == -jnp.inf).all())
  assert bool(jnp.isnan(max_pool(jnp.ones((1, 2, 2, 1)).at[0, 1, 0, 0].set(jnp.nan))).all())


def _down_and_up(x):
  pooled, index = max_pool_argmax(x)
  return (max_unpool(jnp.tanh(pooled), index, x.shape[1:3]) * jnp.cos(x)).sum()


def test_pmap_mesh_and_vmap_equal_one_device():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6, 3)), jnp.float32)
  want = jax.grad(_down_and_up)(x)
  mapped = jax.vmap(jax.grad(lambda one: _down_and_up(one[None])))(x)
  np.testing.assert_allclose(mapped, want, atol=1e-6)
  mapped = jax.pmap(jax.grad(_down_and_up), devices=jax.devices()[:2])(x[:, None])
  np.testing.assert_allclose(mapped[:, 0], want, atol=1e-6)
  split = NamedSharding(Mesh(np.array(jax.devices()[:2]), ('data',)), P('data'))
  compiled = jax.jit(jax.grad(_down_and_up), in_shardings=split, out_shardings=split)
  np.testing.assert_allclose(compiled(x), want, atol=1e-6)
  assert 'all-gather' not in compiled.lower(x).compile().as_text()


def test_no_select_and_scatter_and_symbolic_export():
  x = jnp.ones((1, 5, 6, 3))
  for options in ((), (3, 2, ((1, 1), (1, 1)))):
    program = jax.jit(jax.grad(lambda x, o=options: max_pool(x, *o).sum())).lower(x).as_text()
    assert 'select_and_scatter' not in program

  def round_trip(x):
    pooled, index = max_pool_argmax(x)
    return max_unpool(pooled, index, x.shape[1:3]) + lax.stop_gradient(x)

  shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, 4*h, 4*w, 3'), jnp.float32)
  exported = jax.export.export(jax.jit(round_trip))(shape)
  image = jax.random.normal(jax.random.key(0), (2, 4, 8, 3))
  np.testing.assert_array_equal(exported.call(image), round_trip(image))


def test_a_tpu_keeps_its_own_windows_and_interleaves_nothing_by_a_reshape():
  x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)

  def lowered(function):
    traced = jax.jit(jax.grad(function)).trace(x)
    return traced.lower(lowering_platforms=('tpu',)).as_text()

  for options in ((), (3, 2, ((1, 1), (1, 1)))):
    assert 'select_and_scatter' in lowered(lambda x, o=options: max_pool(x, *o).sum())
  program = lowered(_down_and_up)
  assert 'stablehlo.pad' in program and '1x4x2x4x2x3' not in program


def test_adaptive_average_pool_by_hand():
  """Five pixels in two bins are 0..2 and 2..4; in three 0..1, 1..3 and 3..4; two in three repeat."""
  row = lambda *values: np.array(values, np.float32).reshape(1, 1, -1, 1)  # noqa: E731
  pool = jax.jit(adaptive_average_pool, static_argnums=1)
  for pixels, bins, means in (
    ((1, 2, 6, 4, 8), 2, (3, 6)),
    ((1, 2, 6, 4, 8), 3, (1.5, 4, 6)),
    ((1, 3), 3, (1, 2, 3)),
    ((1, 2, 6, 3), 2, (1.5, 4.5)),
  ):
    found, turned = (pool(x, bins) for x in (row(*pixels), row(*pixels).swapaxes(1, 2)))
    np.testing.assert_allclose(found[0, :, :, 0], np.tile(means, (bins, 1)))
    np.testing.assert_allclose(turned[0, :, :, 0].T, np.tile(means, (bins, 1)))
  first = jax.jit(jax.grad(lambda x: pool(x, 2)[0, 0, 0, 0]))(row(1, 2, 6, 4, 8))
  np.testing.assert_allclose(first.ravel(), (1 / 3, 1 / 3, 1 / 3, 0, 0), rtol=1e-6)
  many = pool(jnp.ones((1, 60, 60, 1), jnp.bfloat16), 1)
  assert many.dtype == jnp.bfloat16 and many.item() == 1
