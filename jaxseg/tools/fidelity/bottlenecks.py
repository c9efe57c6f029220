"""Rows of a ResNet's four stages, for the tables of networks that are built on one.

A bottleneck's rows stand once: 1x1, 3x3 (with the stride and the dilation) and 1x1, batch norm after
each. The first of a stage has a 1x1 on its shortcut.
"""

from __future__ import annotations

_BLOCK = """
NAME_conv1 | 1x1 | 1 | 0 | BEFORExNARROW | {reduce} | | | {rate} | {rate}
NAME_bn1 | NORM | | | BEFORExNARROW | {two} | relu
NAME_conv2 | 3x3{dilated} | {stride} | {pad} | AFTERxNARROW | {nine} | | | {rate} | {rate}
NAME_bn2 | NORM | | | AFTERxNARROW | {two} | relu
NAME_conv3 | 1x1 | 1 | 0 | AFTERxWIDE | {expand} | | | {rate} | {rate}
NAME_bn3 | NORM | | | AFTERxWIDE | {eight}
"""

_SHORTCUT = """
NAME_downsample_0 | 1x1 | {stride} | 0 | AFTERxWIDE | {project} | | | {rate} | {rate}
NAME_downsample_1 | NORM | | | AFTERxWIDE | {eight}
"""


def stages(
  blocks: tuple[int, int, int, int],
  sizes: tuple[str, str, str, str, str],
  *,
  channels: int,
  strides: tuple[int, int, int, int],
  dilations: tuple[int, int, int, int] = (1, 1, 1, 1),
  norm: str = 'batch norm 1e-05',
  frozen: int = 0,
) -> str:
  """Returns the rows of all stages.

  Args:
    blocks: bottlenecks in each stage.
    sizes: 'HxW' of the map before the first stage and after each.
    channels: of the map before the first stage.
    strides, dilations: of each stage.
    norm: the kernel column of batch norm.
    frozen: stages whose convolutions have the multipliers 0; the others' are the network's.
  """
  rows = ''
  for stage in range(1, 5):
    narrow, before = 32 * 2**stage, sizes[stage - 1]
    for block in range(blocks[stage - 1]):
      text = _BLOCK + (_SHORTCUT if block == 0 else '')
      for word, value in (
        ('NAME', f'backbone/layer{stage}_{block}'),
        ('NORM', norm),
        ('BEFORE', before),
        ('AFTER', sizes[stage]),
        ('NARROW', narrow),
        ('WIDE', 4 * narrow),
      ):
        text = text.replace(word, str(value))
      dilation = dilations[stage - 1]
      rows += text.format(
        stride=1 if block else strides[stage - 1],
        pad=dilation,
        dilated=f' dilated {dilation}' if dilation > 1 else '',
        rate='0' if stage <= frozen else '',
        reduce=channels * narrow,
        nine=9 * narrow**2,
        expand=4 * narrow**2,
        project=channels * 4 * narrow,
        two=2 * narrow,
        eight=8 * narrow,
      )
      channels, before = 4 * narrow, sizes[stage]
  return rows
