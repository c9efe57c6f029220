"""Classification networks as backbones: image [b,h,w,c] -> {'stride4': [b,h/4,w/4,c'], ...}.

All take `norm`, which makes their batch norm layers, and `dtype`, the compute type; parameters are
float32.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from jaxseg.nn.backbones.efficientnet import SCALES, EfficientNetLite
from jaxseg.nn.backbones.mobilenet import MobileNetV1, MobileNetV2
from jaxseg.nn.backbones.resnet import FIRST, STAGE_SIZES, ResNet
from jaxseg.nn.backbones.vgg import VGG16
from jaxseg.types import UserError

NAMES = (
  'vgg16',
  *STAGE_SIZES,
  *(n + FIRST for n in STAGE_SIZES),
  'mobilenet_v1',
  'mobilenet_v2',
  *SCALES,
)


def build(name: str, /, **options: Any) -> nn.Module:
  """Returns the backbone of that name; `options` are the fields of its class.

  Raises:
    UserError: no such backbone; the message lists them all.
  """
  if (resnet := name.removesuffix(FIRST)) in STAGE_SIZES:
    return ResNet(stage_sizes=STAGE_SIZES[resnet], stride_first=name != resnet, **options)
  if name in SCALES:
    return EfficientNetLite(scale=SCALES[name], **options)
  classes = {'vgg16': VGG16, 'mobilenet_v1': MobileNetV1, 'mobilenet_v2': MobileNetV2}
  if name not in classes:
    raise UserError(f'no backbone {name!r}: choose one of {", ".join(NAMES)}')
  return classes[name](**options)


__all__ = [
  'EfficientNetLite',
  'MobileNetV1',
  'MobileNetV2',
  'NAMES',
  'ResNet',
  'STAGE_SIZES',
  'VGG16',
  'build',
]
