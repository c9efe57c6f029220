"""What papers and releases say and no config spells out: literals against the parts that are built."""

import numpy as np
import pytest

from jaxseg.config import plain
from jaxseg.datasets import camvid
from jaxseg.train.optim import multiplier_of
from jaxseg.train.state import parameter_count
from tests.test_configs import build, load, parameter_names, parameters_of


def multipliers(spec):
  """Returns the (rate, decay) multipliers of a network's parameters by what they are."""
  rules, kinds = build(spec).optim.multipliers, {}
  for name in parameter_names(spec):
    layer, leaf = name.rsplit('/', 1)
    kind = ('bn ' if layer.endswith('_bn') else '') + leaf
    kinds.setdefault(kind, set()).add(tuple(multiplier_of(name, rules, i) for i in (1, 2)))
  return kinds


@pytest.mark.parametrize(('spec', 'scores'), [('32s', 1), ('16s', 2), ('8s', 3)])
def test_fcn_biases_learn_twice_as_fast_without_decay(spec, scores):
  """shelhamer/fcn.berkeleyvision.org; the fixed filters of its upsampling are no parameters."""
  spec = f'fcn_camvid.py:{spec}'
  assert multipliers(spec) == {'kernel': {(1, 1)}, 'bias': {(2, 0)}}
  assert len(parameter_names(spec)) == 2 * (13 + 2 + scores)


def test_fcn_filters_that_are_asked_to_learn_do_so_like_any_kernel():
  rules = build('fcn_camvid.py:8s').optim.multipliers
  assert [multiplier_of('upscore_pool4/kernel', rules, i) for i in (1, 2)] == [1, 1]


def test_segnet_norms_have_no_decay_on_their_shifts():
  """alexgkendall/SegNet-Tutorial, segnet_train.prototxt."""
  found = multipliers('segnet_camvid.py')
  norm = {'bn scale': {(1, 1)}, 'bn bias': {(1, 0)}}
  assert found == {'kernel': {(1, 1)}, 'bias': {(2, 0)}, **norm}


def test_segnet_basic_gives_its_norms_no_multipliers():
  """Its prototxt says nothing: Caffe's default is 1 and 1."""
  found = multipliers('segnet_camvid.py:basic')
  norm = {'bn scale': {(1, 1)}, 'bn bias': {(1, 1)}}
  assert found == {'kernel': {(1, 1)}, 'bias': {(2, 0)}, **norm}


def test_an_encoder_that_was_trained_before_learns_at_a_third_and_no_norm_decays():
  """(rate, decay) of the U-Net on EfficientNet-Lite."""
  rules = build('unet_camvid.py').optim.multipliers
  for name, wanted in {
    'backbone/blocks_3_depthwise_conv/kernel': (0.3, 1),
    'backbone/blocks_3_bn1/scale': (0.3, 0),
    'dec4_conv1/kernel': (1, 1),
    'dec4_up/bias': (1, 0),
    'dec4_bn1/scale': (1, 0),
    'score/kernel': (1, 1),
  }.items():
    assert tuple(multiplier_of(name, rules, i) for i in (1, 2)) == wanted, name


def test_only_what_is_new_to_pspnet_learns_ten_times_as_fast():
  """hszhao/semseg: 4 levels, two heads of two convolutions and a norm; the decay is everybody's."""
  spec = 'pspnet_ade20k.py'
  rules, names = build(spec).optim.multipliers, parameter_names(spec)
  new = [name for name in names if not name.startswith('backbone/')]
  assert len(new) == 4 * 3 + 2 * 5
  assert {multiplier_of(name, rules, 1) for name in new} == {10}
  assert {multiplier_of(name, rules, 1) for name in set(names) - set(new)} == {1}
  assert {multiplier_of(name, rules, 2) for name in names} == {1}


def test_mask_rcnn_fixes_the_stem_the_first_stage_and_all_norms():
  """Detectron2's R50-FPN: three kernels of each block after that stage learn, and 3 projections."""
  spec = 'mask_rcnn_coco.py'
  rules = build(spec).optim.multipliers
  backbone = [name for name in parameter_names(spec) if name.startswith('backbone/')]
  learnt = [name for name in backbone if multiplier_of(name, rules, 1) == 1]
  assert {multiplier_of(name, rules, 1) for name in set(backbone) - set(learnt)} == {0}
  assert len(learnt) == 3 * (4 + 6 + 3) + 3 and all(n.endswith('/kernel') for n in learnt)
  assert not any(name.startswith(('backbone/conv1', 'backbone/layer1_')) for name in learnt)


