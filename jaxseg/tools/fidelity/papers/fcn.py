"""FCN (arXiv:1411.4038, PAMI arXiv:1605.06211) on VGG16 as released, for 375 x 500.

A convolution takes the weights of VGG16 or of the stage before; the scores that a stage adds start
at zero, all of them where the network is trained at once.
"""

from __future__ import annotations

from typing import Any

from jaxseg.tools.fidelity.papers import Paper, Part, without

_VGG16 = """
conv1_1 | 3x3 | 1 | 100 | 573x698x64 | 1792 | relu
conv1_2 | 3x3 | 1 | 1 | 573x698x64 | 36928 | relu
pool1 | max 2x2 | 2 | ceil | 287x349x64
conv2_1 | 3x3 | 1 | 1 | 287x349x128 | 73856 | relu
conv2_2 | 3x3 | 1 | 1 | 287x349x128 | 147584 | relu
pool2 | max 2x2 | 2 | ceil | 144x175x128
conv3_1 | 3x3 | 1 | 1 | 144x175x256 | 295168 | relu
conv3_2 | 3x3 | 1 | 1 | 144x175x256 | 590080 | relu
conv3_3 | 3x3 | 1 | 1 | 144x175x256 | 590080 | relu
pool3 | max 2x2 | 2 | ceil | 72x88x256
conv4_1 | 3x3 | 1 | 1 | 72x88x512 | 1180160 | relu
conv4_2 | 3x3 | 1 | 1 | 72x88x512 | 2359808 | relu
conv4_3 | 3x3 | 1 | 1 | 72x88x512 | 2359808 | relu
pool4 | max 2x2 | 2 | ceil | 36x44x512
conv5_1 | 3x3 | 1 | 1 | 36x44x512 | 2359808 | relu
conv5_2 | 3x3 | 1 | 1 | 36x44x512 | 2359808 | relu
conv5_3 | 3x3 | 1 | 1 | 36x44x512 | 2359808 | relu
pool5 | max 2x2 | 2 | ceil | 18x22x512
fc6 | 7x7 | 1 | 0 | 12x16x4096 | 102764544 | relu
drop6 | dropout 0.5 | | | 12x16x4096
fc7 | 1x1 | 1 | 0 | 12x16x4096 | 16781312 | relu
drop7 | dropout 0.5 | | | 12x16x4096
"""

_SCORES = {
  32: """
score_fr | 1x1 | 1 | 0 | 12x16xC | 4097C | | NEW
""",
  16: """
upscore2 | 4x4 | 2 | 0 | 26x34xC | | | bilinear
pool4 times | times 0.01 | | | 36x44x512
score_pool4 | 1x1 | 1 | 0 | 36x44xC | 513C | | NEW
score_pool4 crop | crop at 5 | | | 26x34xC
""",
  8: """
upscore_pool4 | 4x4 | 2 | 0 | 54x70xC | | | bilinear
pool3 times | times 0.0001 | | | 72x88x256
score_pool3 | 1x1 | 1 | 0 | 72x88xC | 257C | | NEW
score_pool3 crop | crop at 9 | | | 54x70xC
""",
}

_LAST = {
  32: """
upscore | 64x64 | 32 | 0 | 416x544xC | | | bilinear
upscore crop | crop at 19 | | | 375x500xC
""",
  16: """
upscore16 | 32x32 | 16 | 0 | 432x560xC | | | bilinear
upscore16 crop | crop at 27 | | | 375x500xC
""",
  8: """
upscore8 | 16x16 | 8 | 0 | 440x568xC | | | bilinear
upscore8 crop | crop at 31 | | | 375x500xC
""",
}


def paper(model: Any) -> Paper | None:
  if model.head != 'paper':
    return None
  stride, at_once = model.stride, model.at_once and model.stride == 8
  table = _VGG16
  for stage in (32, 16, 8):
    if stage >= stride:
      new = at_once or stage == stride
      table += _SCORES[stage].replace('NEW', '0, 0' if new else '')
  table += _LAST[stride]
  return Paper(
    f'FCN-{stride}s' + (' at once' if at_once else ''),
    'arXiv:1605.06211, shelhamer/fcn.berkeleyvision.org voc-fcn prototxt',
    (1, 375, 500),
    (Part(table if at_once else without(table, 'times'), 'loaded, loaded', '1, 2', '1, 0'),),
  )
