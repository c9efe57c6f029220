"""A tiny network of instances through the command lines, from training to the report."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_masks

import jaxseg
from jaxseg import report
from jaxseg.data.geometry import resize_image
from jaxseg.datasets import coco
from jaxseg.draw.objects import overlay
from jaxseg.metrics import components
from jaxseg.metrics.coco import Score
from jaxseg.predict import coco_json
from jaxseg.predict.evaluate import evaluate_workdir
from jaxseg.predict.inputs import InputImage
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.prepare import check
from jaxseg.report import tables
from jaxseg.tasks.instance import painted
from jaxseg.train.build import load_experiment
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.train import train
from jaxseg.types import Detections, UserError
from tests.test_launch import launch
from tests.test_resume import lines, saved
from tests.tiny_runs import CLASSES, make_experiment, make_workdir, random_image

NAMES = ('background', 'disc', 'square', 'triangle')
ENDINGS = ('_instances', '', '_overlay')
MODEL = dict(
  name='mask_rcnn',
  width=4,
  stage_sizes=(1, 1),
  frozen_norm=False,
  frozen_stages=0,
  features=8,
  anchor_sizes=(16, 32),
  box_features=16,
  mask_features=8,
  mask_layers=1,
  detections=6,
  pre_nms=(20, 20),
  post_nms=(10, 10),
  rpn_samples=16,
  roi_samples=16,
  candidates=40,
)


def tiny_experiment(*overrides, **groups):
  data = dict(name='shapes', options=dict(size=(40, 48), count=5))
  usual = dict(model=MODEL, task='instance', data=data, batch_size=2)
  return make_experiment(*overrides, **{**usual, **groups})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Two steps of training on crops."""
  experiment = tiny_experiment(
    'augment.crop.size=32',
    'augment.flip=True',
    num_steps=2,
    eval=dict(every=1),
    log=dict(every=1, figures=2),
    loss=dict(max_instances=9),
  )
  workdir = tmp_path_factory.mktemp('instances')
  summary = train(experiment.config, workdir, hooks=report.hooks())
  return workdir, summary


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  """Random parameters: boxes and masks anywhere."""
  workdir = make_workdir(tmp_path_factory.mktemp('run'), tiny_experiment())
  return jaxseg.load(workdir)


def test_training_logs_evaluates_and_draws(trained):
  workdir, summary = trained
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  evaluated = [line for line in lines if 'eval/mask_ap' in line]
  assert [line['step'] for line in evaluated] == [1, 2]
  assert evaluated[-1]['eval/mask_ap'] == summary['mask_ap']
  losses = {f'train/loss/{k}' for k in ('rpn/objectness', 'rpn/box', 'class', 'box', 'mask')}
  assert losses < lines[0].keys()
  for name in ('predictions', 'curves', 'classes'):
    assert np.asarray(Image.open(workdir / 'figures' / f'{name}.png')).std() > 1
  page = (workdir / 'report.html').read_text()
  for words in ('mask AP50', 'Images, worst first'):
    assert words in page
  assert 'confusion' not in page.split('All keys')[0].lower()


def test_evaluation_is_that_of_training(trained):
  workdir, summary = trained
  launch('evaluate', f'--workdir={workdir}', '--step=2')
  result = json.loads((workdir / 'eval' / 'val.json').read_text())
  assert {k: result[k] for k in summary} == summary
  assert (result['images'], result['step'], result['mode']) == (5, 2, '')
  assert 'mean_iou' not in result and not list((workdir / 'eval').glob('*.png'))


def test_report_and_table(trained, tmp_path):
  workdir, summary = trained
  launch('evaluate', f'--workdir={workdir}')
  launch('report', str(workdir), str(make_copy(workdir, tmp_path)), f'--output={tmp_path}/two.html')
  assert 'AP by class' in (tmp_path / 'two.html').read_text()
  file = tmp_path / 'tables.md'
  file.write_text('<!-- results val -->\n<!-- end -->\n')
  tables.write([str(workdir)], str(file), 'val', pictures=str(tmp_path))
  assert '| run | split | mask AP | mask AP50 | mask AP75 | mask AP small |' in file.read_text()
  assert (tmp_path / f'{workdir.name}.png').is_file()


def make_copy(workdir, folder):
  """The same run under another name."""
  return shutil.copytree(workdir, folder / 'other')


