"""SegNet, SegNet-Basic (arXiv:1511.00561) and their Bayesian forms (arXiv:1511.02680), for 360 x 480.

The encoder takes VGG16's weights; SegNet-Basic takes none. Caffe's defaults, 1 and 1, rule
SegNet-Basic's batch norm: its files give no multipliers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxseg.tools.fidelity.papers import Paper, Part, without

_ENCODER = """
conv1_1, conv1_1_bn | 3x3 | 1 | 1 | 360x480x64 | 1792 | relu
conv1_2, conv1_2_bn | 3x3 | 1 | 1 | 360x480x64 | 36928 | relu
pool1 | max 2x2 | 2 | ceil | 180x240x64
conv2_1, conv2_1_bn | 3x3 | 1 | 1 | 180x240x128 | 73856 | relu
conv2_2, conv2_2_bn | 3x3 | 1 | 1 | 180x240x128 | 147584 | relu
pool2 | max 2x2 | 2 | ceil | 90x120x128
conv3_1, conv3_1_bn | 3x3 | 1 | 1 | 90x120x256 | 295168 | relu
conv3_2, conv3_2_bn | 3x3 | 1 | 1 | 90x120x256 | 590080 | relu
conv3_3, conv3_3_bn | 3x3 | 1 | 1 | 90x120x256 | 590080 | relu
pool3 | max 2x2 | 2 | ceil | 45x60x256
encdrop3 | dropout 0.5 | | | 45x60x256
conv4_1, conv4_1_bn | 3x3 | 1 | 1 | 45x60x512 | 1180160 | relu
conv4_2, conv4_2_bn | 3x3 | 1 | 1 | 45x60x512 | 2359808 | relu
conv4_3, conv4_3_bn | 3x3 | 1 | 1 | 45x60x512 | 2359808 | relu
pool4 | max 2x2 | 2 | ceil | 23x30x512
encdrop4 | dropout 0.5 | | | 23x30x512
conv5_1, conv5_1_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
conv5_2, conv5_2_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
conv5_3, conv5_3_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
pool5 | max 2x2 | 2 | ceil | 12x15x512
encdrop5 | dropout 0.5 | | | 12x15x512
"""

_DECODER = """
unpool5 | places of pool5 | 2 | | 23x30x512
conv5_3_D, conv5_3_D_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
conv5_2_D, conv5_2_D_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
conv5_1_D, conv5_1_D_bn | 3x3 | 1 | 1 | 23x30x512 | 2359808 | relu
decdrop5 | dropout 0.5 | | | 23x30x512
unpool4 | places of pool4 | 2 | | 45x60x512
conv4_3_D, conv4_3_D_bn | 3x3 | 1 | 1 | 45x60x512 | 2359808 | relu
conv4_2_D, conv4_2_D_bn | 3x3 | 1 | 1 | 45x60x512 | 2359808 | relu
conv4_1_D, conv4_1_D_bn | 3x3 | 1 | 1 | 45x60x256 | 1179904 | relu
decdrop4 | dropout 0.5 | | | 45x60x256
unpool3 | places of pool3 | 2 | | 90x120x256
conv3_3_D, conv3_3_D_bn | 3x3 | 1 | 1 | 90x120x256 | 590080 | relu
conv3_2_D, conv3_2_D_bn | 3x3 | 1 | 1 | 90x120x256 | 590080 | relu
conv3_1_D, conv3_1_D_bn | 3x3 | 1 | 1 | 90x120x128 | 295040 | relu
decdrop3 | dropout 0.5 | | | 90x120x128
unpool2 | places of pool2 | 2 | | 180x240x128
conv2_2_D, conv2_2_D_bn | 3x3 | 1 | 1 | 180x240x128 | 147584 | relu
conv2_1_D, conv2_1_D_bn | 3x3 | 1 | 1 | 180x240x64 | 73792 | relu
unpool1 | places of pool1 | 2 | | 360x480x64
conv1_2_D, conv1_2_D_bn | 3x3 | 1 | 1 | 360x480x64 | 36928 | relu
conv1_1_D | 3x3 | 1 | 1 | 360x480xC | 577C
"""

_BASIC = """
norm | lrn 5, 0.0001, 0.75, 1 | | | 360x480x3
conv1, conv1_bn | 7x7 | 1 | 3 | 360x480x64 | 9472 | relu
pool1 | max 2x2 | 2 | ceil | 180x240x64
conv2, conv2_bn | 7x7 | 1 | 3 | 180x240x64 | 200768 | relu
pool2 | max 2x2 | 2 | ceil | 90x120x64
conv3, conv3_bn | 7x7 | 1 | 3 | 90x120x64 | 200768 | relu
pool3 | max 2x2 | 2 | ceil | 45x60x64
encdrop3 | dropout 0.5 | | | 45x60x64
conv4, conv4_bn | 7x7 | 1 | 3 | 45x60x64 | 200768 | relu
pool4 | max 2x2 | 2 | ceil | 23x30x64
encdrop4 | dropout 0.5 | | | 23x30x64
unpool4 | places of pool4 | 2 | | 45x60x64
conv_decode4, conv_decode4_bn | 7x7 | 1 | 3 | 45x60x64 | 200768
decdrop4 | dropout 0.5 | | | 45x60x64
unpool3 | places of pool3 | 2 | | 90x120x64
conv_decode3, conv_decode3_bn | 7x7 | 1 | 3 | 90x120x64 | 200768
decdrop3 | dropout 0.5 | | | 90x120x64
unpool2 | places of pool2 | 2 | | 180x240x64
conv_decode2, conv_decode2_bn | 7x7 | 1 | 3 | 180x240x64 | 200768
unpool1 | places of pool1 | 2 | | 360x480x64
conv_decode1, conv_decode1_bn | 7x7 | 1 | 3 | 360x480x64 | 200768
conv_classifier | 1x1 | 1 | 0 | 360x480xC | 65C
"""

_MSRA = ('normal 2/in, 0', '1, 2', '1, 0')


def paper(model: Any) -> Paper:
  shift = '0' if model.bayesian and model.variant != 'basic' else '0.001'
  norm = ('batch norm 1e-09', f'1, {shift}', '1, 1')
  if model.variant == 'basic':
    parts = (Part(_BASIC, *_MSRA, norm=(*norm, '1, 1')),)
  else:
    norm = (*norm, '1, 0')
    encoder = Part(_ENCODER, 'loaded, loaded', '1, 2', '1, 0', norm)
    parts = (encoder, Part(_DECODER, *_MSRA, norm=norm))
  if not model.bayesian:
    parts = tuple(dataclasses.replace(p, table=without(p.table, 'dropout')) for p in parts)
  return Paper(
    'Bayesian ' * model.bayesian + 'SegNet' + '-Basic' * (model.variant == 'basic'),
    'arXiv:1511.00561, alexgkendall/SegNet-Tutorial prototxt',
    (4, 360, 480),
    parts,
  )
