"""Every layer of FCN, SegNet, U-Net, PSPNet and Mask R-CNN against literals in the papers' order.

The literals here and the table in `jaxseg/fidelity/tables.py` were written out separately; what the
networks are is traced. So three things have to agree.
"""

import functools
from pathlib import Path

import pytest

from jaxseg import config as configs
from jaxseg.tools import fidelity

ROOT = Path(__file__).resolve().parent.parent
SPECS = {
  'fcn32s': 'fcn_camvid.py:32s',
  'fcn16s': 'fcn_camvid.py:16s',
  'fcn8s': 'fcn_camvid.py:8s',
  'fcn8s_atonce': 'fcn_camvid.py',
  'segnet': 'segnet_camvid.py',
  'segnet_bayesian': 'segnet_camvid.py:bayesian',
  'segnet_basic': 'segnet_camvid.py:basic',
  'segnet_basic_bayesian': 'segnet_camvid.py:basic,bayesian',
  'pspnet50': 'pspnet_ade20k.py',
  'pspnet101': 'pspnet_cityscapes.py',
  'mask_rcnn50': 'mask_rcnn_coco.py',
  'mask_rcnn101': 'mask_rcnn_coco.py:resnet101',
  'unet_paper': 'unet_isbi2012.py',
  'unet_release': 'unet_isbi2012.py+model_options.variant=release',
}


def load(spec, *overrides):
  path, *more = spec.split('+')
  return configs.load(f'{ROOT}/configs/{path}', (*more, *overrides))


@functools.cache
def traced(name):
  """Returns the layers of a network at its paper's size, by name and in order."""
  config = load(SPECS[name])
  return {row.name: row for row in fidelity.trace_config(config, fidelity.PAPERS[name].input_shape)}


def geometry(row):
  """Returns 'kernel/stride/padding' of a square convolution."""
  side, other = row.kernel.split('x')
  assert side == other
  return f'{side}/{row.stride}/{row.padding}'


def convolutions(name):
  """Returns [(name, 'k/s/p', 'HxW', channels)] of everything with a kernel, in order."""
  return [
    (row.name, geometry(row), row.output.rpartition('x')[0], int(row.output.rpartition('x')[2]))
    for row in traced(name).values()
    if row.kernel[0].isdigit()
  ]


# --- all networks


@pytest.mark.parametrize('name', SPECS)
def test_all_equal(name):
  config = load(SPECS[name])
  assert fidelity.paper_of(config) is fidelity.PAPERS[name]
  pairs = fidelity.compare(config)
  assert not [(p.ours, p.paper, p.differences) for p in pairs if p.differences]
  assert len(pairs) == len(traced(name))


@pytest.mark.parametrize('variant', ['32s', '16s', '8s', 'atonce'])
def test_the_pascal_recipes_are_equal_too(variant):
  pairs = fidelity.compare(load(f'fcn_voc2011.py:{variant}'))
  assert pairs and not [(p.ours, p.paper, p.differences) for p in pairs if p.differences]


# C: number of classes -> parameters
COUNTS = {
  'fcn32s': {21: 134_346_581},
  'fcn16s': {21: 134_357_354},
  'fcn8s': {21: 134_362_751},
  'fcn8s_atonce': {21: 134_362_751},
  'segnet': {
    11: 29_449_355, 12: 29_449_932, 37: 29_464_357, 38: 29_464_934, 21: 29_455_125,
  },
  'segnet_basic': {11: 1_416_587},
  'pspnet50': {150: 49_180_908, 21: 49_081_578, 19: 49_080_038},
  'pspnet101': {150: 68_173_036, 21: 68_073_706, 19: 68_072_166},
  'mask_rcnn50': {81: 44_396_336},
  'mask_rcnn101': {81: 63_388_464},
  'unet_paper': {2: 31_030_658, 1: 31_030_593},
  'unet_release': {2: 31_100_354},
}  # fmt: skip


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_counts(name):
  for classes, expected in COUNTS[name].items():
    rows = fidelity.PAPERS[name].rows(classes)
    assert sum(row.parameters for row in rows) == expected
  ours = sum(row.parameters for row in traced(name).values())
  classes = load(SPECS[name]).num_classes
  assert ours == sum(row.parameters for row in fidelity.PAPERS[name].rows(classes))
  if classes in COUNTS[name]:
    assert ours == COUNTS[name][classes]


# --- FCN, PAPERS 2.1, at 375 x 500