def test_files_of_prediction(trained, tmp_path):
  workdir, _ = trained
  inputs = tmp_path / 'in'
  inputs.mkdir()
  images = {name: random_image(37, 50, seed=s) for s, name in enumerate(('7', '12'))}
  for name, image in images.items():
    Image.fromarray(image).save(inputs / f'{name}.png')
  flags = (f'--workdir={workdir}', f'--input={inputs}', f'--output={tmp_path / "out"}')
  launch('predict', *flags, '--overlay')
  told = json.loads((tmp_path / 'out' / 'detections.json').read_text())
  predictor = jaxseg.load(workdir)
  for name, image in images.items():
    found, mine = predictor.instances(image), [t for t in told if t['image_id'] == int(name)]
    assert len(found) == len(mine) and all(t['file_name'] == f'{name}.png' for t in mine)
    for place, line in enumerate(mine):
      assert (line['id'], line['category']) == (place + 1, NAMES[line['category_id']])
      assert line['category_id'] == found.classes[place]
      assert line['score'] == pytest.approx(float(found.scores[place]))
      x, y, width, height = line['bbox']
      np.testing.assert_allclose([x, y, x + width, y + height], found.boxes[place], atol=1e-4)
      np.testing.assert_array_equal(rle_masks.decode(line['segmentation']), found.masks[place])
    ids, classes = painted(found)
    files = [np.asarray(Image.open(tmp_path / 'out' / f'{name}{end}.png')) for end in ENDINGS]
    np.testing.assert_array_equal(files[0], ids)
    np.testing.assert_array_equal(files[1], classes)
    np.testing.assert_array_equal(files[2], overlay(image, ids))
  for more, words in (
    ((), 'already exists'),
    (('--overwrite', '--flip'), 'flip: config.task=instance predicts no maps'),
    (('--overwrite', '--probabilities'), 'leave out --probabilities'),
  ):
    assert refused('predict', *flags, *more, words=words)


def refused(*command, words):
  """Whether the launcher ends with status 2; the line that it prints must hold the words."""
  told = io.StringIO()
  with contextlib.redirect_stderr(told), pytest.raises(SystemExit) as end:
    launch(*command)
  assert words in told.getvalue(), told.getvalue()
  return end.value.code == 2


def test_coco_results_have_its_category_ids(tmp_path):
  """Class 12 of 80 is a stop sign, 13 among COCO's ids; images without a number count from 1."""
  mask = np.ones((2, 3), bool)
  found = Detections(np.array([[0, 0, 3, 2]]), np.array([0.5]), np.array([12]), mask[None])
  items = [InputImage(tmp_path / 'b.jpg', 'b'), InputImage(tmp_path / '7.jpg', '7')]
  log = coco_json.Log(tmp_path, ['b', '7'], goes_on=False)
  log.add('7', found)
  coco_json.write(tmp_path, items, log.results, coco.CLASS_NAMES, coco.CATEGORY_IDS)
  (line,) = json.loads((tmp_path / 'detections.json').read_text())
  assert (line['image_id'], line['file_name'], line['id']) == (2, '7.jpg', 1)
  assert (line['category_id'], line['category'], line['bbox']) == (13, 'stop sign', [0, 0, 3, 2])
  for other, image_id in (('8', 7), ('07', 2)):  # 7 and 07 are one number and two images
    items = [InputImage(tmp_path / f'{other}.jpg', other), InputImage(tmp_path / '7.jpg', '7')]
    coco_json.write(tmp_path, items, log.results, coco.CLASS_NAMES, coco.CATEGORY_IDS)
    assert json.loads((tmp_path / 'detections.json').read_text())[0]['image_id'] == image_id


def test_export_says_what_the_network_says(trained, tmp_path, capsys):
  """The exporter itself compares boxes, scores, classes and masks in a process without jaxseg."""
  workdir, _ = trained
  launch('export', f'--workdir={workdir}', f'--output={tmp_path / "export"}')
  card = json.loads((tmp_path / 'export' / 'card.json').read_text())
  assert set(card['output']) == {'boxes', 'scores', 'classes', 'masks'}
  assert card['check']['largest_difference'] <= 1e-4
  assert [entry['file'] for entry in card['programs']] == ['40x48.jax_export', '40x48.mlirbc']
  assert 'mask_ap' in card['metrics']['val'] if card['metrics'] else True
  assert 'exported step' in capsys.readouterr().out


def test_data_check_counts_objects(trained, tmp_path, capsys):
  experiment = load_experiment(trained[0])
  facts = check.check(experiment, tmp_path)['splits']['val']['objects']
  source = experiment.source('val')
  counts = [len(e['instance_classes']) for e in source]
  areas = np.concatenate([np.bincount(e['instances'].ravel())[1:] for e in source])
  found = facts['objects'], facts['least'], facts['most']
  assert found == (sum(counts), min(counts), max(counts))
  assert facts['small'] == (areas < 1024).sum() and facts['small'] + facts['medium'] == len(areas)
  assert facts['sides'][1] == pytest.approx(np.median(np.sqrt(areas)), abs=0.05)
  told = capsys.readouterr().out
  assert 'side: 5, 50, 95 %' in told and 'config.loss.max_instances' not in told
  check.check(tiny_experiment(loss=dict(max_instances=2)), tmp_path)
  assert 'config.loss.max_instances is 2: crops may show fewer' in capsys.readouterr().out


