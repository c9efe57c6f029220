"""The recipes of FCN and SegNet as published, each fact a literal, and what they do to numbers."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.datasets import camvid
from jaxseg.train import build
from jaxseg.train.optim import multiplier_of, path_name

ROOT = Path(__file__).resolve().parent.parent


def load(spec, *overrides):
  return configs.load(f'{ROOT}/configs/{spec}', overrides)


# shelhamer/fcn.berkeleyvision.org: solver.prototxt and solve.py of voc-fcn32s, 16s, 8s, 8s-atonce
FCN = dict(
  dtype='float32',  # the summed loss would drown in bfloat16
  batch_size=1,
  accumulate=1,
  replacement=True,
  mean=(122.67892, 116.66877, 104.00699),  # BGR 104.00699, 116.66877, 122.67892
  std=(1.0, 1.0, 1.0),
  channel_order='bgr',
  loss='softmax',
  normalize='sum',
  class_weights=(),
  pixel_weights=False,
  optimizer='caffe_sgd',
  schedule='constant',
  warmup_steps=0,
  momentum=0.99,
  weight_decay=5e-4,
  clip_norm=0.0,
  eval_every=4000,
  absent='skip',
  population_pass=False,
  model='fcn',
)
# alexgkendall/SegNet-Tutorial: segnet_solver.prototxt, segnet_basic_solver.prototxt
SEGNET = dict(
  batch_size=4,
  replacement=False,  # shuffled once an epoch
  mean=(0.0, 0.0, 0.0),
  std=(1.0, 1.0, 1.0),
  channel_order='bgr',
  loss='softmax',
  normalize='pixels',
  optimizer='caffe_sgd',
  schedule='constant',
  warmup_steps=0,
  momentum=0.9,
  weight_decay=5e-4,
  clip_norm=0.0,
  absent='zero',
  population_pass=True,
  model='segnet',
)
SCORES, ENCODER_ONLY = ('score_.*',), (r'.*_bn', r'.*_D')
RECIPES = {
  'fcn_camvid.py': FCN | dict(learning_rate=1e-10, num_steps=300_000, init_new=SCORES),
  'fcn_camvid.py:32s': FCN | dict(learning_rate=1e-10, num_steps=100_000, init_new=SCORES),
  'fcn_camvid.py:16s': FCN
  | dict(learning_rate=1e-12, num_steps=100_000, init_new=('score_pool4',)),
  'fcn_camvid.py:8s': FCN | dict(learning_rate=1e-14, num_steps=100_000, init_new=('score_pool3',)),
  'segnet_camvid.py': SEGNET
  | dict(learning_rate=1e-3, num_steps=40_000, init_new=ENCODER_ONLY, init_ignore=('mean',)),
  'segnet_camvid.py:bayesian': SEGNET
  | dict(learning_rate=1e-3, num_steps=60_000, init_new=ENCODER_ONLY, init_ignore=('mean',)),
  'segnet_camvid.py:basic': SEGNET | dict(learning_rate=0.1, num_steps=10_000, init_new=()),
  'segnet_camvid.py:basic,bayesian': SEGNET
  | dict(learning_rate=0.1, num_steps=10_000, init_new=()),
}
MODELS = {
  'fcn_camvid.py': dict(stride=8, at_once=True),
  'fcn_camvid.py:32s': dict(stride=32, at_once=False),
  'fcn_camvid.py:16s': dict(stride=16, at_once=False),
  'fcn_camvid.py:8s': dict(stride=8, at_once=False),
  'segnet_camvid.py': dict(variant='vgg16', bayesian=False),
  'segnet_camvid.py:bayesian': dict(variant='vgg16', bayesian=True),
  'segnet_camvid.py:basic': dict(variant='basic', bayesian=False),
  'segnet_camvid.py:basic,bayesian': dict(variant='basic', bayesian=True),
}


@pytest.mark.parametrize('spec', RECIPES)
def test_facts(spec):
  config = load(spec)
  assert {key: config[key] for key in RECIPES[spec]} == RECIPES[spec]
  model = build.model_from(config)
  options = MODELS[spec]
  if spec.startswith('fcn'):
    options = options | dict(
      backbone='vgg16', head='paper', width=64, aligned=False, batch_norm=False,
      learn_upsampling=False,
    )  # fmt: skip
  else:
    options = options | dict(width=64, dropout_rate=0.5, use_bias=True)
  assert {key: getattr(model, key) for key in options} == options


@pytest.mark.parametrize('spec', RECIPES)
def test_no_augmentation_and_native_size(spec):
  config = load(spec)
  assert build.transforms_from(config) == () and not config.image_size
  assert config.eval_scales == (1.0,)


def test_segnets_class_weights_by_name():
  published = {
    'sky': 0.2595, 'building': 0.1826, 'pole': 4.5640, 'road': 0.1417, 'pavement': 0.9051,
    'tree': 0.3826, 'signsymbol': 9.6446, 'fence': 1.8418, 'car': 0.6823, 'pedestrian': 6.2478,
    'bicyclist': 7.3614,
  }  # fmt: skip
  names = [name.lower().replace('_', '').replace(' ', '') for name in camvid.CLASS_NAMES]
  for spec in ('segnet_camvid.py', 'segnet_camvid.py:basic'):
    assert dict(zip(names, load(spec).class_weights, strict=True)) == published


# --- multipliers: (rate, decay) of every parameter


def multipliers(spec):
  """Returns {name: (rate, decay)} of every parameter of a config's network."""
  config = load(spec)
  model = build.model_from(config)
  image = jnp.zeros((1, 64, 64, 3))
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))['params']
  names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return {n: tuple(multiplier_of(n, config.multipliers, i) for i in (1, 2)) for n in names}


