"""ResNet v1.5: size, names, and dilation as the same network evaluated more densely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.backbones import STAGE_SIZES, ResNet, build
from jaxseg.types import UserError
from tests.networks import abstract, draw, size

R101 = STAGE_SIZES['resnet101']


@pytest.mark.parametrize(
  'expected, model',
  [
    (25557032, ResNet(num_classes=1000)),
    (23508032, ResNet()),
    (23508032, ResNet(remat=True, output_stride=8)),
    (23631808, ResNet(deep_stem=True)),
    (44549160, ResNet(stage_sizes=R101, num_classes=1000)),
    (42500160, ResNet(stage_sizes=R101)),
    (42623936, ResNet(stage_sizes=R101, deep_stem=True)),
  ],
)
def test_parameter_counts(expected, model):
  _, variables = abstract(model, (1, 224, 224, 3))
  assert size(variables['params']) == expected


def test_names_are_torchvisions_with_underscores():
  _, variables = abstract(ResNet(num_classes=1000), (1, 224, 224, 3))
  params = variables['params']
  assert len([name for name in params if 'conv' in name or 'downsample_0' in name]) == 53
  kernel = lambda name: params[name]['kernel'].shape  # noqa: E731
  assert kernel('conv1') == (7, 7, 3, 64)
  assert kernel('layer1_0_conv1') == (1, 1, 64, 64)
  assert kernel('layer1_0_conv2') == (3, 3, 64, 64)
  assert kernel('layer1_0_conv3') == (1, 1, 64, 256)
  assert kernel('layer1_0_downsample_0') == (1, 1, 64, 256)
  assert kernel('layer4_2_conv2') == (3, 3, 512, 512)
  assert kernel('fc') == (2048, 1000)
  assert set(params['layer3_5_bn3']) == {'scale', 'bias'}
  assert set(variables['batch_stats']['layer2_0_downsample_1']) == {'mean', 'var'}


def test_feature_maps():
  shapes = lambda model: {k: v.shape[1:] for k, v in abstract(model, (1, 225, 320, 3))[0].items()}  # noqa: E731
  assert shapes(ResNet()) == {
    'stage1': (57, 80, 256),
    'stage2': (29, 40, 512),
    'stage3': (15, 20, 1024),
    'stage4': (8, 10, 2048),
    'stride2': (113, 160, 64),
    'stride4': (57, 80, 256),
    'stride8': (29, 40, 512),
    'stride16': (15, 20, 1024),
    'stride32': (8, 10, 2048),
  }
  dilated = shapes(ResNet(output_stride=8))
  strides = {'stride2', 'stride4', 'stride8'}
  assert set(dilated) == {'stage1', 'stage2', 'stage3', 'stage4', *strides}
  assert dilated['stage3'] == (29, 40, 1024) and dilated['stage4'] == (29, 40, 2048)
  assert shapes(ResNet(output_stride=16))['stage4'] == (15, 20, 2048)
  with pytest.raises(UserError, match='output_stride=4'):
    shapes(ResNet(output_stride=4))


def test_the_stride_is_on_the_3x3_convolution():
  _, variables = abstract(ResNet(), (1, 64, 64, 3), capture_intermediates=True)
  shape = lambda name: variables['intermediates'][name]['__call__'][0].shape[1:3]  # noqa: E731
  assert shape('conv1') == (32, 32)
  assert shape('layer2_0_conv1') == (16, 16) and shape('layer2_0_conv2') == (8, 8)


def test_dilated_network_is_the_strided_one_evaluated_more_densely():
  strided = ResNet(stage_sizes=(1, 1, 2, 2), width=2)
  image = np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype('f')
  variables = draw(strided, image.shape)

  @jax.jit
  def run(image):
    dense = strided.clone(output_stride=8).apply(variables, image, train=False)
    early = strided.clone(output_stride=8, dilate_first=True).apply(variables, image, train=False)
    return strided.apply(variables, image, train=False), dense, early

  coarse, dense, early = jax.device_get(run(image))
  for stage, step in (('stage3', 2), ('stage4', 4)):
    scale = np.abs(coarse[stage]).max()
    every = dense[stage][:, ::step, ::step]
    np.testing.assert_allclose(every, coarse[stage], atol=1e-5 * scale)
    assert np.abs(early[stage][:, ::step, ::step] - coarse[stage]).max() > 1e-2 * scale


def test_padding_is_symmetric():
  """Mirroring the image mirrors odd-sized feature maps if padding and kernels are symmetric."""
  model = ResNet(stage_sizes=(1, 1, 1, 1), width=2)
  image = np.random.default_rng(1).normal(size=(1, 65, 65, 3)).astype('f')
  variables = draw(model, image.shape)
  symmetric = lambda leaf: (leaf + leaf[::-1, ::-1]) / 2 if leaf.ndim == 4 else leaf  # noqa: E731
  variables['params'] = jax.tree.map(symmetric, variables['params'])
  run = jax.jit(lambda x: model.apply(variables, x, train=False)['stride32'])
  features, mirrored = run(image), run(image[:, ::-1, ::-1])
  assert features.shape == (1, 3, 3, 64)
  np.testing.assert_allclose(mirrored[:, ::-1, ::-1], features, atol=1e-4 * jnp.abs(features).max())


def test_the_papers_stride_is_on_the_first_1x1():
  """Stage 2 of the v1 net, written out: its 1x1 convolutions see every second pixel only."""
  options = dict(stage_sizes=(1, 1), width=2)
  v1, later = ResNet(stride_first=True, **options), ResNet(**options)
  variables = draw(v1, (1, 21, 26, 3))
  image = np.random.default_rng(1).normal(size=(1, 21, 26, 3)).astype('f')
  taps, others = (net.apply(variables, image, train=False) for net in (v1, later))

  def conv_bn(x, conv, norm):
    params, stats = variables['params'], variables['batch_stats'][norm]
    kernel = params[conv]['kernel']
    size, height, width = len(kernel), *x.shape[1:3]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    parts = (
      x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(size) for j in range(size)
    )
    normalised = (sum(parts) - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
    return normalised * params[norm]['scale'] + params[norm]['bias']

  x = np.asarray(taps['stage1'])[:, ::2, ::2]
  y = np.maximum(conv_bn(x, 'layer2_0_conv1', 'layer2_0_bn1'), 0)
  y = np.maximum(conv_bn(y, 'layer2_0_conv2', 'layer2_0_bn2'), 0)
  y = conv_bn(y, 'layer2_0_conv3', 'layer2_0_bn3')
  expected = np.maximum(y + conv_bn(x, 'layer2_0_downsample_0', 'layer2_0_downsample_1'), 0)
  np.testing.assert_allclose(taps['stage2'], expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(taps['stage1'], others['stage1'])
  assert np.abs(np.asarray(others['stage2']) - expected).max() > 0.01
  assert build('resnet101_v1') == ResNet(stage_sizes=R101, stride_first=True)
