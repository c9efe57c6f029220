"""The benchmark runs at a tiny size, counts what can be counted by hand, and times nothing here."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import fcn, segnet, unet
from jaxseg.nn import layers
from jaxseg.tools.benchmark import feed, needs, ours, session, stock, timing
from jaxseg.tools.benchmark.process import Process
from jaxseg.tools.examples import make_batch
from jaxseg.types import UserError
from tests.test_configs import build
from tests.test_launch import ROOT, launch
from tests.tiny_runs import make_experiment

TINY = dict(name='unet', width=2, depth=1, padding='same', batch_norm=True, dropout_rate=0.0)
SMOKE = f'--config={ROOT}/configs/unet_shapes.py:smoke'


def test_the_command_measures_all_and_writes_json(tmp_path, capsys):
  """What a GPU's rows in docs/benchmarks.md are made with, but for the size and the precision."""
  launch(
    'benchmark',
    SMOKE,
    '--config.dtype=bfloat16',
    '--config.model.width=2',
    '--config.model.depth=1',
    '--config.model.batch_norm=False',
    '--config.compile_cache=',
    '--mode=train,infer,input,loop',
    '--compare=flax',
    '--batch=1',
    '--crop=16',
    '--trials=1',
    '--steps=2',
    '--matmul=32',
    f'--json={tmp_path}/figures.json',
  )
  result = json.loads((tmp_path / 'figures.json').read_text())
  assert result['setting']['shape'] == [1, 16, 16, 3]
  assert result['setting']['dtype'] == 'bfloat16'
  for mode in ('train', 'infer'):
    part = result[mode]
    assert set(part['seconds']) == {'ours', 'flax', 'matmul'}
    assert part['images_per_second']['ours'] == pytest.approx(1 / part['seconds']['ours']['wall'])
    assert part['ratio'].keys() == part['ratio_cpu'].keys() == {'flax'}
    assert part['ratio']['flax'] > 0 and part['utilisation'] > 0
    assert part['temporary_bytes'] > 0 and part['compile_seconds'] > 0
  assert 2 < result['train']['flops'] / result['infer']['flops'] < 4
  assert result['input']['images_per_second'] > 0
  assert 0 <= result['loop']['waiting'] <= 1
  out = capsys.readouterr().out
  assert result['bottleneck'] in out and 'of its time' in out


def test_a_crop_takes_the_place_of_the_configs():
  flip = ('flip', {})
  cropped = session._cropped((('crop', {'size': (9, 9), 'scale': (1, 2)}), flip), (3, 4))
  assert cropped == (('crop', {'size': (3, 4), 'scale': (1, 2)}), flip)
  assert session._cropped((flip,), (3, 4)) == (flip, ('crop', {'size': (3, 4)}))


def test_will_it_fit_ends_where_it_does_not(monkeypatch, capsys):
  """The compiler's numbers: see test_scaling."""
  monkeypatch.setattr(needs, '_shared_bytes', lambda exp, batch, size, remat: batch * (2 - remat))
  monkeypatch.setattr(needs, 'device_limit_bytes', lambda device: 5)
  table = needs.fit_table(None, (8, 2, 4), [(32, 32)])
  assert [(row['batch'], row['remat'], row['fits']) for row in table] == [
    (2, False, True), (4, False, False), (2, True, True), (4, True, True), (8, True, False)
  ]  # fmt: skip
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 6 and 'does not fit' in lines[-1]
  monkeypatch.undo()
  with pytest.raises(UserError, match='--batch=3 does not divide into accumulate=2 parts'):
    needs._shared_bytes(make_experiment(accumulate=2), 3, (32, 32), False)


def test_flops_are_those_of_the_products():
  """A 1x1 score and 3x3 convolutions, two FLOPs a product; the rest is a few a value."""
  full, half = 2 * 16 * 16, 2 * 8 * 8  # pixels of the batch at both levels
  inside = (14 / 16 + 2 / 16 * 2 / 3) ** 2  # share of a 3x3 kernel's taps within a 16x16 image
  inside_half = (6 / 8 + 2 / 8 * 2 / 3) ** 2
  expected = 2 * full * inside * 9 * (3 * 2 + 2 * 2 + 4 * 2 + 2 * 2)
  expected += 2 * half * inside_half * 9 * (2 * 4 + 4 * 4) + 2 * full * 4 * 2 + 2 * full * 2 * 4
  counted = ours.flops(make_experiment(model=TINY, batch_size=2), (16, 16), train=False)
  elementwise = 40 * full * 2 * 6
  assert expected < counted < expected + elementwise


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('max_pool', dict(window=3, padding=((1, 1), (1, 1)))),
    ('max_pool', dict(ceil=True)),
    ('max_pool_argmax', {}),
    ('upsample_bilinear', dict(factor=2, size=(8, 11), offset=(1, 1))),
  ],
)
def test_stock_layers_compute_the_same(name, arguments):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7, 3)), jnp.float32)
  want, got = (jax.jit(lambda x, m=m: getattr(m, name)(x, **arguments))(x) for m in (layers, stock))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  if name == 'max_pool_argmax':
    sides = (jax.jit(m.max_unpool, static_argnums=2)(*want, (5, 7)) for m in (layers, stock))
    np.testing.assert_array_equal(*sides)


@pytest.mark.parametrize(
  ('model', 'shape'),
  [
    (unet.Model(3, width=4, depth=2, padding='same', dropout_rate=0.0), (1, 16, 24, 3)),
    (segnet.Model(3, width=4), (1, 45, 61, 3)),
    (fcn.Model(3, width=2, dropout_rate=0.0), (1, 33, 47, 3)),
  ],
  ids=['unet', 'segnet', 'fcn'],
)
def test_stock_networks_have_the_same_parameters_and_none_of_our_gradients(model, shape):
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  init = lambda model: lambda image: model.init(jax.random.key(0), image, train=False)  # noqa: E731
  ours_program, want = jax.make_jaxpr(init(model), return_shape=True)(image)
  with stock.layers():
    program, got = jax.make_jaxpr(init(stock.with_stock_norm(model)), return_shape=True)(image)
  assert got == want
  assert 'custom_vjp' in str(ours_program) and 'custom_vjp' not in str(program)


