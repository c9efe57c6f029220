"""Optimisers against updates written out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.train.optim import Optim
from jaxseg.types import UserError


def run(tx, params, gradients):
  state = tx.init(params)
  for grads in gradients:
    updates, state = tx.update(grads, state, params)
    params = {k: {n: p + updates[k][n] for n, p in v.items()} for k, v in params.items()}
  return params


def scalar_tree(weight, bias):
  return {'conv1': {'kernel': jnp.array(weight), 'bias': jnp.array(bias)}}


MULTIPLIERS = ((r'/bias', 2.0, 0.0),)


def make(name, rate=0.1, num_steps=10, **options):
  optim = Optim(name=name, learning_rate=rate, **options)
  return optim.make_optimizer(optim.make_schedule(num_steps))


FALLING = dict(schedule='step', schedule_steps=(1,))  # to a tenth


def test_caffe_sgd_keeps_the_rate_inside_the_velocity():
  """v <- m v + lr mult (g + wd decay w); w <- w - v, with the rate falling from 0.1 to 0.01."""
  tx = make('caffe_sgd', weight_decay=0.5, multipliers=MULTIPLIERS, **FALLING)
  params = run(tx, scalar_tree(2.0, 1.0), [scalar_tree(3.0, 4.0), scalar_tree(1.0, 1.0)])
  # kernel: v1 = .1 (3 + .5*2) = .4, w = 1.6; v2 = .36 + .01 (1 + .8) = .378, w = 1.222
  np.testing.assert_allclose(params['conv1']['kernel'], 1.222, rtol=1e-6)
  # bias: v1 = .1*2*4 = .8, b = .2; v2 = .72 + .01*2*1 = .74, b = -.54
  np.testing.assert_allclose(params['conv1']['bias'], -0.54, rtol=1e-6)


def test_torch_sgd_multiplies_the_velocity_by_the_rate():
  tx = make('sgd', weight_decay=0.5, multipliers=MULTIPLIERS, **FALLING)
  params = run(tx, scalar_tree(2.0, 1.0), [scalar_tree(3.0, 4.0), scalar_tree(1.0, 1.0)])
  # kernel: v1 = 4, w = 2 - .4 = 1.6; v2 = 3.6 + 1.8 = 5.4, w = 1.6 - .054
  np.testing.assert_allclose(params['conv1']['kernel'], 1.546, rtol=1e-6)


def test_the_two_sgds_agree_at_a_constant_rate():
  gradients = [scalar_tree(g, -g) for g in (1.0, 2.0, -0.5)]
  options = dict(weight_decay=0.1, multipliers=MULTIPLIERS)
  a, b = (run(make(n, **options), scalar_tree(1.0, 2.0), gradients) for n in ('sgd', 'caffe_sgd'))
  np.testing.assert_allclose(a['conv1']['kernel'], b['conv1']['kernel'], rtol=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'caffe_sgd', 'adam', 'adamw'])
def test_a_rate_multiplier_of_zero_fixes_a_parameter(name):
  tx = make(name, weight_decay=0.1, multipliers=((r'kernel', 0.0, 1.0),))
  params = run(tx, scalar_tree(2.0, 1.0), [scalar_tree(3.0, 4.0)] * 3)
  assert params['conv1']['kernel'] == 2.0 and params['conv1']['bias'] != 1.0


def test_adam_moves_by_the_rate_at_first():
  tx = make('adam')
  params = run(tx, scalar_tree(2.0, 1.0), [scalar_tree(3.0, -4.0)])
  np.testing.assert_allclose(params['conv1']['kernel'], 1.9, rtol=1e-5)
  np.testing.assert_allclose(params['conv1']['bias'], 1.1, rtol=1e-5)


def test_clipping_keeps_the_direction():
  tx = make('sgd', 1.0, momentum=0.0, clip_norm=1.0)
  params = run(tx, scalar_tree(0.0, 0.0), [scalar_tree(3.0, 4.0)])
  np.testing.assert_allclose(params['conv1']['kernel'], -0.6, rtol=1e-6)
  np.testing.assert_allclose(params['conv1']['bias'], -0.8, rtol=1e-6)


def schedule_of(kind, rate, num_steps=100, **options):
  return Optim(learning_rate=rate, schedule=kind, **options).make_schedule(num_steps)


def test_schedules_by_hand():
  poly = schedule_of('poly', 0.01)
  np.testing.assert_allclose([poly(0), poly(50)], [0.01, 0.01 * 0.5**0.9], rtol=1e-6)
  cosine = schedule_of('cosine', 1.0)
  np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [1, 0.5, 0], atol=1e-6)
  step = schedule_of('step', 1.0, schedule_steps=(10, 20))
  np.testing.assert_allclose([step(9), step(10), step(20)], [1, 0.1, 0.01], rtol=1e-6)
  warm = schedule_of('constant', 1.0, warmup_steps=4)
  np.testing.assert_allclose([warm(i) for i in range(5)], [0.25, 0.5, 0.75, 1, 1], rtol=1e-6)


def test_a_rule_that_matches_no_parameter_is_refused():
  """Whoever freezes 'encoder/' believes it frozen."""
  tx = make('sgd', multipliers=((r'/bias', 2.0, 0.0), ('encoder', 0.0, 0.0)))
  with pytest.raises(UserError, match="'encoder' matches no parameter; the layers are conv1"):
    tx.init(scalar_tree(2.0, 1.0))


@pytest.mark.parametrize(
  'options', [dict(learning_rate=-1.0), dict(multipliers=('x',)), dict(schedule='step')]
)
def test_what_cannot_work_is_refused(options):
  with pytest.raises(UserError, match=f'config.optim.{next(iter(options))}'):
    Optim(**options)
