"""A tiny network of instances through the command lines, from training to the report."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_masks

import jaxseg
from jaxseg.data.geometry import resize_image
from jaxseg.datasets import coco
from jaxseg.draw.objects import colors_of, overlay
from jaxseg.metrics import measures
from jaxseg.metrics.coco import CocoScore, Detections, results_of
from jaxseg.predict import coco_json
from jaxseg.predict.evaluate import evaluate_workdir
from jaxseg.predict.inputs import Item
from jaxseg.predict.instance_predictor import InstancePredictor, at_own_size, in_image, painted
from jaxseg.predict.predictor import Options
from jaxseg.prepare import check
from jaxseg.report import tables
from jaxseg.train import build
from jaxseg.train.evaluator import make_evaluator
from jaxseg.train.run_folder import load_config
from jaxseg.train.train import train
from jaxseg.types import UserError
from tests.test_launch import launch
from tests.test_resume import lines, saved
from tests.tiny_runs import CLASSES, make_config, make_workdir, random_image

NAMES = ('background', 'disc', 'square', 'triangle')
ENDINGS = ('_instances', '', '_overlay')
MODEL = dict(
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


def tiny_config(**changes):
  usual = dict(
    model='mask_rcnn',
    model_options=MODEL,
    task='instance',
    dataset_options=dict(size=(40, 48), count=5),
    batch_size=2,
  )
  return make_config(**{**usual, **changes})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Two steps of training on crops."""
  config = tiny_config(
    num_steps=2, eval_every=1, log_every=1, figures=2, crop=(32, 32), flip=True, max_instances=9
  )
  workdir = tmp_path_factory.mktemp('instances')
  summary = train(config, workdir)
  return workdir, summary


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  """Random parameters: boxes and masks anywhere."""
  workdir = make_workdir(tmp_path_factory.mktemp('run'), tiny_config())
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
  report = (workdir / 'report.html').read_text()
  for words in ('mask AP50', 'mask AP over the classes in the image', 'Images, worst first'):
    assert words in report
  assert 'confusion' not in report.split('All keys')[0].lower()


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
  assert 'Mask AP by class' in (tmp_path / 'two.html').read_text()
  file = tmp_path / 'tables.md'
  file.write_text('<!-- results val -->\n<!-- end -->\n')
  tables.write([str(workdir)], str(file), 'val', pictures=str(tmp_path))
  assert '| mask AP | AP50 | AP75 | small | medium | large | box AP |' in file.read_text()
  assert (tmp_path / f'{workdir.name}.png').is_file()


def make_copy(workdir, folder):
  """A run of another name with the same records."""
  other = folder / 'other'
  other.mkdir()
  for name in ('config.json', 'classes.json', 'run.json', 'metrics.jsonl'):
    (other / name).write_text((workdir / name).read_text())
  return other


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
  assert isinstance(predictor, InstancePredictor)
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
    ((), 'there already'),
    (('--overwrite', '--flip'), 'sees the whole image once'),
    (('--overwrite', '--tile=64,64'), 'sees the whole image once'),
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
  items = [Item(tmp_path / 'b.jpg', 'b'), Item(tmp_path / '7.jpg', '7')]
  config = make_config(dataset='coco')
  coco_json.write(tmp_path, config, items, {items[1].stem: results_of(found)}, coco.CLASS_NAMES)
  (line,) = json.loads((tmp_path / 'detections.json').read_text())
  assert (line['image_id'], line['file_name'], line['id']) == (2, '7.jpg', 1)
  assert (line['category_id'], line['category'], line['bbox']) == (13, 'stop sign', [0, 0, 3, 2])


def test_export_says_what_the_network_says(trained, tmp_path, capsys):
  """The exporter itself compares boxes, scores, classes and masks in a process without jaxseg."""
  workdir, _ = trained
  launch('export', f'--workdir={workdir}', f'--output={tmp_path / "export"}')
  card = json.loads((tmp_path / 'export' / 'card.json').read_text())
  assert set(card['output']) == {'boxes', 'scores', 'classes', 'masks'}
  assert card['check']['largest_difference'] <= 1e-4
  assert [entry['file'] for entry in card['programs']] == ['40x48.jax_export']
  assert 'mask_ap' in card['metrics']['val'] if card['metrics'] else True
  assert 'exported step' in capsys.readouterr().out


