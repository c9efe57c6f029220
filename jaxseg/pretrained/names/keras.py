"""Keras' applications: vgg16, resnet50 (both generations of names) and mobilenet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from jaxseg.pretrained.names import layouts
from jaxseg.pretrained.names.sources import (
  CAFFE,
  FULLY_CONNECTED,
  KERAS_MOBILENET,
  Naming,
  Tensors,
  has_layer,
)
from jaxseg.types import UserError

_ROLES = (  # (endings of a weight's name over the years, our name)
  (('depthwise_kernel',), 'depthwise'),
  (('kernel', 'W'), 'kernel'),
  (('bias', 'b'), 'bias'),
  (('gamma',), 'scale'),
  (('beta',), 'offset'),
  (('moving_mean', 'running_mean'), 'mean'),
  (('moving_variance', 'running_std', 'running_var'), 'var'),
)
_VGG_FC = {'fc1': 'fc6', 'fc2': 'fc7', 'predictions': 'fc8'}
_RESNET_TOP = ('fc1000', 'probs', 'predictions')
# Keras' ResNet uses a batch norm epsilon of 1.001e-5, ours 1e-5.
_RESNET_EPSILON = 1.001e-5 - 1e-5


def _role(weight: str) -> str:
  """'block1_conv1_W_1:0' and 'block1_conv1/kernel:0' -> 'kernel'."""
  tail = re.sub(r'(_\d+)?(:\d+)?$', '', weight.rsplit('/', 1)[-1])
  for endings, role in _ROLES:
    if any(tail == ending or tail.endswith(f'_{ending}') for ending in endings):
      return role
  raise UserError(f'the Keras weight {weight} is no part of a convolution or a batch norm')


def _layers(tensors: Tensors, rename: Callable[[str], str]) -> dict[str, dict]:
  layers = {}
  for name, values in tensors.items():
    layer, weight = name.split('/', 1)
    layers.setdefault(rename(layer), {})[_role(weight)] = values
  return layers


def _names(layers: Mapping[str, dict]) -> dict[str, np.ndarray]:
  out = {}
  for layer, weights in layers.items():
    for role, values in weights.items():
      collection = 'batch_stats' if role in ('mean', 'var') else 'params'
      if role == 'depthwise':
        role, values = 'kernel', values.transpose(0, 1, 3, 2)
      out[f'{collection}/{layer}/{"bias" if role == "offset" else role}'] = values
  return out


def _translate_vgg(tensors: Tensors) -> dict[str, np.ndarray]:
  def rename(layer: str) -> str:
    return _VGG_FC.get(layer, re.sub(r'block(\d)_conv(\d)', r'conv\1_\2', layer))

  layers = _layers(tensors, rename)
  for layer, size in FULLY_CONNECTED.items():
    if layer in layers:
      kernel = layers[layer]['kernel']
      layers[layer]['kernel'] = layouts.dense_hwc_as_conv(kernel, size)
  return _names(layers)


def _resnet_layer(layer: str) -> str:
  """conv2_block1_1_conv, res2a_branch2a, bn2a_branch2a, ... -> layer1_0_conv1, layer1_0_bn1."""
  stem = {'conv1': 'conv1', 'conv1_conv': 'conv1', 'bn_conv1': 'bn1', 'conv1_bn': 'bn1'}
  if layer in stem or layer in _RESNET_TOP:
    return stem.get(layer, 'fc')
  if new := re.fullmatch(r'conv(\d)_block(\d+)_(\d)_(conv|bn)', layer):
    stage, block, part, kind = int(new[1]), int(new[2]) - 1, int(new[3]), new[4]
  elif old := re.fullmatch(r'(res|bn)(\d)([a-z])_branch(1|2[abc])', layer):
    stage, block = int(old[2]), ord(old[3]) - ord('a')
    part, kind = ('1', '2a', '2b', '2c').index(old[4]), 'conv' if old[1] == 'res' else 'bn'
  else:
    return layer
  end = f'{kind}{part}' if part else f'downsample_{int(kind == "bn")}'
  return f'layer{stage - 1}_{block}_{end}'


def _translate_resnet(tensors: Tensors) -> dict[str, np.ndarray]:
  """Subtracts biases before a batch norm from its mean: the same function without biases."""
  layers = _layers(tensors, _resnet_layer)
  for layer, weights in layers.items():
    norm = layers.get(layer.replace('conv', 'bn').replace('downsample_0', 'downsample_1'))
    if norm is not None and norm is not weights and 'bias' in weights:
      norm['mean'] = norm['mean'] - weights.pop('bias')
  for weights in layers.values():
    if 'var' in weights:
      weights['var'] = weights['var'] + np.float32(_RESNET_EPSILON)
  return _names(layers)


SOURCES = (
  Naming(
    'Keras vgg16',
    has_layer('block5_conv3'),
    _translate_vgg,
    CAFFE,
    classifier=('fc6', 'fc7', 'fc8'),
  ),
  Naming(
    'Keras resnet50',
    has_layer('conv5_block1_0_conv', 'res5a_branch1'),
    _translate_resnet,
    CAFFE,
    classifier=('fc',),
    needs={'backbone': 'resnet50_v1'},  # the stride is on the first 1x1 of a block
  ),
  Naming(
    'Keras mobilenet',
    has_layer('conv_dw_13'),
    lambda tensors: _names(_layers(tensors, lambda layer: layer)),
    KERAS_MOBILENET,
    classifier=('conv_preds',),
  ),
)
