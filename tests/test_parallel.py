"""One device, pmap over 8 and a mesh of 8 make the same three updates, with uneven void."""

import functools
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from jaxseg.models import segnet, unet
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.tasks.semantic import Task
from jaxseg.train import train
from jaxseg.train.devices import parallel
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment

PREPROCESS = Preprocessing((127.5,) * 3, (127.5,) * 3)
CLASSES = 3
TX = optax.adam(0.1)


def batch_of(step: int, size: int = 8, side: int = 16) -> dict[str, np.ndarray]:
  """Returns a batch in which image i has a share of about i / size of void pixels."""
  rng = np.random.default_rng(step)
  label = rng.integers(0, CLASSES, (size, side, side))
  void = rng.random((size, side, side)) < (np.arange(size) / size).reshape(-1, 1, 1)
  return {
    'image': rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8),
    'label': np.where(void, 255, label).astype(np.uint8),
  }


def make_unet(axis_name, dropout_rate=0.0):
  return unet.Model(
    num_classes=CLASSES,
    norm=partial(BatchNorm, axis_name=axis_name),
    width=4,
    depth=2,
    padding='same',
    batch_norm=True,
    dropout_rate=dropout_rate,
  )


def make_segnet(axis_name):
  return segnet.Model(
    num_classes=CLASSES, norm=partial(BatchNorm, axis_name=axis_name), variant='basic', width=4
  )


def with_open_relus(state):
  """Batch norm shifts its results by three deviations: few values are near a ReLU's edge.

  The few that the rounding of sums in another order carries over it, on some processors, change
  gradients by more than all other rounding together.
  """

  def shifted(path, leaf):
    return leaf + 3 if path[-1].key == 'bias' and '_bn' in path[-2].key else leaf

  return state.replace(params=jax.tree_util.tree_map_with_path(shifted, state.params))


@functools.cache
def initial(make_model, tx):
  """The first state, compiled once for all tests."""
  return jax.device_get(jax.jit(make_init(make_model(None), tx, (1, 16, 16, 3)))(jax.random.key(0)))


SGD = optax.sgd(0.1, momentum=0.9)


def three_steps(make_model, wrapper, *, accumulate=1, **task_options):
  model = make_model(wrapper.axis_name)
  state = wrapper.place_state(with_open_relus(initial(make_model, SGD)))
  task = Task(num_classes=CLASSES, **task_options)
  step = make_train_step(
    model, task, SGD, PREPROCESS, axis_name=wrapper.axis_name, accumulate=accumulate
  )
  step = wrapper.wrap_train(step)
  losses = []
  for i in range(3):
    state, metrics = step(state, wrapper.place_batch(batch_of(i)), jax.random.key(1))
    losses.append(float(metrics['loss']))
  return jax.device_get(state), losses


def assert_same(a, b):
  """Per leaf max|a-b| <= 1e-5 max(0.01, max|a|)."""
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
    worst, bound = np.abs(x - y).max(), 1e-5 * max(0.01, np.abs(x).max())
    assert worst <= bound, f'{jax.tree_util.keystr(path)}: {worst:.2e} > {bound:.2e}'


def wrappers():
  devices = jax.local_devices()
  return (
    parallel.Pmap(devices[:1]),
    parallel.Pmap(devices),
    parallel.build('mesh', 'data:8', batch_size=8),
  )


@functools.cache
def three_weighted_steps(make_model, place):
  return three_steps(make_model, wrappers()[place], class_weights=(1.0, 2.0, 0.5))


@pytest.mark.parametrize(
  'make_model', [make_unet, pytest.param(make_segnet, marks=pytest.mark.slow)]
)
def test_one_device_pmap_and_mesh_agree(make_model):
  one, *others = (three_weighted_steps(make_model, place) for place in range(3))
  for state, losses in others:
    np.testing.assert_allclose(losses, one[1], rtol=1e-5)
    assert_same((one[0].params, one[0].batch_stats), (state.params, state.batch_stats))


def test_training_moves_every_parameter():
  before = with_open_relus(initial(make_unet, SGD)).params
  after = three_weighted_steps(make_unet, 0)[0].params
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
  assert min(jax.tree.leaves(moved)) > 0, moved


def test_micro_batches_equal_one_batch():
  def without_norm(axis_name):
    return unet.Model(num_classes=CLASSES, width=4, depth=1, padding='same', dropout_rate=0.0)

  wrapper = parallel.Pmap(jax.local_devices()[:2])
  whole, losses = three_steps(without_norm, wrapper)
  parts, micro_losses = three_steps(without_norm, wrapper, accumulate=4)
  np.testing.assert_allclose(micro_losses, losses, rtol=1e-5)
  assert_same(whole.params, parts.params)


