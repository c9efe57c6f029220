"""Averages of the weights over the steps: values by hand, and what checkpoints and resuming make of them."""

import flax
import jax
import numpy as np
import optax
import pytest

from jaxseg.tasks.semantic import Task
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.state import State, make_init
from jaxseg.train.step import averaged, make_train_step
from tests.test_train_not_finite import Model, batch, preprocess, spoilt

TX = optax.sgd(0.5)


def run(step, state, batches):
  for one in batches:
    state, _ = step(state, one, jax.random.key(0))
  return jax.device_get(state)


@pytest.fixture(scope='module')
def first():
  init = make_init(Model(), TX, (1, 4, 4, 3), average=0.15)
  return jax.device_get(jax.jit(init)(jax.random.key(0)))


@pytest.fixture(scope='module')
def step():
  return jax.jit(make_train_step(Model(), Task(num_classes=2), TX, preprocess, average=0.15))


def test_what_is_kept_rises_to_its_share():
  """(1 + 0) / 10, then (1 + 10) / 20, at most the share."""
  average = lambda step, keep: float(averaged(np.float32(4), np.float32(8), np.int32(step), keep))  # noqa: E731
  assert average(0, 0.9) == pytest.approx(8 - 0.4)
  assert average(10, 0.9) == pytest.approx(8 - 4 * 0.55)
  assert average(10, 0.25) == pytest.approx(7)


def test_steps_train_as_without_averages_and_average_beside(first, step):
  """After two steps: 0.85 (second) + 0.15 (0.9 (first) + 0.1 (start)); statistics alike."""
  plain = jax.jit(make_train_step(Model(), Task(num_classes=2), TX, preprocess))
  states = [first.replace(trained={})]
  for seed in (0, 1):
    states.append(run(plain, states[-1], [batch(seed)]))
  got = run(step, first, [batch(0), batch(1)])
  want = jax.tree.map(
    lambda a, b, c: 0.85 * c + 0.15 * (0.9 * b + 0.1 * a), *(state.variables for state in states)
  )
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
  jax.tree.map(close, got.variables, want)
  jax.tree.map(close, got.trained, states[-1].variables)


def test_a_step_that_is_not_finite_moves_no_average(first, step):
  once = run(step, first, [batch(0)])
  again = run(step, once, [spoilt(batch(1))])
  jax.tree.map(np.testing.assert_array_equal, again.replace(step=once.step), once)


def test_checkpoints_hold_both_and_give_the_averages(first, step, tmp_path):
  state = run(step, first, [batch(0)])
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.save(1, state)
  checkpoints.wait()
  restored, _ = checkpoints.restore_newest(first)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  assert isinstance(restored, State)
  variables = checkpoints.restore_variables(first.variables, 1)
  jax.tree.map(np.testing.assert_array_equal, variables, state.variables)
  checkpoints.close()


def test_without_averages_a_checkpoint_is_what_it_was(first, tmp_path):
  state = first.replace(trained={})
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.save(1, state)
  checkpoints.wait()
  saved = flax.serialization.to_state_dict(state)
  del saved['trained']
  jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(saved, 1), saved)
  restored, _ = checkpoints.restore_newest(state)
  assert restored.trained == {}
  checkpoints.close()
