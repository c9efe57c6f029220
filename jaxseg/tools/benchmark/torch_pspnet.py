"""PyTorch's side: PSPNet, from the paper; see torch_models. Names are those of the authors' release.

Weights are therefore converted like the release's (hszhao/semseg, jaxseg.pretrained).
"""

import torch
import torch.nn.functional as F
from torch import nn

from jaxseg.nn.backbones import STAGE_SIZES

ALIGNED = dict(mode='bilinear', align_corners=True)


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


def stage(inputs, features, count, stride=1, dilation=1):
  """A sequence of bottlenecks, the first with the stride and a projection shortcut."""
  return nn.Sequential(
    Bottleneck(inputs, features, stride, dilation, True),
    *(Bottleneck(4 * features, features, 1, dilation, False) for _ in range(count - 1)),
  )


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


class PSPNet(nn.Module):
  """Widths in units of `width`, 64 as published. Returns a list of logits and auxiliary logits.

  The latter only with `aux`, in training or, with `always_aux`, in evaluation too.
  """

  def __init__(
    self, num_classes, stage_sizes, width, deep_stem, *, aux=True, dropout=0.1, always_aux=False
  ):
    super().__init__()
    self.num_classes, self.dropout, self.always_aux = num_classes, dropout, always_aux
    if deep_stem:
      stem = [conv_bn(3, width, 3, 2), conv_bn(width, width, 3), conv_bn(width, 2 * width, 3)]
      channels = 2 * width
    else:
      stem, channels = [conv_bn(3, width, 7, 2)], width
    layers = [layer for pair in stem for layer in (*pair, nn.ReLU())]
    self.layer0 = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))
    strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
    for i, count in enumerate(stage_sizes):
      features = width * 2**i
      layer = stage(channels, features, count, strides[i], dilations[i])
      self.add_module(f'layer{i + 1}', layer)
      channels = 4 * features
    self.ppm = Pyramid(channels, (1, 2, 3, 6))
    self.cls = self.head(2 * channels, channels // 4)
    self.aux = self.head(channels // 2, channels // 8) if aux else None

  def head(self, channels, features):
    middle = [*conv_bn(channels, features, 3), nn.ReLU(), nn.Dropout2d(self.dropout)]
    return nn.Sequential(*middle, nn.Conv2d(features, self.num_classes, 1))

  def forward(self, image):
    x = self.layer2(self.layer1(self.layer0(image)))
    middle = self.layer3(x)
    heads = [self.cls(self.ppm(self.layer4(middle)))]
    if self.aux is not None and (self.training or self.always_aux):
      heads.append(self.aux(middle))
    return [F.interpolate(x, image.shape[2:], **ALIGNED) for x in heads]


def pspnet(classes, channels, *, backbone, stage_sizes, width, deep_stem, aux, dropout_rate):
  """Builds it from the JAX model's options."""
  del channels
  stages = tuple(stage_sizes or STAGE_SIZES[backbone])
  return PSPNet(classes, stages, width, deep_stem, aux=aux, dropout=dropout_rate)
