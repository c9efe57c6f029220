"""torchvision's maskrcnn_resnet50_fpn: its current names, and those of the published file (2019).

Its heads also have a box and a mask for the background, which are never trained: they are dropped. Of the
91 outputs, COCO's category numbers, the 80 in use are kept in order: our classes 1 to 80. The published
file is for batch norm without epsilon: our epsilon, 1e-5, is subtracted from its variances.
"""

from __future__ import annotations

import re

import numpy as np

from jaxseg.pretrained.names import layouts
from jaxseg.pretrained.names.sources import TORCHVISION, Naming, Tensors, has

_COCO_OUTPUTS = 91
_COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_EPSILON = 1e-5
_BOX_SIDE = 7  # of fc6's input features, in the order c, h, w
_NAMES = (
  (r'^backbone\.body\.', 'backbone/'),
  (r'^backbone\.fpn\.(inner|layer)_blocks\.(\d)(\.0)?$', r'fpn/\1_blocks_\2'),
  (r'^rpn\.head\.conv(\.0\.0)?$', 'rpn/conv'),
  (r'^rpn\.head\.', 'rpn/'),
  (r'^roi_heads\.box_(head|predictor)\.', 'box_head/'),
  (r'^roi_heads\.mask_predictor\.', 'mask_head/'),
)


def _rename(module: str) -> str:
  if layer := re.match(r'^roi_heads\.mask_head\.(?:mask_fcn(\d)|(\d)\.0)$', module):
    number = int(layer[1]) if layer[1] else int(layer[2]) + 1
    return f'mask_head/mask_fcn{number}'
  for pattern, name in _NAMES:
    module = re.sub(pattern, name, module)
  return module.replace('.', '_')


def _translate(tensors: Tensors) -> dict[str, np.ndarray]:
  out = layouts.from_torch(tensors, _rename, transposed=lambda name: name.endswith('conv5_mask'))
  kernel = out['params/box_head/fc6/kernel']
  by_place = kernel.reshape(-1, _BOX_SIDE, _BOX_SIDE, kernel.shape[1]).transpose(1, 2, 0, 3)
  out['params/box_head/fc6/kernel'] = by_place.reshape(kernel.shape)
  for part in ('kernel', 'bias'):
    _keep_classes(out, part)
  return out


def _keep_classes(out: dict[str, np.ndarray], part: str) -> None:
  """Drops the background's box and mask, and COCO's unused category numbers."""
  scores = out[f'params/box_head/cls_score/{part}']
  count = scores.shape[-1]
  unused = _COCO_UNUSED if count == _COCO_OUTPUTS else ()
  kept = [i for i in range(count) if i not in unused]
  out[f'params/box_head/cls_score/{part}'] = scores[..., kept]
  boxes = out[f'params/box_head/bbox_pred/{part}']
  boxes = boxes.reshape(*boxes.shape[:-1], count, 4)[..., kept[1:], :]
  out[f'params/box_head/bbox_pred/{part}'] = boxes.reshape(*boxes.shape[:-2], -1)
  masks = f'params/mask_head/mask_fcn_logits/{part}'
  out[masks] = out[masks][..., kept[1:]]


def _translate_published(tensors: Tensors) -> dict[str, np.ndarray]:
  out = _translate(tensors)
  variances = {name: values - _EPSILON for name, values in out.items() if name.endswith('/var')}
  return out | variances


_HEADS = ('roi_heads.box_head.fc6.weight', 'roi_heads.mask_predictor.conv5_mask.weight')
_NEEDS = {'aligned': False, 'anchors_rounded': True}

SOURCES = (
  Naming(
    'torchvision maskrcnn_resnet50_fpn, published',
    has('backbone.body.conv1.weight', 'rpn.head.conv.weight', *_HEADS),
    _translate_published,
    TORCHVISION,
    needs=_NEEDS,
  ),
  Naming(
    'torchvision maskrcnn_resnet50_fpn',
    has('backbone.body.conv1.weight', 'rpn.head.conv.0.0.weight', *_HEADS),
    _translate,
    TORCHVISION,
    needs=_NEEDS,
  ),
)