def test_data_check_counts_objects(trained, tmp_path, capsys):
  config = load_config(trained[0])
  report = check.check(config, tmp_path)
  facts = report['splits']['val']['objects']
  source = build.source_from(config, 'val')
  counts = [len(e['instance_classes']) for e in source]
  areas = [np.bincount(e['instances'].ravel())[1:] for e in source]
  areas = np.concatenate(areas)
  assert (facts['objects'], facts['least'], facts['most']) == (
    sum(counts),
    min(counts),
    max(counts),
  )
  assert facts['small'] == (areas < 1024).sum() and facts['small'] + facts['medium'] == len(areas)
  assert facts['sides'][1] == pytest.approx(np.median(np.sqrt(areas)), abs=0.05)
  told = capsys.readouterr().out
  assert 'side: 5, 50, 95 %' in told and 'config.max_instances' not in told
  check.check(tiny_config(max_instances=2), tmp_path)
  assert 'config.max_instances is 2: crops may show fewer' in capsys.readouterr().out


def row(boxes, scores, classes, masks):
  return {
    'boxes': np.array(boxes, np.float32),
    'scores': np.array(scores, np.float32),
    'classes': np.array(classes, np.int32),
    'masks': np.array(masks, np.float32),
  }


def test_from_what_the_network_saw_to_the_image():
  """An image of 10 x 12 padded to 16 x 16, seen at half size: boxes are doubled, then clipped."""
  ones = np.ones((28, 28))
  outputs = row(
    [[1, 2, 3, 4], [5, 4, 8, 8], [7, 7, 8, 8], [0, 0, 0, 0]],
    [0.9, 0.6, 0.5, 0],
    [1, 2, 1, 0],
    [ones] * 3 + [np.zeros((28, 28))],
  )
  found = at_own_size(in_image(outputs, canvas=(16, 16), seen=(8, 8)), (10, 12))
  assert found.boxes.tolist() == [[2, 4, 6, 8], [10, 8, 12, 10]]  # the third is all padding
  assert found.classes.tolist() == [1, 2]
  wanted = np.zeros((2, 10, 12), bool)
  wanted[0, 4:8, 2:6] = wanted[1, 8:, 10:] = True
  np.testing.assert_array_equal(found.masks, wanted)


def test_a_mask_belongs_to_its_whole_box():
  """Half of the box lies beyond the image; its left half alone is the object, and is all shown."""
  mask = np.zeros((28, 28))
  mask[:, :14] = 1
  outputs = row([[0, 0, 16, 8]], [0.9], [1], [mask])
  found = at_own_size(in_image(outputs, canvas=(8, 16), seen=(8, 16)), (8, 8))
  assert found.masks.all() and found.boxes.tolist() == [[0, 0, 8, 8]]


def test_overlay_by_hand():
  """3 x 3 pixels of the second of two instances: the ring in its colour, the middle half of it."""
  image = np.full((5, 5, 1), 100, np.uint8)
  ids = np.zeros((5, 5), np.uint16)
  ids[1:4, 1:4], ids[0, 0] = 2, 1
  shown, colors = overlay(image, ids), colors_of(2).astype(int)
  assert len({tuple(color) for color in colors}) == 3
  np.testing.assert_array_equal(shown[1, 1:4], [colors[2]] * 3)
  np.testing.assert_array_equal(shown[2, 2], np.rint((100 + colors[2]) / 2))
  np.testing.assert_array_equal(shown[4], [[100, 100, 100]] * 5)
  layers = np.stack([ids, np.where(ids == 1, 3, 0)], axis=-1)
  np.testing.assert_array_equal(overlay(image, layers)[0, 0], colors_of(3)[3])


def test_painted_with_the_best_on_top():
  masks = np.zeros((3, 2, 4), bool)
  masks[0, 0, :2] = masks[1, 0] = masks[2] = True
  found = Detections(np.zeros((3, 4)), np.array([0.9, 0.6, 0.4]), np.array([3, 1, 2]), masks)
  ids, classes = painted(found)
  assert ids.tolist() == [[1, 1, 2, 2], [0, 0, 0, 0]]
  assert classes.tolist() == [[3, 3, 1, 1], [0, 0, 0, 0]]
  assert painted(found, 0.4)[0].tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]]


@pytest.mark.parametrize(
  'keys', [dict(parallel='pmap'), dict(parallel='mesh', short_side=(24, 48), long_side=72)]
)
def test_evaluator_scores_every_image_at_its_own_size(keys, predictor):
  """Batches over devices, images of two sizes: the same as one by one through the predictor."""
  config = tiny_config(eval_batch_size=4, **keys)
  small = build.source_from(config, 'val')
  large = build.source_from(tiny_config(dataset_options=dict(size=(33, 70), count=2)), 'val')
  source = Both([*small, *large])
  task = build.task_from(config)
  counted = []
  summary = make_evaluator(config, source, task)(predictor.variables, counted.append)
  score = CocoScore(NAMES)
  predictor = InstancePredictor(config, predictor.variables, predictor.classes)
  for number, example in enumerate(source):
    score.add(example, predictor.instances(example['image']), number)
  expected = score.summary()
  assert counted[-1] == 7 and summary.keys() == expected.keys()
  for key, value in expected.items():
    assert summary[key] == pytest.approx(value, abs=1e-6), key


