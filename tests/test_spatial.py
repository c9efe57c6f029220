"""Rows of every image on several devices: the step of one device, and only rows at the seams move.

    MESH_TABLE=docs/reliability.md pytest -m slow -n0 tests/test_spatial.py

renews the table of networks and meshes in that file.
"""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.models import fcn, pspnet, segnet, unet
from jaxseg.nn.layers import (
  Conv,
  ConvTranspose,
  conv_transpose,
  max_pool,
  resize_bilinear,
  upsample_bilinear,
)
from jaxseg.nn.layers.split_rows import Level, by_rows, recorded_levels, rows_are_split, split_rows
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.tasks.semantic import Task
from jaxseg.tools.benchmark.collectives import collectives
from jaxseg.train import train
from jaxseg.train.devices import parallel, spatial
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import SizeRule, UserError
from tests import documents
from tests.test_resume import lines, saved, tiny

CLASSES = 3
PREPROCESS = Preprocessing((127.5,) * 3, (127.5,) * 3)
# Thousands of tiny operations: LLVM's optimisation would take longer than all that they compute.
QUICKLY = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
# name: (network, rows a shard that leave three or four at its coarsest level, columns)
NETWORKS = {
  'unet': (
    unet.Model(num_classes=CLASSES, width=2, depth=2, padding='same', batch_norm=True),
    12,
    16,
  ),
  'unet_keras': (unet.Model(num_classes=CLASSES, width=2, depth=2, variant='keras'), 12, 16),
  'unet_bilinear': (
    unet.Model(num_classes=CLASSES, width=2, depth=2, padding='same', up='bilinear'),
    12,
    16,
  ),
  'segnet': (segnet.Model(num_classes=CLASSES, width=2), 96, 32),
  'segnet_basic': (segnet.Model(num_classes=CLASSES, width=2, variant='basic'), 48, 16),
  'fcn8s': (fcn.Model(num_classes=CLASSES, width=2, aligned=True), 128, 32),
  'fcn8s_learned': (
    fcn.Model(num_classes=CLASSES, width=2, aligned=True, learn_upsampling=True),
    128,
    32,
  ),
  'pspnet': (
    pspnet.Model(  # one bin of one image would be a batch norm over a single value
      num_classes=CLASSES, width=2, stage_sizes=(1,) * 4, bins=(2, 3, 4, 6), align_corners=False
    ),
    40,
    32,
  ),
  'fcn_resnet50': (
    fcn.Model(num_classes=CLASSES, width=4, backbone='resnet50', head='torchvision'),
    80,
    32,
  ),
}
MESHES = ('data:1,spatial:2', 'data:2,spatial:2', 'data:1,spatial:4', 'data:2,spatial:4')
TABLE = 'MESH_TABLE'
WORST: dict[tuple[str, str], float] = {}  # network, mesh -> the largest difference
QUICK = {
  ('unet', 'data:2,spatial:4'),
  ('segnet', 'data:1,spatial:2'),
  ('fcn8s', 'data:1,spatial:2'),
}


def batch_of(images, height, width):
  """Returns images of noise; the share of void pixels grows downwards, so shards differ."""
  rng = np.random.default_rng(0)
  label = rng.integers(0, CLASSES, (images, height, width))
  void = rng.random(label.shape) < np.linspace(0, 0.9, height)[:, None]
  return {
    'image': rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8),
    'label': np.where(void, 255, label).astype(np.uint8),
  }


def one_step(model, mesh, height, width, images, accumulate=1):
  """Returns gradients and statistics, the loss, and the program's text."""
  wrapper = parallel.build('mesh', mesh, images // accumulate)
  keep = spatial.keep_gradients()
  init = make_init(model, keep, (1, height, width, 3))
  state = spatial.random_state(jax.eval_shape(init, jax.random.key(0)))
  step = make_train_step(model, Task(CLASSES), keep, PREPROCESS, accumulate=accumulate)
  key = jax.device_put(jax.random.key(1), wrapper.mesh.devices.flat[0])
  placed = wrapper.place_state(state), wrapper.place_batch(batch_of(images, height, width))
  compiled = wrapper.wrap_train(step).lower(*placed, key).compile(compiler_options=QUICKLY)
  key = jax.device_put(key, compiled.input_shardings[0][2])
  state, metrics = jax.device_get(compiled(*placed, key))
  return (state.opt_state, state.batch_stats), float(metrics['loss']), compiled.as_text()


def gathered_maps(text, model, shape):
  """Returns what is gathered and has as many rows as some level of the network."""
  with recorded_levels() as levels:
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros(shape))
  rows = {level.rows for level in levels}
  kinds = ('all-gather', 'all-to-all', 'reduce-scatter')
  return [c for c in collectives(text) if c.kind in kinds and rows & set(c.shape[:2])]


