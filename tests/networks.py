"""What tests of networks share: shapes without computing, and variables and images drawn by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np


def abstract(model, shape, **options):
  """Outputs and variables of a model on an image of that shape, without computing anything."""
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  init = lambda key, x: model.init_with_output(key, x, train=False, **options)  # noqa: E731
  return jax.eval_shape(init, jax.random.key(0), image)


def size(tree):
  """Number of values."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def layer_shapes(model, shape):
  """{name of a layer, or of what the model sows: shape of its output, without the batch}."""
  _, variables = abstract(model, shape, capture_intermediates=True)
  layers = {k: v for k, v in variables['intermediates'].items() if k != '__call__'}
  first = lambda v: (v['__call__'] if isinstance(v, dict) else v)[0]  # noqa: E731
  return {name: first(value).shape[1:] for name, value in layers.items()}


def draw(model, shape, seed=0, *, neutral_norm=False):
  """Variables of the model: He-normal kernels, small biases, batch norm that changes what it gets.

  Args:
    neutral_norm: scales and variances are 1, means 0.
  """
  rng = np.random.default_rng(seed)

  def values(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      return rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype('f')
    if neutral_norm and name in ('scale', 'var', 'mean'):
      return np.full(leaf.shape, name != 'mean', np.float32)
    if name in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, leaf.shape).astype('f')
    return rng.normal(0, 0.1, leaf.shape).astype('f')

  return jax.tree_util.tree_map_with_path(values, abstract(model, shape)[1])


def image_of(shape, seed=1):
  return np.random.default_rng(seed).normal(size=shape).astype('f')
