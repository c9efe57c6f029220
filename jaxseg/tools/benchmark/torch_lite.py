"""EfficientNet-Lite in PyTorch, written from its description, and the U-Net on it.

Modules are named as in the port with published weights: _conv_stem, _bn0, _blocks.0._bn1 ...
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from jaxseg.tools.benchmark import torch_models
from jaxseg.types import UserError

# Kernel, stride, expansion, channels in, channels out and repetitions of Lite 0's seven stages.
STAGES = (
  (3, 1, 1, 32, 16, 1),
  (3, 2, 6, 16, 24, 2),
  (5, 2, 6, 24, 40, 2),
  (3, 2, 6, 40, 80, 3),
  (5, 1, 6, 80, 112, 3),
  (5, 2, 6, 112, 192, 4),
  (3, 1, 6, 192, 320, 1),
)


class SameConv(nn.Conv2d):
  """TensorFlow's 'SAME': the output is the input's size over the stride, rounded up."""

  def __init__(self, inputs, outputs, side, stride=1, groups=1):
    super().__init__(inputs, outputs, side, stride, groups=groups, bias=False)

  def forward(self, x):
    spare = []
    for size, side, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
      missing = max(0, (math.ceil(size / stride) - 1) * stride + side - size)
      spare += [missing // 2, missing - missing // 2]
    return super().forward(F.pad(x, spare) if any(spare) else x)


class Block(nn.Module):
  """An inverted residual block."""

  def __init__(self, inputs, outputs, side, stride, expansion):
    super().__init__()
    wide = inputs * expansion
    if expansion > 1:
      self._expand_conv = SameConv(inputs, wide, 1)
      self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
    self._depthwise_conv = SameConv(wide, wide, side, stride, groups=wide)
    self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
    self._project_conv = SameConv(wide, outputs, 1)
    self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
    self.adds = stride == 1 and inputs == outputs

  def forward(self, x):
    y = x
    if hasattr(self, '_expand_conv'):
      y = F.relu6(self._bn0(self._expand_conv(y)))
    y = F.relu6(self._bn1(self._depthwise_conv(y)))
    y = self._bn2(self._project_conv(y))
    return x + y if self.adds else y


class EfficientNetLite(nn.Module):
  """The classifier Lite 0, 1 or 2; `features` returns the maps of strides 2 to 32, finest first."""

  def __init__(self, number=0, num_classes=1000, channels=3):
    super().__init__()
    width, depth = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))[number]
    self._conv_stem = SameConv(channels, 32, 3, 2)
    self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
    blocks, inputs, self.channels = [], 32, []
    for i, (side, stride, expansion, _, published, count) in enumerate(STAGES):
      outputs = scaled(published, width)
      if i not in (0, len(STAGES) - 1):
        count = math.ceil(count * depth)
      if stride == 2:
        self.channels.append(inputs)
      for repetition in range(count):
        blocks.append(Block(inputs, outputs, side, 1 if repetition else stride, expansion))
        inputs = outputs
    self.channels.append(inputs)
    self._blocks = nn.ModuleList(blocks)
    if num_classes:
      self._conv_head = SameConv(inputs, 1280, 1)
      self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
      self._dropout = nn.Dropout(0.2)
      self._fc = nn.Linear(1280, num_classes)

  def features(self, x):
    x, maps = F.relu6(self._bn0(self._conv_stem(x))), []
    for block in self._blocks:
      if block._depthwise_conv.stride == (2, 2):
        maps.append(x)
      x = block(x)
    return [*maps, x]

  def forward(self, x):
    x = F.relu6(self._bn1(self._conv_head(self.features(x)[-1])))
    return self._fc(self._dropout(x.mean((2, 3))))


def scaled(channels, factor):
  """Rounds to the nearest multiple of eight, but not below nine tenths."""
  nearest = max(8, int(channels * factor + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels * factor else nearest


class UNet(torch_models.UNet):
  """U-Net with EfficientNet-Lite as encoder, batch norm in the decoder's levels 4 to 1."""

  def __init__(self, num_classes, channels, width, number=0, dropout=0.0):
    nn.Module.__init__(self)
    self.batch_norm, self.bottom_dropout = True, nn.Dropout(dropout)
    self.backbone = EfficientNetLite(number, 0, channels)
    *skips, inputs = self.backbone.channels
    for level in (4, 3, 2, 1):
      outputs = width * 2**level
      self.add_module(f'dec{level}_up', nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
      self.block(f'dec{level}', outputs + skips[level - 1], outputs, 1)
      inputs = outputs
    self.conv('score', inputs, num_classes, 1)

  def forward(self, image):
    *skips, x = self.backbone.features(image)
    x = self.bottom_dropout(x)
    for level in (4, 3, 2, 1):
      x = torch.cat((skips[level - 1], self.run(f'dec{level}_up', x)), 1)
      x = self.convolve(f'dec{level}', x)
    x = self.run('score', x)
    return F.interpolate(x, image.shape[2:], mode='bilinear', align_corners=False)


def unet(classes, channels, *, width, depth, padding, batch_norm, dropout_rate, backbone):
  """A config's U-Net, with the paper's encoder or EfficientNet-Lite."""
  if backbone is None:
    padding = 1 if padding == 'same' else 0
    options = dict(batch_norm=batch_norm, dropout=dropout_rate)
    return torch_models.UNet(classes, channels, width, depth, padding, **options)
  name, _, number = backbone.rpartition('lite')
  if name != 'efficientnet_' or not batch_norm:
    raise UserError(
      f'--compare=torch has no unet(backbone={backbone}, batch_norm={batch_norm}) in PyTorch: it has '
      'efficientnet_lite0 to 2 with batch norm'
    )
  return UNet(classes, channels, width, int(number), dropout_rate)
