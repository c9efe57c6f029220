"""Mask R-CNN (arXiv:1703.06870) on ResNet with a feature pyramid, for 800 x 1344 and 512 sampled regions.

Initial values, frozen layers and the half-cell shift are Detectron2's. The ResNet is torchvision's,
whose weights are loaded: it strides in the 3x3, Detectron2's own in the first 1x1. Its stem, first
stage and batch norm are frozen; decay rules all that learns. What all levels share stands once, for
the finest.
"""

from __future__ import annotations

from typing import Any

from jaxseg.tools.fidelity.papers import Paper, Part, _resnet

_STEM = """
backbone/conv1, backbone/bn1 | 7x7 | 2 | 3 | 400x672x64 | 9408 | relu
pool1 | max 3x3 | 2 | 1 | 200x336x64
"""

_NORM = ('batch norm 1e-05, frozen', 'loaded, loaded', '0, 0', '0, 0')
_XAVIER = 'uniform 1/in, 0'
_MSRA = 'normal 2/out, 0'
_NORMAL = 'normal sd 0.01, 0'
_SMALL = 'normal sd 0.001, 0'

_HEADS = f"""
fpn/inner_blocks_0 | 1x1 | 1 | 0 | 200x336x256 | 65792
fpn/inner_blocks_1 | 1x1 | 1 | 0 | 100x168x256 | 131328
fpn/inner_blocks_2 | 1x1 | 1 | 0 | 50x84x256 | 262400
fpn/inner_blocks_3 | 1x1 | 1 | 0 | 25x42x256 | 524544
doubling1 | nearest | 2 | | 50x84x256
doubling2 | nearest | 2 | | 100x168x256
doubling3 | nearest | 2 | | 200x336x256
fpn/layer_blocks_0 | 3x3 | 1 | 1 | 200x336x256 | 590080
fpn/layer_blocks_1 | 3x3 | 1 | 1 | 100x168x256 | 590080
fpn/layer_blocks_2 | 3x3 | 1 | 1 | 50x84x256 | 590080
fpn/layer_blocks_3 | 3x3 | 1 | 1 | 25x42x256 | 590080
fpn/extra | further level | 2 | | 13x21x256
rpn/conv | 3x3 | 1 | 1 | 200x336x256 | 590080 | relu | {_NORMAL}
rpn/cls_logits | 1x1 | 1 | 0 | 200x336x3 | 771 | | {_NORMAL}
rpn/bbox_pred | 1x1 | 1 | 0 | 200x336x12 | 3084 | | {_NORMAL}
align7 | align 7x7, 2x2 points, shift 0.5 | | | 7x7x256
box_head/fc6 | dense | | | 512x1024 | 12846080 | relu
box_head/fc7 | dense | | | 512x1024 | 1049600 | relu
box_head/cls_score | dense | | | 512xC | 1025C | | {_NORMAL}
box_head/bbox_pred | dense | | | 512x4K | 4100K | | {_SMALL}
align14 | align 14x14, 2x2 points, shift 0.5 | | | 14x14x256
mask_head/mask_fcn1 | 3x3 | 1 | 1 | 14x14x256 | 590080 | relu | {_MSRA}
mask_head/mask_fcn2 | 3x3 | 1 | 1 | 14x14x256 | 590080 | relu | {_MSRA}
mask_head/mask_fcn3 | 3x3 | 1 | 1 | 14x14x256 | 590080 | relu | {_MSRA}
mask_head/mask_fcn4 | 3x3 | 1 | 1 | 14x14x256 | 590080 | relu | {_MSRA}
mask_head/conv5_mask | 2x2 | 2 | 0 | 28x28x256 | 262400 | relu | {_MSRA}
mask_head/mask_fcn_logits | 1x1 | 1 | 0 | 28x28xK | 257K | | {_SMALL}
"""


def paper(model: Any) -> Paper:
  first, *others = _resnet.stages(
    _resnet.BLOCKS[model.backbone],
    ('200x336', '200x336', '100x168', '50x84', '25x42'),
    channels=64,
    strides=(1, 2, 2, 2),
  )
  return Paper(
    f'Mask R-CNN R{model.backbone.removeprefix("resnet")}-FPN',
    "arXiv:1703.06870, facebookresearch/detectron2; torchvision's ResNet",
    (1, 800, 1344),
    (
      Part(_STEM + first, 'loaded', '0', '0', _NORM),
      Part(''.join(others), 'loaded', '1', '1', _NORM),
      Part(_HEADS, _XAVIER, '1, 1', '1, 1'),
    ),
  )
