"""MobileNet V1 and V2: size, names, taps, and how each pads a strided convolution."""

import jax
import numpy as np
import pytest

from jaxseg.nn.backbones import MobileNetV1, MobileNetV2
from tests.networks import abstract, size


@pytest.mark.parametrize(
  'expected, model',
  [
    (4231976, MobileNetV1(num_classes=1000)),
    (3206976, MobileNetV1()),
    (3206976, MobileNetV1(remat=True)),
    (3504872, MobileNetV2(num_classes=1000)),
    (2223872, MobileNetV2()),
    (2223872, MobileNetV2(remat=True)),
  ],
)
def test_parameter_counts(expected, model):
  _, variables = abstract(model, (1, 224, 224, 3))
  assert size(variables['params']) == expected


def test_v2_has_the_number_of_values_with_statistics_that_keras_publishes():
  _, variables = abstract(MobileNetV2(num_classes=1000), (1, 224, 224, 3))
  assert size(variables) == 3538984


def test_taps():
  shapes = lambda model: {k: v.shape[1:] for k, v in abstract(model, (1, 96, 64, 3))[0].items()}  # noqa: E731
  v1, v2 = shapes(MobileNetV1()), shapes(MobileNetV2())
  assert (v1['stride8'], v1['stride16'], v1['stride32']) == (
    (12, 8, 256),
    (6, 4, 512),
    (3, 2, 1024),
  )
  assert (v2['stride8'], v2['stride16'], v2['stride32']) == (
    (12, 8, 32),
    (6, 4, 96),
    (3, 2, 1280),
  )
  assert shapes(MobileNetV2(width=8))['stride32'] == (3, 2, 160)


def test_names_are_those_of_the_published_weights():
  v1 = abstract(MobileNetV1(num_classes=1000), (1, 32, 32, 3))[1]['params']
  assert v1['conv_dw_1']['kernel'].shape == (3, 3, 1, 32)
  assert v1['conv_pw_13']['kernel'].shape == (1, 1, 1024, 1024)
  assert v1['conv_preds']['kernel'].shape == (1, 1, 1024, 1000)
  assert {'conv1', 'conv1_bn', 'conv_dw_13_bn', 'conv_pw_1_bn'} <= set(v1) and len(v1) == 55
  v2 = abstract(MobileNetV2(num_classes=1000), (1, 32, 32, 3))[1]['params']
  kernel = lambda name: v2[name]['kernel'].shape  # noqa: E731
  assert kernel('features_1_conv_0_0') == (3, 3, 1, 32)
  assert kernel('features_1_conv_1') == (1, 1, 32, 16) and 'features_1_conv_2' in v2
  assert kernel('features_2_conv_0_0') == (1, 1, 16, 96)
  assert kernel('features_2_conv_1_0') == (3, 3, 1, 96)
  assert kernel('features_2_conv_2') == (1, 1, 96, 24) and 'features_2_conv_3' in v2
  assert kernel('features_18_0') == (1, 1, 320, 1280) and kernel('classifier_1') == (1280, 1000)


def test_padding_of_the_first_convolution():
  """A kernel that is 1 at its top left corner shows which pixel that corner sees."""
  image = np.arange(1.0, 37.0, dtype='f').reshape(1, 6, 6, 1)
  kernel = np.zeros((3, 3, 1, 16), np.float32)
  kernel[0, 0] = 1
  for model, name, first in (
    (MobileNetV1(width=32), 'conv1', 0),
    (MobileNetV2(width=32), 'features_0_0', -1),
  ):
    variables = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, 'f'), abstract(model, image.shape)[1]
    )
    variables['params'][name]['kernel'] = kernel

    @jax.jit
    def first_layer(variables, model=model, name=name):
      _, state = model.apply(variables, image, train=False, capture_intermediates=True)
      return state['intermediates'][name]['__call__'][0]

    seen = [
      [
        0 if first < 0 and 0 in (y, x) else image[0, 2 * y + first, 2 * x + first, 0]
        for x in range(3)
      ]
      for y in range(3)
    ]
    np.testing.assert_array_equal(first_layer(variables)[0, ..., 0], np.array(seen))
