"""The depthwise convolution equals lax's in value and both gradients, for any size, stride and padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.nn.layers.depthwise import depthwise
from tests.layer_tools import check_convolution, normal


def test_values_and_gradients_by_hand():
  x = jnp.arange(1.0, 9.0).reshape(1, 4, 1, 2)  # channels 1 3 5 7 and 2 4 6 8
  kernel = jnp.array([[1.0, 0.0], [10.0, 2.0]]).reshape(2, 1, 1, 2)
  y, pull = jax.vjp(functools.partial(depthwise, (2, 1), ((0, 0), (0, 0)), None), x, kernel)
  np.testing.assert_array_equal(y[0, :, 0], [[1 + 30, 2 * 4], [5 + 70, 2 * 8]])
  dx, dkernel = pull(jnp.array([[1.0, 1.0], [3.0, 0.0]]).reshape(1, 2, 1, 2))
  np.testing.assert_array_equal(dx[0, :, 0], [[1, 0], [10, 2], [3, 0], [30, 0]])
  np.testing.assert_array_equal(dkernel[:, 0, 0], [[1 + 3 * 5, 2], [3 + 3 * 7, 4]])


@pytest.mark.parametrize(
  ('size', 'sides', 'strides', 'padding'),
  [
    ((9, 7), (3, 3), (1, 1), 'SAME'),
    ((8, 10), (5, 5), (2, 2), 'SAME'),
    ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((11, 7), (5, 2), (3, 2), ((2, 0), (1, 4))),
    ((5, 5), (2, 2), (3, 3), 'VALID'),  # pixels that no window sees
    ((4, 4), (3, 3), (1, 1), ((5, 0), (0, 6))),
  ],
)
def test_equals_lax(size, sides, strides, padding):
  check_convolution((2, *size, 3), (*sides, 1, 3), strides, padding)


def test_bfloat16_sums_in_float32():
  check_convolution((1, 7, 9, 8), (3, 3, 1, 8), (2, 2), 'SAME', jnp.bfloat16, 2e-2)


def test_two_filters_for_a_channel_stay_with_xla():
  check_convolution((1, 5, 5, 2), (3, 3, 1, 4), (1, 1), 'SAME', tolerance=0)


def test_a_batch_over_devices_is_reduced_once():
  """The kernel's gradient of a sharded batch is one sum over devices, and no map is gathered."""
  mesh = Mesh(np.array(jax.devices()[:2]), 'data')
  x = jax.device_put(normal(0, (4, 6, 6, 8)), NamedSharding(mesh, P('data')))
  kernel = jax.device_put(normal(1, (3, 3, 1, 8)), NamedSharding(mesh, P()))

  def loss(kernel, x):
    return jnp.square(depthwise((1, 1), ((1, 1), (1, 1)), None, x, kernel)).sum()

  compiled = jax.jit(jax.grad(loss)).lower(kernel, x).compile()
  text = compiled.as_text()
  assert text.count('all-reduce(') + text.count('all-reduce-start(') == 1
  assert 'all-gather' not in text
  np.testing.assert_allclose(
    compiled(kernel, x), jax.grad(loss)(normal(1, (3, 3, 1, 8)), normal(0, (4, 6, 6, 8))), rtol=1e-4
  )
