"""Exported programs equal the predictor at odd sizes and reload where jaxseg cannot be imported."""

import datetime
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from jaxseg import config as configs
from jaxseg import experiment, export, program
from jaxseg.inference import Predictor
from jaxseg.pipeline import geometry
from jaxseg.pretrained import flatten, read
from jaxseg.train.state import make_init
from jaxseg.train.workdir import Classes
from jaxseg.types import SizeRule, UserError
from tests.test_launch import launch

ROOT = Path(__file__).resolve().parent.parent
NETS = {
  'unet same': ('unet_shapes.py:smoke', ['model_options.padding=same']),
  'unet valid': ('unet_isbi2012.py:smoke', []),
  'unet bilinear': (
    'unet_shapes.py:smoke',
    ['model_options.up=bilinear', 'eval_scales=(0.5, 1.0)'],
  ),
  'segnet basic': ('segnet_camvid.py:basic,smoke', ['model_options.width=2', 'eval_scales=(0.5,)']),
  'segnet vgg16': ('segnet_camvid.py:smoke', ['model_options.width=2']),
  'fcn': ('fcn_camvid.py:smoke', ['model_options.width=2']),
  'pspnet': ('pspnet_camvid.py:smoke', ['model_options.width=2']),
}
CLASSES = Classes(
  ('ground', 'disc', 'square', 'triangle'), ((0, 0, 0), (9, 9, 9), (1, 2, 3), (7, 7, 7))
)


def network(name):
  """Config, random variables and the classes of a smoke net."""
  spec, overrides = NETS[name]
  config = configs.load(str(ROOT / 'configs' / spec), overrides)
  model, (tx, _) = experiment.model_from(config), experiment.optimizer_from(config)
  size = model.size_rule.at_least(max(32, model.size_rule.minimum))
  init = make_init(model, tx, (1, size, size, config.channels))
  variables = jax.eval_shape(init, jax.random.key(0)).variables
  rng = np.random.default_rng(0)  # positive and small, so that batch norm's variances are as well
  variables = jax.tree.map(lambda v: 0.3 * rng.random(v.shape, np.float32), variables)
  names = CLASSES.names[: config.num_classes]
  return config, variables, Classes(names, CLASSES.palette[: config.num_classes])


def pictures(channels, *sizes):
  rng = np.random.default_rng(1)
  shapes = [(*size, channels) for size in sizes]
  return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize('name', NETS)
