"""The benchmark runs at a tiny size, counts what can be counted by hand, and times nothing here."""

import importlib.util
import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.models import fcn, segnet, unet
from jaxseg.nn import layers
from jaxseg.tools.benchmark import fit, ours, session, stock, timing
from jaxseg.types import UserError
from tests.test_launch import ROOT, launch
from tests.tiny_runs import make_config

TINY = dict(width=2, depth=1, padding='same', batch_norm=True, dropout_rate=0.0)


@pytest.fixture(scope='module')
def tiny():
  return make_config(model_options=TINY, batch_size=2, crop=(16, 16), num_threads=1)


def test_the_command_measures_all_and_writes_json(tmp_path, capsys):
  """What a GPU's rows in docs/benchmarks.md are made with, but for the size and the precision."""
  launch(
    'benchmark',
    f'--config={ROOT}/configs/unet_shapes.py:smoke',
    '--config.dtype=bfloat16',
    '--config.model_options.width=2',
    '--config.model_options.depth=1',
    '--config.compile_cache=',
    '--mode=train,infer,input,loop',
    '--compare=flax',
    '--batch=2',
    '--crop=16',
    '--trials=1',
    '--steps=2',
    '--matmul=32',
    f'--json={tmp_path}/figures.json',
  )
  result = json.loads((tmp_path / 'figures.json').read_text())
  assert result['setting']['shape'] == [2, 16, 16, 3]
  assert result['setting']['dtype'] == 'bfloat16'
  for mode in ('train', 'infer'):
    part = result[mode]
    assert set(part['seconds']) == {'ours', 'flax', 'matmul'}
    assert part['images_per_second']['ours'] == pytest.approx(2 / part['seconds']['ours']['wall'])
    assert part['ratio']['flax'] > 0 and part['utilisation'] > 0
    assert part['temporary_bytes'] > 0 and part['compile_seconds'] > 0
  assert 2 < result['train']['flops'] / result['infer']['flops'] < 4
  assert result['input']['images_per_second'] > 0
  assert 0 <= result['loop']['waiting'] <= 1
  out = capsys.readouterr().out
  assert result['bottleneck'] in out and 'of its time' in out


def test_will_it_fit_grows_with_the_batch_and_ends_where_it_does_not(tiny, monkeypatch):
  config = tiny.copy_and_resolve_references()
  lines = []
  rows = fit.table(config, (4, 2), [(32, 32)], lines.append)
  assert [(r['batch'], r['remat']) for r in rows] == [(2, False), (4, False), (2, True), (4, True)]
  assert all(r['fits'] for r in rows) and len(lines) == 5
  assert rows[1]['needed_bytes'] > rows[0]['needed_bytes']
  monkeypatch.setattr(fit, 'device_limit_bytes', lambda device: rows[0]['needed_bytes'])
  rows = fit.table(config, (2, 4, 8), [(32, 32)], lines.append)
  assert [r['fits'] for r in rows if not r['remat']] == [True, False]  # 8 is not even compiled
  assert 'does not fit' in lines[-1] or 'does not fit' in lines[-2] or rows[-1]['fits']


def test_flops_are_those_of_the_products(tiny):
  """A 1x1 score and 3x3 convolutions, two FLOPs a product; the rest is a few a value."""
  config = tiny.copy_and_resolve_references()
  full, half = 2 * 16 * 16, 2 * 8 * 8  # pixels of the batch at both levels
  inside = (14 / 16 + 2 / 16 * 2 / 3) ** 2  # share of a 3x3 kernel's taps within a 16x16 image
  inside_half = (6 / 8 + 2 / 8 * 2 / 3) ** 2
  expected = 2 * full * inside * 9 * (3 * 2 + 2 * 2 + 4 * 2 + 2 * 2)
  expected += 2 * half * inside_half * 9 * (2 * 4 + 4 * 4) + 2 * full * 4 * 2 + 2 * full * 2 * 4
  counted = ours.flops(config, (16, 16), train=False)
  elementwise = 40 * full * 2 * 6
  assert expected < counted < expected + elementwise


