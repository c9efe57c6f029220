"""The table of the papers' baselines is made from the configs, and a run fills exactly its own row."""

import json
from pathlib import Path

import pytest

from jaxseg import config as configs
from jaxseg.report import baselines
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent
MARKERS = '<!-- results baselines -->\n<!-- end -->\n'
CONFIG = '''
"""A toy net on toys: round ones (arXiv:0000.00000)."""
from jaxseg.config import base, variants

BASELINES = ('', 'large')


def get_config(variant=None):
  chosen = variants(variant, large=False)
  config = base()
  config.dataset, config.num_classes = 'shapes', 4
  config.model, config.model_options = 'unet', dict(width=4, depth=2, padding='same')
  config.batch_size = 4
  config.paper = dict(params=1234, mean_iou=0.75 if chosen.large else 0.5, split='test', source='table 1')
  return config
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path('configs').mkdir()
  Path('configs/toy.py').write_text(CONFIG.lstrip())
  Path('configs/own.py').write_text('"""No baseline."""\n')
  Path('results.md').write_text(MARKERS)
  return tmp_path


def _run(name, flags):
  workdir = Path(name)
  (workdir / 'eval').mkdir(parents=True)
  (workdir / 'config.json').write_text(configs.to_json(configs.load('configs/toy.py')))
  command = f'python launch/train.py {flags} --workdir={name}'
  (workdir / 'run.json').write_text(json.dumps({'command': command, 'hardware': '1 TPU v9'}))
  scores = dict(pixel_accuracy=0.9, mean_accuracy=0.8, mean_iou=0.7, frequency_weighted_iou=0.6)
  text = json.dumps({'split': 'test', 'step': 10, 'images': 3, **scores})
  (workdir / 'eval' / 'test.json').write_text(text)
  (workdir / 'metrics.jsonl').write_text(
    json.dumps({'step': 10, 'time/images_per_second': 4.0}) + '\n'
  )
  return name


def _rows():
  return [line for line in Path('results.md').read_text().splitlines() if 'toy' in line]


def test_what_was_not_run_says_so(folder):
  baselines.write('results.md')
  small, large = _rows()
  for part in ('A toy net on toys: round ones', '`toy`', '1,234', 'mean iou 50.0 on test: table 1'):
    assert part in small, part
  assert '`toy:large`' in large and 'mean iou 75.0' in large
  assert 'not run' in small and 'not run' in large
  assert '`python launch/train.py --config=configs/toy.py:large --workdir=runs/toy_large`' in large


def test_a_run_fills_its_own_row(folder):
  run = _run('runs_big', '--config=configs/toy.py:large')
  baselines.write('results.md', [run])
  small, large = _rows()
  assert 'not run' in small and 'not run' not in large
  for part in ('mean iou 70.0', '(test, 3 images, step 10)', '1 TPU v9', '10 steps in 10s'):
    assert part in large, part


@pytest.mark.parametrize(
  'flags', ['--config=configs/own.py', '--config=configs/toy.py:large --config.batch_size=2']
)
def test_a_run_of_something_else_is_no_baseline(folder, flags):
  with pytest.raises(UserError, match='was not trained by a baseline'):
    baselines.write('results.md', [_run('runs_other', flags)])


def test_the_table_in_the_docs_has_every_baseline(monkeypatch):
  monkeypatch.chdir(ROOT)
  text = Path('docs/results.md').read_text()
  table = text.split('<!-- results baselines -->')[1].split('<!-- end -->')[0]
  listed = [line.split(' | ')[1] for line in table.strip().splitlines()[2:]]
  known = [Path(spec).name.replace('.py', '') for spec, _ in baselines.find('configs')]
  assert listed == [f'`{name}`' for name in known]
