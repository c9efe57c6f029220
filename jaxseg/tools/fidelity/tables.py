"""What the papers and their reference releases say, layer by layer, written out by hand.

Nothing here is computed from the models: sizes, counts, crops and multipliers are those of the
publications. A row is

    name | kernel | stride | padding | output | parameters | what follows | initial values | rate | decay

with the same words as `trace.Row`. C is the number of classes ('65C': 64 weights and a bias a class), K
the same without the background; '-' is what the source does not say, so that it is compared with
nothing. Initial values and multipliers that a whole network shares stand beside its table in `PAPERS`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from jaxseg.tools.fidelity import mask_rcnn, pspnet
from jaxseg.tools.fidelity.trace import Row


@dataclasses.dataclass(frozen=True)
class Paper:
  """A published network.

  Attributes:
    title: of the network.
    source: where the facts are from.
    input_shape: [b, h, w, c], the size that the source gives its numbers for.
    table: rows, see above.
    initial: of convolutions, where a row has no other: weights, bias.
    rate: learning-rate multipliers of convolutions: weights, bias.
    decay: weight-decay multipliers of convolutions.
    norm: (initial, rate, decay) of batch norm's scale and shift.
    dropout: name of a row -> name of the dropout that follows it.
  """

  title: str
  source: str
  input_shape: tuple[int, int, int, int]
  table: str
  initial: str
  rate: str
  decay: str
  norm: tuple[str, str, str] = ('', '', '')
  dropout: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def rows(self, num_classes: int) -> list[Row]:
    """Returns the layers for a number of classes."""
    rows = []
    for line in filter(None, self.table.splitlines()):
      row = self._row(line, num_classes)
      rows.append(row)
      if row.name in self.dropout:
        rows.append(Row(self.dropout[row.name], kernel='dropout 0.5', output=row.output))
    return rows

  def _row(self, line: str, num_classes: int) -> Row:
    cells = [cell.strip() for cell in line.split('|')]
    cells += [''] * (10 - len(cells))
    name, kernel, stride, padding, output, count, after, initial, rate, decay = cells
    row = Row(name, kernel, stride, padding, _counted(output, num_classes), after=after)
    row.parameters = int(_counted(count, num_classes) or 0)
    if row.parameters:
      is_norm = kernel.startswith('batch norm')
      shared = self.norm if is_norm else (self.initial, self.rate, self.decay)
      own = zip((initial, rate, decay), shared, strict=True)
      row.initial, row.rate, row.decay = (mine or usual for mine, usual in own)
    elif initial:  # a filter that is fixed
      row.initial, row.rate, row.decay = initial, '0', '0'
    return row


def _counted(text: str, num_classes: int) -> str:
  """Puts numbers for 'C' and 'K': '65C' is 65 times the classes."""
  times = {'C': num_classes, 'K': num_classes - 1}
  return re.sub(r'(\d*)([CK])', lambda m: str(int(m[1] or 1) * times[m[2]]), text)


_FCN_VGG16 = """
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
drop6 | dropout 0.5 |  |  | 12x16x4096
fc7 | 1x1 | 1 | 0 | 12x16x4096 | 16781312 | relu
drop7 | dropout 0.5 |  |  | 12x16x4096
"""

_FCN_32S = """
score_fr | 1x1 | 1 | 0 | 12x16xC | 4097C | | 0, 0
upscore | 64x64 | 32 | 0 | 416x544xC | | | bilinear
upscore crop | crop at 19 | | | 375x500xC
"""

_FCN_16S = """
score_fr | 1x1 | 1 | 0 | 12x16xC | 4097C
upscore2 | 4x4 | 2 | 0 | 26x34xC | | | bilinear
score_pool4 | 1x1 | 1 | 0 | 36x44xC | 513C | | 0, 0
score_pool4 crop | crop at 5 | | | 26x34xC
upscore16 | 32x32 | 16 | 0 | 432x560xC | | | bilinear
upscore16 crop | crop at 27 | | | 375x500xC
"""

_FCN_8S = """
score_fr | 1x1 | 1 | 0 | 12x16xC | 4097C
upscore2 | 4x4 | 2 | 0 | 26x34xC | | | bilinear
score_pool4 | 1x1 | 1 | 0 | 36x44xC | 513C
score_pool4 crop | crop at 5 | | | 26x34xC
upscore_pool4 | 4x4 | 2 | 0 | 54x70xC | | | bilinear
score_pool3 | 1x1 | 1 | 0 | 72x88xC | 257C | | 0, 0
score_pool3 crop | crop at 9 | | | 54x70xC
upscore8 | 16x16 | 8 | 0 | 440x568xC | | | bilinear
upscore8 crop | crop at 31 | | | 375x500xC
"""

_FCN_8S_AT_ONCE = """
score_fr | 1x1 | 1 | 0 | 12x16xC | 4097C | | 0, 0
upscore2 | 4x4 | 2 | 0 | 26x34xC | | | bilinear
pool4 times | times 0.01 | | | 36x44x512
score_pool4 | 1x1 | 1 | 0 | 36x44xC | 513C | | 0, 0
score_pool4 crop | crop at 5 | | | 26x34xC
upscore_pool4 | 4x4 | 2 | 0 | 54x70xC | | | bilinear
pool3 times | times 0.0001 | | | 72x88x256
score_pool3 | 1x1 | 1 | 0 | 72x88xC | 257C | | 0, 0
score_pool3 crop | crop at 9 | | | 54x70xC
upscore8 | 16x16 | 8 | 0 | 440x568xC | | | bilinear
upscore8 crop | crop at 31 | | | 375x500xC
"""

_SEGNET = """
conv1_1 | 3x3 | 1 | 1 | 360x480x64 | 1792 |  | loaded, loaded
conv1_1_bn | batch norm 1e-09 |  |  | 360x480x64 | 128 | relu
conv1_2 | 3x3 | 1 | 1 | 360x480x64 | 36928 |  | loaded, loaded
conv1_2_bn | batch norm 1e-09 |  |  | 360x480x64 | 128 | relu
pool1 | max 2x2 | 2 | ceil | 180x240x64
conv2_1 | 3x3 | 1 | 1 | 180x240x128 | 73856 |  | loaded, loaded
conv2_1_bn | batch norm 1e-09 |  |  | 180x240x128 | 256 | relu
conv2_2 | 3x3 | 1 | 1 | 180x240x128 | 147584 |  | loaded, loaded
conv2_2_bn | batch norm 1e-09 |  |  | 180x240x128 | 256 | relu
pool2 | max 2x2 | 2 | ceil | 90x120x128
conv3_1 | 3x3 | 1 | 1 | 90x120x256 | 295168 |  | loaded, loaded
conv3_1_bn | batch norm 1e-09 |  |  | 90x120x256 | 512 | relu
conv3_2 | 3x3 | 1 | 1 | 90x120x256 | 590080 |  | loaded, loaded
conv3_2_bn | batch norm 1e-09 |  |  | 90x120x256 | 512 | relu
conv3_3 | 3x3 | 1 | 1 | 90x120x256 | 590080 |  | loaded, loaded
conv3_3_bn | batch norm 1e-09 |  |  | 90x120x256 | 512 | relu
pool3 | max 2x2 | 2 | ceil | 45x60x256
conv4_1 | 3x3 | 1 | 1 | 45x60x512 | 1180160 |  | loaded, loaded
conv4_1_bn | batch norm 1e-09 |  |  | 45x60x512 | 1024 | relu
conv4_2 | 3x3 | 1 | 1 | 45x60x512 | 2359808 |  | loaded, loaded
conv4_2_bn | batch norm 1e-09 |  |  | 45x60x512 | 1024 | relu
conv4_3 | 3x3 | 1 | 1 | 45x60x512 | 2359808 |  | loaded, loaded
conv4_3_bn | batch norm 1e-09 |  |  | 45x60x512 | 1024 | relu
pool4 | max 2x2 | 2 | ceil | 23x30x512
conv5_1 | 3x3 | 1 | 1 | 23x30x512 | 2359808 |  | loaded, loaded
conv5_1_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
conv5_2 | 3x3 | 1 | 1 | 23x30x512 | 2359808 |  | loaded, loaded
conv5_2_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
conv5_3 | 3x3 | 1 | 1 | 23x30x512 | 2359808 |  | loaded, loaded
conv5_3_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
pool5 | max 2x2 | 2 | ceil | 12x15x512
unpool5 | places of pool5 | 2 |  | 23x30x512
conv5_3_D | 3x3 | 1 | 1 | 23x30x512 | 2359808
conv5_3_D_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
conv5_2_D | 3x3 | 1 | 1 | 23x30x512 | 2359808
conv5_2_D_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
conv5_1_D | 3x3 | 1 | 1 | 23x30x512 | 2359808
conv5_1_D_bn | batch norm 1e-09 |  |  | 23x30x512 | 1024 | relu
unpool4 | places of pool4 | 2 |  | 45x60x512
conv4_3_D | 3x3 | 1 | 1 | 45x60x512 | 2359808
conv4_3_D_bn | batch norm 1e-09 |  |  | 45x60x512 | 1024 | relu
conv4_2_D | 3x3 | 1 | 1 | 45x60x512 | 2359808
conv4_2_D_bn | batch norm 1e-09 |  |  | 45x60x512 | 1024 | relu
conv4_1_D | 3x3 | 1 | 1 | 45x60x256 | 1179904
conv4_1_D_bn | batch norm 1e-09 |  |  | 45x60x256 | 512 | relu
unpool3 | places of pool3 | 2 |  | 90x120x256
conv3_3_D | 3x3 | 1 | 1 | 90x120x256 | 590080
conv3_3_D_bn | batch norm 1e-09 |  |  | 90x120x256 | 512 | relu
conv3_2_D | 3x3 | 1 | 1 | 90x120x256 | 590080
conv3_2_D_bn | batch norm 1e-09 |  |  | 90x120x256 | 512 | relu
conv3_1_D | 3x3 | 1 | 1 | 90x120x128 | 295040
conv3_1_D_bn | batch norm 1e-09 |  |  | 90x120x128 | 256 | relu
unpool2 | places of pool2 | 2 |  | 180x240x128
conv2_2_D | 3x3 | 1 | 1 | 180x240x128 | 147584
conv2_2_D_bn | batch norm 1e-09 |  |  | 180x240x128 | 256 | relu
conv2_1_D | 3x3 | 1 | 1 | 180x240x64 | 73792
conv2_1_D_bn | batch norm 1e-09 |  |  | 180x240x64 | 128 | relu
unpool1 | places of pool1 | 2 |  | 360x480x64
conv1_2_D | 3x3 | 1 | 1 | 360x480x64 | 36928
conv1_2_D_bn | batch norm 1e-09 |  |  | 360x480x64 | 128 | relu
conv1_1_D | 3x3 | 1 | 1 | 360x480xC | 577C
"""

_SEGNET_BASIC = """
norm | lrn 5, 0.0001, 0.75, 1 |  |  | 360x480x3
conv1 | 7x7 | 1 | 3 | 360x480x64 | 9472
conv1_bn | batch norm 1e-09 |  |  | 360x480x64 | 128 | relu
pool1 | max 2x2 | 2 | ceil | 180x240x64
conv2 | 7x7 | 1 | 3 | 180x240x64 | 200768
conv2_bn | batch norm 1e-09 |  |  | 180x240x64 | 128 | relu
pool2 | max 2x2 | 2 | ceil | 90x120x64
conv3 | 7x7 | 1 | 3 | 90x120x64 | 200768
conv3_bn | batch norm 1e-09 |  |  | 90x120x64 | 128 | relu
pool3 | max 2x2 | 2 | ceil | 45x60x64
conv4 | 7x7 | 1 | 3 | 45x60x64 | 200768
conv4_bn | batch norm 1e-09 |  |  | 45x60x64 | 128 | relu
pool4 | max 2x2 | 2 | ceil | 23x30x64
unpool4 | places of pool4 | 2 |  | 45x60x64
conv_decode4 | 7x7 | 1 | 3 | 45x60x64 | 200768
conv_decode4_bn | batch norm 1e-09 |  |  | 45x60x64 | 128
unpool3 | places of pool3 | 2 |  | 90x120x64
conv_decode3 | 7x7 | 1 | 3 | 90x120x64 | 200768
conv_decode3_bn | batch norm 1e-09 |  |  | 90x120x64 | 128
unpool2 | places of pool2 | 2 |  | 180x240x64
conv_decode2 | 7x7 | 1 | 3 | 180x240x64 | 200768
conv_decode2_bn | batch norm 1e-09 |  |  | 180x240x64 | 128
unpool1 | places of pool1 | 2 |  | 360x480x64
conv_decode1 | 7x7 | 1 | 3 | 360x480x64 | 200768
conv_decode1_bn | batch norm 1e-09 |  |  | 360x480x64 | 128
conv_classifier | 1x1 | 1 | 0 | 360x480xC | 65C
"""

_UNET = """
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
pool4 | max 2x2 | 2 | floor | 32x32x512
bottom_conv1 | 3x3 | 1 | 0 | 30x30x1024 | 4719616 | relu
bottom_conv2 | 3x3 | 1 | 0 | 28x28x1024 | 9438208 | relu
bottom_dropout | dropout 0.5 |  |  | 28x28x1024
dec3_up | 2x2 | 2 | 0 | 56x56x512 | 2097664
dec3_up join | join skip, up; skip from 4 |  |  | 56x56x1024
dec3_conv1 | 3x3 | 1 | 0 | 54x54x512 | 4719104 | relu
dec3_conv2 | 3x3 | 1 | 0 | 52x52x512 | 2359808 | relu
dec2_up | 2x2 | 2 | 0 | 104x104x256 | 524544
dec2_up join | join skip, up; skip from 16 |  |  | 104x104x512
dec2_conv1 | 3x3 | 1 | 0 | 102x102x256 | 1179904 | relu
dec2_conv2 | 3x3 | 1 | 0 | 100x100x256 | 590080 | relu
dec1_up | 2x2 | 2 | 0 | 200x200x128 | 131200
dec1_up join | join skip, up; skip from 40 |  |  | 200x200x256
dec1_conv1 | 3x3 | 1 | 0 | 198x198x128 | 295040 | relu
dec1_conv2 | 3x3 | 1 | 0 | 196x196x128 | 147584 | relu
dec0_up | 2x2 | 2 | 0 | 392x392x64 | 32832
dec0_up join | join skip, up; skip from 88 |  |  | 392x392x128
dec0_conv1 | 3x3 | 1 | 0 | 390x390x64 | 73792 | relu
dec0_conv2 | 3x3 | 1 | 0 | 388x388x64 | 36928 | relu
score | 1x1 | 1 | 0 | 388x388xC | 65C
"""

# Caffe's filler counts a deconvolution's fan-in over its outputs.
_UNET_RELEASE = """
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
enc3_dropout | dropout 0.5 |  |  | 64x64x512
pool4 | max 2x2 | 2 | floor | 32x32x512
bottom_conv1 | 3x3 | 1 | 0 | 30x30x1024 | 4719616 | relu
bottom_conv2 | 3x3 | 1 | 0 | 28x28x1024 | 9438208 | relu
bottom_dropout | dropout 0.5 |  |  | 28x28x1024
dec3_up | 2x2 | 2 | 0 | 56x56x512 | 2097664 | relu | uniform 1/out, -
dec3_up join | join up, skip; skip from 4 |  |  | 56x56x1024
dec3_conv1 | 3x3 | 1 | 0 | 54x54x512 | 4719104 | relu
dec3_conv2 | 3x3 | 1 | 0 | 52x52x512 | 2359808 | relu
dec2_up | 2x2 | 2 | 0 | 104x104x256 | 524544 | relu | uniform 1/out, -
dec2_up join | join up, skip; skip from 16 |  |  | 104x104x512
dec2_conv1 | 3x3 | 1 | 0 | 102x102x256 | 1179904 | relu
dec2_conv2 | 3x3 | 1 | 0 | 100x100x256 | 590080 | relu
dec1_up | 2x2 | 2 | 0 | 200x200x128 | 131200 | relu | uniform 1/out, -
dec1_up join | join up, skip; skip from 40 |  |  | 200x200x256
dec1_conv1 | 3x3 | 1 | 0 | 198x198x128 | 295040 | relu
dec1_conv2 | 3x3 | 1 | 0 | 196x196x128 | 147584 | relu
dec0_up | 2x2 | 2 | 0 | 392x392x128 | 65664 | relu | uniform 1/out, -
dec0_up join | join up, skip; skip from 88 |  |  | 392x392x192
dec0_conv1 | 3x3 | 1 | 0 | 390x390x64 | 110656 | relu
dec0_conv2 | 3x3 | 1 | 0 | 388x388x64 | 36928 | relu
score | 1x1 | 1 | 0 | 388x388xC | 65C
"""


def _fcn(stride: int, table: str, *, at_once: bool = False) -> Paper:
  """A convolution takes the weights of VGG16 or of the stage before, unless its row says 0."""
  return Paper(
    title=f'FCN-{stride}s' + (' at once' if at_once else ''),
    source='arXiv:1605.06211, shelhamer/fcn.berkeleyvision.org voc-fcn prototxt',
    input_shape=(1, 375, 500, 3),
    table=_FCN_VGG16 + table,
    initial='loaded, loaded',
    rate='1, 2',
    decay='1, 0',
  )


def _segnet(*, basic: bool = False, bayesian: bool = False) -> Paper:
  """Caffe's defaults, 1 and 1, rule SegNet-Basic's batch norm: its files give no multipliers."""
  encoder, decoder = (3, 4) if basic else (3, 4, 5), (4, 3) if basic else (5, 4, 3)
  last = (
    {4: 'conv_decode4_bn', 3: 'conv_decode3_bn'}
    if basic
    else {5: 'conv5_1_D_bn', 4: 'conv4_1_D_bn', 3: 'conv3_1_D_bn'}
  )
  dropout = {f'pool{s}': f'encdrop{s}' for s in encoder}
  dropout |= {last[s]: f'decdrop{s}' for s in decoder}
  return Paper(
    title='Bayesian ' * bayesian + ('SegNet-Basic' if basic else 'SegNet'),
    source='arXiv:1511.00561, alexgkendall/SegNet-Tutorial prototxt',
    input_shape=(4, 360, 480, 3),
    table=_SEGNET_BASIC if basic else _SEGNET,
    initial='normal 2/in, 0',
    rate='1, 2',
    decay='1, 0',
    norm=(
      '1, 0' if bayesian and not basic else '1, 0.001',
      '1, 1',
      '1, 1' if basic else '1, 0',
    ),
    dropout=dropout if bayesian else {},
  )


def _pspnet(backbone: str, blocks: tuple[int, int, int, int]) -> Paper:
  """The ResNet is loaded; what is new learns ten times as fast. Decay rules everything alike."""
  return Paper(
    title=f'PSPNet{backbone}',
    source='arXiv:1612.01105, hszhao/semseg',
    input_shape=(1, 473, 473, 3),
    table=pspnet.table(blocks),
    initial='loaded',
    rate='1',
    decay='1',
    norm=('loaded, loaded', '1, 1', '1, 1'),
  )


def _mask_rcnn(backbone: str, blocks: tuple[int, int, int, int]) -> Paper:
  """The ResNet is loaded, its stem, first stage and batch norm frozen; decay rules all that learns."""
  return Paper(
    title=f'Mask R-CNN R{backbone}-FPN',
    source="arXiv:1703.06870, facebookresearch/detectron2; torchvision's ResNet",
    input_shape=(1, 800, 1344, 3),
    table=mask_rcnn.table(blocks),
    initial='loaded',
    rate='1',
    decay='1',
    norm=('loaded, loaded', '0, 0', '0, 0'),
  )


# The U-Net paper gives neither biases' first values nor multipliers.
PAPERS = {
  'fcn32s': _fcn(32, _FCN_32S),
  'fcn16s': _fcn(16, _FCN_16S),
  'fcn8s': _fcn(8, _FCN_8S),
  'fcn8s_atonce': _fcn(8, _FCN_8S_AT_ONCE, at_once=True),
  'segnet': _segnet(),
  'segnet_bayesian': _segnet(bayesian=True),
  'segnet_basic': _segnet(basic=True),
  'segnet_basic_bayesian': _segnet(basic=True, bayesian=True),
  'pspnet50': _pspnet('50', (3, 4, 6, 3)),
  'pspnet101': _pspnet('101', (3, 4, 23, 3)),
  'mask_rcnn50': _mask_rcnn('50', (3, 4, 6, 3)),
  'mask_rcnn101': _mask_rcnn('101', (3, 4, 23, 3)),
  'unet_paper': Paper(
    'U-Net', 'arXiv:1505.04597, figure 1', (1, 572, 572, 1), _UNET, 'normal 2/in, -', '-', '-'
  ),
  'unet_release': Paper(
    "U-Net, the authors' release",
    'phseg_v5 prototxt, by its ports',
    (1, 572, 572, 1),
    _UNET_RELEASE,
    'uniform 1/in, -',
    '-',
    '-',
  ),
}
