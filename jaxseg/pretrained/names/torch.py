"""PyTorch's state_dicts: torchvision's vgg16, vgg16_bn, resnet50/101, mobilenet_v2 and fcn_resnet50/101,
EfficientNet-Lite's port (ml-illustrated/EfficientNet-Lite-PyTorch), and PSPNet's release, hszhao/semseg, pspnet50 and pspnet101 (its ImageNet weights with the deep stem
have torchvision's names)."""

from __future__ import annotations

import re

import numpy as np

from jaxseg.nn.backbones.vgg import STAGES
from jaxseg.pretrained.names import layouts
from jaxseg.pretrained.names.sources import (
  EFFICIENTNET_LITE,
  FULLY_CONNECTED,
  TORCHVISION,
  Naming,
  Tensors,
  has,
)

_VGG_CLASSIFIER = {'classifier.0': 'fc6', 'classifier.3': 'fc7', 'classifier.6': 'fc8'}
# The stem of semseg is a Sequential, in which ReLU and pooling are numbered too.
_SEMSEG_STEM = {'0': 'conv1', '1': 'bn1', '3': 'conv2', '4': 'bn2', '6': 'conv3', '7': 'bn3'}


def _vgg_modules(batch_norm: bool) -> dict[str, str]:
  """'features.0' -> 'conv1_1' and so on: ReLU and pooling are numbered too."""
  modules, number = dict(_VGG_CLASSIFIER), 0
  for stage, (count, _) in enumerate(STAGES, start=1):
    for i in range(1, count + 1):
      modules[f'features.{number}'] = f'conv{stage}_{i}'
      if batch_norm:
        modules[f'features.{number + 1}'] = f'bn{stage}_{i}'
      number += 3 if batch_norm else 2
    number += 1
  return modules


def _translate_vgg(tensors: Tensors) -> dict[str, np.ndarray]:
  modules = _vgg_modules('features.1.weight' in tensors)

  def rename(module: str) -> str:
    return modules.get(module, module.replace('.', '_'))

  return layouts.from_torch(tensors, rename, dense_as=FULLY_CONNECTED)


def _translate_fcn(tensors: Tensors) -> dict[str, np.ndarray]:
  def rename(module: str) -> str:
    return re.sub('^backbone_', 'backbone/', module.replace('.', '_'))

  return layouts.from_torch(tensors, rename)


def _translate_lite(tensors: Tensors) -> dict[str, np.ndarray]:
  def rename(module: str) -> str:
    return '_'.join(part.removeprefix('_') for part in module.split('.'))

  return layouts.from_torch(tensors, rename)


def _translate_semseg(tensors: Tensors) -> dict[str, np.ndarray]:
  def rename(module: str) -> str:
    part, _, rest = module.partition('.')
    if part == 'layer0':
      return f'backbone/{_SEMSEG_STEM[rest]}'
    return ('backbone/' if part.startswith('layer') else '') + module.replace('.', '_')

  return layouts.from_torch(tensors, rename)


SOURCES = (
  Naming(
    'torchvision fcn_resnet50 or 101',
    has('backbone.layer4.0.conv1.weight', 'classifier.4.weight'),
    _translate_fcn,
    TORCHVISION,
    optional=('aux_classifier_.*',),
  ),
  Naming(
    'torchvision resnet50 or 101',
    has('conv1.weight', 'layer4.0.conv3.weight'),
    layouts.from_torch,
    TORCHVISION,
    classifier=('fc',),
  ),
  Naming(
    'torchvision mobilenet_v2',
    has('features.0.0.weight', 'features.1.conv.0.0.weight', 'features.18.0.weight'),
    layouts.from_torch,
    TORCHVISION,
    classifier=('classifier_1',),
  ),
  Naming(
    'efficientnet_lite0, 1 or 2',
    has('_conv_stem.weight', '_blocks.0._depthwise_conv.weight', '_conv_head.weight'),
    _translate_lite,
    EFFICIENTNET_LITE,
    classifier=('conv_head', 'bn1', 'fc'),
  ),
  Naming(
    'torchvision vgg16_bn',
    has('features.1.running_mean', 'features.40.weight'),
    _translate_vgg,
    TORCHVISION,
    classifier=('fc6', 'fc7', 'fc8'),
  ),
  Naming(
    'torchvision vgg16',
    has('features.0.weight', 'features.28.weight'),
    _translate_vgg,
    TORCHVISION,
    classifier=('fc6', 'fc7', 'fc8'),
  ),
  Naming(
    'semseg pspnet50 or 101',
    has('layer0.0.weight', 'ppm.features.0.1.weight', 'cls.4.weight'),
    _translate_semseg,
    TORCHVISION,
    optional=('aux_.*',),
    needs={'release': 'semseg'},
  ),
)