class Both(list):
  class_names = NAMES


def test_an_image_seen_at_another_size(predictor):
  """Twice as large by config.short_side: the boxes of the enlarged image, halved."""
  config = tiny_config(short_side=(40, 80), long_side=96)
  options = Options(multiple=1)
  twice = InstancePredictor(config, predictor.variables, predictor.classes, options)
  image = random_image(40, 48)
  seen = predictor.outputs(resize_image(image, (80, 96)))
  found = twice.outputs(image)
  np.testing.assert_allclose(found['boxes'], seen['boxes'] / 2, atol=1e-4)
  for key in ('scores', 'classes', 'masks'):
    np.testing.assert_allclose(found[key], seen[key], atol=1e-5)
  assert (found['scores'] > 0).any()
  assert twice.canvas(40, 48) == (80, 96)
  assert InstancePredictor(config, predictor.variables, predictor.classes).canvas(40, 48) == (
    128,
    128,
  )


def test_predictor_refuses_what_instances_have_not(predictor):
  image = random_image(40, 48)
  for ask in (predictor.probabilities, predictor.uncertainty, predictor.bands):
    with pytest.raises(UserError, match='no probability or uncertainty of pixels'):
      ask(image)
  with pytest.raises(UserError, match='scales 0.5, 1: a network of instances'):
    predictor.replace(scales=(0.5, 1))
  with pytest.raises(UserError, match='3 samples'):
    predictor.replace(samples=3)
  with pytest.raises(UserError, match='float64 with 3 channels'):
    predictor.instances(image.astype(float))


def test_evaluation_refuses_what_instances_have_not(trained):
  workdir, _ = trained
  for words, options in {
    'flip: a network': dict(options=Options(flip=True)),
    'leave out --bf': dict(boundaries=True),
  }.items():
    with pytest.raises(UserError, match=words):
      evaluate_workdir(workdir, **options)


def test_labels_of_pixels_have_no_instances(tmp_path):
  predictor = jaxseg.load(make_workdir(tmp_path, make_config()))
  with pytest.raises(UserError, match='config.task=semantic gives the class of each pixel'):
    predictor.instances(random_image(32, 32))


def test_components_as_instances_by_hand():
  """Two components of class 1, one of class 2; scores are mean probabilities of the class."""
  mask = np.array([[1, 1, 0, 1], [0, 0, 0, 2]], np.uint8)
  probabilities = np.zeros((2, 4, 3), np.float32)
  probabilities[0, :, 1] = (0.6, 0.8, 0.9, 0.9)
  probabilities[1, 3, 2] = 0.95
  found = measures.component_detections(mask, probabilities)
  np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.7], rtol=1e-6)
  assert found.classes.tolist() == [2, 1, 1]
  assert found.boxes.tolist() == [[3, 1, 4, 2], [3, 0, 4, 1], [0, 0, 2, 1]]
  assert [m.sum() for m in found.masks] == [1, 1, 2]
  assert len(measures.component_detections(np.zeros((2, 4), np.uint8), probabilities)) == 0


def test_a_semantic_run_is_scored_by_its_components(tmp_path):
  workdir = make_workdir(tmp_path / 'run', make_config())
  launch('evaluate', f'--workdir={workdir}', '--instances')
  result = json.loads((workdir / 'eval' / 'val.json').read_text())
  predictor, score = jaxseg.load(workdir), CocoScore(CLASSES.names)
  for example in build.source_from(load_config(workdir), 'val'):
    mask, probabilities = (f(example['image']) for f in (predictor, predictor.probabilities))
    score.add(example, measures.component_detections(mask, probabilities))
  expected = score.summary()
  assert result['mask_ap'] == pytest.approx(expected['mask_ap'], abs=1e-9)
  assert 'mean_iou' in result and set(result['per_class_ap']) == set(NAMES[1:])


@pytest.mark.slow
def test_resume_is_bit_identical(tmp_path):
  """What is sampled in a step follows from the run's seed and the step."""
  changes = dict(num_steps=4, eval_every=2, checkpoint_every=2, log_every=1, figures=0)
  config = tiny_config(crop=(32, 32), max_instances=9, **changes)
  train(config, tmp_path / 'straight')
  train(config, tmp_path / 'stopped', stop_at=2)
  train(config, tmp_path / 'stopped')
  a, b = (saved(tmp_path / name, 4) for name in ('straight', 'stopped'))
  assert a.keys() == b.keys() and len(a) > 50
  assert all((a[name] == b[name]).all() for name in a)
  assert lines(tmp_path / 'straight') == lines(tmp_path / 'stopped')
