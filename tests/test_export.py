"""Exported programs equal the predictor at odd sizes and reload where jaxseg cannot be imported."""

import datetime
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from jaxseg import config as configs
from jaxseg.data import contrast, geometry
from jaxseg.data.frame import Frame
from jaxseg.export import card as cards
from jaxseg.export import check, program, trial, write
from jaxseg.export.folder import FORMAT, replacing
from jaxseg.predict.predictor import Predictor
from jaxseg.pretrained import flatten, read
from jaxseg.train import build
from jaxseg.train.run_folder import Classes
from jaxseg.train.variables import load_variables
from jaxseg.types import SizeRule, UserError
from tests import tiny_runs
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
    lambda v: 0.3 * rng.random(v.shape, np.float32), experiment.variable_shapes
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
  assert files == ['any_size.jax_export', '32x32.jax_export', '32x32.mlirbc']
  assert not card['refused']
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
  assert [entry['shape'] for entry in card['programs']] == [[1, 24, 32, 3]] * 2
  assert card['output']['classes'] == 'uint8 [batch, height, width]'
  assert card['output']['probabilities'] == 'float32 [batch, height, width, 4]'
  resize = cards.make_card(predictor.experiment, predictor.classes)['input']['resize']
  assert resize == 'before the program: to 24 x 32 pixels, bilinear'


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_every_net_reloads_in_a_fresh_process(name, tmp_path):
  predictor = untrained(name)
  examples = pictures(predictor.experiment.channels, (40, 36), (33, 61))
  images = {f'{i}.png': image for i, image in enumerate(examples)}
  card = write.write_export(tmp_path / 'out', predictor, images, {}, write.Forms())
  counts = [r['images'] for r in card['check']['programs'].values()]
  assert counts == [3, 1] and card['check']['largest_difference'] < 1e-5


def test_arguments_are_what_the_compiled_program_takes(tmp_path):
  """In order, and without what the program never reads: PSPNet's auxiliary head."""
  predictor = untrained('pspnet')
  weights = {k: np.asarray(v) for k, v in flatten(predictor.variables).items()}
  card = write.write_programs(predictor.experiment, weights, (33, 33), tmp_path)
  (entry,) = [e for e in card['programs'] if e['runtime'] == 'iree']
  names = [argument['name'] for argument in entry['arguments']]
  assert names[-1] == 'image' and names[:-1] == sorted(names[:-1])
  unused = set(weights) - set(names)
  assert unused and all('/aux_' in name for name in unused)
  assert entry['arguments'][-1] == {'name': 'image', 'shape': [1, 33, 33, 3], 'dtype': 'uint8'}
  assert all(tuple(a['shape']) == weights[a['name']].shape for a in entry['arguments'][:-1])
  data = (tmp_path / '33x33.mlirbc').read_bytes()
  assert b'_platform_index' not in data and str(ROOT).encode() not in data
  assert str(ROOT).encode() not in (tmp_path / 'any_size.jax_export').read_bytes()