VGG16 = [
  ('conv1_1', '3/1/100', '573x698', 64),
  ('conv1_2', '3/1/1', '573x698', 64),
  ('conv2_1', '3/1/1', '287x349', 128),
  ('conv2_2', '3/1/1', '287x349', 128),
  ('conv3_1', '3/1/1', '144x175', 256),
  ('conv3_2', '3/1/1', '144x175', 256),
  ('conv3_3', '3/1/1', '144x175', 256),
  ('conv4_1', '3/1/1', '72x88', 512),
  ('conv4_2', '3/1/1', '72x88', 512),
  ('conv4_3', '3/1/1', '72x88', 512),
  ('conv5_1', '3/1/1', '36x44', 512),
  ('conv5_2', '3/1/1', '36x44', 512),
  ('conv5_3', '3/1/1', '36x44', 512),
  ('fc6', '7/1/0', '12x16', 4096),
  ('fc7', '1/1/0', '12x16', 4096),
  ('score_fr', '1/1/0', '12x16', 11),
]
FINE = [
  ('upscore2', '4/2/0', '26x34', 11),
  ('score_pool4', '1/1/0', '36x44', 11),
  ('upscore_pool4', '4/2/0', '54x70', 11),
  ('score_pool3', '1/1/0', '72x88', 11),
  ('upscore8', '16/8/0', '440x568', 11),
]
FCN = {
  'fcn32s': [*VGG16, ('upscore', '64/32/0', '416x544', 11)],
  'fcn16s': [
    *VGG16,
    ('upscore2', '4/2/0', '26x34', 11),
    ('score_pool4', '1/1/0', '36x44', 11),
    ('upscore16', '32/16/0', '432x560', 11),
  ],
  'fcn8s': [*VGG16, *FINE],
  'fcn8s_atonce': [*VGG16, *FINE],
}
CROPS = {
  'fcn32s': {'upscore': 19},
  'fcn16s': {'score_pool4': 5, 'upscore16': 27},
  'fcn8s': {'score_pool4': 5, 'score_pool3': 9, 'upscore8': 31},
  'fcn8s_atonce': {'score_pool4': 5, 'score_pool3': 9, 'upscore8': 31},
}
ZERO_SCORES = {
  'fcn32s': {'score_fr'},
  'fcn16s': {'score_pool4'},
  'fcn8s': {'score_pool3'},
  'fcn8s_atonce': {'score_fr', 'score_pool4', 'score_pool3'},
}


@pytest.mark.parametrize('name', FCN)
def test_fcn(name):
  rows = traced(name)
  assert convolutions(name) == FCN[name]
  pools = [(r.output, r.kernel, r.padding) for n, r in rows.items() if n in POOLS]
  sizes = ['287x349x64', '144x175x128', '72x88x256', '36x44x512', '18x22x512']
  assert pools == [(size, 'max 2x2', 'ceil') for size in sizes]
  crops = {n.split()[0]: r.kernel for n, r in rows.items() if n.endswith(' crop')}
  assert crops == {n: f'crop at {at}' for n, at in CROPS[name].items()}
  assert list(rows.values())[-1].output == '375x500x11'
  assert [rows[n].kernel for n in ('drop6', 'drop7')] == ['dropout 0.5'] * 2
  scales = {n.split()[0]: r.kernel for n, r in rows.items() if r.kernel.startswith('times')}
  at_once = {'pool4': 'times 0.01', 'pool3': 'times 0.0001'}
  assert scales == (at_once if name == 'fcn8s_atonce' else {})
  for n, *_ in FCN[name]:
    row = rows[n]
    if n.startswith('upscore'):  # fixed: no parameter, rate 0
      found = (row.parameters, row.initial, row.rate, row.after)
      assert found == (0, 'bilinear', '0', '')
    else:
      assert row.initial == ('0, 0' if n in ZERO_SCORES[name] else 'loaded, loaded'), n
      assert (row.rate, row.decay) == ('1, 2', '1, 0')
      assert row.after == ('' if n.startswith('score') else 'relu')


POOLS = {f'pool{i}' for i in range(1, 6)}

# --- SegNet, PAPERS 4.1, at 360 x 480

