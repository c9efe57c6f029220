"""Evaluation: its numbers are those of the pictures that prediction writes, and of plain numpy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import camvid, ctc
from jaxseg.metrics import neurites
from jaxseg.metrics.boundary import boundary_f1
from jaxseg.metrics.seg import components, seg_score
from jaxseg.predict.ensemble import load
from jaxseg.predict.evaluate import evaluate_workdir, print_scores
from jaxseg.predict.job import predict_files
from jaxseg.predict.options import Options
from jaxseg.train.build import load_experiment
from jaxseg.train.run_folder import Classes
from jaxseg.train.train import train
from tests import test_datasets_ctc, test_datasets_isbi2012
from tests.test_launch import launch
from tests.tiny_runs import make_experiment, make_workdir

SCORES = ('pixel_accuracy', 'mean_accuracy', 'mean_iou', 'frequency_weighted_iou')


def trained(path, **changes):
  """Trains a few steps, long enough for several classes to show in the masks."""
  usual = dict(num_steps=8, batch_size=8, eval=dict(every=8), log=dict(figures=0))
  train(make_experiment(**usual, **changes).config, path)
  return path


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = trained(tmp_path_factory.mktemp('run'))
  predictor, source = load(path), load_experiment(path).source('val')
  assert len(np.unique([predictor(source[i]['image']) for i in range(len(source))])) > 1
  return path


def scores_by_hand(labels, masks, num_classes, void=255):
  """The FCN paper's four numbers, class by class, without a confusion matrix."""
  label = np.concatenate([x.ravel() for x in labels])
  mask = np.concatenate([x.ravel() for x in masks])
  label, mask = label[label != void], mask[label != void]
  accuracy, iou, share = [], [], []
  for k in range(num_classes):
    true, found = label == k, mask == k
    if not (true | found).any():
      continue
    iou.append((true & found).sum() / (true | found).sum())
    share.append(true.mean())
    if true.any():
      accuracy.append((true & found).sum() / true.sum())
  return {
    'pixel_accuracy': (label == mask).mean(),
    'mean_accuracy': np.mean(accuracy),
    'mean_iou': np.mean(iou),
    'frequency_weighted_iou': np.dot(share, iou),
  }


def read_masks(folder, names):
  return [np.asarray(Image.open(folder / f'{name}.png')) for name in names]


def assert_same_scores(result, expected):
  for name in SCORES:
    assert result[name] == pytest.approx(expected[name], abs=1e-9), name


MODES = {
  'plain': {},
  'flip and scales': dict(flip=True, scales=(0.5, 1.0)),
  'tiles': dict(tile=(20, 24)),
  'rotations': dict(rotations=3),
}
FILES = {
  'plain': 'val',
  'flip and scales': 'val_scales-0.5_1_flip',
  'tiles': 'val_tiles-20x24',
  'rotations': 'val_3-rotations',
}


@pytest.mark.parametrize('mode', MODES)
def test_the_numbers_are_those_of_the_pictures_that_predict_writes(mode, workdir, tmp_path):
  source = make_experiment().source('val')
  (tmp_path / 'in').mkdir()
  for i in range(len(source)):
    Image.fromarray(source[i]['image']).save(tmp_path / 'in' / f'{i}.png')
  options = Options(**MODES[mode])
  predict_files(workdir, tmp_path / 'in', tmp_path / 'out', options=options)
  masks = read_masks(tmp_path / 'out', range(len(source)))
  labels = [source[i]['label'] for i in range(len(source))]
  result = evaluate_workdir(workdir, options=options)
  assert_same_scores(result, scores_by_hand(labels, masks, 4))
  assert result == json.loads((workdir / 'eval' / f'{FILES[mode]}.json').read_text())
  assert result['mode'] == load(workdir, **MODES[mode]).options.describe()


def test_on_camvid_the_numbers_are_those_of_the_pictures(shared_data, tmp_path):
  """Four real frames; truth and pictures are read here with Pillow, and void is CamVid's 11."""
  data = tmp_path / 'data' / 'camvid'
  data.mkdir(parents=True)
  shared = shared_data / 'camvid'
  chosen = [line.split() for line in (shared / 'val.txt').read_text().splitlines()[::30]]
  chosen = [[Path(*Path(name).parts[-2:]) for name in pair] for pair in chosen]
  for path in (path for pair in chosen for path in pair):
    (data / path.parent).mkdir(exist_ok=True)
    shutil.copy(shared / path, data / path)
  lines = [f'{image} {label}' for image, label in chosen]
  for split in ('train', 'val', 'test'):
    (data / f'{split}.txt').write_text('\n'.join(lines) + '\n')
  experiment = make_experiment(
    data=dict(name='camvid'),
    data_dir=str(data.parent),
    cache_dir=str(tmp_path / 'cache'),
    num_classes=11,
    model=dict(name='segnet', variant='basic', width=4),
  )
  run = make_workdir(tmp_path / 'run', experiment, Classes(camvid.CLASS_NAMES, camvid.PALETTE))
  predict_files(run, data / 'val', tmp_path / 'out')
  masks = read_masks(tmp_path / 'out', [image.stem for image, _ in chosen])
  labels = [np.asarray(Image.open(shared / label)) for _, label in chosen]
  assert len(labels) == 4 and any((label == 11).any() for label in labels)
  expected = scores_by_hand(labels, masks, 11, void=11)
  assert_same_scores(evaluate_workdir(run), expected)
  assert_same_scores(evaluate_workdir(run, options=Options(flip=False, max_pixels=10**9)), expected)