def test_segnets_class_weights_by_name():
  published = {
    'sky': 0.2595, 'building': 0.1826, 'pole': 4.5640, 'road': 0.1417, 'pavement': 0.9051,
    'tree': 0.3826, 'signsymbol': 9.6446, 'fence': 1.8418, 'car': 0.6823, 'pedestrian': 6.2478,
    'bicyclist': 7.3614,
  }  # fmt: skip
  names = [name.lower().replace('_', '').replace(' ', '') for name in camvid.CLASS_NAMES]
  weights = build('segnet_camvid.py').task.class_weights
  assert dict(zip(names, weights, strict=True)) == published


def test_sunrgbd_weighs_its_first_class_with_the_releases_second_number():
  weights = build('segnet_sunrgbd.py').task.class_weights
  assert len(weights) == 37 and weights[0] == 0.382592 and weights[-1] == 4.017548


def test_pixels():
  """What networks see of red 10, green 20, blue 30: Caffe's have blue first."""
  pixel = np.array([10, 20, 30], np.uint8).reshape(1, 1, 1, 3)
  fcn = build('fcn_camvid.py').preprocess(pixel)
  np.testing.assert_allclose(fcn.ravel(), [-74.00699, -96.66877, -112.67892], rtol=1e-6)
  assert build('segnet_camvid.py').preprocess(pixel).ravel().tolist() == [30, 20, 10]


@pytest.mark.parametrize(
  'spec', ['fcn_camvid.py:32s', 'segnet_camvid.py', 'segnet_camvid.py:basic']
)
def test_fcn_and_segnet_are_trained_without_augmentation_at_native_size(spec):
  exp = build(spec)
  assert exp.transforms == () and not exp.data.image_size and exp.eval.scales == (1.0,)


@pytest.mark.parametrize(
  ('spec', 'like', 'but'),
  [
    ('fcn_voc2011.py:32s', 'fcn_camvid.py:32s', {'init.new'}),
    ('fcn_voc2011.py:16s', 'fcn_camvid.py:16s', set()),
    ('fcn_voc2011.py:8s', 'fcn_camvid.py:8s', set()),
    ('fcn_voc2011.py:atonce', 'fcn_camvid.py', set()),
    ('segnet_sunrgbd.py:bayesian', 'segnet_camvid.py:bayesian', {'loss.class_weights'}),
    ('pspnet_camvid.py', 'pspnet_ade20k.py', set()),
    ('pspnet_voc2012.py', 'pspnet_ade20k.py', {'model.backbone'}),
    ('pspnet_cityscapes.py', 'pspnet_ade20k.py', {'model.backbone'}),
  ],
)
def test_other_datasets_have_the_same_recipe(spec, like, but):
  """Network, loss, optimiser, pixels and batch; how long they train is each one's own."""
  a, b = (plain(load(s)) for s in (spec, like))
  different = {f'{g}.{k}' for g in ('model', 'loss', 'optim', 'init') for k in a[g] | b[g]
               if a[g].get(k) != b[g].get(k)}  # fmt: skip
  assert different == but
  for key in ('mean', 'std', 'channel_order', 'replacement'):
    assert a['data'].get(key) == b['data'].get(key), key
  assert a['batch_size'] == b['batch_size'] and a['dtype'] == b['dtype'] == 'float32'


def test_the_light_heads_of_the_pets():
  """Nothing is published; MobileNetV2's features have 2,223,872, ResNet-50's 23,508,032."""
  for spec, features, channels in (
    ('fcn_pet.py', 2_223_872, 32 + 96 + 1280),
    ('fcn_pet.py:resnet50', 23_508_032, 512 + 1024 + 2048),
  ):
    params = parameters_of(spec)
    assert parameter_count(params) == features + 3 * channels + 3 * 3, spec
    assert {k for k in params if k != 'backbone'} == {'score_fr', 'score_pool4', 'score_pool3'}


@pytest.mark.slow
def test_pspnet_resumes_bit_identically(tmp_path):
  """Two heads, dropout of whole channels, and a rate that follows the step."""
  from jaxseg.train import train
  from tests.test_resume import lines, saved

  flags = 'num_steps=4 eval.every=2 log.checkpoint_every=2 log.every=1 log.figures=0 compile_cache='
  config = load('pspnet_camvid.py:smoke', 'model.width=2', *flags.split())
  train.train(config, tmp_path / 'straight')
  train.train(config, tmp_path / 'stopped', stop_at=2)
  train.train(config, tmp_path / 'stopped')
  a, b = (saved(tmp_path / name, 4) for name in ('straight', 'stopped'))
  assert a.keys() == b.keys() and len(a) > 100
  assert all((a[name] == b[name]).all() for name in a)
  assert lines(tmp_path / 'straight') == lines(tmp_path / 'stopped')
