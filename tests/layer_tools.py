"""What tests of layers share: arrays, values and gradients compared, and one device beside several."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.nn.layers import conv_general_dilated

NHWC = ('NHWC', 'HWIO', 'NHWC')


def normal(seed, shape, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def value_and_gradients(function, *args):
  """The value at `args`, and their gradients for a random one of the value."""

  def run(args, g):
    y, pull = jax.vjp(function, *args)
    return y, *pull(g)

  y = jax.eval_shape(function, *args)
  return jax.jit(run)(args, normal(9, y.shape, y.dtype))


def assert_close(got, want, tolerance):
  """Differences of each leaf are at most `tolerance` times its largest value."""
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def check_convolution(shape, kernel_shape, strides, padding, dtype=jnp.float32, tolerance=1e-5):
  """Our convolution of [b,h,w,c] by [kh,kw,i,o], in c/i groups, is lax's."""
  x, kernel = normal(0, shape, dtype), normal(1, kernel_shape, dtype)
  options = dict(dimension_numbers=NHWC, feature_group_count=shape[3] // kernel_shape[2])
  got, want = (
    value_and_gradients(lambda x, k, f=f: f(x, k, strides, padding, **options), x, kernel)
    for f in (conv_general_dilated, lax.conv_general_dilated)
  )
  assert_close(got, want, tolerance)


def check_on_devices(layer, x):
  """The gradient of a layer's variables on two devices, by pmap and on a mesh, is that on one."""
  variables = layer.init(jax.random.key(0), x)
  gradient = jax.grad(lambda v, x: jnp.sin(layer.apply(v, x)).sum())
  want, devices = gradient(variables, x), jax.devices()[:2]

  step = jax.pmap(
    lambda v, x: lax.psum(gradient(v, x), 'data'),
    axis_name='data',
    in_axes=(None, 0),
    out_axes=None,
    devices=devices,
  )
  assert_close(step(variables, x.reshape(2, -1, *x.shape[1:])), want, 1e-5)

  mesh = Mesh(np.array(devices), ('data',))
  whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P('data'))
  sharded = jax.jit(gradient, in_shardings=(whole, split), out_shardings=whole)
  text = sharded.lower(variables, x).compile().as_text()
  assert 'all-gather' not in text and 'all-reduce' in text
  assert_close(sharded(variables, x), want, 1e-5)
