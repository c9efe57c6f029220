"""PyTorch's side: FCN, SegNet and U-Net, written from the papers.

The benchmark times them, and the parity tests compare with them. Modules have the names of our
parameters, so that weights and gradients map one to one. This file is independent of the JAX models, and
only the benchmark's comparison and the tests import it: PyTorch is not a requirement.
The functions at the end build a network from the options of its JAX model.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

VGG16 = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))  # (convolutions, channels in units of width)


class Net(nn.Module):
  """A module whose children have our names."""

  def conv(self, name, inputs, outputs, size, padding=0, bias=True):
    self.add_module(name, nn.Conv2d(inputs, outputs, size, padding=padding, bias=bias))

  def norm(self, name, channels, eps):
    self.add_module(name, nn.BatchNorm2d(channels, eps=eps))

  def run(self, name, x):
    return self.get_submodule(name)(x)


class FCN(Net):
  """FCN-32s, 16s or 8s on VGG16 as released: pad 100, ceil pooling, fixed bilinear upsampling.

  `scales` multiply pool4 and pool3 before their scores (0.01 and 0.0001 in the at-once net).
  """

  def __init__(self, num_classes, width, stride, scales=(1.0, 1.0), dropout=0.5):
    super().__init__()
    self.stride, self.scales = stride, scales
    channels = 3
    for stage, (count, multiple) in enumerate(VGG16, 1):
      for i in range(1, count + 1):
        padding = 100 if (stage, i) == (1, 1) else 1
        self.conv(f'conv{stage}_{i}', channels, width * multiple, 3, padding)
        channels = width * multiple
    self.conv('fc6', channels, 64 * width, 7)
    self.conv('fc7', 64 * width, 64 * width, 1)
    self.drop6, self.drop7 = nn.Dropout(dropout), nn.Dropout(dropout)
    self.conv('score_fr', 64 * width, num_classes, 1)
    if stride <= 16:
      self.conv('score_pool4', 8 * width, num_classes, 1)
    if stride == 8:
      self.conv('score_pool3', 4 * width, num_classes, 1)
    for factor in {2, stride}:
      kernel = bilinear(num_classes, 2 * factor)
      self.register_buffer(f'bilinear{factor}', kernel, persistent=False)

  def forward(self, image):
    x, pools = image, {}
    for stage, (count, _) in enumerate(VGG16, 1):
      for i in range(1, count + 1):
        x = F.relu(self.run(f'conv{stage}_{i}', x))
      x = pools[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = self.drop6(F.relu(self.run('fc6', x)))
    x = self.drop7(F.relu(self.run('fc7', x)))
    x, crop = self.run('score_fr', x), {32: 19, 16: 27, 8: 31}[self.stride]
    if self.stride <= 16:
      x = self.upsample(x, 2)
      x = x + cut(self.run('score_pool4', pools[4] * self.scales[0]), 5, x)
    if self.stride == 8:
      x = self.upsample(x, 2)
      x = x + cut(self.run('score_pool3', pools[3] * self.scales[1]), 9, x)
    return cut(self.upsample(x, self.stride), crop, image)

  def upsample(self, x, factor):
    return F.conv_transpose2d(x, self.get_buffer(f'bilinear{factor}'), stride=factor)


def cut(x, offset, like):
  """Caffe's crop: from a top-left offset, to the size of `like`."""
  return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


def bilinear(channels, size):
  """A transposed convolution's C x C kernel with the bilinear filter on its diagonal."""
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  line = 1 - np.abs(np.arange(size) - centre) / factor
  kernel = torch.zeros(channels, channels, size, size)
  kernel[range(channels), range(channels)] = torch.as_tensor(np.outer(line, line)).float()
  return kernel


