"""PSPNet (arXiv:1612.01105), for 473 x 473.

The paper gives the pyramid, the dilation and the auxiliary loss; all else is from the authors' PyTorch
release (hszhao/semseg). Only its scores' biases, which PyTorch draws, are not compared. The ResNet is
loaded; what is new learns ten times as fast. Decay rules everything alike.
"""

from __future__ import annotations

from typing import Any

from jaxseg.tools.fidelity.papers import Paper, Part, _resnet

_STEM = """
backbone/conv1, backbone/bn1 | 3x3 | 2 | 1 | 237x237x64 | 1728 | relu
backbone/conv2, backbone/bn2 | 3x3 | 1 | 1 | 237x237x64 | 36864 | relu
backbone/conv3, backbone/bn3 | 3x3 | 1 | 1 | 237x237x128 | 73728 | relu
pool1 | max 3x3 | 2 | 1 | 119x119x128
"""

_PYRAMID = """
bins{bins} | average {bins}x{bins} | | | {bins}x{bins}x2048
ppm_features_{i}_1, ppm_features_{i}_2 | 1x1 | 1 | 0 | {bins}x{bins}x512 | 1048576 | relu
ppm_features_{i}_upsampled | bilinear, corners aligned | | | 60x60x512
"""

_HEADS = """
cls_0, cls_1 | 3x3 | 1 | 1 | 60x60x512 | 18874368 | relu
cls_3 | dropout 0.1 of channels | | | 60x60x512
cls_4 | 1x1 | 1 | 0 | 60x60xC | 513C | | uniform 1/3/in, - | 10, 10 | 1, 1
cls_upsampled | bilinear, corners aligned | | | 473x473xC
aux_0, aux_1 | 3x3 | 1 | 1 | 60x60x256 | 2359296 | relu
aux_3 | dropout 0.1 of channels | | | 60x60x256
aux_4 | 1x1 | 1 | 0 | 60x60xC | 257C | | uniform 1/3/in, - | 10, 10 | 1, 1
aux_upsampled | bilinear, corners aligned | | | 473x473xC
"""


def paper(model: Any) -> Paper:
  sizes = ('119x119', '119x119', '60x60', '60x60', '60x60')
  stages = _resnet.stages(
    _resnet.BLOCKS[model.backbone],
    sizes,
    channels=128,
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
  )
  norm = 'batch norm 1e-05'
  backbone = ''.join((_STEM, *stages))
  heads = ''.join(_PYRAMID.format(i=i, bins=bins) for i, bins in enumerate((1, 2, 3, 6))) + _HEADS
  return Paper(
    f'PSPNet{model.backbone.removeprefix("resnet")}',
    'arXiv:1612.01105, hszhao/semseg',
    (1, 473, 473),
    (
      Part(backbone, 'loaded', '1', '1', (norm, 'loaded, loaded', '1, 1', '1, 1')),
      Part(heads, 'uniform 1/3/in', '10', '1', (norm, '1, 0', '10, 10', '1, 1')),
    ),
  )