def test_mask_rcnn_has_a_fixed_size_and_says_why(tmp_path):
  experiment = build.experiment(configs.load(str(ROOT / 'configs/mask_rcnn_dsb2018.py:smoke')))
  variables = jax.tree.map(lambda v: np.zeros(v.shape, np.float32), experiment.variable_shapes)
  card = write.write_programs(experiment, flatten(variables), (64, 64), tmp_path)
  assert [e['file'] for e in card['programs']] == ['64x64.jax_export', '64x64.mlirbc']
  reason = 'Mask R-CNN has a program for each image size: its anchors are laid out once'
  assert card['refused'] == [f'(b, h, w, {experiment.channels}): {reason}']


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A workdir trained for two steps, evaluated, and exported at a fitted temperature by the command line."""
  workdir = tmp_path_factory.mktemp('run')
  config = f'--config={ROOT}/configs/unet_shapes.py:smoke'
  steps = [
    '--config.data.percentiles=(1.0, 99.0)',
    '--config.num_steps=2',
    '--config.eval.every=2',
    '--config.log.figures=0',
  ]
  launch('train', config, f'--workdir={workdir}', *steps)
  launch('evaluate', f'--workdir={workdir}')
  folder = workdir / 'exported'
  entry = {'temperature': 0.5, 'steps': [2]}
  (workdir / 'temperature.json').write_text(json.dumps({'plain': entry}))
  launch('export', f'--workdir={workdir}', f'--output={folder}', '--temperature')
  return SimpleNamespace(workdir=workdir, folder=folder)


def test_the_card_says_what_is_there(exported):
  card = json.loads((exported.folder / 'card.json').read_text())
  files = {e['file'] for e in card['programs']} | {'card.json', 'run.py', 'weights.safetensors'}
  assert {p.name for p in exported.folder.iterdir()} == files
  assert [e['shape'] for e in card['programs']] == [['b', 'h', 'w', 3], *[[1, 32, 32, 3]] * 2]
  assert card['input']['dtype'] == 'uint8' and card['input']['channels'] == 3
  assert card['config']['data_dir'] == '' and str(exported.workdir) not in json.dumps(card)
  assert [c['name'] for c in card['classes']] == ['background', 'disc', 'square', 'triangle']
  assert card['input']['percentiles'] == [1, 99] and 'by run.py' in card['input']['contrast']
  assert card['classes'][1]['color'] == [230, 60, 60]
  assert card['preprocessing']['mean'] == [127.5] * 3 and card['trained']['step'] == 2
  scores = json.loads((exported.workdir / 'eval' / 'val.json').read_text())
  assert card['metrics']['val']['mean_iou'] == scores['mean_iou'] and card['temperature'] == 0.5
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


def test_the_temperature_is_inside_the_programs(exported):
  """p^(1/0.5), brought back to a sum of 1; the classes stay."""
  variables = load_variables(exported.workdir)[0]
  predictor = Predictor(build.load_experiment(exported.workdir), variables, CLASSES)
  image = contrast.stretch(pictures(3, (32, 32))[0], (1.0, 99.0))
  plain = predictor.predict(image, maps=True)
  file = exported.folder / '32x32.jax_export'
  program = jax_export.deserialize(bytearray(file.read_bytes()))
  result = jax.jit(program.call)(read(exported.folder / 'weights.safetensors'), image[None])
  squares = plain['probabilities'] ** 2
  expected = squares / squares.sum(-1, keepdims=True)
  np.testing.assert_allclose(result['probabilities'][0], expected, atol=1e-5)
  np.testing.assert_array_equal(result['classes'][0], plain['mask'])


def test_what_is_not_fitted_or_has_no_probabilities_gets_no_temperature(tmp_path):
  run = tiny_runs.make_workdir(tmp_path / 'run', tiny_runs.make_experiment())
  with pytest.raises(UserError, match='no temperature was fitted, wanted is step 1'):
    write.export_workdir(run, tmp_path / 'out', forms=write.Forms(temperature=0))
  objects = build.experiment(configs.load(str(ROOT / 'configs/mask_rcnn_dsb2018.py:smoke')))
  tiny_runs.make_workdir(tmp_path / 'objects', objects)
  with pytest.raises(UserError, match='config.task=instance has no probabilities'):
    write.export_workdir(tmp_path / 'objects', tmp_path / 'out', forms=write.Forms(temperature=2))
  assert not (tmp_path / 'out').exists()


def test_a_program_that_differs_is_refused_and_nothing_is_left(
  exported, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(trial, 'tolerance', lambda experiment: -1.0)
  with pytest.raises(UserError, match='differ from the network by .* nothing was written'):
    write.export_workdir(exported.workdir, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_differences_are_compared_by_hand():
  image = np.zeros((4, 8, 3), np.uint8)
  example = {
    'image': image,
    'boxes': np.float32([[0, 0, 8, 4]]),
    'scores': np.float32([0.5]),
    'classes': np.uint8([1]),
  }
  outputs = {k: v[None].copy() for k, v in example.items()}
  outputs['boxes'] += np.float32([0, 0, 4, 0])  # half of the longer side
  outputs['scores'] += np.float32(0.125)
  result = check.compare(lambda images: outputs, [example] * 2, 0.2)
  assert result == {
    'images': 2, 'largest_difference': 0.5, 'beyond': 1 / 6, 'changed_pixels': 0, 'kinds': 1, 'spread': 12
  }  # fmt: skip
  outputs['classes'] += 1  # of no consequence for the difference where there is more than a class
  assert check.compare(lambda images: outputs, [example], 0.2)['beyond'] == 2 / 6
  outputs['scores'][:] = np.nan
  result = check.compare(lambda images: outputs, [example], 0.2)
  assert math.isnan(result['largest_difference']) and result['beyond'] == 3 / 6
  classes = {'image': image, 'classes': np.uint8([1])}
  assert check.compare(lambda images: outputs, [classes], 0.2)['largest_difference'] == 1


def test_nearly_equal_classes_may_change_places():
  """A margin of 0.06 and one of 0.2, of which each probability may lose half: both classes change."""
  probabilities = np.float32([[[0.53, 0.47], [0.6, 0.4]]])
  example = {'image': np.zeros((1, 2, 3), np.uint8), 'probabilities': probabilities}
  example['classes'] = np.uint8([[0, 0]])
  outputs = {'classes': np.uint8([[[1, 1]]]), 'probabilities': probabilities[None]}
  result = check.compare(lambda images: outputs, [example], 0.05)
  assert result['changed_pixels'] == 2 and result['beyond'] == 1 / 6


class OfOneSum:
  """Says class 1 in the right half where weights sum up to more than 0."""

  experiment = SimpleNamespace(task=SimpleNamespace(maps=True))

  def __init__(self, *weights):
    self.variables = {'w': np.float32(weights)}

  def predict(self, image, maps):
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:, image.shape[1] // 2 :] = self.variables['w'].sum() > 0
    return {'mask': mask, 'probabilities': np.stack([1 - mask, mask], -1).astype(np.float32)}


def test_what_jumps_by_a_rounding_may_differ_there(monkeypatch, tmp_path):
  image = np.zeros((2, 8, 3), np.uint8)
  for weights, beyond in (((1, 2, -3), 0.5), ((1, 2, -2.99), 0)):
    predictor = OfOneSum(*weights)
    example = {'image': image, **trial._expected(predictor, image)}
    assert trial._own(predictor, [example], 1e-4)['beyond'] == beyond
    assert predictor.variables['w'].tolist() == np.float32(weights).tolist()
  monkeypatch.setattr(trial, 'tolerance', lambda experiment: 1e-4)
  for share, own, refused in ((0.01, 0.006, False), (0.01, 0.004, True), (0.1, 0.9, True)):
    result = {'beyond': share, 'largest_difference': 0.3}
    monkeypatch.setattr(trial, '_run_alone', lambda *args, result=result: {'p': result})
    monkeypatch.setattr(trial, '_own', lambda *args, own=own: {'beyond': own})
    if refused:
      with pytest.raises(UserError, match=f'by 0.3, {share:.2%} of the values by more than the'):
        trial.check(tmp_path, predictor, {'a': image}, {'jax': 'python'})
    else:
      assert (
        trial.check(tmp_path, predictor, {'a': image}, {'jax': 'python'})['own']['beyond'] == own
      )


def test_an_export_is_renewed_from_its_own_weights(exported, tmp_path, capsys):
  """Without the run; what was trained and scored stays said, and run.py may have left its cache."""
  folder = shutil.copytree(exported.folder, tmp_path / 'out')
  (folder / '__pycache__').mkdir()
  before = json.loads((folder / 'card.json').read_text())
  (folder / 'any_size.jax_export').write_bytes(b'of a JAX that is long gone')
  launch('export', f'--renew={folder}')
  after = json.loads((folder / 'card.json').read_text())
  assert {p.name for p in folder.iterdir()} == {p.name for p in exported.folder.iterdir()}
  assert (folder / 'any_size.jax_export').stat().st_size > 1000
  assert after['check']['images'][0] == 'noise' and after['check']['largest_difference'] <= 1e-5
  changed = {key for key in before if before[key] != after[key]}
  assert changed <= {'check', 'exported', 'valid_until'}


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--renew=FOLDER', '--step=3'], '--renew takes all from the folder that it renews: leave out'),
    (['--renew=FOLDER'], 'no export in FOLDER (no card.json of one): give the --output of an'),
    (['--renew=FOLDER', '--temperature'], 'leave out --temperature'),
    (['--output=FOLDER'], 'give --workdir and --output, or --renew'),
  ],
)
def test_what_cannot_be_renewed_is_one_line(flags, message, tmp_path, capsys):
  with pytest.raises(SystemExit) as stop:
    launch('export', *(flag.replace('FOLDER', str(tmp_path)) for flag in flags))
  error = capsys.readouterr().err
  assert stop.value.code == 2 and message.replace('FOLDER', str(tmp_path)) in error
  assert error.count('\n') == 1


WEIGHTS, PROGRAM = 'weights.safetensors', 'any_size.jax_export'


def an_export(folder, content='earlier'):
  """Writes what an export writes, with that content."""
  folder.mkdir(parents=True)
  card = {'format': FORMAT, 'weights': WEIGHTS, 'programs': [{'file': PROGRAM}]}
  (folder / 'card.json').write_text(json.dumps(card))
  for name in (WEIGHTS, PROGRAM):
    (folder / name).write_text(content)
  return folder


def test_an_earlier_export_is_whole_until_the_new_one_takes_its_place(tmp_path):
  output = an_export(tmp_path / 'out')
  with replacing(output) as folder:
    an_export(folder, 'new')
    assert (output / WEIGHTS).read_text() == 'earlier'
  assert (output / WEIGHTS).read_text() == 'new'
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  with pytest.raises(ZeroDivisionError), replacing(output) as folder:
    an_export(folder, 'half')
    raise ZeroDivisionError
  assert (output / WEIGHTS).read_text() == 'new'
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_an_earlier_export_comes_back_where_it_cannot_be_replaced(tmp_path):
  output = an_export(tmp_path / 'out')
  with pytest.raises(UserError, match='out cannot be replaced .*: choose a new folder'):
    with replacing(output):
      pass  # nothing was written, so that nothing can be renamed
  assert (output / WEIGHTS).read_text() == 'earlier'


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
  assert {p.name for p in mine.iterdir()} == {
    'card.json',
    WEIGHTS,
    PROGRAM,
    'thesis.txt',
  }
  assert (foreign / 'card.json').read_text() == '{"name": "mine"}'
  assert (late / 'thesis.txt').read_text() == 'mine' and (late / WEIGHTS).read_text() == 'earlier'
  assert {p.name for p in tmp_path.iterdir()} == {'a', 'b', 'c'}


def test_what_a_card_names_of_the_users_stays(tmp_path):
  folder = an_export(tmp_path / 'out')
  (folder / '__pycache__').mkdir()
  (folder / '__pycache__' / 'run.cpython-313.pyc').touch()
  with replacing(folder) as new:
    an_export(new)
  (folder / 'thesis.txt').write_text('mine')
  (folder / 'photos').mkdir()
  card = {'format': FORMAT, 'weights': 'thesis.txt', 'programs': [{'file': 'photos'}]}
  for change in (
    {},
    {'weights': '..'},
    {'script': '__pycache__'},
    {'programs': [{'file': 'card.json'}]},
  ):
    (folder / 'card.json').write_text(json.dumps(card | change))
    with pytest.raises(UserError, match='holds other files'):
      with replacing(folder):
        pass
  assert (folder / 'thesis.txt').read_text() == 'mine' and (folder / 'photos').is_dir()


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
    ('gs://b/x', '--output=gs://b/x is in a bucket: choose a folder here, and copy that'),
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
  exact = np.float32([0.1, -3e7, 1e-9]).reshape(1, 1, 3, 1)
  filled = program.pad(Frame(SizeRule(), mirrored=False, fill=(0.3,)), jnp.asarray(exact), (1, 4))
  np.testing.assert_array_equal(filled[0, 0, :, 0], np.float32([0.1, -3e7, 1e-9, 0.3]))


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('size', [(10, 8), (20, 32), (4, 5), (13, 11), (7, 16)])
def test_resize_equals_the_pipelines(size, dtype):
  (image,) = pictures(3, (20, 16))
  image = image.astype(np.float64) * (1 if dtype == 'uint8' else 100) - (dtype == 'int16') * 9999
  image = image.astype(dtype)
  ours = np.asarray(program.resize_image(jnp.asarray(image[None]), size))[0]
  theirs = geometry.resize_image(image, size)
  assert ours.dtype == theirs.dtype == dtype
  exact = size in ((10, 8), (20, 32)) and dtype != 'float32'
  allowed = 0 if exact else 0.05 if dtype == 'float32' else 1
  assert np.abs(ours.astype(np.float64) - theirs).max() <= allowed


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
    return trial.tolerance(build.experiment(config))

  assert tolerance() == tolerance('eval.scales=(0.5, 1.0)') == 1e-4
  assert tolerance('dtype=bfloat16') == tolerance('eval.scales=(0.75,)') == 5e-2
