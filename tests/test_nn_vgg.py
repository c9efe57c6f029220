"""VGG16: its size, and what makes it fully convolutional."""

import jax
import numpy as np
import pytest

from jaxseg.nn import backbones
from jaxseg.nn.backbones import VGG16
from jaxseg.types import UserError
from tests.networks import abstract, draw, size


@pytest.mark.parametrize(
  'expected, model',
  [
    (14714688, VGG16()),
    (14714688, VGG16(remat=True)),
    (14714688 + 8448, VGG16(batch_norm=True)),
    (138357544, VGG16(num_classes=1000)),
    (138365992, VGG16(num_classes=1000, batch_norm=True)),
  ],
)
def test_parameter_counts(expected, model):
  _, variables = abstract(model, (1, 224, 224, 3))
  assert size(variables['params']) == expected


def test_feature_maps_and_the_two_ways_of_rounding():
  shapes = lambda model: {k: v.shape[1:] for k, v in abstract(model, (1, 375, 224, 3))[0].items()}  # noqa: E731
  assert shapes(VGG16(ceil=True)) == {
    'stride2': (188, 112, 64),
    'stride4': (94, 56, 128),
    'stride8': (47, 28, 256),
    'stride16': (24, 14, 512),
    'stride32': (12, 7, 512),
  }
  assert shapes(VGG16())['stride32'] == (11, 7, 512)
  assert shapes(VGG16(width=8, first_padding=100, ceil=True))['stride2'] == (287, 211, 8)


def test_larger_image_equals_the_classifier_on_every_window():
  """Without zero padding the receptive field is the window: 404 pixels, every 32 (FCN, section 3)."""
  model = VGG16(num_classes=3, width=2, padding=0)
  image = np.random.default_rng(1).normal(size=(1, 404 + 32, 404 + 64, 3)).astype('f')
  variables = draw(model, (1, 404, 404, 3))
  run = jax.jit(lambda x: model.apply(variables, x, train=False)['logits'])
  large = run(image)
  assert large.shape == (1, 2, 3, 3)
  tops, lefts = np.mgrid[0:64:32, 0:96:32]
  windows = [
    image[0, top : top + 404, left : left + 404]
    for top, left in zip(tops.ravel(), lefts.ravel(), strict=True)
  ]
  small = np.concatenate([run(window[None]) for window in windows])  # [6,1,1,3]
  scale = np.abs(large).max()
  assert np.std(small[:, 0, 0], axis=0).min() > 1e-3 * scale  # the windows do differ
  np.testing.assert_allclose(small.reshape(large.shape), large, atol=1e-5 * scale)


def test_convolutional_head_equals_the_fully_connected_one():
  """fc6, fc7 and fc8 as matrix products on each flattened 7x7 window of pool5."""
  model = VGG16(num_classes=3, width=2)
  image = np.random.default_rng(1).normal(size=(1, 256, 288, 3)).astype('f')
  variables = draw(model, image.shape)

  @jax.jit
  def run(image):
    features = VGG16(width=2).apply(variables, image, train=False)  # the same names
    return model.apply(variables, image, train=False)['logits'], features['stride32']

  logits, pool5 = jax.device_get(run(image))
  assert pool5.shape == (1, 8, 9, 16) and logits.shape == (1, 2, 3, 3)
  relu = lambda x: np.maximum(x, 0)  # noqa: E731
  fc6, fc7, fc8 = (variables['params'][name] for name in ('fc6', 'fc7', 'fc8'))
  for y, x in np.ndindex(2, 3):
    h = pool5[0, y : y + 7, x : x + 7].reshape(-1)
    h = relu(h @ fc6['kernel'].reshape(7 * 7 * 16, 128) + fc6['bias'])
    h = relu(h @ fc7['kernel'].reshape(128, 128) + fc7['bias'])
    expected = h @ fc8['kernel'].reshape(128, 3) + fc8['bias']
    np.testing.assert_allclose(logits[0, y, x], expected, atol=1e-5 * np.abs(logits).max())


def test_building_by_name():
  assert backbones.build('vgg16', width=8) == VGG16(width=8)
  with pytest.raises(UserError, match="no backbone 'vgg': choose one of vgg16, resnet50, .*"):
    backbones.build('vgg')
