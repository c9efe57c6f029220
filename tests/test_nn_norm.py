"""Batch normalisation against flax and by hand, local response normalisation by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.nn.layers import BatchNorm, local_contrast_norm, local_response_norm, norm


def _train(layer, variables, x, **options):
  def loss(params, x):
    y, state = layer.apply({**variables, 'params': params}, x, mutable=['batch_stats'], **options)
    return (jnp.sin(y.astype(jnp.float32) * 2)).sum(), (y, state)

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables['params'], x)


def _close(got, want, tolerance):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()))


def _variables(features):
  return {
    'params': {'scale': jnp.linspace(0.5, 2, features), 'bias': jnp.linspace(-1, 1, features)},
    'batch_stats': {'mean': jnp.linspace(0, 3, features), 'var': jnp.linspace(1, 2, features)},
  }


def test_by_hand():
  x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 2, 2, 1)  # mean 4, biased variance 5
  layer = BatchNorm(momentum=0.9, epsilon=4.0)  # standard deviation 3
  variables = layer.init(jax.random.key(0), x, False)
  assert float(variables['batch_stats']['mean'][0]) == 0  # initialising updates nothing
  y, state = layer.apply(variables, x, False, mutable=['batch_stats'])
  np.testing.assert_allclose(y.reshape(-1), [-1, -1 / 3, 1 / 3, 1], rtol=1e-6)
  np.testing.assert_allclose(state['batch_stats']['mean'], [0.4], rtol=1e-6)
  np.testing.assert_allclose(state['batch_stats']['var'], [0.9 + 0.5], rtol=1e-6)
  variables = {
    'params': variables['params'],
    'batch_stats': {'mean': jnp.ones(1), 'var': jnp.full(1, 12.0)},
  }
  y = layer.apply(variables, x, True)
  np.testing.assert_allclose(y.reshape(-1), [0, 0.5, 1, 1.5], rtol=1e-6)


def test_gradient_by_hand():
  x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1)
  layer = BatchNorm(epsilon=4.0)
  variables = layer.init(jax.random.key(0), x, False)

  def first(params, x):
    stats = variables['batch_stats']
    return layer.apply({'params': params, 'batch_stats': stats}, x, False, mutable=['batch_stats'])[
      0
    ][0, 0]

  params, dx = jax.grad(first, (0, 1))(variables['params'], x)
  assert float(params['bias'][0]) == 1 and float(params['scale'][0]) == -1
  # (g - mean(g) - unit * mean(g * unit)) / 3 with g = (1, 0, 0, 0), unit = (-1, -1/3, 1/3, 1)
  want = (np.array([1, 0, 0, 0]) - 0.25 - np.array([-1, -1 / 3, 1 / 3, 1]) * -0.25) / 3
  np.testing.assert_allclose(dx.reshape(-1), want, rtol=1e-5)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_equals_flax(dtype, tolerance):
  x = (jax.random.normal(jax.random.key(0), (3, 4, 5, 6)) * 3 + 1).astype(dtype)
  ours = BatchNorm(momentum=0.8, epsilon=1e-3, dtype=dtype)
  theirs = nn.BatchNorm(momentum=0.8, epsilon=1e-3, dtype=dtype, use_fast_variance=False)
  variables = _variables(6)
  fresh = ours.init(jax.random.key(0), x, False)
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
  got, want = (_train(layer, variables, x, use_running_average=False) for layer in (ours, theirs))
  _close(got, want, tolerance)
  got, want = (_train(layer, variables, x, use_running_average=True) for layer in (ours, theirs))
  _close(got, want, tolerance)


def test_two_pass_variance_survives_a_large_mean():
  x = 1e4 + jnp.array([-1.0, 1.0]).reshape(2, 1)
  y, state = BatchNorm(momentum=0.0).apply(_variables(1), x, False, mutable=['batch_stats'])
  np.testing.assert_allclose(state['batch_stats']['var'], [1.0], rtol=1e-6)


@pytest.mark.parametrize('near', [4.0, 0.0, 9.0])
def test_a_tpu_reads_the_map_once_for_the_same_moments(near):
  x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 2, 2, 1)  # mean 4, biased variance 5
  mean, var = norm._moments_in_one_pass(x, jnp.array([near]))
  np.testing.assert_allclose([mean[0], var[0]], [4, 5], rtol=1e-6)
  large = 1e4 + jnp.array([-1.0, 1.0]).reshape(2, 1)  # squares alone would lose the variance
  mean, var = norm._moments_in_one_pass(large, jnp.array([9999.0]))
  np.testing.assert_allclose([mean[0], var[0]], [1e4, 1], rtol=1e-6)
  traced = jax.jit(lambda x: norm._moments(None, x, x[0, 0, 0])).trace(x)
  sums = [traced.lower(lowering_platforms=(p,)).as_text() for p in ('tpu', 'cpu')]
  assert ['maximum' in text for text in sums] == [True, False]


def test_pmap_and_mesh_see_the_whole_batch():
  x = jax.random.normal(jax.random.key(0), (4, 3, 2, 5))
  variables = _variables(5)
  (_, (_, state)), (params, dx) = _train(BatchNorm(), variables, x, use_running_average=False)

  def step(x):
    layer = BatchNorm(axis_name='data')
    (_, (_, state)), (params, dx) = _train(layer, variables, x, use_running_average=False)
    return state, lax.psum(params, 'data'), dx

  devices = jax.devices()[:2]
  mapped = jax.pmap(step, axis_name='data', devices=devices)(x.reshape(2, 2, 3, 2, 5))
  for device in range(2):
    _close(jax.tree.map(lambda t, d=device: t[d], mapped[:2]), (state, params), 1e-5)
  _close(mapped[2].reshape(x.shape), dx, 1e-5)

  split = NamedSharding(Mesh(np.array(devices), ('data',)), P('data'))
  train = functools.partial(_train, BatchNorm(), variables, use_running_average=False)
  compiled = jax.jit(train, in_shardings=split)
  (_, (_, same)), gradients = compiled(x)
  _close((same, *gradients), (state, params, dx), 1e-5)


def test_local_response_norm_by_hand():
  x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
  y = local_response_norm(x, size=3, alpha=3.0, beta=0.5, k=4.0)
  want = [1 / np.sqrt(4 + 5), 2 / np.sqrt(4 + 14), 3 / np.sqrt(4 + 13)]
  np.testing.assert_allclose(y.reshape(-1), want, rtol=1e-6)
  y = local_response_norm(x)
  np.testing.assert_allclose(y.reshape(-1), np.arange(1, 4) / (1 + 2e-5 * 14) ** 0.75, rtol=1e-6)
  gradient = jax.grad(lambda x: local_response_norm(x, size=1, alpha=1.0, beta=1.0).sum())(x)
  np.testing.assert_allclose(gradient.reshape(-1), [0, -3 / 25, -8 / 100], rtol=1e-5, atol=1e-7)
  assert local_response_norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_local_contrast_norm_by_hand():
  """Three pixels in a row, two channels, and a window of three."""
  x = np.array([[1.0, 3.0], [4.0, 4.0], [9.0, 5.0]], np.float32).reshape(1, 1, 3, 2)
  side = np.exp(-0.5 * 2**2)  # one pixel away, of a deviation of half a pixel
  weights = np.array([[1, side, 0], [side, 1, side], [0, side, 1]])
  weights /= weights.sum(axis=1, keepdims=True)
  v = x[0, 0] - (weights @ x[0, 0].mean(axis=1))[:, None]
  deviation = np.sqrt(weights @ (v**2).mean(axis=1))
  want = v / np.maximum(deviation, deviation.mean())[:, None]
  np.testing.assert_allclose(local_contrast_norm(jnp.array(x), 3)[0, 0], want, rtol=1e-5)


def test_local_contrast_norm_of_brighter_and_of_even_images():
  x = jnp.array(np.random.default_rng(0).integers(0, 256, (2, 12, 15, 3)), jnp.float32)
  y = local_contrast_norm(x)
  np.testing.assert_allclose(local_contrast_norm(3 * x + 40), y, atol=1e-3)
  even = local_contrast_norm(jnp.full((1, 12, 15, 3), 200.0))
  assert jnp.isfinite(even).all() and jnp.abs(even).max() < 0.1
  gradient = jax.grad(lambda x: local_contrast_norm(x)[0, 5, 5, 0])(jnp.full((1, 12, 15, 3), 7.0))
  assert jnp.isfinite(gradient).all()
  assert local_contrast_norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