def test_boundaries_are_added_by_a_flag(workdir, capsys):
  launch('evaluate', f'--workdir={workdir}', '--scores=boundary')
  result = json.loads((workdir / 'eval' / 'val.json').read_text())
  predictor, source = load(workdir), make_experiment().source('val')
  examples = [source[i] for i in range(len(source))]
  by_hand = [boundary_f1(e['label'], predictor(e['image']), 4) for e in examples]
  assert result['boundary_f1'] == pytest.approx(np.mean([np.nanmean(f1) for f1 in by_hand]))
  assert set(result['per_class_boundary_f1']) == set(result['per_class_iou'])
  out = capsys.readouterr().out
  assert out.count('boundary f1') == 2  # among the numbers and over the classes


def test_the_launcher_passes_every_mode_on(workdir):
  flags = ['--scales=.5,1', '--flip', '--rotations=2', '--tile=24,20', '--tile_step=8,12']
  launch('evaluate', f'--workdir={workdir}', *flags)
  result = read_result(workdir, 'val_scales-0.5_1_flip_2-rotations_tiles-24x20_every-8x12')
  assert result['mode'] == 'scales 0.5, 1, flip, 2 rotations, tiles of 24x20, every 8x12'
  assert result['split'] == 'val'
  pictures = [p for p in (workdir / 'eval').glob('val_scales*_confusion.png')]
  assert pictures and all(p.stat().st_size > 1000 for p in pictures)
  assert not list((workdir / 'eval').glob('*.part*'))


def read_result(workdir, name='val'):
  return json.loads((workdir / 'eval' / f'{name}.json').read_text())


def test_no_mode_takes_the_place_of_the_plain_score_and_no_measure_is_lost(tmp_path, capsys):
  """Scales that are the config's own are no mode; BF stays as long as its step does."""
  run = make_workdir(tmp_path / 'run', make_experiment(eval=dict(scales=(0.5,))))
  launch('evaluate', f'--workdir={run}', '--scores=boundary')
  measured = read_result(run)
  assert measured['mode'] == '' and 0 < measured['boundary_f1'] <= 1
  launch('evaluate', f'--workdir={run}', '--flip', '--samples=2')
  launch('evaluate', f'--workdir={run}', '--scales=0.5')
  assert {p.stem for p in (run / 'eval').glob('*.json')} == {'val', 'val_flip_2-samples'}
  plain = read_result(run)
  for key in ('boundary_f1', 'per_class_boundary_f1'):
    assert plain[key] == measured[key]
  file = run / 'eval' / 'val.json'
  for changed in (dict(step=9), dict(images=7), dict(pixel_accuracy=plain['pixel_accuracy'] + 0.1)):
    file.write_text(json.dumps(measured | changed))
    launch('evaluate', f'--workdir={run}')
    assert 'boundary_f1' not in read_result(run), changed
  file.write_text('{"spl')
  launch('evaluate', f'--workdir={run}')
  assert read_result(run)['mode'] == ''


def test_the_heading_of_the_table_is_one_line(capsys):
  result = dict.fromkeys(SCORES, 0.5) | dict(split='val', images=3, step=7)
  result |= dict(per_class_iou={'sky': 0.5}, per_class_accuracy={'sky': 0.25})
  mode = ', '.join(['scales 0.5, 0.75, 1, 1.25', 'flip', '7 rotations', 'tiles of 1024x1024'] * 3)
  print_scores(result | dict(mode=mode), None)
  assert f'val: 3 images, step 7, {mode}' in capsys.readouterr().out.splitlines()


def masks_of(workdir, **options):
  """The split's examples, and what Python's predictor says to each."""
  predictor, source = load(workdir, **options), load_experiment(workdir).source('val')
  examples = [source[i] for i in range(len(source))]
  return examples, [predictor(e['image']) for e in examples]


def test_monte_carlo_dropout_by_the_command_line(tmp_path, capsys):
  model = dict(name='unet', width=2, depth=1, padding='same')  # half is dropped
  run = trained(tmp_path / 'run', model=model)
  launch('evaluate', f'--workdir={run}', '--samples=3')
  result = read_result(run, 'val_3-samples')
  assert result['mode'] == '3 samples' and '3 samples' in capsys.readouterr().out
  examples, masks = masks_of(run, samples=3)
  assert_same_scores(result, scores_by_hand([e['label'] for e in examples], masks, 4))
  _, plain = masks_of(run)
  assert any((a != b).any() for a, b in zip(masks, plain, strict=True))


