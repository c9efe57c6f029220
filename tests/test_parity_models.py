"""FCN, SegNet and U-Net against independent PyTorch definitions: values and gradients."""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import jax.numpy as jnp

from jaxseg.models import fcn, segnet, unet
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity


def compare(model, net, shape, *, train=False, seed=1, **options):
  parity_tools.compare(
    model,
    torch_models.randomize(net, seed),
    parity_tools.by_our_names,
    shape,
    train=train,
    ours=lambda outputs: outputs['logits'],
    **options,
  )


@pytest.mark.parametrize(
  'stride, width, shape',
  [(8, 4, (1, 375, 500, 3)), (16, 2, (1, 61, 47, 3)), (32, 2, (2, 47, 61, 3))],
)
def test_fcn(stride, width, shape):
  model = fcn.Model(num_classes=5, width=width, stride=stride)
  compare(model, torch_models.FCN(5, width, stride), shape)


def test_fcn_at_once():
  model = fcn.Model(num_classes=5, width=2, at_once=True)
  compare(model, torch_models.FCN(5, 2, 8, scales=(1e-2, 1e-4)), (1, 33, 50, 3))


@pytest.mark.parametrize(
  'width, shape, train',
  [(4, (1, 360, 480, 3), False), (16, (2, 45, 61, 3), True)],
)
def test_segnet(width, shape, train):
  model = segnet.Model(num_classes=11, width=width)
  compare(model, torch_models.SegNet(11, width), shape, train=train)


@pytest.mark.parametrize('train', [False, True])
def test_segnet_basic(train):
  model = segnet.Model(num_classes=11, variant='basic', width=8)
  compare(model, torch_models.SegNetBasic(11, 8), (2, 45, 61, 3), train=train)


def test_unet_valid():
  model = unet.Model(num_classes=2, width=8)
  compare(model, torch_models.UNet(2, 1, 8), (1, 204, 188, 1))


def test_unet_same_with_batch_norm_in_single_precision():
  model = unet.Model(num_classes=3, width=4, depth=3, padding='same', batch_norm=True)
  net = torch_models.UNet(3, 3, 4, depth=3, padding=1, batch_norm=True)
  compare(model, net, (3, 16, 16, 3), train=True, seed=2, dtype=jnp.float32)


def test_unet_same_with_batch_norm():
  model = unet.Model(num_classes=3, width=8, padding='same', batch_norm=True)
  net = torch_models.UNet(3, 3, 8, padding=1, batch_norm=True)
  compare(model, net, (2, 48, 80, 3), train=True)
