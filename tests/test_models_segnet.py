"""SegNet against the authors' release (layers, sizes, numbers of parameters) and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models.segnet import Model
from jaxseg.nn.layers import BatchNorm
from tests.networks import abstract, draw, layer_shapes, size


def image_of(shape, seed=1):
  return np.random.default_rng(seed).integers(0, 256, size=shape).astype(np.float32)


@pytest.mark.parametrize(
  'expected, options',
  [
    (29449355, dict(num_classes=11)),
    (29449932, dict(num_classes=12)),
    (29464357, dict(num_classes=37)),
    (29464934, dict(num_classes=38)),
    (29455125, dict(num_classes=21)),
    (29441419, dict(num_classes=11, use_bias=False)),
    (29449355, dict(num_classes=11, bayesian=True)),
    (1416587, dict(num_classes=11, variant='basic')),
    (1416587, dict(num_classes=11, variant='basic', bayesian=True)),
  ],
)
def test_parameter_counts(expected, options):
  outputs, variables = abstract(Model(**options), (1, 360, 480, 3))
  assert size(variables['params']) == expected
  assert outputs['logits'].shape == (1, 360, 480, options['num_classes'])


def test_encoder_is_vgg16_with_batch_norm():
  _, variables = abstract(Model(num_classes=11), (1, 360, 480, 3))
  is_decoder = lambda name: '_D' in name  # noqa: E731
  sizes = {True: 0, False: 0}
  for name, layer in variables['params'].items():
    sizes[is_decoder(name)] += size(layer)
  assert sizes == {False: 14723136, True: 29449355 - 14723136}
  assert 'conv1_1_D_bn' not in variables['params']  # the classifier: no batch norm


def test_any_size_is_taken():
  assert Model(num_classes=2).size_rule.allows(1)
  assert abstract(Model(num_classes=2, width=4), (2, 37, 1, 4))[0]['logits'].shape == (2, 37, 1, 2)


def test_without_bayesian_nothing_drops_out():
  for variant in ('vgg16', 'basic'):
    shapes = layer_shapes(Model(num_classes=11, variant=variant), (1, 23, 30, 3))
    assert not [name for name in shapes if 'drop' in name]


# The same networks in plain NumPy. Kernels are [kh,kw,in,out].


def convolve(x, layer):
  size = layer['kernel'].shape[0]
  pad = size // 2
  x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
  return np.einsum('hwiyx,yxio->hwo', windows, layer['kernel']) + layer['bias']


def pool(x):
  """2x2 maximum, sizes rounded up, and for each the (row, column) where it was; first one wins."""
  h, w, channels = x.shape
  out_h, out_w = (h + 1) // 2, (w + 1) // 2
  values = np.zeros((out_h, out_w, channels), np.float32)
  places = np.zeros((out_h, out_w, channels, 2), int)
  for i, j, c in np.ndindex(values.shape):
    cells = [(y, z) for y in (2 * i, 2 * i + 1) for z in (2 * j, 2 * j + 1) if y < h and z < w]
    best = max(cells, key=lambda cell: x[cell[0], cell[1], c])  # noqa: B023
    values[i, j, c], places[i, j, c] = x[best[0], best[1], c], best
  return values, places, (h, w)


def unpool(x, places, size):
  out = np.zeros((*size, x.shape[2]), np.float32)
  for i, j, c in np.ndindex(x.shape):
    out[places[i, j, c, 0], places[i, j, c, 1], c] = x[i, j, c]
  return out


def reference(variables, x, variant):
  params = variables['params']

  def unit(x, name, relu=True):
    x = convolve(x, params[name]) * params[f'{name}_bn']['scale'] + params[f'{name}_bn']['bias']
    return np.maximum(x, 0) if relu else x

  memory = []
  if variant == 'basic':
    squares = np.pad(x**2, ((0, 0), (0, 0), (2, 2)))
    sums = sum(squares[..., i : i + x.shape[2]] for i in range(5))
    x = x / (1 + 1e-4 / 5 * sums) ** 0.75
    for stage in (1, 2, 3, 4):
      x, *rest = pool(unit(x, f'conv{stage}'))
      memory.append(rest)
    for stage in (4, 3, 2, 1):
      x = unit(unpool(x, *memory.pop()), f'conv_decode{stage}', relu=False)
    return convolve(x, params['conv_classifier'])
  for stage, convolutions in ((1, '12'), (2, '12'), (3, '123'), (4, '123'), (5, '123')):
    for i in convolutions:
      x = unit(x, f'conv{stage}_{i}')
    x, *rest = pool(x)
    memory.append(rest)
  for stage, convolutions in ((5, '321'), (4, '321'), (3, '321'), (2, '21'), (1, '2')):
    x = unpool(x, *memory.pop())
    for i in convolutions:
      x = unit(x, f'conv{stage}_{i}_D')
  return convolve(x, params['conv1_1_D'])


@pytest.mark.parametrize('variant', ['vgg16', 'basic'])
def test_logits_equal_numpy(variant):
  model = Model(num_classes=3, variant=variant, width=2)
  image = image_of((1, 13, 18, 3))  # odd at every level
  variables = draw(model, image.shape, neutral_norm=True)
  logits = jax.jit(lambda v, x: model.apply(v, x, train=False)['logits'])(variables, image)
  expected = reference(variables, image[0], variant)
  np.testing.assert_allclose(logits[0], expected, atol=1e-4 * np.abs(expected).max())


def test_batch_norm_is_the_releases():
  made = []

  def norm(**options):
    made.append(options)
    return BatchNorm(**options)

  model = Model(num_classes=3, variant='basic', width=4, norm=norm)
  init = lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False)['params']  # noqa: E731
  conv, bn = jax.jit(lambda key: [init(key)[name] for name in ('conv2', 'conv2_bn')])(
    jax.random.key(0)
  )
  assert len(made) >= 8 and {options['epsilon'] for options in made} == {1e-9}
  np.testing.assert_array_equal(bn['scale'], np.ones(4))
  np.testing.assert_array_equal(bn['bias'], np.full(4, 0.001, np.float32))
  np.testing.assert_allclose(conv['kernel'].std(), np.sqrt(2 / (49 * 4)), rtol=0.1)
  np.testing.assert_array_equal(conv['bias'], np.zeros(4))


def test_monte_carlo_dropout_varies_while_batch_norm_stands_still():
  model = Model(num_classes=3, variant='basic', width=4, bayesian=True)
  image = image_of((1, 16, 16, 3))
  variables = draw(model, image.shape)

  @jax.jit
  def sample(key):
    rngs = {'dropout': key}
    drawn = model.apply(variables, image, train=False, dropout=True, rngs=rngs)
    return drawn['logits'], model.apply(variables, image, train=False)['logits']

  first, plain = sample(jax.random.key(0))
  second, plain_again = sample(jax.random.key(1))
  assert jnp.abs(first - second).max() > 1e-2 and jnp.abs(first - plain).max() > 1e-2
  np.testing.assert_array_equal(plain, plain_again)
