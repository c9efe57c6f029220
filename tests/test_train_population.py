"""The population pass: numbers worked out in numpy, devices, order, and what a run does with it."""

import json
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.data.views import Cached
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.predict import evaluate
from jaxseg.train import build, train
from jaxseg.train.devices import parallel
from jaxseg.train.population import (
  PopulationPass,
  full_batches,
  make_batch_statistics,
  population_statistics,
)
from jaxseg.train.variables import load_variables
from tests.test_resume import lines, saved

ROOT = Path(__file__).resolve().parent.parent


class Net(nn.Module):
  """x -> bn_a -> relu -> dropout -> bn_b: the second sees what the first does with the batch."""

  norm: type = BatchNorm

  @nn.compact
  def __call__(self, image, *, train, dropout=None):
    dropout = train if dropout is None else dropout
    x = self.norm(epsilon=0.5, name='bn_a')(image, use_running_average=not train)
    x = nn.Dropout(0.5)(nn.relu(x), deterministic=not dropout)
    return {'logits': self.norm(name='bn_b')(x, use_running_average=not train)}


IDENTITY = Preprocessing()
VARIABLES = {
  'params': {
    'bn_a': {'scale': np.array([2.0], np.float32), 'bias': np.array([1.0], np.float32)},
    'bn_b': {'scale': np.array([1.0], np.float32), 'bias': np.array([0.0], np.float32)},
  },
  'batch_stats': {
    name: {'mean': np.array([99.0], np.float32), 'var': np.array([7.0], np.float32)}
    for name in ('bn_a', 'bn_b')
  },
}
# Two batches of 2 images of 1 x 2 pixels.
BATCHES = [
  {'image': np.array(b, np.uint8).reshape(2, 1, 2, 1)} for b in ([0, 2, 4, 6], [10, 10, 30, 10])
]


def by_hand(batches):
  """Means of the batches' means and of their unbiased variances, layer by layer, in numpy."""
  found = []
  for batch in batches:
    x = batch['image'].astype(np.float64).ravel()
    a = x.mean(), x.var(ddof=1)
    y = np.maximum(2 * (x - x.mean()) / np.sqrt(x.var() + 0.5) + 1, 0)
    found.append((*a, y.mean(), y.var(ddof=1)))
  return np.mean(found, axis=0)


def test_two_batches_by_hand():
  passing = make_batch_statistics(Net(), IDENTITY)
  found = population_statistics(jax.jit(passing), VARIABLES, BATCHES)
  # bn_a: means 3 and 15; sums of squares 20 and 300 over m - 1 = 3
  assert float(found['bn_a']['mean'][0]) == pytest.approx(9)
  assert float(found['bn_a']['var'][0]) == pytest.approx((20 / 3 + 100) / 2)
  values = [found[n][k][0] for n in ('bn_a', 'bn_b') for k in ('mean', 'var')]
  np.testing.assert_allclose(values, by_hand(BATCHES), rtol=1e-5)


def test_what_was_there_before_and_the_momentum_do_not_matter():
  for momentum in (0.0, 0.9, 0.99):
    passing = make_batch_statistics(Net(norm=partial(BatchNorm, momentum=momentum)), IDENTITY)
    found = population_statistics(passing, VARIABLES, BATCHES)
    assert float(found['bn_a']['mean'][0]) == pytest.approx(9)
  assert VARIABLES['batch_stats']['bn_a']['mean'][0] == 99


def test_eight_devices_are_one():
  rng = np.random.default_rng(0)
  batches = [{'image': rng.integers(0, 256, (8, 3, 5, 1), dtype=np.uint8)} for _ in range(3)]
  expected = by_hand(batches)
  wrapper = parallel.build('pmap', '', 8)
  assert len(wrapper.devices) == 8
  net = Net(norm=partial(BatchNorm, axis_name='data'))
  step = wrapper.wrap_eval(make_batch_statistics(net, IDENTITY, axis_name='data'))
  found = population_statistics(step, VARIABLES, map(wrapper.place_batch, batches))
  values = [float(found[n][k][0]) for n in ('bn_a', 'bn_b') for k in ('mean', 'var')]
  np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_every_image_is_seen_and_every_batch_is_full():
  sizes = [(4, 4)] * 5 + [(4, 6)] * 2
  order = full_batches(sizes, 3, seed=0)
  assert sorted(set(order)) == [*range(7)] and len(order) == 6 + 3
  assert order == full_batches(sizes, 3, seed=0) != full_batches(sizes, 3, seed=1)
  square = [i for i in order if i < 5]
  assert len(square) == 6 and square[5] == square[0]  # begins again from its first
  assert sorted(full_batches([(1, 1)] * 8, 4, seed=0)) == [*range(8)]
  assert full_batches([(1, 1)], 4, seed=0) == [0] * 4


# --- in a run

TINY = (
  'eval.population_pass=true',
  'model.width=2',
  'model.depth=1',
  'model.dropout_rate=0.3',
  'data.options.size=16',
  'data.options.count=5',
  'num_steps=4',
  'batch_size=2',
  'eval.every=2',
  'log.checkpoint_every=1',
  'log.every=1',
  'log.keep=9',
  'log.figures=0',
)


def tiny(*overrides):
  return configs.load(f'{ROOT}/configs/unet_shapes.py:smoke', (*TINY, *overrides))


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('straight')
  train.train(tiny(), workdir)
  return workdir


@pytest.mark.parametrize('variant', ['', ':basic', ':bayesian', ':basic,bayesian'])
def test_segnet_asks_for_it(variant):
  assert configs.load(f'{ROOT}/configs/segnet_camvid.py{variant}').eval.population_pass


def test_a_checkpoint_holds_the_pass_of_its_own_parameters(straight):
  experiment = build.experiment(tiny())
  passing = PopulationPass(experiment, Cached(experiment.source('train')))
  for step in (1, 2, 4):  # 1 was saved without an evaluation
    variables, _ = load_variables(straight, str(step))
    again = passing(variables)
    assert len(jax.tree.leaves(again)) == 2 * 6
    jax.tree.map(np.testing.assert_array_equal, variables['batch_stats'], again)


def test_scores_are_those_of_the_population_statistics(straight):
  record = [r for r in lines(straight) if 'eval/mean_iou' in r][-1]
  assert evaluate.evaluate_workdir(straight, step='4')['mean_iou'] == record['eval/mean_iou']


def test_resume_is_bit_identical(straight, tmp_path):
  train.train(tiny(), tmp_path, stop_at=3)
  train.train(tiny(), tmp_path)
  a, b = saved(straight, 4), saved(tmp_path, 4)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  assert lines(tmp_path) == lines(straight)


def test_parameters_do_not_depend_on_it(straight, tmp_path):
  train.train(tiny('eval.population_pass=false'), tmp_path)
  a, b = saved(straight, 4), saved(tmp_path, 4)
  for name in a:
    same = np.array_equal(a[name], b[name])
    assert same == ('batch_stats' not in name), name
  assert json.loads((tmp_path / 'config.json').read_text())['eval']['population_pass'] is False
