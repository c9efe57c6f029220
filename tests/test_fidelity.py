"""Networks beside their papers' tables, which were written out by hand; one changed layer shows."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxseg.models import fcn, segnet
from jaxseg.nn.layers.roi_align import roi_align
from jaxseg.tools import fidelity
from jaxseg.tools.fidelity import probes
from jaxseg.tools.fidelity.papers import Layer, Paper, paper_of
from jaxseg.tools.fidelity.probes import describe_initializer
from jaxseg.types import UserError
from tests.test_configs import SPECS, build
from tests.test_launch import ROOT, launch

# config -> the published network that it is, or is nearest to
PAPERS = {
  'fcn_camvid.py:32s': 'FCN-32s',
  'fcn_camvid.py:16s': 'FCN-16s',
  'fcn_camvid.py:8s': 'FCN-8s',
  'fcn_voc2011.py': 'FCN-8s at once',
  'segnet_camvid.py': 'SegNet',
  'segnet_camvid.py:bayesian': 'Bayesian SegNet',
  'segnet_camvid.py:basic': 'SegNet-Basic',
  'segnet_camvid.py:basic,bayesian': 'Bayesian SegNet-Basic',
  'segnet_camvid.py:paper': 'SegNet-Basic',
  'pspnet_ade20k.py': 'PSPNet50',
  'pspnet_cityscapes.py': 'PSPNet101',
  'pspnet_ade20k.py:caffe': 'PSPNet50',
  'mask_rcnn_coco.py': 'Mask R-CNN R50-FPN',
  'unet_isbi2012.py': 'U-Net',
  'unet_isbi2012.py+model.variant=release': "U-Net, the authors' release",
}


def differing(spec, *overrides):
  path, *more = spec.split('+')
  _, pairs = fidelity.compare(build(path, *more, *overrides))
  assert pairs
  return {pair.name: pair.differences for pair in pairs if pair.differences}


# --- the tables


@pytest.mark.parametrize(('spec', 'title'), PAPERS.items())
def test_all_equal(spec, title):
  path, *overrides = spec.split('+')
  exp = build(path, *overrides)
  paper, pairs = fidelity.compare(exp)
  assert paper.title == title
  assert [pair.ours.name for pair in pairs] == [r.name for r in paper.layers(exp.task.num_outputs)]
  assert not [pair for pair in pairs if pair.differences]


def test_the_tables_have_the_parameters_that_configs_claim():
  """Both were counted by hand, from layer tables and in sums; test_configs counts the networks'."""
  counted = set()
  for spec in SPECS:
    exp = build(spec)
    claimed = (exp.settings.paper or {}).get('params')
    if not claimed or not exp.config['model'].get('deep_stem', True):
      continue
    try:
      paper = paper_of(exp.config['model'])
    except UserError:
      continue
    layers = paper.layers(exp.task.num_outputs)
    assert sum(layer.parameters for layer in layers) == claimed, spec
    counted.add(paper.title)
  assert counted >= set(PAPERS.values()) - {"U-Net, the authors' release", 'U-Net'}


def test_a_table_is_read_line_by_line():
  table = """
* | | | | | | | normal 2/in, 0 | 1, 2 | 1, 0
* norm | batch norm 1e-05 | | | | | | 1, 0 | 3, 3 | 4, 4
a, a_bn | 3x3 | 2 | 1 | 4x5x2 | 56 | relu
a_drop | dropout 0.5 | | | 4x5x2
up | 4x4 | 2 | 0 | 8x10xC | | | bilinear
* | | | | | | | loaded, loaded | 0, 0 | 0, 0
score | 1x1 | 1 | 0 | 8x10x4K | 3C | | 0, 0 | 10, 20
"""
  assert Paper('', '', (1, 8, 10, 3), table).layers(5) == [
    Layer('a', '3x3', '2', '1', '4x5x2', 56, 'normal 2/in, 0', '1, 2', '1, 0'),
    Layer('a_bn', 'batch norm 1e-05', '', '', '4x5x2', 4, '1, 0', '3, 3', '4, 4', 'relu'),
    Layer('a_drop', 'dropout 0.5', output='4x5x2'),
    Layer('up', '4x4', '2', '0', '8x10x5', 0, 'bilinear', '0', '0'),
    Layer('score', '1x1', '1', '0', '8x10x16', 15, '0, 0', '10, 20', '0, 0'),
  ]


def test_what_a_paper_does_not_say_is_not_compared():
  ours = Layer('a', initial='normal 2/in, 0', rate='1, 2')
  pair = fidelity.LayerPair(ours, Layer('a', initial='normal 2/in, -', rate='-'))
  assert not pair.differences
  pair = fidelity.LayerPair(ours, Layer('a', initial='normal 1/in, -', rate='1'))
  assert pair.differences == ('initial', 'rate')
  assert fidelity.LayerPair(ours, None).differences == ('not in the paper',)
  assert fidelity.LayerPair(None, ours).differences == ('missing',)


@pytest.mark.parametrize('spec', ['fcn_pet.py', 'unet_lyft.py'])
def test_networks_that_nobody_published(spec):
  with pytest.raises(UserError, match='no published table for this .*; there are those of fcn, '):
    fidelity.compare(build(spec))


# --- one change