def test_overlapping_tiles_and_neurites_by_the_command_line(tmp_path, capsys):
  """Two unpadded tiles give what one pass gives; ISBI 2012 has its measures without being asked."""
  test_datasets_isbi2012._pngs(tmp_path)
  experiment = make_experiment(
    data=dict(name='isbi2012', mean=(127.5,), std=(127.5,)),
    data_dir=str(tmp_path),
    cache_dir=str(tmp_path / 'cache'),
    num_classes=2,
    model=dict(name='unet', width=2, depth=1, padding='valid'),
    paper=dict(params=1, rand_error=0.0382, split='hidden', source='arXiv:1505.04597, table 1'),
  )
  classes = Classes(('membrane', 'cell'), ((0, 0, 0), (255, 255, 255)))
  run = make_workdir(tmp_path / 'run', experiment, classes)
  launch('evaluate', f'--workdir={run}')
  whole = read_result(run)
  assert whole['mode'] == ''
  launch('evaluate', f'--workdir={run}', '--tile=20,24', '--scores=neurites')
  tiled = read_result(run, 'val_tiles-20x24')
  assert tiled['mode'] == 'tiles of 20x24' and tiled['confusion'] == whole['confusion']
  assert tiled['neurites'] == pytest.approx(whole['neurites'], rel=1e-3, abs=1e-6)
  examples, predictor = masks_of(run)[0], load(run)
  counts = [
    neurites.count(predictor.probabilities(e['image'])[..., 0], e['label'] == 0) for e in examples
  ]
  expected = neurites.summarize({k: sum(c[k] for c in counts) for k in counts[0]})
  assert {k: whole['neurites'][k] for k in expected} == pytest.approx(expected)
  out = capsys.readouterr().out
  assert '0.0382' in out and 'paper, hidden' in out and 'v info thinned' in out


def test_seg_is_measured_where_the_config_asks(tmp_path, capsys):
  test_datasets_ctc._write(tmp_path / 'ctc')
  experiment = make_experiment(
    data=dict(name='ctc', options=dict(annotation='ST'), mean=(127.5,), std=(127.5,)),
    data_dir=str(tmp_path),
    cache_dir=str(tmp_path / 'cache'),
    num_classes=2,
    model=dict(name='unet', width=2, depth=1, padding='same'),
    eval=dict(scores=('seg',)),
    paper=dict(params=1, seg=0.9203, split='hidden', source='arXiv:1505.04597, table 2'),
  )
  run = make_workdir(tmp_path / 'run', experiment, Classes(ctc.CLASS_NAMES, ctc.PALETTE))
  launch('evaluate', f'--workdir={run}')
  examples, masks = masks_of(run)
  pairs = [
    seg_score(e['instances'], components(m == 1)) for e, m in zip(examples, masks, strict=True)
  ]
  assert len(pairs) == 4 and sum(n for _, n in pairs) == 8
  assert read_result(run)['seg'] == pytest.approx(sum(s for s, _ in pairs) / 8)
  line = next(line for line in capsys.readouterr().out.splitlines() if ' seg ' in line)
  assert '0.9203' in line


def test_f_scores_are_measured_where_the_config_asks(tmp_path, capsys):
  scores = dict(score=dict(f_scores=dict(disc=0.5, square=2.0)))
  run = make_workdir(tmp_path / 'run', make_experiment(eval=scores))
  launch('evaluate', f'--workdir={run}')
  result, values = read_result(run), []
  examples, masks = masks_of(run)
  for k, beta in ((1, 0.5), (2, 2.0)):
    hit = sum(((e['label'] == k) & (m == k)).sum() for e, m in zip(examples, masks, strict=True))
    missed = sum((e['label'] == k).sum() for e in examples) - hit
    false = sum(
      ((m == k) & (e['label'] != 255)).sum() for e, m in zip(examples, masks, strict=True)
    )
    values.append((1 + beta**2) * hit / ((1 + beta**2) * hit + beta**2 * missed + false - hit))
  assert list(result['per_class_f_score'].values()) == pytest.approx(values)
  assert result['f_score'] == pytest.approx(np.mean(values))
  assert 'f score of disc (beta 0.5)' in capsys.readouterr().out


@pytest.mark.parametrize(('split', 'heading'), [('val', 'paper'), ('test', 'paper, test')])
def test_the_papers_numbers_stand_beside_ours(split, heading, capsys):
  result = dict.fromkeys(SCORES, 0.5) | dict(split='val', images=3, step=7, mode='')
  result |= dict(per_class_iou={'sky': None}, per_class_accuracy={'sky': 0.25})
  print_scores(result, dict(params=1, mean_iou=0.477, split=split, source='arXiv:1, table 2'))
  out = capsys.readouterr().out
  assert f' {heading} ' in out and '0.4770' in out and 'arXiv:1, table 2' in out
  assert '0.2500' in out and 'sky' in out
