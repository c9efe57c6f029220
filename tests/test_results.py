"""The results table is made from run folders and replaces what stood between its markers."""

import json
from pathlib import Path

import pytest

from jaxseg import config as configs
from jaxseg.report import tables
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path):
  """A run folder with scores that are easy to recognise."""
  workdir = tmp_path / 'shapes_run'
  (workdir / 'eval').mkdir(parents=True)
  config = configs.load(f'{ROOT}/configs/unet_shapes.py', ['batch_size=4'])
  (workdir / 'config.json').write_text(configs.to_json(config))
  (workdir / 'run.json').write_text(
    json.dumps({'command': 'python launch/train.py X', 'hardware': '2 cores'})
  )
  scores = dict(pixel_accuracy=0.5, mean_accuracy=0.25, mean_iou=0.125, frequency_weighted_iou=1.0)
  (workdir / 'eval' / 'test.json').write_text(
    json.dumps({'split': 'test', 'step': 30, 'images': 7, **scores})
  )
  lines = [(10, 2.0), (30, 4.0)]  # 10 steps of 4 at 2/s: 20 s; 20 steps at 4/s: 20 s
  (workdir / 'metrics.jsonl').write_text(
    ''.join(json.dumps({'step': s, 'time/images_per_second': r}) + '\n' for s, r in lines)
  )
  return workdir


def test_a_row_says_what_the_run_says(run, tmp_path):
  file = tmp_path / 'tables.md'
  file.write_text('before\n<!-- results test -->\nold row\n<!-- end -->\nafter\n')
  tables.write([str(run)], str(file), 'test')
  text = file.read_text()
  assert (
    text.startswith('before\n') and text.endswith('<!-- end -->\nafter\n') and 'old' not in text
  )
  row = next(line for line in text.splitlines() if line.startswith('| shapes_run'))
  for part in (
    '50.0 | 25.0 | 12.5 | 100.0',
    '7 images, step 30',
    '30 steps in 40s',
    '`python launch/train.py X`',
    '2 cores',
    'none published',
  ):
    assert part in row, part


def test_a_file_may_hold_several_tables_of_one_split(run, tmp_path):
  file = tmp_path / 'tables.md'
  file.write_text('<!-- results test -->\na\n<!-- end -->\n<!-- results cells -->\nb\n<!-- end -->')
  tables.write([str(run)], str(file), 'test', table='cells')
  first, second = file.read_text().split('<!-- results cells -->')
  assert first == '<!-- results test -->\na\n<!-- end -->\n'
  assert '| shapes_run | test, 7 images' in second and '\nb\n' not in second


def test_the_papers_number_stands_beside_ours_by_its_name():
  """Scores that the row shows are not told twice; small errors keep their digits."""
  result = {'split': 'val', 'mean_iou': 0.5, 'seg': 0.75, 'neurites': {'rand_error': 0.03}}
  paper = dict(params=31, mean_iou=0.477, seg=0.9203, rand_error=0.00382, warping_error=0.1)
  paper |= dict(split='hidden', source='arXiv:1, table 2')
  assert tables._published(paper, result) == (
    'mean iou 47.7, seg 92.0 (ours 75.0), rand error 0.38 (ours 3.0), warping error 10.0 (ours not '
    'measured) on hidden: arXiv:1, table 2'
  )
  same = dict(mean_iou=0.477, split='val', source='x')
  assert tables._published(same, result) == 'mean iou 47.7: x'
  assert tables._published(dict(params=3, source='x'), result) == 'none published'


def test_a_run_without_scores_says_how_to_get_them(run, tmp_path):
  file = tmp_path / 'tables.md'
  file.write_text('<!-- results val -->\n<!-- end -->\n')
  with pytest.raises(UserError, match='launch/evaluate.py --workdir=.* --split=val'):
    tables.write([str(run)], str(file), 'val')


def test_a_file_without_markers_is_left_as_it_is(run, tmp_path):
  file = tmp_path / 'tables.md'
  file.write_text('no markers\n')
  with pytest.raises(UserError, match='<!-- results test -->'):
    tables.write([str(run)], str(file), 'test')
  assert file.read_text() == 'no markers\n'
