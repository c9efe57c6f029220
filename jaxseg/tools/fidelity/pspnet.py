"""PSPNet's layers as published, for `tables.PAPERS`.

The paper gives the pyramid, the dilation and the auxiliary loss; all else is from the authors' PyTorch
release (hszhao/semseg), for 473 x 473. Only its scores' biases, which PyTorch draws, are not compared.
"""

from __future__ import annotations

from jaxseg.tools.fidelity import bottlenecks

_STEM = """
backbone/conv1 | 3x3 | 2 | 1 | 237x237x64 | 1728
backbone/bn1 | batch norm 1e-05 | | | 237x237x64 | 128 | relu
backbone/conv2 | 3x3 | 1 | 1 | 237x237x64 | 36864
backbone/bn2 | batch norm 1e-05 | | | 237x237x64 | 128 | relu
backbone/conv3 | 3x3 | 1 | 1 | 237x237x128 | 73728
backbone/bn3 | batch norm 1e-05 | | | 237x237x128 | 256 | relu
pool1 | max 3x3 | 2 | 1 | 119x119x128
"""

_NEW = 'uniform 1/3/in | 10'
_NORM = '1, 0 | 10, 10'

_HEADS = f"""
bins1 | average 1x1 | | | 1x1x2048
ppm_features_0_1 | 1x1 | 1 | 0 | 1x1x512 | 1048576 | | {_NEW}
ppm_features_0_2 | batch norm 1e-05 | | | 1x1x512 | 1024 | relu | {_NORM}
ppm_features_0_upsampled | bilinear, corners aligned | | | 60x60x512
bins2 | average 2x2 | | | 2x2x2048
ppm_features_1_1 | 1x1 | 1 | 0 | 2x2x512 | 1048576 | | {_NEW}
ppm_features_1_2 | batch norm 1e-05 | | | 2x2x512 | 1024 | relu | {_NORM}
ppm_features_1_upsampled | bilinear, corners aligned | | | 60x60x512
bins3 | average 3x3 | | | 3x3x2048
ppm_features_2_1 | 1x1 | 1 | 0 | 3x3x512 | 1048576 | | {_NEW}
ppm_features_2_2 | batch norm 1e-05 | | | 3x3x512 | 1024 | relu | {_NORM}
ppm_features_2_upsampled | bilinear, corners aligned | | | 60x60x512
bins6 | average 6x6 | | | 6x6x2048
ppm_features_3_1 | 1x1 | 1 | 0 | 6x6x512 | 1048576 | | {_NEW}
ppm_features_3_2 | batch norm 1e-05 | | | 6x6x512 | 1024 | relu | {_NORM}
ppm_features_3_upsampled | bilinear, corners aligned | | | 60x60x512
cls_0 | 3x3 | 1 | 1 | 60x60x512 | 18874368 | | {_NEW}
cls_1 | batch norm 1e-05 | | | 60x60x512 | 1024 | relu | {_NORM}
cls_3 | dropout 0.1 of channels | | | 60x60x512
cls_4 | 1x1 | 1 | 0 | 60x60xC | 513C | | uniform 1/3/in, - | 10, 10 | 1, 1
cls_upsampled | bilinear, corners aligned | | | 473x473xC
aux_0 | 3x3 | 1 | 1 | 60x60x256 | 2359296 | | {_NEW}
aux_1 | batch norm 1e-05 | | | 60x60x256 | 512 | relu | {_NORM}
aux_3 | dropout 0.1 of channels | | | 60x60x256
aux_4 | 1x1 | 1 | 0 | 60x60xC | 257C | | uniform 1/3/in, - | 10, 10 | 1, 1
aux_upsampled | bilinear, corners aligned | | | 473x473xC
"""


def table(blocks: tuple[int, int, int, int]) -> str:
  """Returns the rows of PSPNet for the numbers of bottlenecks of a ResNet's four stages."""
  sizes = ('119x119', '119x119', '60x60', '60x60', '60x60')
  stages = bottlenecks.stages(
    blocks, sizes, channels=128, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)
  )
  return _STEM + stages + _HEADS
