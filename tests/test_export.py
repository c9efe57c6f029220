"""Exported programs equal the predictor at odd sizes and reload where jaxseg cannot be imported."""

import datetime
import json
import math
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
from jaxseg.data import geometry
from jaxseg.data.frame import Frame
from jaxseg.export import card as cards
from jaxseg.export import program, write
from jaxseg.export.folder import FORMAT, replacing
from jaxseg.predict.predictor import Predictor
from jaxseg.pretrained import flatten, read
from jaxseg.train import build
from jaxseg.train.initial import load_variables, variable_shapes
from jaxseg.train.run_folder import Classes
from jaxseg.types import SizeRule, UserError
from tests.test_launch import launch

ROOT = Path(__file__).resolve().parent.parent
NETS = {
  'unet same': ('unet_shapes.py:smoke', ['model.padding=same']),
  'unet valid': ('unet_isbi2012.py:smoke', []),
  'unet valid without mirrors': ('unet_isbi2012.py:smoke', ['eval.mirror_border=False']),
  'unet bilinear': ('unet_shapes.py:smoke', ['model.up=bilinear', 'eval.scales=(0.5, 1.0)']),
  'segnet basic': ('segnet_camvid.py:basic,smoke', ['model.width=2', 'eval.scales=(0.5,)']),
  'segnet vgg16': ('segnet_camvid.py:smoke', ['model.width=2']),
  'fcn': ('fcn_camvid.py:smoke', ['model.width=2']),
  'pspnet': ('pspnet_camvid.py:smoke', ['model.width=2']),
}
CLASSES = Classes(
  ('ground', 'disc', 'square', 'triangle'), ((0, 0, 0), (9, 9, 9), (1, 2, 3), (7, 7, 7))
)


def untrained(name, *more):
  """The predictor of a smoke net with random variables."""
  spec, overrides = NETS[name]
  config = configs.load(str(ROOT / 'configs' / spec), [*overrides, *more])
  experiment = build.experiment(config)
  rng = np.random.default_rng(0)  # positive and small, so that batch norm's variances are as well
  variables = jax.tree.map(
    lambda v: 0.3 * rng.random(v.shape, np.float32), variable_shapes(experiment)
  )
  count = experiment.settings.num_classes
  return Predictor(experiment, variables, Classes(CLASSES.names[:count], CLASSES.palette[:count]))


def pictures(channels, *sizes):
  rng = np.random.default_rng(1)
  shapes = [(*size, channels) for size in sizes]
  return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize('name', NETS)
def test_the_program_with_free_sizes_equals_the_predictor(name, tmp_path):
  predictor = untrained(name)
  weights = {k: np.asarray(v) for k, v in flatten(predictor.variables).items()}
  card = write.write_programs(predictor.experiment, weights, (32, 32), tmp_path)
  files = [entry['file'] for entry in card['programs']]
  assert files == ['any_size.jax_export', '32x32.jax_export'] and not card['refused']
  data = bytearray((tmp_path / 'any_size.jax_export').read_bytes())
  exported = jax_export.deserialize(data)
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  (image,) = pictures(predictor.experiment.channels, (37, 50))
  result = jax.jit(exported.call)(weights, np.stack([image, image[::-1]]))
  assert result['classes'].shape == (2, 37, 50) and result['classes'].dtype == np.uint8
  expected = predictor.predict(image, maps=True)
  difference = np.abs(np.asarray(result['probabilities'][0]) - expected['probabilities'])
  assert difference.max() < 1e-5 and np.ptp(expected['probabilities']) > 1e-3
  np.testing.assert_array_equal(result['classes'][0], expected['mask'])


