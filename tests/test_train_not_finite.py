"""Steps whose loss or gradient is not finite are skipped as if they had not been (test_train_loop: or end a run)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.tasks.semantic import Task
from jaxseg.train.optim import Optim
from jaxseg.train.state import State
from jaxseg.train.step import make_train_step

MODEL_STATISTICS = {'mean': np.zeros(3, np.float32)}


class Model(nn.Module):
  """A 1x1 convolution after a running mean."""

  @nn.compact
  def __call__(self, image, *, train):
    mean = self.variable('batch_stats', 'mean', jnp.zeros, (3,))
    if train and not self.is_initializing():
      mean.value = 0.5 * mean.value + 0.5 * image.mean((0, 1, 2))
    return {'logits': nn.Conv(2, (1, 1), use_bias=False)(image)}


def preprocess(image):
  """255 becomes NaN."""
  return jnp.where(image == 255, jnp.nan, image.astype(jnp.float32) / 255)


def batch(seed):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 255, (1, 4, 4, 3), dtype=np.uint8)
  return {'image': image, 'label': rng.integers(0, 2, (1, 4, 4)).astype(np.uint8)}


def spoilt(batch):
  image = batch['image'].copy()
  image[0, 2, 1] = 255
  return {**batch, 'image': image}


@pytest.fixture(scope='module')
def steps():
  """A function that trains on batches and returns the state and the metrics of each step."""
  optim = Optim(
    name='sgd', learning_rate=0.1, schedule='step', schedule_steps=(2,), apply_if_finite=9
  )
  tx = optim.make_optimizer(optim.make_schedule(9))
  step = jax.jit(make_train_step(Model(), Task(num_classes=2), tx, preprocess))

  def run(batches):
    params = {'Conv_0': {'kernel': np.full((1, 1, 3, 2), 0.5, np.float32)}}
    state = State(np.int32(0), params, MODEL_STATISTICS, tx.init(params))
    told = []
    for one in batches:
      state, metrics = step(state, one, jax.random.key(0))
      told.append({k: float(v) for k, v in metrics.items()})
    return jax.device_get(state), told

  return run


def test_a_skipped_step_leaves_no_trace_but_its_count(steps):
  got, told = steps([batch(0), spoilt(batch(9)), spoilt(batch(8)), batch(1), batch(2)])
  want, _ = steps([batch(0), batch(1), batch(2)])
  assert [m['finite'] for m in told] == [1, 0, 0, 1, 1]
  assert [m['skipped'] for m in told] == [0, 1, 2, 2, 2]
  assert [m['skipped_in_a_row'] for m in told] == [0, 1, 2, 0, 0]
  assert int(got.step) == 5 and int(got.opt_state.total_notfinite) == 2
  for name in ('params', 'batch_stats'):
    jax.tree.map(np.testing.assert_array_equal, getattr(got, name), getattr(want, name))
  inner = got.opt_state.inner_state, want.opt_state.inner_state
  jax.tree.map(np.testing.assert_array_equal, *inner)
  assert np.abs(got.batch_stats['mean']).max() > 0.1


def test_a_plain_optimiser_has_no_counts():
  tx = Optim(name='sgd').make_optimizer(lambda step: 0.1)
  assert not isinstance(tx.init({'w': np.zeros(2)}), optax.ApplyIfFiniteState)