SEGNET = [
  ('conv1_1', '360x480', 64), ('conv1_2', '360x480', 64),
  ('conv2_1', '180x240', 128), ('conv2_2', '180x240', 128),
  ('conv3_1', '90x120', 256), ('conv3_2', '90x120', 256), ('conv3_3', '90x120', 256),
  ('conv4_1', '45x60', 512), ('conv4_2', '45x60', 512), ('conv4_3', '45x60', 512),
  ('conv5_1', '23x30', 512), ('conv5_2', '23x30', 512), ('conv5_3', '23x30', 512),
  ('conv5_3_D', '23x30', 512), ('conv5_2_D', '23x30', 512), ('conv5_1_D', '23x30', 512),
  ('conv4_3_D', '45x60', 512), ('conv4_2_D', '45x60', 512), ('conv4_1_D', '45x60', 256),
  ('conv3_3_D', '90x120', 256), ('conv3_2_D', '90x120', 256), ('conv3_1_D', '90x120', 128),
  ('conv2_2_D', '180x240', 128), ('conv2_1_D', '180x240', 64),
  ('conv1_2_D', '360x480', 64), ('conv1_1_D', '360x480', 11),
]  # fmt: skip
POOLED = {1: '180x240', 2: '90x120', 3: '45x60', 4: '23x30', 5: '12x15'}
UNPOOLED = {5: '23x30', 4: '45x60', 3: '90x120', 2: '180x240', 1: '360x480'}


def check_pools(rows, stages):
  for stage in range(1, stages + 1):
    pool, unpool = rows[f'pool{stage}'], rows[f'unpool{stage}']
    assert (pool.kernel, pool.stride, pool.padding) == ('max 2x2', '2', 'ceil')
    assert pool.output.startswith(POOLED[stage] + 'x')
    assert unpool.kernel == f'places of pool{stage}'  # its own pooling's maxima
    assert unpool.output.startswith(UNPOOLED[stage] + 'x')


@pytest.mark.parametrize(('name', 'shift'), [('segnet', '0.001'), ('segnet_bayesian', '0')])
def test_segnet(name, shift):
  rows = traced(name)
  assert convolutions(name) == [(n, '3/1/1', size, c) for n, size, c in SEGNET]
  check_pools(rows, 5)
  for n, *_ in SEGNET:
    row = rows[n]
    assert row.after == ''  # what follows is batch norm; after the classifier nothing
    assert row.initial == ('normal 2/in, 0' if n.endswith('_D') else 'loaded, loaded')
    assert (row.rate, row.decay) == ('1, 2', '1, 0')
    if n != 'conv1_1_D':
      norm = rows[f'{n}_bn']
      assert (norm.kernel, norm.initial) == ('batch norm 1e-09', f'1, {shift}')
      assert (norm.rate, norm.decay, norm.after) == ('1, 1', '1, 0', 'relu')
  assert 'conv1_1_D_bn' not in rows


BASIC = [
  ('conv1', '7/1/3', '360x480', 64),
  ('conv2', '7/1/3', '180x240', 64),
  ('conv3', '7/1/3', '90x120', 64),
  ('conv4', '7/1/3', '45x60', 64),
  ('conv_decode4', '7/1/3', '45x60', 64),
  ('conv_decode3', '7/1/3', '90x120', 64),
  ('conv_decode2', '7/1/3', '180x240', 64),
  ('conv_decode1', '7/1/3', '360x480', 64),
  ('conv_classifier', '1/1/0', '360x480', 11),
]


@pytest.mark.parametrize('name', ['segnet_basic', 'segnet_basic_bayesian'])
def test_segnet_basic(name):
  rows = traced(name)
  assert convolutions(name) == BASIC
  check_pools(rows, 4)
  assert list(rows)[0] == 'norm' and rows['norm'].kernel == 'lrn 5, 0.0001, 0.75, 1'
  for n, *_ in BASIC:
    assert (rows[n].initial, rows[n].rate, rows[n].decay) == ('normal 2/in, 0', '1, 2', '1, 0')
    if n != 'conv_classifier':
      norm = rows[f'{n}_bn']
      assert (norm.kernel, norm.rate, norm.decay) == ('batch norm 1e-09', '1, 1', '1, 1')
      assert norm.after == ('' if 'decode' in n else 'relu')  # no ReLU in the decoder


@pytest.mark.parametrize(
  ('name', 'follows'),
  [
    ('segnet', []),
    ('segnet_basic', []),
    (
      'segnet_bayesian',
      ['pool3', 'pool4', 'pool5', 'conv5_1_D_bn', 'conv4_1_D_bn', 'conv3_1_D_bn'],
    ),
    ('segnet_basic_bayesian', ['pool3', 'pool4', 'conv_decode4_bn', 'conv_decode3_bn']),
  ],
)
def test_bayesian_dropout(name, follows):
  rows = list(traced(name).values())
  found = [rows[i - 1].name for i, row in enumerate(rows) if row.kernel == 'dropout 0.5']
  assert found == follows
  assert not [row for row in rows if row.kernel.startswith('dropout') and row.kernel[8:] != '0.5']


# --- U-Net, PAPERS 5.1, at 572 x 572