def test_a_network_of_one_image_size_has_no_program_for_others(tmp_path):
  predictor = untrained('unet same', 'data.image_size=(24, 32)')
  weights = {k: np.asarray(v) for k, v in flatten(predictor.variables).items()}
  card = write.write_programs(predictor.experiment, weights, (24, 32), tmp_path)
  assert [entry['shape'] for entry in card['programs']] == [[1, 24, 32, 3]]
  assert card['output']['classes'] == 'uint8 [batch, height, width]'
  assert card['output']['probabilities'] == 'float32 [batch, height, width, 4]'
  resize = cards.make_card(predictor.experiment, predictor.classes)['input']['resize']
  assert resize == 'before the program: to 24 x 32 pixels, bilinear'


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_every_net_reloads_in_a_fresh_process(name, tmp_path):
  predictor = untrained(name)
  examples = [
    {'image': image, 'file_name': f'{i}.png'}
    for i, image in enumerate(pictures(predictor.experiment.channels, (40, 36), (33, 61)))
  ]
  card = write.write_export(tmp_path / 'out', predictor, examples, {})
  counts = [r['images'] for r in card['check']['programs'].values()]
  assert counts == [3, 1] and card['check']['largest_difference'] < 1e-5


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A workdir trained for two steps, evaluated, and exported by the command line."""
  workdir = tmp_path_factory.mktemp('run')
  config = f'--config={ROOT}/configs/unet_shapes.py:smoke'
  steps = ['--config.num_steps=2', '--config.eval.every=2', '--config.log.figures=0']
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
  variables = flatten(load_variables(exported.workdir)[0])
  assert set(tensors) == set(variables)
  for name, value in variables.items():
    np.testing.assert_array_equal(tensors[name], value)


def test_the_example_answers_what_predict_writes_without_jaxseg(exported, tmp_path):
  """It runs outside the repository, with jaxseg made impossible to import."""
  (image,) = pictures(3, (21, 45))
  (folder := tmp_path / 'in').mkdir()
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned a quarter to the right
  smooth = np.repeat(np.repeat(image[::3, ::3], 3, 0), 3, 1)
  Image.fromarray(image).save(folder / 'plain.png')
  Image.fromarray(smooth).save(folder / 'turned.jpg', quality=95, exif=exif)
  Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(folder / 'deep.png')
  launch(
    'predict', f'--workdir={exported.workdir}', f'--input={folder}', f'--output={tmp_path}/out'
  )
  (tmp_path / 'jaxseg.py').write_text('raise ImportError("the example may not need this")')
  shutil.copy(ROOT / 'examples' / 'serve.py', tmp_path)
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, 'serve.py', str(exported.folder), str(port)]
  with (tmp_path / 'errors').open('w') as errors:
    server = subprocess.Popen(command, cwd=tmp_path, stderr=errors)
  try:
    for file in sorted(folder.iterdir()):
      answer = Image.open(BytesIO(_post(f'http://localhost:{port}', file.read_bytes(), server)))
      written = Image.open(tmp_path / 'out' / f'{file.stem}.png')
      assert answer.size == written.size == ((21, 45) if file.stem == 'turned' else (45, 21))
      np.testing.assert_array_equal(np.asarray(answer), np.asarray(written), file.name)
      assert answer.getpalette()[:12] == written.getpalette()[:12]
    for bad in (b'no image', (folder / 'plain.png').read_bytes()[:300]):
      with pytest.raises(urllib.error.HTTPError) as refused:
        _post(f'http://localhost:{port}', bad, server)
      text = refused.value.read().decode()
      assert refused.value.code == 400 and text.startswith('cannot predict this: ')
      assert text.count('\n') == 1
  finally:
    server.kill()
    server.wait()
  assert 'Traceback' not in (tmp_path / 'errors').read_text()


def _post(url, data, server):
  for _ in range(300):
    assert server.poll() is None, 'the server ended'
    try:
      return urllib.request.urlopen(urllib.request.Request(url, data), timeout=60).read()
    except urllib.error.HTTPError:
      raise
    except urllib.error.URLError:
      time.sleep(0.1)
  raise AssertionError('no answer')


def test_a_program_that_differs_is_refused_and_nothing_is_left(
  exported, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(write, 'tolerance', lambda experiment: -1.0)
  with pytest.raises(UserError, match='differ from the network by .* nothing was written'):
    write.export_workdir(exported.workdir, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def an_export(folder, content='earlier'):
  """Writes what an export writes, with that content."""
  folder.mkdir(parents=True)
  card = {'format': FORMAT, 'weights': 'w', 'programs': [{'file': 'p.jax_export'}]}
  (folder / 'card.json').write_text(json.dumps(card))
  for name in ('w', 'p.jax_export'):
    (folder / name).write_text(content)
  return folder


def test_an_earlier_export_is_whole_until_the_new_one_takes_its_place(tmp_path):
  output = an_export(tmp_path / 'out')
  with replacing(output) as folder:
    an_export(folder, 'new')
    assert (output / 'w').read_text() == 'earlier'
  assert (output / 'w').read_text() == 'new'
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  with pytest.raises(ZeroDivisionError), replacing(output) as folder:
    an_export(folder, 'half')
    raise ZeroDivisionError
  assert (output / 'w').read_text() == 'new'
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_an_earlier_export_comes_back_where_it_cannot_be_replaced(tmp_path):
  output = an_export(tmp_path / 'out')
  with pytest.raises(UserError, match='out cannot be replaced .*: choose a new folder'):
    with replacing(output):
      pass  # nothing was written, so that nothing can be renamed
  assert (output / 'w').read_text() == 'earlier'


def test_files_of_ones_own_are_refused_and_stay(exported, tmp_path):
  """Beside an export, beside some other card.json, and where they come while the export runs."""
  mine, foreign, late = an_export(tmp_path / 'a'), tmp_path / 'b', an_export(tmp_path / 'c')
  foreign.mkdir()
  (mine / 'thesis.txt').write_text('mine')
  (foreign / 'card.json').write_text('{"name": "mine"}')
  for folder, name in ((mine, 'thesis.txt'), (foreign, 'card.json')):
    with pytest.raises(UserError, match=rf'holds other files \({name}\): choose a new folder'):
      write.export_workdir(exported.workdir, folder)
  with pytest.raises(UserError, match=r'holds other files \(thesis\.txt\)'):
    with replacing(late) as new:
      an_export(new, 'new')
      (late / 'thesis.txt').write_text('mine')
  assert {p.name for p in mine.iterdir()} == {'card.json', 'w', 'p.jax_export', 'thesis.txt'}
  assert (foreign / 'card.json').read_text() == '{"name": "mine"}'
  assert (late / 'thesis.txt').read_text() == 'mine' and (late / 'w').read_text() == 'earlier'
  assert {p.name for p in tmp_path.iterdir()} == {'a', 'b', 'c'}


def test_an_export_replaces_the_export_before(exported, tmp_path):
  output = an_export(tmp_path / 'out')
  launch('export', f'--workdir={exported.workdir}', f'--output={output}')
  assert {p.name for p in output.iterdir()} == {p.name for p in exported.folder.iterdir()}


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    (
      '/proc/x/y',
      '--output=/proc/x/y: No such file or directory; choose a folder that can be made',
    ),
    ('FILE', 'is a file: choose a new folder'),
    ('FILE/below', 'File exists; choose a folder that can be made'),
  ],
)
def test_an_output_that_cannot_be_made_is_one_line(output, message, exported, tmp_path, capsys):
  (tmp_path / 'thesis.txt').write_text('mine')
  output = output.replace('FILE', f'{tmp_path}/thesis.txt')
  with pytest.raises(SystemExit) as stop:
    launch('export', f'--workdir={exported.workdir}', f'--output={output}')
  error = capsys.readouterr().err
  assert stop.value.code == 2 and message in error and error.count('\n') == 1
  assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_valid_until_by_hand():
  assert cards.months_later(datetime.date(2026, 11, 21), 6) == datetime.date(2027, 5, 21)
  assert cards.months_later(datetime.date(2026, 8, 31), 6) == datetime.date(2027, 2, 28)
  assert cards.months_later(datetime.date(2026, 6, 30), 6) == datetime.date(2026, 12, 30)


def test_padding_by_hand():
  image = jnp.arange(1, 4, dtype=jnp.uint8).reshape(1, 1, 3, 1)
  mirrored = program.pad(Frame(SizeRule(), mirrored=True), image, (1, 4), 2)
  assert mirrored.shape == (1, 5, 8, 1)
  assert mirrored[0, 0, :, 0].tolist() == [3, 2, 1, 2, 3, 2, 1, 2]
  filled = program.pad(Frame(SizeRule(), mirrored=False, fill=(9,)), image, (2, 4), 1)
  assert filled[0, :, :, 0].tolist() == [[9] * 6, [9, 1, 2, 3, 9, 9], [9] * 6, [9] * 6]


@pytest.mark.parametrize('size', [(10, 8), (20, 32), (4, 5), (13, 11), (7, 16)])
def test_resize_equals_the_pipelines(size):
  (image,) = pictures(3, (20, 16))
  ours = np.asarray(program.resize_image(jnp.asarray(image[None]), size))[0].astype(int)
  theirs = geometry.resize_image(image, size).astype(int)
  exact = size in ((10, 8), (20, 32))
  assert np.abs(ours - theirs).max() <= (0 if exact else 1)


@pytest.mark.parametrize('factor', [1, 2, 0.5, 0.25, 0.75])
@pytest.mark.parametrize('rule', [SizeRule(), SizeRule(16, 0, 16), SizeRule(16, 12, 188, 92)])
def test_expressions_of_a_length_are_the_frames(rule, factor):
  """Evaluated for numbers; where no integer expression exists, it says so."""
  frame = Frame(rule, scale=factor, multiple=1)
  for n in range(1, 60):
    size, numbers = (n, n), program.lengths(frame, (n, n))
    assert numbers[:2] == (frame.output(size), frame.canvas(size)) and numbers[2] <= numbers[0]
    try:
      output, canvas, scaled = program._expressions(frame, n)
    except UserError as error:
      assert factor == 2 and rule.multiple == 1 or factor in (0.75, 2) and 'scale' in str(error)
      continue
    assert (output, output) == frame.output(size) and (canvas, canvas) == frame.canvas(size)
    assert scaled == math.ceil(n * factor)


def test_rows_of_the_canvas_are_cut_and_boxes_move_to_the_image():
  """An image of 10 x 12 on a canvas of 16 x 16, seen at half size."""
  rows = {
    'mask': jnp.arange(256).reshape(1, 16, 16),
    'boxes': jnp.float32([[[1, 2, 3, 4]]]),
    'scores': jnp.float32([[0.5]]),
  }
  outputs = program.in_image(rows, (10, 12), (16, 16), (8, 8))
  np.testing.assert_array_equal(outputs['classes'], rows['mask'][:, :10, :12].astype(jnp.uint8))
  assert outputs['boxes'].tolist() == [[[2, 4, 6, 8]]] and outputs['scores'].tolist() == [[0.5]]


def test_the_tolerance_is_stated_by_what_may_differ():
  def tolerance(*overrides):
    config = configs.load(f'{ROOT}/configs/unet_shapes.py:smoke', overrides)
    return write.tolerance(build.experiment(config))

  assert tolerance() == tolerance('eval.scales=(0.5, 1.0)') == 1e-4
  assert tolerance('dtype=bfloat16') == tolerance('eval.scales=(0.75,)') == 5e-2