def assert_close(a, b):
  """Per leaf max|a-b| <= 1e-4 max(0.01, max|a|): sums in another order, through 53 batch norms.

  Returns the largest max|a-b| / max(0.01, max|a|).
  """
  worst = 0.0
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
    difference = np.abs(x - y).max() / max(0.01, np.abs(x).max())
    assert difference <= 1e-4, f'{jax.tree_util.keystr(path)}: {difference:.2e}'
    worst = max(worst, float(difference))
  return worst


def assert_split_equals_one_device(name, mesh, accumulate=1):
  model, rows, width = NETWORKS[name]
  data, shards = (int(axis.split(':')[1]) for axis in mesh.split(','))
  size = (rows * shards, width, data * accumulate, accumulate)
  one, loss, _ = one_step(model, 'data:1', *size)
  split, split_loss, text = one_step(model, mesh, *size)
  np.testing.assert_allclose(split_loss, loss, rtol=1e-5)
  worst = assert_close(one, split)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(one[0])) > 1e-3
  assert 'collective-permute' in text
  assert not gathered_maps(text, model, (1, *size[:2], 3))
  return worst


@pytest.mark.parametrize(('name', 'mesh'), sorted(QUICK))
def test_loss_and_gradients_equal_one_device_and_no_map_is_gathered(name, mesh):
  assert_split_equals_one_device(name, mesh)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', MESHES)
@pytest.mark.parametrize('name', NETWORKS)
def test_the_same_for_every_network_and_mesh(name, mesh):
  WORST[name, mesh] = assert_split_equals_one_device(name, mesh)


@pytest.mark.slow
def test_the_table_is_written():
  """After all networks and meshes."""
  if os.environ.get(TABLE):
    assert len(WORST) == len(NETWORKS) * len(MESHES), 'the table needs all of this file'
  heading = (
    'The step of tiny networks on a mesh beside one device: largest difference in gradients and statistics, of '
    "each\nleaf's maximum (bound 1e-4), nothing gathered;\n"
    f'`{TABLE}=docs/reliability.md pytest -m slow -n0 tests/test_spatial.py`.\n'
  )
  head = f'| network | {" | ".join(MESHES)} |\n|---|' + '---|' * len(MESHES)
  rows = [
    f'| {name} | ' + ' | '.join(f'{WORST.get((name, mesh), np.nan):.1e}' for mesh in MESHES) + ' |'
    for name in NETWORKS
  ]
  documents.renew(TABLE, 'Meshes', 'meshes', '\n'.join([heading, head, *rows]))


def test_the_table_is_in_the_documents():
  text = documents.section('meshes')
  assert 'nan' not in text and all(f'| {name} | ' in text for name in NETWORKS)


@pytest.mark.slow
def test_the_same_in_micro_batches():
  assert_split_equals_one_device('unet', 'data:2,spatial:2', accumulate=2)


def test_a_gathered_map_would_be_found():
  """The resize that was replaced: a dense product over all rows."""
  mesh = parallel.build('mesh', 'data:1,spatial:4', 1).mesh
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data', 'spatial'))
  x = jax.ShapeDtypeStruct((1, 16, 8, 2), jnp.float32, sharding=rows)

  def kinds(split):
    def resize(x):
      if not split:
        return resize_bilinear(x, (32, 8), align_corners=True)
      with split_rows(mesh):
        return resize_bilinear(x, (32, 8), align_corners=True)

    text = jax.jit(resize, out_shardings=rows).lower(x).compile().as_text()
    return {c.kind for c in collectives(text)}

  assert kinds(True) == {'collective-permute'}
  assert kinds(False) and 'collective-permute' not in kinds(False)


