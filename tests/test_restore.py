"""A checkpoint belongs to no device, no wrapper and no optimiser: it is restored anywhere."""

from functools import cache, partial

import jax
import numpy as np
import optax
import pytest

from jaxseg.models import unet
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.tasks.semantic import Task
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.devices import parallel
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests.test_parallel import CLASSES, PREPROCESS, batch_of

TX = optax.sgd(0.1, momentum=0.9)  # Adam would blow rounding errors of zero gradients up


def make_model(axis_name):
  norm = partial(BatchNorm, axis_name=axis_name)
  return unet.Model(
    num_classes=CLASSES,
    norm=norm,
    width=2,
    depth=1,
    padding='same',
    batch_norm=True,
    dropout_rate=0.0,  # pmap's devices draw masks of their own
  )


@pytest.fixture(scope='module')
def first():
  """The state of step 0, as numpy arrays."""
  init = make_init(make_model(None), TX, (1, 16, 16, 3))
  return jax.device_get(jax.jit(init)(jax.random.key(0)))


@cache
def wrapped(kind: str, count: int):
  """Returns a wrapper of the first devices and its compiled step."""
  wrapper = parallel.build(kind, '', 8, jax.devices()[:count])
  assert len(wrapper.devices) == count
  model, task = make_model(wrapper.axis_name), Task(num_classes=CLASSES)
  step = make_train_step(model, task, TX, PREPROCESS, axis_name=wrapper.axis_name)
  return wrapper, wrapper.wrap_train(step)


def train(kind, count, state, steps):
  """Returns the state after the steps, as numpy arrays."""
  wrapper, step = wrapped(kind, count)
  state = wrapper.place_state(state)
  for number in steps:
    state, _ = step(state, wrapper.place_batch(batch_of(number)), jax.random.key(1))
  return jax.device_get(state)


def test_eight_devices_then_four_then_one_then_eight(first, tmp_path):
  """The wrapper changes with every restart; the end is that of one device that never stopped."""
  state = first
  for number, (kind, count) in enumerate([('pmap', 8), ('mesh', 4), ('pmap', 1), ('mesh', 8)]):
    checkpoints = Checkpoints(tmp_path / 'c')
    state, step = checkpoints.restore_newest(first)
    assert (step or 0) == number
    state = train(kind, count, state, [number])
    checkpoints.save(number + 1, state)
    checkpoints.wait()
    checkpoints.close()
  want = train('pmap', 1, first, range(4))
  got = Checkpoints(tmp_path / 'c', read_only=True).restore(first, 4)
  assert int(got.step) == 4
  paths = jax.tree_util.tree_leaves_with_path(want)
  for (path, a), b in zip(paths, jax.tree.leaves(got), strict=True):
    limit = 1e-5 * max(0.01, float(np.abs(a).max()))
    assert np.abs(a - b).max() <= limit, jax.tree_util.keystr(path)


@pytest.fixture(scope='module')
def saved(first, tmp_path_factory):
  folder = tmp_path_factory.mktemp('saved') / 'c'
  checkpoints = Checkpoints(folder)
  checkpoints.save(1, first, {'mean_iou': 0.5})
  checkpoints.wait()
  checkpoints.close()
  return folder


def assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert type(a) is np.ndarray and a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_it_is_restored_as_numpy(first, saved):
  assert_equal(Checkpoints(saved, read_only=True).restore(first, 1), first)


def test_the_network_alone_needs_no_optimiser(first, saved):
  variables = Checkpoints(saved, read_only=True).restore_variables(first.variables, 1)
  assert_equal(variables, first.variables)


def test_a_network_without_batch_norm_has_no_statistics(first, tmp_path):
  checkpoints = Checkpoints(tmp_path / 'c')
  state = first.replace(batch_stats={})
  checkpoints.save(1, state)
  checkpoints.wait()
  assert_equal(checkpoints.restore_variables(state.variables, 1), state.variables)
  checkpoints.close()


def test_another_network_is_told_without_the_optimiser_too(first, saved):
  checkpoints = Checkpoints(saved, read_only=True)
  other = jax.tree.map(lambda a: np.zeros((*a.shape, 2), a.dtype), first.variables)
  with pytest.raises(UserError, match='another network|cannot be read'):
    checkpoints.restore_variables(other, 1)


def test_the_scalars_since_the_last_line_of_the_log_come_back(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'c')
  window = [{'loss': 0.1 + 0.2, 'finite': 1.0}, {'loss': 1e-300, 'finite': 1.0}]
  checkpoints.save(5, {'w': np.zeros(3)}, window=window)
  checkpoints.wait()
  assert checkpoints.window(5) == window
  checkpoints.close()