def split(found):
  """Groups multipliers by what the parameter is: all of a group have to agree."""
  kinds = {}
  for name, value in found.items():
    layer, leaf = name.rsplit('/', 1)
    kinds.setdefault(('bn ' if layer.endswith('_bn') else '') + leaf, set()).add(value)
  return {kind: next(iter(v)) if len(v) == 1 else v for kind, v in kinds.items()}


@pytest.mark.parametrize('spec', [s for s in RECIPES if s.startswith('fcn')])
def test_fcn_multipliers(spec):
  """Biases twice the rate and no decay. The fixed filters are no parameters."""
  found = multipliers(spec)
  assert split(found) == {'kernel': (1, 1), 'bias': (2, 0)}
  assert not any('upscore' in name for name in found)
  scores = {32: 1, 16: 2, 8: 3}[MODELS[spec]['stride']]
  assert len(found) == 2 * (13 + 2 + scores)


def test_fcn_filters_learn_where_they_are_asked_to():
  config = load('fcn_camvid.py:8s', 'model_options.learn_upsampling=True')
  for name in ('upscore2', 'upscore_pool4', 'upscore8'):
    assert [multiplier_of(f'{name}/kernel', config.multipliers, i) for i in (1, 2)] == [1, 1]


def test_segnet_multipliers():
  norm = {'bn scale': (1, 1), 'bn bias': (1, 0)}
  assert split(multipliers('segnet_camvid.py')) == {'kernel': (1, 1), 'bias': (2, 0), **norm}


def test_segnet_basic_multipliers():
  """Its prototxt gives batch norm none: Caffe's default is 1 and 1."""
  norm = {'bn scale': (1, 1), 'bn bias': (1, 1)}
  assert split(multipliers('segnet_camvid.py:basic')) == {'kernel': (1, 1), 'bias': (2, 0), **norm}


# --- what the optimiser does: v <- m v + lr mult (g + wd decay w), w <- w - v


def two_updates(spec, names, weight=2.0, gradient=3.0):
  """Returns the first two updates of scalar parameters for a constant gradient."""
  config = load(spec)
  tx, _ = build.optimizer_from(config)
  params = {}
  for name in names:
    layer, leaf = name.split('/')
    params.setdefault(layer, {})[leaf] = np.float64(weight)
  with jax.enable_x64(True):
    grads = jax.tree.map(lambda _: np.float64(gradient), params)
    state = tx.init(params)
    first, state = tx.update(grads, state, params)
    second, _ = tx.update(grads, state, params)  # the parameters held still: numbers stay short
  return {
    n: tuple(float(u[n.split('/')[0]][n.split('/')[1]]) for u in (first, second)) for n in names
  }


