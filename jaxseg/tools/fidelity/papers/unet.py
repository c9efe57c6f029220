"""U-Net (arXiv:1505.04597, figure 1) and the authors' release (phseg_v5, by its ports), for 572 x 572.

The paper gives neither biases' first values nor multipliers. Caffe's filler, in the release, counts a
deconvolution's fan-in over its outputs.
"""

from __future__ import annotations

from typing import Any

from jaxseg.tools.fidelity.papers import Paper, Part, without

_DOWN = """
enc0_conv1 | 3x3 | 1 | 0 | 570x570x64 | 640 | relu
enc0_conv2 | 3x3 | 1 | 0 | 568x568x64 | 36928 | relu
pool1 | max 2x2 | 2 | floor | 284x284x64
enc1_conv1 | 3x3 | 1 | 0 | 282x282x128 | 73856 | relu
enc1_conv2 | 3x3 | 1 | 0 | 280x280x128 | 147584 | relu
pool2 | max 2x2 | 2 | floor | 140x140x128
enc2_conv1 | 3x3 | 1 | 0 | 138x138x256 | 295168 | relu
enc2_conv2 | 3x3 | 1 | 0 | 136x136x256 | 590080 | relu
pool3 | max 2x2 | 2 | floor | 68x68x256
enc3_conv1 | 3x3 | 1 | 0 | 66x66x512 | 1180160 | relu
enc3_conv2 | 3x3 | 1 | 0 | 64x64x512 | 2359808 | relu
enc3_dropout | dropout 0.5 | | | 64x64x512
pool4 | max 2x2 | 2 | floor | 32x32x512
bottom_conv1 | 3x3 | 1 | 0 | 30x30x1024 | 4719616 | relu
bottom_conv2 | 3x3 | 1 | 0 | 28x28x1024 | 9438208 | relu
bottom_dropout | dropout 0.5 | | | 28x28x1024
"""

_UP = """
dec3_up | 2x2 | 2 | 0 | 56x56x512 | 2097664 | AFTER
dec3_up join | join ORDER; skip from 4 | | | 56x56x1024
dec3_conv1 | 3x3 | 1 | 0 | 54x54x512 | 4719104 | relu
dec3_conv2 | 3x3 | 1 | 0 | 52x52x512 | 2359808 | relu
dec2_up | 2x2 | 2 | 0 | 104x104x256 | 524544 | AFTER
dec2_up join | join ORDER; skip from 16 | | | 104x104x512
dec2_conv1 | 3x3 | 1 | 0 | 102x102x256 | 1179904 | relu
dec2_conv2 | 3x3 | 1 | 0 | 100x100x256 | 590080 | relu
dec1_up | 2x2 | 2 | 0 | 200x200x128 | 131200 | AFTER
dec1_up join | join ORDER; skip from 40 | | | 200x200x256
dec1_conv1 | 3x3 | 1 | 0 | 198x198x128 | 295040 | relu
dec1_conv2 | 3x3 | 1 | 0 | 196x196x128 | 147584 | relu
"""

_LAST = """
dec0_up | 2x2 | 2 | 0 | 392x392x64 | 32832 | AFTER
dec0_up join | join ORDER; skip from 88 | | | 392x392x128
dec0_conv1 | 3x3 | 1 | 0 | 390x390x64 | 73792 | relu
dec0_conv2 | 3x3 | 1 | 0 | 388x388x64 | 36928 | relu
score | 1x1 | 1 | 0 | 388x388xC | 65C
"""

_LAST_RELEASED = """
dec0_up | 2x2 | 2 | 0 | 392x392x128 | 65664 | AFTER
dec0_up join | join ORDER; skip from 88 | | | 392x392x192
dec0_conv1 | 3x3 | 1 | 0 | 390x390x64 | 110656 | relu
dec0_conv2 | 3x3 | 1 | 0 | 388x388x64 | 36928 | relu
score | 1x1 | 1 | 0 | 388x388xC | 65C
"""


def paper(model: Any) -> Paper | None:
  if model.variant not in ('paper', 'release'):
    return None
  if model.variant == 'paper':
    title, source, initial = 'U-Net', 'arXiv:1505.04597, figure 1', 'normal 2/in, -'
    table = without(_DOWN, 'enc3_dropout') + _UP + _LAST
    after, order = '', 'skip, up'
  else:
    title, source = "U-Net, the authors' release", 'phseg_v5 prototxt, by its ports'
    table, initial = _DOWN + _UP + _LAST_RELEASED, 'uniform 1/in, -'
    after, order = 'relu | uniform 1/out, -', 'up, skip'
  table = table.replace('AFTER', after).replace('ORDER', order)
  return Paper(title, source, (1, 572, 572), (Part(table, initial, '-', '-'),))