@pytest.mark.parametrize(
  'keys',
  [
    dict(parallel='pmap', eval=dict(batch_size=4)),
    dict(parallel='mesh', eval=dict(batch_size=4, short_side=48, long_side=72)),
  ],
)
def test_evaluator_scores_every_image_at_its_own_size(keys, predictor):
  """Batches over devices, images of two sizes: the same as one by one through the predictor."""
  experiment = tiny_experiment(**keys)
  large = dict(name='shapes', options=dict(size=(33, 70), count=2))
  source = Both([*experiment.source('val'), *tiny_experiment(data=large).source('val')])
  counted = []
  summary = Evaluator(experiment, source).score(predictor.variables, counted.append).compute()
  score = Score(NAMES)
  predictor = Predictor(experiment, predictor.variables, predictor.classes)
  for index, example in enumerate(source):
    score.add({**example, 'index': index}, predictor.predict(example['image']))
  expected = score.compute()
  assert counted[-1] == 7 and summary.keys() == expected.keys()
  for key, value in expected.items():
    assert summary[key] == pytest.approx(value, abs=1e-6), key


class Both(list):
  class_names = NAMES


def test_an_image_of_another_size_for_the_network(predictor):
  """Twice as large by config.eval.short_side: the boxes of the enlarged image, halved."""
  experiment = tiny_experiment(eval=dict(short_side=80, long_side=96))
  parts = experiment, predictor.variables, predictor.classes
  twice = Predictor(*parts, Options(multiple=1))
  image = random_image(40, 48)
  enlarged = predictor.row(resize_image(image, (80, 96)))
  row, found = twice.row(image), twice.instances(image)
  for key in ('boxes', 'scores', 'classes', 'masks'):
    np.testing.assert_allclose(row[key], enlarged[key], atol=1e-5)
  boxes = np.clip(enlarged['boxes'] / 2, 0, (48, 40, 48, 40))[np.isin(row['scores'], found.scores)]
  assert len(found) > 0
  np.testing.assert_allclose(found.boxes, boxes, atol=1e-4)
  assert twice.canvas(40, 48) == (80, 96) and Predictor(*parts).canvas(40, 48) == (128, 128)


def test_predictor_refuses_what_objects_have_not(predictor):
  image = random_image(40, 48)
  for ask in (predictor.probabilities, predictor.uncertainty, predictor.bands):
    with pytest.raises(UserError, match='no probability or uncertainty of pixels'):
      ask(image)
  with pytest.raises(UserError, match='scales 0.5, 1: config.task=instance predicts no maps'):
    predictor.replace(scales=(0.5, 1))
  with pytest.raises(UserError, match='3 samples'):
    predictor.replace(samples=3)
  with pytest.raises(UserError, match='image is float64, and uint8 is expected'):
    predictor.instances(image.astype(float))


def test_evaluation_refuses_what_objects_have_not(trained):
  workdir, _ = trained
  for words, options in {
    'flip: config.task=instance predicts no maps': dict(options=Options(flip=True)),
    "score 'components' needs probabilities of pixels.* leave it out": dict(extra=['components']),
  }.items():
    with pytest.raises(UserError, match=words):
      evaluate_workdir(workdir, **options)


def test_classes_of_pixels_are_scored_by_their_components(tmp_path):
  workdir = make_workdir(tmp_path / 'run', make_experiment())
  launch('evaluate', f'--workdir={workdir}', '--scores=components')
  result = json.loads((workdir / 'eval' / 'val.json').read_text())
  predictor, score = jaxseg.load(workdir), components.Score(CLASSES.names)
  for index, example in enumerate(load_experiment(workdir).source('val')):
    score.add({**example, 'index': index}, predictor.predict(example['image'], maps=True))
  expected = score.compute()
  assert result['mask_ap'] == pytest.approx(expected['mask_ap'], abs=1e-9)
  assert 'mean_iou' in result and set(result['per_class_ap']) == set(NAMES[1:])


@pytest.mark.slow
def test_resume_is_bit_identical(tmp_path):
  """What is sampled in a step follows from the run's seed and the step."""
  changes = dict(eval=dict(every=2), log=dict(every=1, checkpoint_every=2, figures=0))
  experiment = tiny_experiment(
    'augment.crop.size=32', num_steps=4, loss=dict(max_instances=9), **changes
  )
  train(experiment.config, tmp_path / 'straight')
  train(experiment.config, tmp_path / 'stopped', stop_at=2)
  train(experiment.config, tmp_path / 'stopped')
  a, b = (saved(tmp_path / name, 4) for name in ('straight', 'stopped'))
  assert a.keys() == b.keys() and len(a) > 50
  assert all((a[name] == b[name]).all() for name in a)
  assert lines(tmp_path / 'straight') == lines(tmp_path / 'stopped')


def test_objects_of_tiles(predictor):
  """A tile as large as the image is the image; small ones give objects of its size."""
  image = random_image(64, 96)
  whole = predictor.predict(image)
  same = predictor.replace(tile=(64, 96)).predict(image)
  np.testing.assert_array_equal(same['ids'], whole['ids'])
  np.testing.assert_allclose(same['detections'].boxes, whole['detections'].boxes)
  tiled = predictor.replace(tile=(32, 32)).predict(image)
  assert tiled['mask'].shape == (64, 96) and tiled['detections'].masks.shape[1:] == (64, 96)
  with pytest.raises(UserError, match='must overlap by a quarter'):
    predictor.replace(tile=(32, 32), tile_step=(32, 32))
  with pytest.raises(UserError, match='2 rotations: config.task=instance predicts no maps'):
    predictor.replace(rotations=2)
