"""What the parity tests need of PyTorch beside the networks, which the benchmark times as well."""

import torch
from torch import nn

from jaxseg.benchmark.torch_models import FCN, SegNet, SegNetBasic, UNet

__all__ = ['FCN', 'SegNet', 'SegNetBasic', 'UNet', 'import_torchvision_models', 'randomize']


def import_torchvision_models():
  """Returns torchvision.models, beside a CPU build of torch too, which lacks its operators."""
  library = torch.library.Library('torchvision', 'DEF')
  for name in (
    'nms qnms roi_align qroi_align roi_pool ps_roi_align ps_roi_pool deform_conv2d '
    '_roi_align_backward _roi_pool_backward _ps_roi_align_backward _ps_roi_pool_backward '
    '_deform_conv2d_backward'
  ).split():
    library.define(f'{name}(Tensor x) -> Tensor')
  import torchvision.models

  torchvision.models.declared_operators = library  # they go when nothing holds it
  return torchvision.models


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
