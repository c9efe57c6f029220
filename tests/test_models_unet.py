"""U-Net against the paper's figure 1, the authors' release, the Keras tutorial, and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models.unet import Model
from jaxseg.types import UserError
from tests.networks import abstract, draw, image_of, layer_shapes, size


@pytest.mark.parametrize(
  'expected, channels, options',
  [
    (31030658, 1, dict(num_classes=2)),
    (31030593, 1, dict(num_classes=1)),
    (31031745, 3, dict(num_classes=1)),
    (31031810, 3, dict(num_classes=2)),
    (31033045, 3, dict(num_classes=21)),
    (31030658, 1, dict(num_classes=2, padding='same')),
    (31100354, 1, dict(num_classes=2, variant='release')),
    (31036546, 1, dict(num_classes=2, batch_norm=True)),
    (31037633, 3, dict(num_classes=1, batch_norm=True, padding='same')),
    (31037698, 3, dict(num_classes=2, batch_norm=True, padding='same')),
    (17263042, 3, dict(num_classes=2, batch_norm=True, padding='same', up='bilinear')),
    (2158417, 1, dict(num_classes=1, variant='keras', width=16)),
    (2158909, 3, dict(num_classes=13, variant='keras', width=16)),
    (540073, 1, dict(num_classes=1, variant='keras', width=8)),
    (8629921, 1, dict(num_classes=1, variant='keras', width=32)),
    (34512193, 1, dict(num_classes=1, variant='keras')),
    (34512258, 1, dict(num_classes=2, variant='nvidia')),  # paper's + 5 more taps an up-convolution
  ],
)
def test_parameter_counts(expected, channels, options):
  model = Model(**options)
  side = model.size_rule.at_least(512)
  outputs, variables = abstract(model, (1, side, side, channels))
  assert size(variables['params']) == expected
  left = side - 2 * model.size_rule.margin
  assert outputs['logits'].shape == (1, left, left, options['num_classes'])


def test_dropout_stands_where_each_variant_has_it():
  def dropouts(size, **options):
    shapes = layer_shapes(Model(num_classes=2, **options), (1, size, size, 1))
    return {name: shape for name, shape in shapes.items() if 'dropout' in name}

  assert dropouts(572) == {'bottom_dropout': (28, 28, 1024)}
  assert dropouts(572, variant='nvidia') == {'bottom_dropout': (28, 28, 1024)}
  assert dropouts(572, variant='release') == {
    'enc3_dropout': (64, 64, 512),  # before pooling, hence in the skip as well
    'bottom_dropout': (28, 28, 1024),
  }
  assert dropouts(128, variant='keras', width=16) == {
    'enc0_dropout': (64, 64, 16),  # after pooling
    'enc1_dropout': (32, 32, 32),
    'enc2_dropout': (16, 16, 64),
    'enc3_dropout': (8, 8, 128),
    'dec3_dropout': (16, 16, 256),  # after concatenation
    'dec2_dropout': (32, 32, 128),
    'dec1_dropout': (64, 64, 64),
    'dec0_dropout': (128, 128, 32),
  }


def test_options_that_do_not_go_together():
  for options in (dict(variant='keras', padding='valid'), dict(variant='release', up='bilinear')):
    with pytest.raises(UserError, match="variant='(keras' is padded|paper' only)"):
      abstract(Model(num_classes=2, **options), (1, 572, 572, 1))


def test_size_rule_and_its_error():
  rule = Model(num_classes=2).size_rule
  assert (rule.multiple, rule.offset, rule.minimum, rule.margin) == (16, 12, 188, 92)
  assert abstract(Model(num_classes=2), (1, 188, 204, 1))[0]['logits'].shape == (1, 4, 20, 2)
  with pytest.raises(UserError, match='height 580.*16 n \\+ 12.*188.*572 or 588'):
    abstract(Model(num_classes=2), (1, 580, 572, 1))
  with pytest.raises(UserError, match='width 100.*to 188\\b'):
    abstract(Model(num_classes=2), (1, 572, 100, 1))
  with pytest.raises(UserError, match='width 100.*16 n,.*96 or 112'):
    abstract(Model(num_classes=2, padding='same'), (1, 96, 100, 1))
  assert Model(num_classes=2, depth=2).size_rule.margin == 20
  assert abstract(Model(num_classes=2, depth=2), (1, 44, 48, 1))[0]['logits'].shape == (1, 4, 8, 2)


# A U-Net of one level in plain NumPy. Kernels are [kh,kw,in,out].


def convolve(x, layer, pad=0):
  x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  size = layer['kernel'].shape[0]
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
  return np.einsum('hwiyx,yxio->hwo', windows, layer['kernel']) + layer['bias']


def upconvolve(x, layer):
  """Stride 2; tap [i,j] of `lax.conv_transpose`, which does not flip, lands at 2y+size-1-i."""
  h, w, size = *x.shape[:2], layer['kernel'].shape[0]
  full = np.zeros((2 * h + size - 2, 2 * w + size - 2, layer['kernel'].shape[3]), np.float32)
  for i in range(size):
    for j in range(size):
      y0, x0 = size - 1 - i, size - 1 - j
      full[y0 : y0 + 2 * h : 2, x0 : x0 + 2 * w : 2] += x @ layer['kernel'][i, j]
  return full[: 2 * h, : 2 * w] + layer['bias']


def pool(x):
  h, w, c = x.shape
  return x.reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))


def reference(params, x, variant, pad):
  relu = lambda x: np.maximum(x, 0)  # noqa: E731

  def block(x, name):
    x = relu(convolve(x, params[f'{name}_conv1'], pad))
    return relu(convolve(x, params[f'{name}_conv2'], pad))

  skip = block(x, 'enc0')
  up = upconvolve(block(pool(skip), 'bottom'), params['dec0_up'])
  if variant in ('release', 'nvidia'):
    up = relu(up)
  margin = (skip.shape[0] - up.shape[0]) // 2
  skip = skip[margin : skip.shape[0] - margin, margin : skip.shape[1] - margin]
  x = np.concatenate((skip, up) if variant == 'paper' else (up, skip), axis=-1)
  return convolve(block(x, 'dec0'), params['score'])


@pytest.mark.parametrize(
  'variant, pad, size, last',
  [
    ('paper', 0, 24, 8),
    ('paper', 1, 16, 16),
    ('release', 0, 24, 8),
    ('keras', 1, 16, 16),
    ('nvidia', 0, 24, 8),
  ],
)
def test_logits_equal_numpy(variant, pad, size, last):
  padding = 'same' if pad else 'valid'
  model = Model(num_classes=2, width=2, depth=1, variant=variant, padding=padding)
  image = image_of((1, size, size + 2, 3))
  params = draw(model, image.shape)['params']
  logits = jax.jit(lambda p, x: model.apply({'params': p}, x, train=False)['logits'])(params, image)
  assert logits.shape == (1, last, last + 2, 2)
  np.testing.assert_allclose(logits[0], reference(params, image[0], variant, pad), atol=2e-4)


def test_initialisers():
  def kernels(variant):
    model = Model(num_classes=2, width=8, depth=2, variant=variant, padding='same')
    init = lambda key: model.init(key, jnp.zeros((1, 8, 8, 1)), train=False)['params']  # noqa: E731
    layers = 'bottom_conv2', 'dec1_up'  # [3,3,32,32] and [2 or 3,2 or 3,32,16]
    return jax.jit(lambda key: [init(key)[name]['kernel'] for name in layers])(jax.random.key(0))

  he, _ = kernels('paper')
  np.testing.assert_allclose(he.std(), np.sqrt(2 / (9 * 32)), rtol=0.03)
  assert np.abs(he).max() > 3 * he.std()  # a normal distribution that is not truncated
  xavier, xavier_up = kernels('release')
  np.testing.assert_allclose(np.abs(xavier).max(), np.sqrt(3 / (9 * 32)), rtol=1e-3)
  np.testing.assert_allclose(np.abs(xavier_up).max(), np.sqrt(3 / (4 * 16)), rtol=1e-2)
  for variant in ('keras', 'nvidia'):
    glorot, glorot_up = kernels(variant)
    np.testing.assert_allclose(np.abs(glorot).max(), np.sqrt(6 / (9 * 64)), rtol=1e-3)
    np.testing.assert_allclose(np.abs(glorot_up).max(), np.sqrt(6 / (9 * 48)), rtol=1e-2)


def test_unpadded_logits_are_the_padded_ones_where_no_padding_reaches():
  unpadded = Model(num_classes=2, width=2, depth=1)
  padded = unpadded.clone(padding='same')
  image = image_of((1, 40, 40, 1))
  variables = draw(unpadded, image.shape)
  run = lambda model: jax.jit(lambda x: model.apply(variables, x, train=False)['logits'])(image)  # noqa: E731
  margin = unpadded.size_rule.margin
  assert margin == 8
  np.testing.assert_allclose(run(unpadded), run(padded)[:, 8:-8, 8:-8], atol=1e-5)


def test_overlap_tiles_equal_one_pass_at_steps_of_16_only():
  model = Model(num_classes=2, width=2)
  image = image_of((1, 252, 252, 1))
  variables = draw(model, image.shape)
  run = jax.jit(lambda x: model.apply(variables, x, train=False)['logits'])
  whole = np.asarray(run(image))  # [1,68,68,2]
  scale = np.abs(whole).max()

  def difference(top, left):
    tile = np.asarray(run(image[:, top : top + 220, left : left + 220]))  # [1,36,36,2]
    return np.abs(tile - whole[:, top : top + 36, left : left + 36]).max() / scale

  assert max(difference(0, 0), difference(32, 16), difference(16, 32)) < 1e-5
  assert difference(4, 0) > 1e-2


def test_monte_carlo_dropout_varies_while_batch_norm_stands_still():
  model = Model(num_classes=2, width=2, depth=1, padding='same', batch_norm=True)
  image = image_of((2, 8, 8, 1))
  variables = draw(model, image.shape)

  @jax.jit
  def sample(key):
    return model.apply(variables, image, train=False, dropout=True, rngs={'dropout': key})['logits']

  @jax.jit
  def train_step(key):
    return model.apply(
      variables, image, train=True, dropout=False, rngs={'dropout': key}, mutable=['batch_stats']
    )

  plain = jax.jit(lambda: model.apply(variables, image, train=False)['logits'])()
  first, second = sample(jax.random.key(0)), sample(jax.random.key(1))
  assert jnp.abs(first - second).max() > 1e-2 and jnp.abs(first - plain).max() > 1e-2
  (one, stats), (two, _) = train_step(jax.random.key(0)), train_step(jax.random.key(1))
  np.testing.assert_array_equal(one['logits'], two['logits'])  # no dropout, though training
  mean = stats['batch_stats']['enc0_bn1']['mean']
  assert jnp.abs(mean).max() > 0  # batch statistics entered the running averages


@pytest.mark.parametrize(
  ('backbone', 'channels'),
  [
    ('vgg16', (8, 16, 32, 64, 64)),
    ('resnet50', (8, 32, 64, 128, 256)),
    ('mobilenet_v2', (2, 3, 4, 12, 160)),
    ('efficientnet_lite0', (2, 3, 5, 14, 40)),
  ],
)
def test_a_backbone_gives_the_skips_of_each_stride(backbone, channels):
  model = Model(3, width=2, backbone=backbone, backbone_width=8, batch_norm=True)
  assert model.size_rule.multiple == 32 and model.size_rule.margin == 0
  outputs, variables = abstract(model, (1, 96, 64, 3))
  assert outputs['logits'].shape == (1, 96, 64, 3)
  params = dict(variables['params'])
  params.pop('backbone')
  assert {name.split('_')[0] for name in params} == {'dec4', 'dec3', 'dec2', 'dec1', 'score'}
  below = (
    4,
    8,
    16,
    32,
    channels[-1],
  )  # what each level gets from the one below, and gives: 2 * 2**l
  for level in (1, 2, 3, 4):
    gives = 2 * 2**level
    assert params[f'dec{level}_up']['kernel'].shape == (2, 2, below[level], gives)
    joined = gives + channels[level - 1]
    assert params[f'dec{level}_conv1']['kernel'].shape == (3, 3, joined, gives)
  assert params['score']['kernel'].shape == (1, 1, 4, 3)


def test_a_frozen_norm_keeps_its_statistics_and_all_learns():
  options = dict(width=1, backbone='vgg16', backbone_width=1, dropout_rate=0.0)
  model = Model(2, frozen_norm=True, batch_norm=True, **options)
  variables, image = draw(model, (1, 32, 32, 3)), image_of((2, 32, 32, 3))

  @jax.jit
  def run(params, image):
    def loss(params):
      logits = model.apply(
        {**variables, 'params': params}, image, train=True, mutable=['batch_stats']
      )
      return jnp.square(logits[0]['logits']).mean(), logits[1]

    (_, updated), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return updated['batch_stats'], gradient

  statistics, gradient = run(variables['params'], image)
  assert jax.tree.all(jax.tree.map(lambda g: bool(np.isfinite(g).all()), gradient))
  assert np.abs(gradient['backbone']['conv1_1']['kernel']).max() > 0
  assert (
    np.abs(statistics['dec1_bn1']['mean'] - variables['batch_stats']['dec1_bn1']['mean']).max() > 0
  )
  assert 'backbone' not in statistics  # this VGG16 has no batch norm


@pytest.mark.parametrize('options', [dict(variant='keras'), dict(depth=3), dict(padding='valid')])
def test_a_backbone_goes_without_what_describes_the_papers_path(options):
  with pytest.raises(UserError, match="backbone='vgg16' goes without variant, depth and padding"):
    abstract(Model(2, backbone='vgg16', **options), (1, 64, 64, 3))