def test_fcn_updates():
  """g + wd w = 3.001 for a kernel; a bias has 2 * 3. The second velocity has 0.99 of the first."""
  found = two_updates('fcn_camvid.py:32s', ['conv1_1/kernel', 'conv1_1/bias'])
  assert found['conv1_1/kernel'] == pytest.approx((-3.001e-10, -5.97199e-10), rel=1e-6)
  assert found['conv1_1/bias'] == pytest.approx((-6e-10, -11.94e-10), rel=1e-6)


def test_segnet_updates():
  names = ['conv1_1/kernel', 'conv1_1/bias', 'conv1_1_bn/scale', 'conv1_1_bn/bias']
  found = two_updates('segnet_camvid.py', names)
  assert found['conv1_1/kernel'] == pytest.approx((-3.001e-3, -5.7019e-3), rel=1e-6)
  assert found['conv1_1/bias'] == pytest.approx((-6e-3, -11.4e-3), rel=1e-6)
  assert found['conv1_1_bn/scale'] == pytest.approx((-3.001e-3, -5.7019e-3), rel=1e-6)
  assert found['conv1_1_bn/bias'] == pytest.approx((-3e-3, -5.7e-3), rel=1e-6)
  basic = two_updates('segnet_camvid.py:basic', ['conv1/bias', 'conv1_bn/bias'])
  assert basic['conv1/bias'] == pytest.approx((-0.6, -1.14), rel=1e-6)
  assert basic['conv1_bn/bias'] == pytest.approx((-0.3001, -0.57019), rel=1e-6)


# --- what the loss is: logits of zero cost log 11 a pixel


def loss(spec, labels):
  task = build.task_from(load(spec))
  label = np.array(labels, np.uint8).reshape(1, 1, -1)
  outputs = {'logits': jnp.zeros((*label.shape, 11))}
  ((total, weight),) = task.losses(outputs, {'label': label}).values()
  return float(total / weight) if weight else float(total)


def test_fcn_sums_over_pixels():
  assert loss('fcn_camvid.py', [0, 8, 255]) == pytest.approx(2 * math.log(11))
  assert loss('fcn_camvid.py', [255]) == 0


def test_segnet_weighs_and_divides_by_the_number_of_pixels():
  """Not by the sum of the weights, as torch does: that would be log 11."""
  expected = (0.2595 + 9.6446) / 2 * math.log(11)
  assert loss('segnet_camvid.py', [0, 6, 255]) == pytest.approx(expected)


# --- what the networks see of red 10, green 20, blue 30


def test_pixels():
  pixel = np.array([10, 20, 30], np.uint8).reshape(1, 1, 1, 3)
  fcn = build.preprocessing_from(load('fcn_camvid.py'))(pixel)
  np.testing.assert_allclose(fcn.ravel(), [-74.00699, -96.66877, -112.67892], rtol=1e-6)
  segnet = build.preprocessing_from(load('segnet_camvid.py'))(pixel)
  assert segnet.ravel().tolist() == [30, 20, 10]


# --- the same recipes elsewhere


@pytest.mark.parametrize(
  ('spec', 'like', 'but'),
  [
    (f'fcn_voc2011.py:{s}', f'fcn_camvid.py:{s}' if s != 'atonce' else 'fcn_camvid.py', set())
    for s in ('32s', '16s', '8s', 'atonce')
  ]
  + [('segnet_sunrgbd.py', 'segnet_camvid.py', {'num_steps'})],
)
def test_other_datasets_have_the_same_recipe(spec, like, but):
  """Only the length of SegNet's training on SUN RGB-D is its own (table 4)."""
  config, facts = load(spec), RECIPES[like]
  different = {key for key in facts if config[key] != facts[key]}
  assert different - {'init_new'} == but
  assert set(config.multipliers) == set(load(like).multipliers)
