"""Lines of a ResNet's four stages, for the tables of networks that are built on one.

A bottleneck's lines stand once: 1x1, 3x3 (with the stride and the dilation) and 1x1, batch norm after
each. The first of a stage has a 1x1 on its shortcut.
"""

from __future__ import annotations

BLOCKS = {'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3)}  # bottlenecks in each stage

_BLOCK = """
{name}_conv1, {name}_bn1 | 1x1 | 1 | 0 | {before}x{narrow} | {reduce} | relu
{name}_conv2, {name}_bn2 | 3x3{dilated} | {stride} | {dilation} | {after}x{narrow} | {nine} | relu
{name}_conv3, {name}_bn3 | 1x1 | 1 | 0 | {after}x{wide} | {expand}
"""
_SHORTCUT = """
{name}_downsample_0, {name}_downsample_1 | 1x1 | {stride} | 0 | {after}x{wide} | {project}
"""


def stages(
  blocks: tuple[int, int, int, int],
  sizes: tuple[str, str, str, str, str],
  *,
  channels: int,
  strides: tuple[int, int, int, int],
  dilations: tuple[int, int, int, int] = (1, 1, 1, 1),
) -> list[str]:
  """Returns the table of each stage.

  Args:
    blocks: bottlenecks in each stage.
    sizes: 'HxW' of the map before the first stage and after each.
    channels: of the map before the first stage.
    strides, dilations: of each stage.
  """
  tables = []
  for stage, (count, stride, dilation) in enumerate(
    zip(blocks, strides, dilations, strict=True), 1
  ):
    narrow, tables = 32 * 2**stage, [*tables, '']
    for block in range(count):
      tables[-1] += (_BLOCK + ('' if block else _SHORTCUT)).format(
        name=f'backbone/layer{stage}_{block}',
        before=sizes[stage if block else stage - 1],
        after=sizes[stage],
        stride=1 if block else stride,
        dilation=dilation,
        dilated=f' dilated {dilation}' if dilation > 1 else '',
        narrow=narrow,
        wide=4 * narrow,
        reduce=channels * narrow,
        nine=9 * narrow**2,
        expand=4 * narrow**2,
        project=channels * 4 * narrow,
      )
      channels = 4 * narrow
  return tables
