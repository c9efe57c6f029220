"""VGG16, ResNet-50, MobileNetV2 and fcn_resnet50 against torchvision's own definitions."""

import importlib.util

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import torch

from jaxseg.models import fcn
from jaxseg.nn import backbones
from jaxseg.nn.backbones import VGG16
from jaxseg.pretrained import names
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity


@pytest.fixture(scope='module')
def models():
  """The module torchvision.models."""
  if importlib.util.find_spec('torchvision') is None:
    pytest.skip('parity compares with torchvision: pip install jaxseg[parity]')
  return torch_models.import_torchvision_models()


def compare(model, net, shape, *, train=False, **options):
  source = next(s for s in names.SOURCES if s.matches(net.state_dict()))
  net = torch_models.randomize(net, seed=1)
  parity_tools.compare(model, net, source.translate, shape, train=train, **options)


def logits(outputs):
  return outputs['logits']


@pytest.mark.parametrize('batch_norm', [False, True])
def test_vgg16(models, batch_norm):
  """One window of 224 pixels and a rest that the poolings round away: 239 -> 7."""
  width = 4
  plan = [n if n == 'M' else n * width // 64 for n in models.vgg.cfgs['D']]
  net = models.vgg.VGG(models.vgg.make_layers(plan, batch_norm))
  wide, linear = 64 * width, torch.nn.Linear
  net.classifier[0], net.classifier[3] = linear(49 * 8 * width, wide), linear(wide, wide)
  net.classifier[6] = linear(wide, 10)
  model = VGG16(num_classes=10, width=width, batch_norm=batch_norm, dropout_rate=0.0)
  compare(model, net, (1, 239, 227, 3), train=batch_norm, ours=lambda o: o['logits'].reshape(1, -1))


def test_resnet50(models):
  model = backbones.build('resnet50', num_classes=1000)
  compare(model, models.resnet50(), (2, 97, 65, 3), train=True, ours=logits)


def test_resnet50_with_the_stride_of_the_paper_and_of_keras(models):
  net = models.resnet50()
  for stage in (net.layer2, net.layer3, net.layer4):
    stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
  model = backbones.build('resnet50_v1', num_classes=1000)
  compare(model, net, (2, 97, 65, 3), train=True, ours=logits)


def test_mobilenet_v2(models):
  model = backbones.build('mobilenet_v2', num_classes=1000)
  compare(model, models.mobilenet_v2(), (1, 65, 49, 3), ours=logits)


def test_fcn_resnet50_with_auxiliary_head(models):
  net = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
  model = fcn.Model(num_classes=21, backbone='resnet50', head='torchvision', aux=True)
  compare(
    model,
    net,
    (1, 65, 81, 3),
    ours=lambda o: o['logits'] + 0.5 * o['aux_logits'],
    theirs=lambda o: o['out'] + 0.5 * o['aux'],
  )