UNET = [  # (name, size, channels, kernel)
  ('enc0_conv1', 570, 64, 3), ('enc0_conv2', 568, 64, 3),
  ('enc1_conv1', 282, 128, 3), ('enc1_conv2', 280, 128, 3),
  ('enc2_conv1', 138, 256, 3), ('enc2_conv2', 136, 256, 3),
  ('enc3_conv1', 66, 512, 3), ('enc3_conv2', 64, 512, 3),
  ('bottom_conv1', 30, 1024, 3), ('bottom_conv2', 28, 1024, 3),
  ('dec3_up', 56, 512, 2), ('dec3_conv1', 54, 512, 3), ('dec3_conv2', 52, 512, 3),
  ('dec2_up', 104, 256, 2), ('dec2_conv1', 102, 256, 3), ('dec2_conv2', 100, 256, 3),
  ('dec1_up', 200, 128, 2), ('dec1_conv1', 198, 128, 3), ('dec1_conv2', 196, 128, 3),
  ('dec0_up', 392, 64, 2), ('dec0_conv1', 390, 64, 3), ('dec0_conv2', 388, 64, 3),
  ('score', 388, 2, 1),
]  # fmt: skip
MARGINS = {3: 4, 2: 16, 1: 40, 0: 88}


@pytest.mark.parametrize('name', ['unet_paper', 'unet_release'])
def test_unet(name):
  rows, release = traced(name), name == 'unet_release'
  expected = [
    (n, f'{k}/{2 if k == 2 else 1}/0', f'{s}x{s}', 128 if release and n == 'dec0_up' else c)
    for n, s, c, k in UNET
  ]
  assert convolutions(name) == expected and len(expected) == 23
  for n, _, _, k in UNET:
    fan = 'out' if k == 2 else 'in'  # Caffe's xavier takes a deconvolution's fan over its outputs
    initial = f'uniform 1/{fan}, 0' if release else 'normal 2/in, 0'
    assert rows[n].initial == initial
    linear = n == 'score' or (k == 2 and not release)
    assert rows[n].after == ('' if linear else 'relu')
  order = 'up, skip' if release else 'skip, up'
  channels = {3: 1024, 2: 512, 1: 256, 0: 192 if release else 128}
  for level, margin in MARGINS.items():
    join = rows[f'dec{level}_up join']
    assert join.kernel == f'join {order}; skip from {margin}'
    assert join.output.endswith(f'x{channels[level]}')
  dropouts = [n for n, row in rows.items() if row.kernel == 'dropout 0.5']
  assert dropouts == ['enc3_dropout'] * release + ['bottom_dropout']
  names = list(rows)
  if release:  # before the pooling, hence in the skip too
    assert names.index('enc3_dropout') == names.index('pool4') - 1
  assert not any(row.kernel.startswith('batch norm') for row in rows.values())


# --- PSPNet, PAPERS 6, at 473 x 473


def test_pspnet():
  rows = traced('pspnet50')
  stem = [('3x3', '2', '237x237x64'), ('3x3', '1', '237x237x64'), ('3x3', '1', '237x237x128')]
  found = [rows[f'backbone/conv{i}'] for i in (1, 2, 3)]
  assert [(row.kernel, row.stride, row.output) for row in found] == stem
  for stage, blocks, kernel, size in (
    (1, 3, '3x3', 119),
    (2, 4, '3x3', 60),
    (3, 6, '3x3 dilated 2', 60),
    (4, 3, '3x3 dilated 4', 60),
  ):
    layers = [rows[f'backbone/layer{stage}_{block}_conv2'] for block in range(blocks)]
    assert {row.kernel for row in layers} == {kernel}
    assert {row.output for row in layers} == {f'{size}x{size}x{32 * 2**stage}'}
    assert [row.stride for row in layers] == ['2' if stage == 2 else '1'] + ['1'] * (blocks - 1)
    assert f'backbone/layer{stage}_{blocks}_conv2' not in rows
  assert [rows[f'bins{n}'].output for n in (1, 2, 3, 6)] == [f'{n}x{n}x2048' for n in (1, 2, 3, 6)]
  new = {name: row for name, row in rows.items() if name.startswith(('ppm', 'cls', 'aux'))}
  assert {row.rate for row in new.values() if row.parameters} == {'10', '10, 10'}
  assert {row.decay for row in rows.values() if row.parameters} == {'1', '1, 1'}
  assert {row.rate for name, row in rows.items() if row.parameters and name not in new} == {
    '1',
    '1, 1',
  }
  assert new['cls_3'].kernel == new['aux_3'].kernel == 'dropout 0.1 of channels'
  assert new['cls_upsampled'].output == new['aux_upsampled'].output == '473x473x150'