def test_the_program_with_free_sizes_equals_the_predictor(name, tmp_path):
  config, variables, classes = network(name)
  weights = {k: np.asarray(v) for k, v in flatten(variables).items()}
  entries, refused = export.write_programs(config, weights, (32, 32), tmp_path)
  assert [e['file'] for e in entries] == ['any_size.jax_export', '32x32.jax_export'] and not refused
  data = bytearray((tmp_path / 'any_size.jax_export').read_bytes())
  exported = jax_export.deserialize(data)
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  (image,) = pictures(config.channels, (37, 50))
  result = jax.jit(exported.call)(weights, np.stack([image, image[::-1]]))
  assert result['classes'].shape == (2, 37, 50) and result['classes'].dtype == np.uint8
  predictor = Predictor(config, variables, classes)
  wanted = predictor.probabilities(image)
  difference = float(np.abs(np.asarray(result['probabilities'][0]) - wanted).max())
  print(f'{name}: largest difference {difference:.2g}')
  assert difference < 1e-5 and np.ptp(wanted) > 1e-3
  np.testing.assert_array_equal(result['classes'][0], predictor(image))


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_every_net_reloads_in_a_fresh_process(name, tmp_path):
  config, variables, classes = network(name)
  examples = [
    {'image': image, 'file_name': f'{i}.png'}
    for i, image in enumerate(pictures(config.channels, (40, 36), (33, 61)))
  ]
  card = export.write_export(tmp_path / 'out', config, variables, classes, examples)
  counts = [r['images'] for r in card['check']['programs'].values()]
  assert counts == [3, 1] and card['check']['largest_difference'] < 1e-5


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A workdir trained for two steps, evaluated, and exported by the command line."""
  workdir = tmp_path_factory.mktemp('run')
  config = f'--config={ROOT}/configs/unet_shapes.py:smoke'
  steps = ['--config.num_steps=2', '--config.eval_every=2', '--config.figures=0']
  launch('train', config, f'--workdir={workdir}', *steps)
  launch('evaluate', f'--workdir={workdir}')
  folder = workdir / 'exported'
  launch('export', f'--workdir={workdir}', f'--output={folder}')
  return SimpleNamespace(workdir=workdir, folder=folder)


def test_the_card_says_what_is_there(exported):
  card = json.loads((exported.folder / 'card.json').read_text())
  files = {e['file'] for e in card['programs']} | {'card.json', 'weights.safetensors'}
  assert {p.name for p in exported.folder.iterdir()} == files
  assert [e['shape'] for e in card['programs']] == [['b', 'h', 'w', 3], [1, 32, 32, 3]]
  assert [c['name'] for c in card['classes']] == ['background', 'disc', 'square', 'triangle']
  assert card['classes'][1]['color'] == [230, 60, 60]
  assert card['preprocessing']['mean'] == [127.5] * 3 and card['trained']['step'] == 2
  scores = json.loads((exported.workdir / 'eval' / 'val.json').read_text())
  assert card['metrics']['val']['mean_iou'] == scores['mean_iou']
  assert card['check']['largest_difference'] <= 1e-5 and len(card['check']['images']) == 5
  assert card['check']['programs']['any_size.jax_export']['images'] == 5
  assert (
    card['valid_until']['date'] > card['exported'] and card['versions']['jax'] == jax.__version__
  )


def test_the_weights_are_the_checkpoints_and_can_be_started_from(exported):
  tensors = read(exported.folder / 'weights.safetensors')
  from jaxseg.inference import load_variables

  variables = flatten(load_variables(exported.workdir)[0])
  assert set(tensors) == set(variables)
  for name, value in variables.items():
    np.testing.assert_array_equal(tensors[name], value)


def test_the_example_serves_the_folder_without_jaxseg(exported, tmp_path):
  """It runs outside the repository, with jaxseg made impossible to import."""
  (tmp_path / 'jaxseg.py').write_text('raise ImportError("the example may not need this")')
  shutil.copy(ROOT / 'examples' / 'serve.py', tmp_path)
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, 'serve.py', str(exported.folder), str(port)]
  server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
  try:
    (image,) = pictures(3, (21, 45))
    body = BytesIO()
    Image.fromarray(image).save(body, 'PNG')
    mask = np.asarray(
      Image.open(BytesIO(_post(f'http://localhost:{port}', body.getvalue(), server)))
    )
  finally:
    server.kill()
    server.wait()
  import jaxseg

  np.testing.assert_array_equal(mask, jaxseg.load(exported.workdir)(image))


def _post(url, data, server):
  for _ in range(300):
    assert server.poll() is None, 'the server ended'
    try:
      return urllib.request.urlopen(urllib.request.Request(url, data), timeout=60).read()
    except urllib.error.URLError:
      time.sleep(0.1)
  raise AssertionError('no answer')


def test_a_program_that_differs_is_refused_and_nothing_is_left(
  exported, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(export, 'tolerance', lambda config: -1.0)
  with pytest.raises(UserError, match='differ from the network by .* nothing was written'):
    export.export_workdir(exported.workdir, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_a_folder_with_other_things_is_refused(exported, tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='holds other files: choose a new folder'):
    export.export_workdir(exported.workdir, tmp_path)
  assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_valid_until_by_hand():
  assert export.months_later(datetime.date(2026, 11, 21), 6) == datetime.date(2027, 5, 21)
  assert export.months_later(datetime.date(2026, 8, 31), 6) == datetime.date(2027, 2, 28)
  assert export.months_later(datetime.date(2026, 6, 30), 6) == datetime.date(2026, 12, 30)


def test_border_by_hand():
  image = jnp.arange(1, 4, dtype=jnp.uint8).reshape(1, 1, 3, 1)
  mirrored = program.Border(True, (0,)).pad(image, (1, 4), 2)
  assert mirrored[0, 0, :, 0].tolist() == [3, 2, 1, 2, 3, 2, 1, 2] and mirrored.shape == (
    1,
    5,
    8,
    1,
  )
  filled = program.Border(False, (9,)).pad(image, (2, 4))
  assert filled[0, :, :, 0].tolist() == [[1, 2, 3, 9], [9, 9, 9, 9]]


@pytest.mark.parametrize('size', [(10, 8), (20, 32), (4, 5), (13, 11), (7, 16)])
def test_resize_equals_the_pipelines(size):
  (image,) = pictures(3, (20, 16))
  ours = np.asarray(program.resize_image(jnp.asarray(image[None]), size))[0].astype(int)
  theirs = geometry.resize_image(image, size).astype(int)
  exact = size in ((10, 8), (20, 32))
  assert np.abs(ours - theirs).max() <= (0 if exact else 1)


@pytest.mark.parametrize('factor', [1, 2, 0.5, 0.25, 0.75])
@pytest.mark.parametrize('rule', [SizeRule(), SizeRule(16, 0, 16), SizeRule(16, 12, 188, 92)])
def test_lengths_are_the_pipelines(rule, factor):
  from jaxseg.pipeline.loader import _Frame

  frame = _Frame(rule, factor, 1, rule.margin > 0, (0,))
  for n in range(1, 60):
    output, canvas, scaled = program._lengths(n, program.Fraction(factor), rule)
    assert output == frame.output(n) and canvas == round(output / factor) and scaled <= output


def test_the_tolerance_is_stated_by_what_may_differ():
  config = configs.load(f'{ROOT}/configs/unet_shapes.py:smoke')
  assert export.tolerance(config) == 1e-4
  assert (
    export.tolerance(configs.load(f'{ROOT}/configs/unet_shapes.py', ['dtype=bfloat16'])) == 5e-2
  )