@pytest.mark.parametrize(
  ('spec', 'overrides', 'expected'),
  [
    ('fcn_camvid.py:32s', ['model.dropout_rate=.4'], {'drop6': ('kernel',), 'drop7': ('kernel',)}),
    ('fcn_camvid.py:32s', ['init.new=score_fr,fc7'], {'fc7': ('initial',)}),
    ('fcn_camvid.py:32s', ['model.learn_upsampling=True', 'init.new=score_fr,upscore'],
     {'upscore': ('parameters', 'rate', 'decay')}),
    ('fcn_camvid.py:32s', ['optim.multipliers=(("score_fr/bias",1.,0.),("/bias",2.,0.))'],
     {'score_fr': ('rate',)}),
    ('segnet_camvid.py:basic', ['model.dropout_rate=.4'], {}),  # there is none to change
    ('segnet_camvid.py:basic', ['model.remat=True'], {}),
    ('unet_isbi2012.py', ['num_classes=3'], {}),  # the paper's net for three classes
  ],
)  # fmt: skip
def test_one_option(spec, overrides, expected):
  assert differing(spec, *overrides) == expected


def test_one_crop_and_one_scale(monkeypatch):
  monkeypatch.setitem(fcn._LAST, 8, ('upscore8', 30))
  first, second = fcn._SKIPS
  monkeypatch.setattr(fcn, '_SKIPS', (first, (*second[:-1], 1e-3)))
  assert differing('fcn_camvid.py') == {'upscore8 crop': ('kernel',), 'pool3 times': ('kernel',)}


def test_a_relu_too_many_and_the_indices_of_another_pooling(monkeypatch):
  """Two poolings' places swapped would still have the right sizes in a smaller net."""
  decode = segnet.Model._decode

  def wrong(self, x, stage, pooling, train):
    index, size = pooling
    return nn.relu(decode(self, x, stage, (index + 0, size), train))

  monkeypatch.setattr(segnet.Model, '_decode', wrong)
  stages = range(1, 5)
  assert differing('segnet_camvid.py:basic') == {
    **{f'conv_decode{stage}_bn': ('after',) for stage in stages},
    **{f'unpool{stage}': ('missing',) for stage in stages},
    'ununknown': ('not in the paper',),
  }


def test_what_is_measured_of_roi_align_and_of_doubling():
  assert probes.align(roi_align, 7, {}) == 'align 7x7, 2x2 points, shift 0.5'
  options = dict(samples=4, aligned=False)
  assert probes.align(roi_align, 14, options) == 'align 14x14, 4x4 points, shift 0'
  for method, expected in (('nearest', 'nearest'), ('linear', 'blended')):
    double = functools.partial(jax.image.resize, shape=(1, 2, 4, 1), method=method)
    assert probes.double(double) == expected


@pytest.mark.parametrize(
  ('initializer', 'shape', 'expected'),
  [
    (nn.initializers.zeros_init(), (3, 3, 8, 8), '0'),
    (nn.initializers.constant(0.001), (64,), '0.001'),
    (nn.initializers.he_normal(), (3, 3, 8, 8), 'normal 2/in'),
    (nn.initializers.lecun_normal(), (3, 3, 8, 9), 'normal 1/in'),
    (nn.initializers.glorot_uniform(), (3, 3, 8, 9), 'uniform 1/avg'),
    (nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'), (1, 1, 8, 9), 'uniform 1/3/in'),
    (nn.initializers.normal(0.01), (3, 3, 8, 9), 'normal sd 0.01'),
    (nn.initializers.normal(0.001), (7, 9), 'normal sd 0.001'),
    (nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform'), (7, 9), 'uniform 1/in'),
    (lambda key, shape, dtype: jnp.arange(shape[0]), (3,), 'not constant'),
    (fcn._bilinear_init, (4, 4, 5, 5), 'bilinear'),
  ],
)
def test_initializers_are_known_by_their_samples(initializer, shape, expected):
  assert describe_initializer(initializer, shape) == expected


# --- the launcher


def report(capsys, *flags):
  """Returns the exit status, and the lines of both streams."""
  with pytest.raises(SystemExit) as stop:
    launch('fidelity', *flags)
  streams = capsys.readouterr()
  return stop.value.code, streams.out.splitlines() + streams.err.splitlines()


def test_the_launcher_ends_with_0_where_all_is_equal_and_else_with_2(capsys):
  config = f'--config={ROOT}/configs/segnet_camvid.py:basic'
  status, lines = report(capsys, config)
  assert status == 0
  assert lines[0].startswith('SegNet-Basic (arXiv:1511.00561, ') and lines[0].endswith('360x480x3')
  assert lines[-1] == 'SegNet-Basic: 26 layers, 1,416,587 parameters: all equal'
  assert lines[-2].startswith('not seen here: data and augmentation, the loss, optimiser')
  ours, paper = next((a, b) for a, b in zip(lines, lines[1:], strict=False) if a[:6] == 'conv1 ')
  words = '7x7 1 3 360x480x64 9,472 normal 2/in, 0 1, 2 1, 0'.split()
  assert ours.split() == ['conv1', *words, 'ours', '='] and paper.split() == [*words, 'paper']
  status, lines = report(capsys, config, '--config.optim.multipliers=()')
  assert status == 2 and 'DIFFERENT' in '\n'.join(lines)
  assert lines[-1].startswith('SegNet-Basic: 9 of 26 layers differ: conv1 (rate, decay), ')