@pytest.mark.parametrize(
  ('model', 'shape', 'fast_op'),
  [
    (unet.Model(3, width=4, depth=2, padding='same', dropout_rate=0.0), (1, 16, 24, 3), 'custom'),
    (segnet.Model(3, width=4), (1, 45, 61, 3), 'custom'),
    (fcn.Model(3, width=2, dropout_rate=0.0), (1, 33, 47, 3), 'custom'),
  ],
  ids=['unet', 'segnet', 'fcn'],
)
def test_stock_layers_compute_the_same(model, shape, fast_op):
  image = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
  variables = jax.jit(lambda k: model.init(k, image, train=False))(jax.random.key(0))
  variables = jax.tree.map(lambda a: a + 0.01, variables)  # FCN's scores start at zero
  plain = stock.with_stock_norm(model)
  want = jax.jit(lambda v: model.apply(v, image, train=False)['logits'])(variables)
  with stock.layers():
    program = jax.make_jaxpr(lambda v: plain.apply(v, image, train=False)['logits'])(variables)
    got = jax.jit(lambda v: plain.apply(v, image, train=False)['logits'])(variables)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()))
  ours_program = jax.make_jaxpr(lambda v: model.apply(v, image, train=False)['logits'])(variables)
  assert fast_op in str(ours_program) and 'custom_vjp' not in str(program)


def test_stock_layers_end_with_the_context():
  with stock.layers():
    assert unet.Conv is nn.Conv and segnet.max_unpool is stock.max_unpool
  assert unet.Conv is layers.Conv and segnet.max_unpool is layers.max_unpool


def test_programs_are_timed_in_turn(monkeypatch):
  monkeypatch.setattr(timing, '_LEAST_SECONDS', 0.0)
  order = []
  times = timing.in_turn({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 3)
  assert (
    ''.join(order) == 'aa' + 'bb' + 3 * 'aabb'
  )  # a first look at the clock; turns begin with a warm-up
  assert len(times['a'].trials) == 3 and times['a'].wall == sorted(times['a'].trials)[1]


def test_cpu_seconds_of_another_process_count(monkeypatch):
  monkeypatch.setattr(timing, '_LEAST_SECONDS', 0.0)
  assert 7 <= timing.in_turn({'theirs': lambda: 7.0}, 3)['theirs'].cpu < 8


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
  line = session.bottleneck(result)
  assert word in line and '\n' not in line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--mode=trian'], 'choose from train, infer'),
    (['--compare=keras'], 'choose from torch, flax'),
    (['--crop=30,32'], '--crop=32,32'),
    (['--batch=0'], 'whole numbers above 0'),
    (['--batch=1,2'], '--mode=fit only'),
  ],
)
def test_mistakes_are_one_line(flags, message, capsys):
  with pytest.raises(SystemExit) as stop:
    launch('benchmark', f'--config={ROOT}/configs/unet_shapes.py:smoke', *flags)
  error = capsys.readouterr().err
  assert stop.value.code == 2 and message in error and error.count('\n') == 1


def test_missing_data_leaves_the_rest(tiny, capsys):
  config = tiny.copy_and_resolve_references()
  config.dataset, config.data_dir = 'folder', '/nowhere'
  with config.unlocked():
    config.dataset_options = {}
  made = session._Session(config, (16, 16), session.Options())
  for mode in ('train', 'infer', 'memory'):
    setattr(made, f'_{mode}', lambda: None)
  made.run()
  out = capsys.readouterr().out
  assert 'input     not measured' in out and 'loop      not measured' in out


def test_nothing_imports_torch_unasked():
  code = 'import sys, jaxseg.tools.benchmark.session; sys.exit("torch" in sys.modules)'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.parity
@pytest.mark.parametrize('config', ['unet_isbi2012', 'segnet_camvid', 'fcn_camvid'])
def test_torch_has_the_same_parameters_and_steps(config):
  from jaxseg.tools.benchmark import torch_side

  config = configs.load(f'{ROOT}/configs/{config}.py', ['model_options.width=2', 'batch_size=1'])
  network = ours.Network(config, (188, 188))
  theirs = torch_side.Network(config, network.batch())
  assert theirs.parameters == network.parameters
  theirs.train()
  theirs.infer()


