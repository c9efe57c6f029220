"""FCN, SegNet and U-Net against independent PyTorch definitions: values and gradients."""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

from jaxseg.models import fcn, segnet, unet
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity


def compare(model, net, shape):
  net = torch_models.randomize(net, seed=1).double()
  parity_tools.compare(model, net, parity_tools.by_our_names, shape)


@pytest.mark.parametrize(
  'stride, shape', [(8, (1, 375, 500, 3)), (16, (1, 61, 47, 3)), (32, (1, 47, 61, 3))]
)
def test_fcn(stride, shape):
  model = fcn.Model(num_classes=5, width=2, stride=stride)
  compare(model, torch_models.FCN(5, 2, stride), shape)


def test_fcn_at_once():
  model = fcn.Model(num_classes=5, width=4, at_once=True)
  compare(model, torch_models.FCN(5, 4, 8, scales=(1e-2, 1e-4)), (2, 33, 50, 3))


@pytest.mark.parametrize('width, shape', [(4, (1, 360, 480, 3)), (16, (2, 45, 61, 3))])
def test_segnet(width, shape):
  compare(segnet.Model(num_classes=11, width=width), torch_models.SegNet(11, width), shape)


def test_segnet_basic():
  model = segnet.Model(num_classes=11, variant='basic', width=8)
  compare(model, torch_models.SegNetBasic(11, 8), (2, 45, 61, 3))


def test_unet_valid():
  model = unet.Model(num_classes=2, width=8)
  compare(model, torch_models.UNet(2, 1, 8), (1, 204, 188, 1))


@pytest.mark.parametrize('batch_norm', [False, True])
def test_unet_same(batch_norm):
  model = unet.Model(num_classes=3, width=8, padding='same', batch_norm=batch_norm)
  net = torch_models.UNet(3, 3, 8, padding=1, batch_norm=batch_norm)
  compare(model, net, (2, 48, 80, 3))


def test_unet_full_width():
  model = unet.Model(num_classes=2, padding='same')
  compare(model, torch_models.UNet(2, 1, 64, padding=1), (1, 32, 48, 1))