def assert_form_by_rows_is_the_same(layer, channels=2):
  x = np.random.default_rng(0).normal(size=(1, 6, 5, channels)).astype(np.float32)
  plain = jax.jit(lambda x: layer(x))(x)
  with recorded_levels() as levels:
    by_row = jax.jit(lambda x: layer(x))(x)
  assert levels
  np.testing.assert_allclose(by_row, plain, atol=1e-5)


@pytest.mark.parametrize(('factor', 'align_corners'), [(2, True), (3, False), (8, False)])
def test_resizing_by_rows_is_the_same_resizing(factor, align_corners):
  size = (6 * factor, 5 * factor)
  assert_form_by_rows_is_the_same(lambda x: resize_bilinear(x, size, align_corners=align_corners))


@pytest.mark.parametrize('factor', [2, 8])
def test_fcn_upsampling_by_rows_is_the_same(factor):
  crop = dict(size=(6 * factor, 5 * factor), offset=(factor // 2,) * 2)
  assert_form_by_rows_is_the_same(lambda x: upsample_bilinear(x, factor, **crop))


@pytest.mark.parametrize(
  ('side', 'stride', 'flipped'), [(3, 2, False), (4, 2, True), (5, 3, False), (16, 8, False)]
)
def test_transposed_convolution_by_rows_is_the_same(side, stride, flipped):
  shape = (side, side, 3, 2) if flipped else (side, side, 2, 3)
  kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  assert_form_by_rows_is_the_same(
    lambda x: conv_transpose(x, kernel, (stride, stride), 'SAME', transpose_kernel=flipped)
  )


@pytest.mark.parametrize(
  ('level', 'shards', 'splits'),
  [
    (Level(8), 4, True),
    (Level(4), 4, False),  # one row a shard
    (Level(10), 4, False),  # uneven
    (Level(6, reach=3), 2, False),  # a 7x7 kernel reaches over a whole shard
    (Level(8, reach=3), 2, True),
    (Level(2), 1, True),
  ],
)
def test_which_levels_split(level, shards, splits):
  assert level.splits(shards) == splits


@pytest.mark.parametrize(
  ('model', 'height', 'shards', 'near'),
  [
    # four poolings, two rows on each of 4: 16 * 2 * 4 = 128 at least, then any multiple of 64
    (unet.Model(num_classes=2, padding='same'), 208, 4, '192 or 256 '),
    # five poolings: multiples of 128 from 256 on
    (segnet.Model(num_classes=2), 360, 4, '256 or 384 '),
    # fc6 reaches three rows up and down: 32 * 4 * 2 = 256 at least, then multiples of 64
    (fcn.Model(num_classes=2, aligned=True), 224, 2, '256 '),
    (fcn.Model(num_classes=2), 500, 4, 'aligned=True'),
    (unet.Model(num_classes=2), 572, 4, 'padding=same'),
  ],
)
def test_a_height_that_does_not_divide_is_refused_with_those_that_do(model, height, shards, near):
  width = model.size_rule.at_least(400)
  with pytest.raises(UserError, match=f'images of {height} rows') as refused:
    spatial.check_height(model, (1, height, width, 3), shards)
  assert near in str(refused.value)
  for other in (int(word) for word in near.split() if word.isdigit()):
    spatial.check_height(model, (1, other, width, 3), shards)


def test_batches_are_split_where_they_have_rows():
  wrapper = parallel.build('mesh', 'data:2,spatial:4', 2)
  batch = {**batch_of(2, 16, 4), 'index': np.arange(2), 'box': np.zeros((2, 4)), 'n': np.int32(3)}
  shapes = {k: v.addressable_shards[0].data.shape for k, v in wrapper.place_batch(batch).items()}
  assert shapes == {
    'image': (1, 4, 4, 3), 'label': (1, 4, 4), 'index': (1,), 'box': (1, 4), 'n': ()
  }  # fmt: skip


@pytest.mark.parametrize(
  'mesh', ['spatial:2', 'data:2,spatial:0', 'data:2,spatial:8', 'data:2,rows:2']
)
def test_a_mesh_that_cannot_be_is_refused(mesh):
  with pytest.raises(UserError, match='config.mesh'):
    parallel.build('mesh', mesh, batch_size=8)


class Hourglass(nn.Module):
  """Down and up again: what can go wrong, in three layers."""

  dtype: type = jnp.float32
  size_rule = SizeRule(multiple=2, minimum=2)

  @nn.compact
  def __call__(self, image, *, train):
    x = max_pool(Conv(2, (3, 3), name='down')(image))
    x = Conv(2, (3, 3), name='bottom')(x)
    return {'logits': ConvTranspose(CLASSES, (2, 2), (2, 2), name='up')(x)}


@jax.custom_vjp
def with_doubled_gradient(x):
  return x


with_doubled_gradient.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))