@pytest.mark.parity
@pytest.mark.parametrize('frozen', [False, True])
def test_torchvision_has_the_same_detector_and_steps(frozen):
  if importlib.util.find_spec('torchvision') is None:
    pytest.skip('torchvision is not installed')
  from jaxseg.tools.benchmark import torch_side

  options = [f'model_options.frozen_norm={frozen}', 'max_instances=3', 'batch_size=2']
  config = configs.load(f'{ROOT}/configs/mask_rcnn_dsb2018.py:smoke', options)
  network = ours.Network(config, (64, 64))
  theirs = torch_side.of(config)(config, network.batch())
  background = 4 * (32 + 1) + (8 + 1)  # a box and a mask that nothing trains
  assert theirs.parameters == network.parameters + background
  scores = theirs._net.heads.box_predictor.cls_score.weight
  before = scores.detach().clone()
  theirs.train()
  assert scores.isfinite().all() and (scores != before).any()
  theirs.infer()


@pytest.mark.parity
def test_torch_runs_in_a_process_of_its_own():
  from jaxseg.tools.benchmark.torch_process import TorchProcess

  options = ['model_options.width=2', 'batch_size=1']
  config = configs.load(f'{ROOT}/configs/segnet_camvid.py', options)
  theirs = TorchProcess(config, ours.Network(config, (32, 32)).batch())
  assert theirs.train() > 0 and theirs.infer() > 0  # CPU seconds
  with pytest.raises(UserError, match='no unet'):
    TorchProcess(make_config(model_options={'up': 'bilinear'}), {})


@pytest.mark.parity
def test_torch_lacks_what_it_lacks():
  from jaxseg.tools.benchmark import torch_side

  with pytest.raises(UserError, match='no unet'):
    torch_side.build(make_config(model_options={'up': 'bilinear'}))
  with pytest.raises(UserError, match='softmax'):
    torch_side.build(make_config(model_options={}, loss='softmax_dice'))


def test_detectors_are_timed_on_a_grid_of_objects():
  config = configs.load(f'{ROOT}/configs/mask_rcnn_dsb2018.py:smoke', ['max_instances=3'])
  batch = ours.Network(config, (64, 64)).batch()
  np.testing.assert_array_equal(
    batch['boxes'][1], [(0, 0, 32, 32), (32, 0, 64, 32), (0, 32, 32, 64)]
  )
  np.testing.assert_array_equal(batch['classes'][1], [1, 1, 1])
  assert (batch['instances'][0, 32:, 32:] == 0).all()  # the fourth would be one too many


@pytest.mark.parity
def test_the_detection_operations_of_both_sides_agree():
  import torch

  from jaxseg.tools.benchmark import detection, torch_detection

  options = ['model_options.features=4', 'model_options.roi_samples=12']
  config = configs.load(f'{ROOT}/configs/mask_rcnn_dsb2018.py:smoke', options)
  arrays = detection.example(config, (96, 128))
  ours, theirs = detection.Operations(arrays), torch_detection.Operations(config, arrays)
  value, (gradients,) = ours._align(ours._maps, ours._weight)
  theirs.roi_align()
  found = torch_detection.roi_align(
    theirs._maps, arrays['strides'], theirs._boxes, theirs._levels, arrays['size']
  )
  np.testing.assert_allclose(value, found.detach().permute(0, 2, 3, 1), atol=1e-5)
  for mine, features in zip(gradients, theirs._maps, strict=True):
    other = torch.zeros_like(features) if features.grad is None else features.grad
    np.testing.assert_allclose(mine, other[0].permute(1, 2, 0), atol=1e-4)
  kept = torch_detection.suppress(theirs._sorted, arrays['threshold'])
  np.testing.assert_array_equal(ours._suppress(arrays['candidates']), kept)
  assert 0 < kept.sum() < len(kept)


def test_detection_is_timed_by_the_command(capsys, tmp_path):
  config = f'--config={ROOT}/configs/mask_rcnn_dsb2018.py:smoke'
  output = tmp_path / 'figures.json'
  launch('benchmark', config, '--mode=detection', '--trials=1', f'--json={output}')
  result = json.loads(output.read_text())['detection']
  assert all(result[name]['seconds']['ours']['wall'] > 0 for name in ('roi_align', 'suppress'))
  with pytest.raises(SystemExit):
    launch('benchmark', f'--config={ROOT}/configs/unet_shapes.py:smoke', '--mode=detection')
  assert "config.task='instance'" in capsys.readouterr().err