# --- Mask R-CNN, PAPERS 7, at 800 x 1344, 512 regions, 80 classes and the background


def parameters(rows, *starts):
  return sum(row.parameters for name, row in rows.items() if name.startswith(starts))


def test_mask_rcnn_backbone():
  rows = traced('mask_rcnn50')
  stem, pool = rows['backbone/conv1'], rows['pool1']
  assert (geometry(stem), stem.output) == ('7/2/3', '400x672x64')
  assert (pool.kernel, pool.stride, pool.padding) == ('max 3x3', '2', '1')
  for stage, blocks, size in (
    (1, 3, '200x336'),
    (2, 4, '100x168'),
    (3, 6, '50x84'),
    (4, 3, '25x42'),
  ):
    layers = [rows[f'backbone/layer{stage}_{block}_conv2'] for block in range(blocks)]
    strides = ['1' if stage == 1 else '2'] + ['1'] * (blocks - 1)
    assert [(row.kernel, row.stride) for row in layers] == [('3x3', s) for s in strides]
    assert {row.output for row in layers} == {f'{size}x{32 * 2**stage}'}
    assert f'backbone/layer{stage}_{blocks}_conv2' not in rows
  frozen = 'backbone/conv1', 'backbone/layer1'
  norms = {n: row for n, row in rows.items() if row.kernel.startswith('batch norm')}
  assert {row.kernel for row in norms.values()} == {'batch norm 1e-05, frozen'}
  assert parameters(norms, '') == 53_120
  for name, row in rows.items():
    if row.parameters and name.startswith('backbone'):
      rate = '0, 0' if name in norms else '0' if name.startswith(frozen) else '1'
      assert (row.rate, row.decay) == (rate, rate), name
      assert set(row.initial.split(', ')) == {'loaded'}
  assert parameters(rows, 'backbone') == 23_508_032


def test_mask_rcnn_heads():
  rows = traced('mask_rcnn50')
  levels = ['200x336x256', '100x168x256', '50x84x256', '25x42x256']
  for layer, shape in (('inner', '1/1/0'), ('layer', '3/1/1')):
    found = [rows[f'fpn/{layer}_blocks_{i}'] for i in range(4)]
    assert [row.output for row in found] == levels
    assert {(geometry(row), row.initial, row.after) for row in found} == {
      (shape, 'uniform 1/in, 0', '')
    }
  assert [(rows[f'doubling{i}'].kernel, rows[f'doubling{i}'].output) for i in (1, 2, 3)] == [
    ('nearest', level) for level in reversed(levels[:3])
  ]
  assert rows['fpn/extra'].output == '13x21x256'
  counts = [
    parameters(rows, *starts)
    for starts in (['fpn'], ['rpn'], ['box_head/fc'], ['box_head/cls'], ['box_head/bbox'], ['mask'])
  ]
  assert counts == [3_344_384, 593_935, 13_895_680, 83_025, 328_000, 2_643_280]
  assert rows['align7'].kernel == 'align 7x7, 2x2 points, shift 0.5'
  assert rows['align14'].kernel == 'align 14x14, 2x2 points, shift 0.5'
  heads = {
    'rpn/conv': ('200x336x256', 'normal sd 0.01, 0', 'relu'),
    'rpn/cls_logits': ('200x336x3', 'normal sd 0.01, 0', ''),
    'rpn/bbox_pred': ('200x336x12', 'normal sd 0.01, 0', ''),
    'box_head/fc6': ('512x1024', 'uniform 1/in, 0', 'relu'),
    'box_head/fc7': ('512x1024', 'uniform 1/in, 0', 'relu'),
    'box_head/cls_score': ('512x81', 'normal sd 0.01, 0', ''),
    'box_head/bbox_pred': ('512x320', 'normal sd 0.001, 0', ''),
    'mask_head/mask_fcn1': ('14x14x256', 'normal 2/out, 0', 'relu'),
    'mask_head/mask_fcn4': ('14x14x256', 'normal 2/out, 0', 'relu'),
    'mask_head/conv5_mask': ('28x28x256', 'normal 2/out, 0', 'relu'),
    'mask_head/mask_fcn_logits': ('28x28x80', 'normal sd 0.001, 0', ''),
  }
  assert {n: (rows[n].output, rows[n].initial, rows[n].after) for n in heads} == heads
  new = [r for n, r in rows.items() if r.parameters and not n.startswith('backbone')]
  assert {(row.rate, row.decay) for row in new} == {('1, 1', '1, 1')}