def start_up_check():
  wrapper = parallel.build('mesh', 'data:2,spatial:2', 2)
  return spatial.check(wrapper, Hourglass(), Task(CLASSES), PREPROCESS, (1, 8, 32, 3))


def test_right_gradients_pass_the_check_at_start_up():
  assert "on 2 devices; gradients equal one device's to" in start_up_check()


def test_wrong_gradients_stop_the_run_and_are_named(monkeypatch):
  """The defect that was seen: on the mesh, and only there, a gradient is exactly doubled."""

  def wrong(x, reach=0):
    x = by_rows(x, reach)
    return with_doubled_gradient(x) if rows_are_split() and x.shape[1] == 8 else x

  monkeypatch.setattr('jaxseg.nn.layers.pooling.by_rows', wrong)
  with pytest.raises(UserError, match=r'gradient down \w+ of a test batch is 2 times'):
    start_up_check()


def test_nothing_is_checked_where_rows_are_whole():
  wrapper = parallel.build('mesh', 'data:2', 2)
  assert spatial.check(wrapper, None, None, None, (1, 7, 7, 3)) == ''


@pytest.mark.slow
def test_training_resumes_on_split_rows_with_evaluation_and_population_pass(tmp_path):
  options = (
    'parallel=mesh', 'mesh=data:2,spatial:4', 'cpu_devices=8', 'data.options.size=32', 'eval.population_pass=True',
    f'compile_cache={tmp_path / "xla"}',
  )  # fmt: skip
  train.train(tiny(*options), tmp_path / 'straight')
  train.train(tiny(*options), tmp_path / 'resumed', stop_at=2)
  summary = train.train(tiny(*options), tmp_path / 'resumed')
  straight, resumed = saved(tmp_path / 'straight', 6), saved(tmp_path / 'resumed', 6)
  for name in straight:
    np.testing.assert_array_equal(straight[name], resumed[name], err_msg=name)
  assert lines(tmp_path / 'resumed') == lines(tmp_path / 'straight')
  whole = train.train(tiny('parallel=mesh', 'mesh=data:1', *options[2:]), tmp_path / 'whole')
  np.testing.assert_array_equal(whole['confusion'].sum(), summary['confusion'].sum())
  alone = saved(tmp_path / 'whole', 6)
  for name in alone:
    np.testing.assert_allclose(resumed[name], alone[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_an_optimiser_sees_the_same_gradients():
  """Three steps of Adam on the mesh and on one device end in the same parameters."""
  model, rows, width = NETWORKS['unet']
  model = model.clone(dropout_rate=0.0)

  def trained(mesh):
    wrapper, tx = parallel.build('mesh', mesh, 2), optax.sgd(0.1, momentum=0.9)
    init = make_init(model, tx, (1, rows * 4, width, 3))
    state = wrapper.place_state(spatial.random_state(jax.eval_shape(init, jax.random.key(0))))
    step = wrapper.wrap_train(make_train_step(model, Task(CLASSES), tx, PREPROCESS))
    for _ in range(3):
      state, _ = step(state, wrapper.place_batch(batch_of(2, rows * 4, width)), jax.random.key(1))
    return jax.device_get((state.params, state.batch_stats))

  assert_close(trained('data:1'), trained('data:2,spatial:4'))