def first_state():
  return initial(make_unet, TX)


@functools.cache
def program(count, dropout_rate):
  """Pmap over `count` devices and the U-Net's step, compiled once for all tests."""
  wrapper = parallel.Pmap(jax.local_devices()[:count])
  model, task = make_unet('data', dropout_rate), Task(num_classes=CLASSES)
  return wrapper, wrapper.wrap_train(make_train_step(model, task, TX, PREPROCESS, axis_name='data'))


def one_step(count, state, batch, dropout_rate=0.0):
  """Returns the U-Net's state after a step under pmap on `count` devices, and what was measured."""
  wrapper, step = program(count, dropout_rate)
  placed = wrapper.place_state(state), wrapper.place_batch(batch)
  return jax.device_get(step(*placed, jax.random.key(1)))


def test_dropout_differs_between_devices():
  """Two copies of one image: the loss equals one device's only if both drop the same units."""
  batch = batch_of(0, size=1)
  twice = {k: np.repeat(v, 2, axis=0) for k, v in batch.items()}
  losses = (
    one_step(len(b['image']), first_state(), b, dropout_rate=0.5)[1]['loss'] for b in (batch, twice)
  )
  assert abs(np.subtract(*losses)) > 1e-4


def test_an_all_void_batch_costs_nothing_and_stays_finite():
  before, batch = first_state(), batch_of(0)
  batch['label'][:] = 255
  state, metrics = one_step(2, before, batch)
  assert float(metrics['loss']) == 0 and float(metrics['finite']) == 1
  jax.tree.map(np.testing.assert_array_equal, before.params, state.params)


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
  before = jax.tree.map(np.array, first_state())
  before.params['score']['bias'][0] = np.nan
  after, metrics = one_step(2, before, batch_of(0))
  assert float(metrics['finite']) == 0
  assert after.step == before.step + 1
  jax.tree.map(np.testing.assert_array_equal, before.replace(step=0), after.replace(step=0))


def test_labels_outside_the_classes_are_counted():
  batch = batch_of(0)
  batch['label'][0, 0, :2] = 7
  batch['label'][5, 3, :3] = CLASSES
  assert float(one_step(2, first_state(), batch)[1]['invalid']) == 5


def test_devices_are_the_largest_number_that_divides_the_batch():
  assert [parallel.largest_divisor(n, 8) for n in (1, 6, 7, 8, 12, 13)] == [1, 6, 7, 8, 6, 1]


def test_half_of_the_devices_without_work_are_told():
  told = parallel.idle(images=12, used=4, available=8)
  assert told.startswith(
    '4 of 8 devices are idle, because a (micro-)batch of 12 is shared evenly: 8 or 16'
  )
  assert '1 of 2 devices' in parallel.idle(3, 1, 2) and ': 8 images' in parallel.idle(7, 7 // 7, 8)
  assert not parallel.idle(15, 5, 8) and not parallel.idle(1, 1, 1)


def test_a_training_warns_of_idle_devices_at_its_start(monkeypatch):
  data = SimpleNamespace(train=[0] * 3, eval=[0], labels=['none'])
  wrapper = SimpleNamespace(describe=lambda: 'one device', devices=[0])
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  parts = make_experiment('batch_size=1'), None, wrapper, SimpleNamespace(params={}), data, '', ''
  (line,) = [line for line in train._header(*parts) if 'idle' in line]
  assert line.startswith('warning: 3 of 4 devices are idle')


@pytest.mark.parametrize('mesh', ['data:3', 'data:16', 'rows:2', 'data:0', 'data'])
def test_a_mesh_that_cannot_be_is_refused(mesh):
  with pytest.raises(UserError, match='config.mesh'):
    parallel.build('mesh', mesh, batch_size=8)


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_a_step_compiles_once(kind):
  """The state comes back placed as it went in: else the second step would compile anew."""
  wrapper = parallel.build(kind, '', 2, jax.devices()[:2])
  step = wrapper.wrap_train(lambda s, b, k: (s + b['image'].sum(), {'loss': s}))
  state, key = wrapper.place_state(np.float32(0)), jax.random.key(0)
  batch = wrapper.place_batch({'image': np.ones((2, 1), np.float32)})
  state, _ = step(state, batch, key)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if 'backend_compile' in event else None
  )
  try:
    step(state, batch, key)
  finally:
    jax.monitoring.clear_event_listeners()
  assert not compiled
