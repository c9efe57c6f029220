"""What devices send each other in a data-parallel step, read from the compiled program."""

import jax
import optax
import pytest

from jaxseg.tasks.semantic import Task
from jaxseg.tools.benchmark import needs
from jaxseg.tools.benchmark.collectives import Collective, collectives, total_bytes
from jaxseg.train.devices import parallel
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests.test_parallel import CLASSES, PREPROCESS, batch_of, make_unet
from tests.test_spatial import QUICKLY
from tests.tiny_runs import make_experiment


def test_collectives_are_read_from_a_program():
  text = """
  ROOT %r = (f32[3,2]{1,0}, bf16[4]{0}) all-reduce(%a, %b), replica_groups={{0,1}}
  %g = u8[2,16,8]{2,1,0} all-gather(%c), dimensions={1}
  %s = (f32[1,2]{1,0}, f32[4,2]{1,0}) all-gather-start(%d), dimensions={0}
  %p = pred[] collective-permute(%e), source_target_pairs={{0,1}}
  %n = f32[9] add(%all-reduce.1, %f)
  """
  assert collectives(text) == [
    Collective('all-reduce', 'f32', (3, 2)),
    Collective('all-reduce', 'bf16', (4,)),
    Collective('all-gather', 'u8', (2, 16, 8)),
    Collective('all-gather', 'f32', (4, 2)),
    Collective('collective-permute', 'pred', ()),
  ]
  assert total_bytes(collectives(text), 'all-reduce') == 24 + 8
  assert total_bytes(collectives(text), 'all-gather') == 256 + 32


def test_the_table_of_split_rows_counts_what_the_program_sends(capsys):
  """What docs/reliability.md shows for 2048x1024, for a U-Net of one level on 32x16."""
  model = dict(name='unet', width=2, depth=1, padding='same', dropout_rate=0.0)
  experiment = make_experiment(model=model, batch_size=1)
  one, two = needs.spatial_table(experiment, (32, 16), (1, 2))
  assert two['needed_bytes'] < one['needed_bytes']
  assert len(capsys.readouterr().out.splitlines()) == 3
  assert (one['all_reduce_bytes'], one['halo_bytes'], two['gather_bytes']) == (0, 0, 0)
  # 3x3: 3>2, 2>2, 2>4, 4>4, 4>2, 2>2; up 2x2: 4>2; score 2>4; a bias each; three scalars
  parameters = 9 * (6 + 4 + 8 + 16 + 8 + 4) + 4 * 8 + 8 + (2 + 2 + 4 + 4 + 2 + 2 + 2 + 4)
  assert two['all_reduce_bytes'] == 4 * (parameters + 3)
  assert two['halo_bytes'] > 0
  with pytest.raises(UserError, match='add --config.cpu_devices=64'):
    needs.spatial_table(experiment, (32, 16), (64,))


# U-Net of width 4 and depth 2 with batch norm on three channels, three classes, by hand.
# 3x3 kernels: 3>4, 4>4, 4>8, 8>8, 8>16, 16>16, 16>8, 8>8, 8>4, 4>4; up 2x2: 16>8, 8>4; score 4>3.
KERNELS = 9 * (12 + 16 + 32 + 64 + 128 + 256 + 128 + 64 + 32 + 16) + 4 * (128 + 32) + 12
BIASES = 8 + 4 + 3  # of the up-convolutions and the score
CHANNELS = 2 * (4 + 8 + 16 + 8 + 4)  # that are normalised
PARAMETERS = KERNELS + BIASES + 2 * CHANNELS  # scale and shift
STATISTICS = 2 * CHANNELS  # mean and variance of the batch
SCALARS = 3  # the loss's sum and weight, labels outside the classes


@pytest.mark.parametrize(
  ('kind', 'floats'),
  [
    ('mesh', PARAMETERS + STATISTICS + SCALARS),
    # Here the means of batch norm's backward pass cannot share the sums of scale and shift.
    ('pmap', PARAMETERS + 2 * STATISTICS + SCALARS),
  ],
)
def test_a_step_reduces_every_parameter_once(kind, floats):
  wrapper, tx = parallel.build(kind, '', 8), optax.sgd(0.1, momentum=0.9)
  model, plain = make_unet(wrapper.axis_name), make_unet(None)
  shapes = jax.eval_shape(make_init(plain, tx, (1, 16, 16, 3)), jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) == PARAMETERS
  step = make_train_step(model, Task(CLASSES), tx, PREPROCESS, axis_name=wrapper.axis_name)
  lowered = wrapper.wrap_train(step).lower(
    shapes, wrapper.place_batch(batch_of(0)), jax.random.key(1)
  )
  exchanged = collectives(lowered.compile(compiler_options=QUICKLY).as_text())
  assert {one.kind for one in exchanged} == {'all-reduce'}
  assert total_bytes(exchanged, 'all-reduce') == 4 * floats
