"""EfficientNet-Lite: size, names, taps, and TensorFlow's padding of strided convolutions."""

import jax
import numpy as np
import pytest

from jaxseg.nn import backbones
from tests.networks import abstract, size


@pytest.mark.parametrize(
  ('name', 'with_classifier'),
  [
    ('efficientnet_lite0', 4_652_008),
    ('efficientnet_lite1', 5_416_680),
    ('efficientnet_lite2', 6_092_072),
  ],
)
def test_parameter_counts_are_the_published_ones(name, with_classifier):
  """4.652, 5.417 and 6.092 million (tensorflow/tpu, efficientnet/lite)."""
  count = lambda **options: size(  # noqa: E731
    abstract(backbones.build(name, **options), (1, 64, 64, 3))[1]['params']
  )
  assert count(num_classes=1000) == with_classifier
  assert count(num_classes=1000, remat=True) == with_classifier
  last = 352 if name == 'efficientnet_lite2' else 320
  assert count() == with_classifier - (last * 1280 + 2 * 1280 + 1281 * 1000)


def test_taps_are_the_last_maps_of_their_strides():
  def shapes(name, **options):
    outputs, _ = abstract(backbones.build(name, **options), (1, 96, 70, 3))
    return {k: v.shape[1:] for k, v in outputs.items()}

  assert shapes('efficientnet_lite0') == {
    'stride2': (48, 35, 16),
    'stride4': (24, 18, 24),
    'stride8': (12, 9, 40),
    'stride16': (6, 5, 112),
    'stride32': (3, 3, 320),
  }
  lite2 = shapes('efficientnet_lite2')
  assert [lite2[f'stride{2**i}'][-1] for i in range(1, 6)] == [16, 24, 48, 120, 352]
  assert shapes('efficientnet_lite0', width=8)['stride32'] == (3, 3, 40)


def test_names_and_repetitions():
  def kernels(name):
    params = abstract(backbones.build(name, num_classes=10), (1, 32, 32, 3))[1]['params']
    return {k: v['kernel'].shape for k, v in params.items() if 'kernel' in v}

  lite0, lite1 = kernels('efficientnet_lite0'), kernels('efficientnet_lite1')
  assert lite0['conv_stem'] == (3, 3, 3, 32) and lite0['conv_head'] == (1, 1, 320, 1280)
  assert 'blocks_0_expand_conv' not in lite0
  assert lite0['blocks_0_depthwise_conv'] == (3, 3, 1, 32)
  assert lite0['blocks_3_depthwise_conv'] == (5, 5, 1, 144)
  assert (
    lite0['blocks_15_project_conv'] == (1, 1, 1152, 320) and 'blocks_16_project_conv' not in lite0
  )
  # ceil(1.1 n) blocks in the inner stages: 3, 3, 4, 4 and 5 of 2, 2, 3, 3 and 4.
  assert lite1['blocks_20_project_conv'] == (1, 1, 1152, 320) and lite1['fc'] == (1280, 10)


def test_an_even_image_is_padded_below_and_to_the_right_alone():
  """A kernel that is 1 at its top left corner sees every second pixel, from the first on."""
  image = np.arange(1.0, 37.0, dtype='f').reshape(1, 6, 6, 1)
  model = backbones.build('efficientnet_lite0', width=2)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, 'f'), abstract(model, image.shape)[1])
  zeros['params']['conv_stem']['kernel'][0, 0] = 1

  @jax.jit
  def stem(variables):
    _, state = model.apply(variables, image, train=False, capture_intermediates=True)
    return state['intermediates']['conv_stem']['__call__'][0]

  np.testing.assert_array_equal(stem(zeros)[0, ..., 0], image[0, ::2, ::2, 0])