def test_stock_layers_end_with_the_context():
  with stock.layers():
    assert unet.Conv is nn.Conv and segnet.max_unpool is stock.max_unpool
  assert unet.Conv is layers.Conv and segnet.max_unpool is layers.max_unpool


def test_programs_are_timed_in_turn(monkeypatch):
  """After a first look at the clock; each turn begins with a warm-up."""
  monkeypatch.setattr(timing, '_LEAST_SECONDS', 0.0)
  order = []
  times = timing.alternate({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 3)
  assert ''.join(order) == 'aa' + 'bb' + 3 * 'aabb'
  assert len(times['a'].trials) == 3 and times['a'].wall == sorted(times['a'].trials)[1]
  elsewhere = timing.alternate({'theirs': lambda: 7.0}, 3)['theirs']
  assert 7 <= elsewhere.cpu < 8  # CPU seconds of another process


def test_ratios_are_the_part_that_ours_takes():
  times = {'ours': timing.Timing(2, 3, (2,)), 'torch': timing.Timing(4, 2, (4,))}
  record = timing.record(times, ('ours', 'torch'))
  assert (record['ratio'], record['ratio_cpu']) == ({'torch': 0.5}, {'torch': 1.5})
  assert timing.line(times['ours'], times['ours']) == '2 s (3 CPU-s)'
  text = timing.line(times['torch'], times['ours'])
  assert text == '4 s (2 CPU-s); ours takes 0.50 of its time (1.50 of its CPU time)'


@pytest.mark.parametrize(
  ('result', 'word'),
  [
    ({'loop': {'waiting': 0.2}}, 'waits for data 20%'),
    ({}, 'not known'),
    (
      {'input': {'images_per_second': 5}, 'train': {'images_per_second': {'ours': 9}}},
      'the input: 5 images/s',
    ),
    ({'train': {'images_per_second': {'ours': 9}, 'utilisation': 0.7}}, 'matrix units: 70%'),
    ({'infer': {'images_per_second': {'ours': 9}, 'utilisation': 0.2}}, 'not its matrix units'),
  ],
)
def test_the_bottleneck_in_one_line(result, word):
  line = feed.bottleneck(result)
  assert word in line and '\n' not in line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--mode=trian'], 'choose from train, infer'),
    (['--compare=keras'], 'choose from torch, flax'),
    (['--crop=30,32'], '--crop=32,32'),
    (['--batch=0'], "'0': give a whole number, 1 or more"),
    (['--batch=1,2'], '--mode=fit only'),
    (['--mode=detection'], 'unet has no proposals: use configs/mask_rcnn'),
  ],
)
def test_mistakes_are_one_line(flags, message, capsys):
  with pytest.raises(SystemExit) as stop:
    launch('benchmark', SMOKE, *flags)
  error = capsys.readouterr().err
  assert stop.value.code == 2 and message in error and error.count('\n') == 1


def test_missing_data_leaves_the_rest(monkeypatch, capsys):
  monkeypatch.setattr(session.Session, '_compute', lambda self, mode: None)
  monkeypatch.setattr(session.Session, '_memory', lambda self: None)
  experiment = make_experiment(model=TINY, data=dict(name='folder'), data_dir='/nowhere')
  result = session.Session(experiment, (16, 16)).run()
  out = capsys.readouterr().out
  assert 'input     not measured' in out and 'loop      not measured' in out
  assert set(result) == {'setting', 'train', 'infer', 'memory', 'bottleneck'}


def test_nothing_imports_torch_unasked():
  code = 'import sys, jaxseg.tools.benchmark.session; sys.exit("torch" in sys.modules)'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_another_process_answers_with_its_result_its_mistake_or_its_end():
  with Process('timing.Timing', 1.0, 2.0, (1.0,)) as process:
    assert process.program('__repr__')() == 'Timing(wall=1.0, cpu=2.0, trials=(1.0,))'
  with pytest.raises(UserError, match='no unet2 in PyTorch|needs PyTorch'):
    Process('torch_side.import_module', 'unet2')
  with pytest.raises(UserError, match='ended, for want of memory perhaps'):
    Process('process.missing')


def test_detectors_are_timed_on_a_grid_of_objects():
  experiment = build('mask_rcnn_dsb2018.py:smoke', 'loss.max_instances=3')
  batch = make_batch(experiment, (2, 64, 64, 3))
  np.testing.assert_array_equal(
    batch['boxes'][1], [(0, 0, 32, 32), (32, 0, 64, 32), (0, 32, 32, 64)]
  )
  np.testing.assert_array_equal(batch['classes'][1], [1, 1, 1])  # a fourth would be one too many
  assert batch['masks'].shape == (2, 3, 56, 56) and (batch['masks'] > 127).all()
  assert set(make_batch(make_experiment(), (1, 8, 8, 3))) == {'image', 'label'}


def test_detection_is_timed_by_the_command(tmp_path):
  config = f'--config={ROOT}/configs/mask_rcnn_dsb2018.py:smoke'
  output = tmp_path / 'figures.json'
  launch('benchmark', config, '--mode=detection', '--trials=1', f'--json={output}')
  result = json.loads(output.read_text())['detection']
  assert all(result[name]['seconds']['ours']['wall'] > 0 for name in ('roi_align', 'suppress'))
