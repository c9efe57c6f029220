"""PSPNet's recipe as published, each fact a literal; that a resumed run ends in the same bits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxseg import config as configs
from jaxseg.data import transforms
from jaxseg.train import build, train
from jaxseg.train.optim import multiplier_of, path_name
from tests.test_resume import lines, saved

ROOT = Path(__file__).resolve().parent.parent
RECIPE = dict(
  batch_size=16,
  loss='softmax',
  normalize='weights',
  aux_weight=0.4,
  class_weights=(),
  optimizer='sgd',  # PyTorch's: the rate multiplies the velocity
  learning_rate=0.01,
  momentum=0.9,
  weight_decay=1e-4,
  schedule='poly',
  warmup_steps=0,
  channel_order='rgb',
  mean=(123.675, 116.28, 103.53),
  std=(58.395, 57.12, 57.375),
)
# name: backbone, crop, steps, parallel, mean IoU and the split that it was published for
BASELINES = {
  'ade20k': ('resnet50', (473, 473), 150_000, 'pmap', 0.4168, 'val'),
  'voc2012': ('resnet101', (473, 473), 30_000, 'pmap', 0.826, 'test'),
  'cityscapes': ('resnet101', (713, 713), 90_000, 'mesh', 0.784, 'test'),
}


def load(spec, *overrides):
  return configs.load(f'{ROOT}/configs/pspnet_{spec}', overrides)


@pytest.mark.parametrize('name', BASELINES)
def test_facts(name):
  config = load(f'{name}.py')
  assert {key: config[key] for key in RECIPE} == RECIPE
  backbone, crop, steps, parallel, mean_iou, split = BASELINES[name]
  model = build.model_from(config)
  assert (model.backbone, model.deep_stem, model.width, model.aux) == (backbone, True, 64, True)
  assert (model.bins, model.dropout_rate, model.stage_sizes) == ((1, 2, 3, 6), 0.1, None)
  assert (config.crop, config.num_steps, config.parallel) == (crop, steps, parallel)
  assert (config.paper.mean_iou, config.paper.split) == (mean_iou, split)
  assert '1612.01105, table' in config.paper.source
  fill = (124, 116, 104)  # the mean colour, rounded
  assert build.transforms_from(config) == (
    transforms.RandomRotate(10.0, fill, 0.5),
    transforms.RandomScaleCrop(crop, (0.5, 2.0), fill),
    transforms.RandomFlip(True, False),
    transforms.RandomBlur(0.5),
  )


def test_only_what_is_new_learns_ten_times_as_fast():
  config = load('ade20k.py')
  image = jnp.zeros((1, 33, 33, 3))
  model = build.model_from(config)
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))['params']
  names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  rates = {name: multiplier_of(name, config.multipliers, 1) for name in names}
  assert {rates[name] for name in names if name.startswith('backbone/')} == {1}
  new = [name for name in names if not name.startswith('backbone/')]
  assert {rates[name] for name in new} == {10} and len(new) == 4 * 3 + 2 * 5
  assert {multiplier_of(name, config.multipliers, 2) for name in names} == {1}  # of the decay


def test_the_rate_falls_with_power_09_at_every_step():
  _, schedule = build.optimizer_from(load('voc2012.py'))
  # 0.01 * 0.5 ** 0.9 and 0.01 * (1 / 30000) ** 0.9
  for step, rate in ((0, 0.01), (15_000, 0.005358867), (29_999, 9.345e-7), (30_000, 0)):
    assert float(schedule(step)) == pytest.approx(rate, rel=2e-3), step


@pytest.mark.slow
def test_resume_is_bit_identical(tmp_path):
  flags = 'num_steps=4 eval_every=2 checkpoint_every=2 log_every=1 figures=0 compile_cache='.split()
  config = load('camvid.py:smoke', 'model_options.width=2', *flags)
  train.train(config, tmp_path / 'straight')
  train.train(config, tmp_path / 'stopped', stop_at=2)
  train.train(config, tmp_path / 'stopped')
  a, b = (saved(tmp_path / name, 4) for name in ('straight', 'stopped'))
  assert a.keys() == b.keys() and len(a) > 100
  assert all((a[name] == b[name]).all() for name in a)
  assert lines(tmp_path / 'straight') == lines(tmp_path / 'stopped')
