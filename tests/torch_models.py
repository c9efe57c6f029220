"""What the parity tests need of PyTorch beside the networks, which the benchmark times as well."""

import importlib

import torch
from torch import nn

from jaxseg.tools.benchmark.torch_mask_rcnn import import_torchvision
from jaxseg.tools.benchmark.torch_models import FCN, SegNet, SegNetBasic, UNet

__all__ = ['FCN', 'SegNet', 'SegNetBasic', 'UNet', 'import_torchvision_models', 'randomize']


def import_torchvision_models():
  """Returns torchvision.models, beside a CPU build of torch too, which lacks its operators."""
  import_torchvision()
  return importlib.import_module('torchvision.models')


def randomize(net, seed):
  """He-normal kernels, small random biases, random scales and statistics of batch norm."""
  random = torch.Generator().manual_seed(seed)

  def normal(tensor, scale, offset=0.0):
    made = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
    tensor.data.copy_(made * scale + offset)

  for module in net.modules():
    if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
      fan_in = module.weight[0].numel()
      normal(module.weight, (2 / fan_in) ** 0.5)
      if module.bias is not None:
        normal(module.bias, 0.1)
    elif isinstance(module, nn.BatchNorm2d):
      normal(module.weight, 0.1, 1.0)
      normal(module.bias, 0.1)
      normal(module.running_mean, 0.1)
      module.running_var.uniform_(0.5, 1.5, generator=random)
  return net