class SegNet(Net):
  """SegNet on VGG16: argmax pooling, unpooling, batch norm with epsilon 1e-9 (caffe-segnet)."""

  stages, side = VGG16, 3
  names = [[f'conv{s}_{i}' for i in range(1, count + 1)] for s, (count, _) in enumerate(VGG16, 1)]
  decoder = [[f'{name}_D' for name in reversed(stage)] for stage in reversed(names)]
  classifier = 'conv1_1_D', 3

  def __init__(self, num_classes, width):
    super().__init__()
    channels = 3
    for names, (_, multiple) in zip(self.names, self.stages, strict=True):
      for name in names:
        channels = self.block(name, channels, width * multiple)
    finer = [multiple for _, multiple in (self.stages[0], *self.stages)]
    for names in self.decoder:  # a stage outputs the channels of the next finer one
      here, finer = finer[-1], finer[:-1]
      for name in names:
        if name != self.classifier[0]:
          multiple = finer[-1] if name == names[-1] else here
          channels = self.block(name, channels, width * multiple)
    name, side = self.classifier
    self.conv(name, channels, num_classes, side, side // 2)

  def block(self, name, inputs, outputs):
    self.conv(name, inputs, outputs, self.side, self.side // 2)
    self.norm(f'{name}_bn', outputs, 1e-9)
    return outputs

  def convolve(self, name, x):
    return self.run(f'{name}_bn', self.run(name, x))

  def decode(self, name, x):
    return F.relu(self.convolve(name, x))

  def forward(self, x):
    memory = []
    for names in self.names:
      for name in names:
        x = F.relu(self.convolve(name, x))
      size = x.shape[2:]
      x, index = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
      memory.append((index, size))
    for names in self.decoder:
      index, size = memory.pop()
      x = F.max_unpool2d(x, index, 2, 2, output_size=size)
      for name in names:
        if name != self.classifier[0]:
          x = self.decode(name, x)
    return self.run(self.classifier[0], x)


class SegNetBasic(SegNet):
  """SegNet-Basic: LRN on the input, four 7x7 layers down and up, no ReLU in the decoder."""

  stages, side = ((1, 1),) * 4, 7
  names = [[f'conv{stage}'] for stage in range(1, 5)]
  decoder = [[f'conv_decode{stage}'] for stage in range(4, 0, -1)]
  classifier = 'conv_classifier', 1

  def decode(self, name, x):
    return self.convolve(name, x)

  def forward(self, x):
    return super().forward(F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0))


class UNet(Net):
  """The paper's U-Net; `padding` 1 preserves sizes; `batch_norm` replaces biases."""

  def __init__(self, num_classes, inputs, width, depth=4, padding=0, batch_norm=False, dropout=0.5):
    super().__init__()
    self.bottom_dropout = nn.Dropout(dropout)
    self.depth, self.batch_norm = depth, batch_norm
    sizes = [width * 2**level for level in range(depth + 1)]
    for level, outputs in enumerate(sizes):
      name = f'enc{level}' if level < depth else 'bottom'
      self.block(name, inputs, outputs, padding)
      inputs = outputs
    for level in range(depth):
      up = nn.ConvTranspose2d(sizes[level + 1], sizes[level], 2, stride=2)
      self.add_module(f'dec{level}_up', up)
      self.block(f'dec{level}', 2 * sizes[level], sizes[level], padding)
    self.conv('score', width, num_classes, 1)

  def block(self, name, inputs, outputs, padding):
    for i in (1, 2):
      self.conv(f'{name}_conv{i}', inputs, outputs, 3, padding, bias=not self.batch_norm)
      if self.batch_norm:
        self.norm(f'{name}_bn{i}', outputs, 1e-5)
      inputs = outputs

  def convolve(self, name, x):
    for i in (1, 2):
      x = self.run(f'{name}_conv{i}', x)
      x = F.relu(self.run(f'{name}_bn{i}', x) if self.batch_norm else x)
    return x

  def forward(self, x):
    skips = []
    for level in range(self.depth):
      skips.append(self.convolve(f'enc{level}', x))
      x = F.max_pool2d(skips[-1], 2)
    x = self.bottom_dropout(self.convolve('bottom', x))
    for level in reversed(range(self.depth)):
      x, skip = self.run(f'dec{level}_up', x), skips[level]
      top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
      skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
      x = self.convolve(f'dec{level}', torch.cat((skip, x), 1))
    return self.run('score', x)


def fcn(classes, channels, *, width, stride, at_once, dropout_rate):
  del channels
  scales = (1e-2, 1e-4) if at_once else (1.0, 1.0)
  return FCN(classes, width, stride, scales, 0.5 if dropout_rate is None else dropout_rate)


def segnet(classes, channels, *, width, variant):
  del channels
  return (SegNetBasic if variant == 'basic' else SegNet)(classes, width)
