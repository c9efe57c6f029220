"""PSPNet against an independent PyTorch definition: values, and gradients through both heads.

Modules carry the names of the authors' release (hszhao/semseg), so that its weights' way into our
network is what carries ours over.
"""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jaxseg.layers import adaptive_average_pool
from jaxseg.models import pspnet
from jaxseg.pretrained import conversion
from jaxseg.tasks.semantic import Task
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity
CLASSES, AUX_WEIGHT = 5, 0.4


def conv_bn(inputs, outputs, side, stride=1, dilation=1):
  pad = dilation * (side // 2)
  conv = nn.Conv2d(inputs, outputs, side, stride, pad, dilation, bias=False)
  return [conv, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
  def __init__(self, inputs, features, stride, dilation, projects):
    super().__init__()
    self.conv1, self.bn1 = conv_bn(inputs, features, 1)
    self.conv2, self.bn2 = conv_bn(features, features, 3, stride, dilation)
    self.conv3, self.bn3 = conv_bn(features, 4 * features, 1)
    self.downsample = None
    if projects:
      self.downsample = nn.Sequential(*conv_bn(inputs, 4 * features, 1, stride))

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Pyramid(nn.Module):
  def __init__(self, channels, bins):
    super().__init__()
    features = channels // len(bins)
    self.features = nn.ModuleList(
      nn.Sequential(nn.AdaptiveAvgPool2d(b), *conv_bn(channels, features, 1), nn.ReLU())
      for b in bins
    )

  def forward(self, x):
    levels = (F.interpolate(f(x), x.shape[2:], **ALIGNED) for f in self.features)
    return torch.cat([x, *levels], 1)


ALIGNED = dict(mode='bilinear', align_corners=True)


class PSPNet(nn.Module):
  """Widths in units of `width`, 64 as published; no dropout. Returns both heads' logits."""

  def __init__(self, stage_sizes, width, deep_stem):
    super().__init__()
    if deep_stem:
      stem = [conv_bn(3, width, 3, 2), conv_bn(width, width, 3), conv_bn(width, 2 * width, 3)]
      channels = 2 * width
    else:
      stem, channels = [conv_bn(3, width, 7, 2)], width
    layers = [layer for pair in stem for layer in (*pair, nn.ReLU())]
    self.layer0 = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))
    for stage, (count, stride, dilation) in enumerate(
      zip(stage_sizes, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 1
    ):
      features, blocks = width * 2 ** (stage - 1), []
      for i in range(count):
        blocks.append(Bottleneck(channels, features, 1 if i else stride, dilation, i == 0))
        channels = 4 * features
      self.add_module(f'layer{stage}', nn.Sequential(*blocks))
    self.ppm = Pyramid(channels, (1, 2, 3, 6))
    self.cls = self.head(2 * channels, channels // 4)
    self.aux = self.head(channels // 2, channels // 8)

  def head(self, channels, features):
    middle = [*conv_bn(channels, features, 3), nn.ReLU(), nn.Identity()]
    return nn.Sequential(*middle, nn.Conv2d(features, CLASSES, 1))

  def forward(self, image):
    x = self.layer2(self.layer1(self.layer0(image)))
    middle = self.layer3(x)
    heads = self.cls(self.ppm(self.layer4(middle))), self.aux(middle)
    return [F.interpolate(x, image.shape[2:], **ALIGNED) for x in heads]


def compare(stage_sizes, width, deep_stem, shape, **options):
  net = torch_models.randomize(PSPNet(stage_sizes, width, deep_stem), seed=1)
  (source,) = (s for s in conversion.SOURCES if s.matches(net.state_dict()))
  assert source.name == 'semseg pspnet50 or 101'
  model = pspnet.Model(CLASSES, stage_sizes=stage_sizes, width=width, deep_stem=deep_stem)
  parity_tools.compare(model, net, source.translate, shape, **options)


@pytest.mark.parametrize(
  'deep_stem, shape',
  [(True, (1, 65, 89, 3)), (False, (2, 33, 57, 3))],  # features 9x12, and 5x8 for six bins
)
def test_logits_with_running_statistics(deep_stem, shape):
  compare(
    (1, 1, 2, 2),
    8,
    deep_stem,
    shape,
    train=False,
    ours=lambda o: o['logits'] + AUX_WEIGHT * o['aux_logits'],
    theirs=lambda o: o[0] + AUX_WEIGHT * o[1],
  )


def test_both_losses_with_batch_statistics():
  """Cross-entropy of both heads, a third of the pixels void; the gradient of every parameter."""
  shape = (2, 73, 49, 3)
  random = np.random.default_rng(2)
  label = random.integers(0, CLASSES, shape[:3])
  label[random.random(shape[:3]) < 1 / 3] = 255
  task, target = Task(num_classes=CLASSES, aux_weight=AUX_WEIGHT), torch.from_numpy(label)

  def ours(outputs):
    terms = task.losses(outputs, {'label': label.astype(np.uint8)})
    return sum(total / weight for total, weight in terms.values()).reshape(1, 1, 1, 1)

  def theirs(outputs):
    main, aux = (F.cross_entropy(o, target, ignore_index=255) for o in outputs)
    return (main + AUX_WEIGHT * aux).reshape(1, 1, 1, 1)

  compare((2, 1, 2, 1), 8, True, shape, train=True, ours=ours, theirs=theirs)


@pytest.mark.parametrize('size', [(60, 60), (13, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize('bins', [1, 2, 3, 6])
def test_adaptive_average_pool(size, bins):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  expected = F.adaptive_avg_pool2d(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), bins)
  found = adaptive_average_pool(x, bins)
  np.testing.assert_allclose(found, np.moveaxis(expected.numpy(), 1, -1), rtol=1e-5, atol=1e-6)
