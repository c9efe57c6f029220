"""PSPNet's layers as published, for `tables.PAPERS`; a bottleneck's rows stand once for its stage.

The paper gives the pyramid, the dilation and the auxiliary loss; all else is from the authors' PyTorch
release (hszhao/semseg), for 473 x 473. Only its scores' biases, which PyTorch draws, are not compared.
"""

from __future__ import annotations

_STEM = """
backbone/conv1 | 3x3 | 2 | 1 | 237x237x64 | 1728
backbone/bn1 | batch norm 1e-05 | | | 237x237x64 | 128 | relu
backbone/conv2 | 3x3 | 1 | 1 | 237x237x64 | 36864
backbone/bn2 | batch norm 1e-05 | | | 237x237x64 | 128 | relu
backbone/conv3 | 3x3 | 1 | 1 | 237x237x128 | 73728
backbone/bn3 | batch norm 1e-05 | | | 237x237x128 | 256 | relu
pool1 | max 3x3 | 2 | 1 | 119x119x128
"""

_BLOCK = """
NAME_conv1 | 1x1 | 1 | 0 | BEFORExNARROW | {reduce}
NAME_bn1 | batch norm 1e-05 | | | BEFORExNARROW | {two} | relu
NAME_conv2 | 3x3{dilated} | {stride} | {pad} | AFTERxNARROW | {nine}
NAME_bn2 | batch norm 1e-05 | | | AFTERxNARROW | {two} | relu
NAME_conv3 | 1x1 | 1 | 0 | AFTERxWIDE | {expand}
NAME_bn3 | batch norm 1e-05 | | | AFTERxWIDE | {eight}
"""

_SHORTCUT = """
NAME_downsample_0 | 1x1 | {stride} | 0 | AFTERxWIDE | {project}
NAME_downsample_1 | batch norm 1e-05 | | | AFTERxWIDE | {eight}
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
  rows, channels, before = _STEM, 128, '119x119'
  for stage, (count, stride, dilation) in enumerate(
    zip(blocks, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), start=1
  ):
    narrow = 32 * 2**stage
    for block in range(count):
      after = '119x119' if stage == 1 else '60x60'
      text = _BLOCK + (_SHORTCUT if block == 0 else '')
      for word, value in (
        ('NAME', f'backbone/layer{stage}_{block}'),
        ('BEFORE', before),
        ('AFTER', after),
        ('NARROW', narrow),
        ('WIDE', 4 * narrow),
      ):
        text = text.replace(word, str(value))
      rows += text.format(
        stride=1 if block else stride,
        pad=dilation,
        dilated=f' dilated {dilation}' if dilation > 1 else '',
        reduce=channels * narrow,
        nine=9 * narrow**2,
        expand=4 * narrow**2,
        project=channels * 4 * narrow,
        two=2 * narrow,
        eight=8 * narrow,
      )
      channels, before = 4 * narrow, after
  return rows + _HEADS
