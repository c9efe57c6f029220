"""The tables of docs/results.md are made from run folders and configs, and replace what stood there."""

import json
from pathlib import Path

import pytest

from jaxseg.config import config_files
from jaxseg.config.config_files import baselines
from jaxseg.report import tables
from jaxseg.report.runs import collect
from jaxseg.train.run_folder import RunFolder
from jaxseg.types import UserError
from tests.test_launch import launch
from tests.tiny_runs import CLASSES, make_experiment

ROOT = Path(__file__).resolve().parent.parent
SCORES = dict(pixel_accuracy=0.5, mean_accuracy=0.25, mean_iou=0.125, frequency_weighted_iou=1.0)
PRECISION = dict(mask_ap=0.25, mask_ap50=0.5, box_ap=None)
CONFIG = '''
"""A toy net on toys: round ones (arXiv:0000.00000)."""
from jaxseg.config import base, variants

BASELINES = ('', 'large')


def get_config(variant=None):
  chosen = variants(variant, large=False)
  config = base()
  config.num_classes = 4
  config.paper = dict(params=1234, mean_iou=0.75 if chosen.large else 0.5, split='test', source='table 1')
  return config
'''


def make_run(path, scores, experiment=None, flags='X'):
  """A run folder with scores that are easy to recognise: 10 steps of 4 in 20 s, 20 steps in 20 s."""
  experiment = experiment or make_experiment('batch_size=4')
  folder = RunFolder(path, experiment.config)
  folder.write_facts(CLASSES, '1 TPU v9')
  folder.close()
  facts = json.loads((path / 'run.json').read_text())
  facts |= {'command': f'python launch/train.py {flags}', 'hardware': '2 cores'}
  (path / 'run.json').write_text(json.dumps(facts))
  (path / 'eval').mkdir()
  result = {'split': 'test', 'step': 30, 'images': 7, 'mode': '', **scores}
  (path / 'eval' / 'test.json').write_text(json.dumps(result))
  records = ({'step': s, 'time/images_per_second': r} for s, r in ((10, 2.0), (30, 4.0)))
  (path / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
  return str(path)


@pytest.fixture
def run(tmp_path):
  return make_run(tmp_path / 'shapes_run', SCORES)


@pytest.fixture
def file(tmp_path):
  file = tmp_path / 'tables.md'
  file.write_text('before\n<!-- results test -->\nold row\n<!-- end -->\nafter\n')
  return file


def test_a_row_says_what_the_run_says(run, file):
  launch('results', run, f'--output={file}')
  text = file.read_text()
  assert text.startswith('before\n<!-- results test -->\n| run | split | pixel accuracy |')
  assert text.endswith('|\n<!-- end -->\nafter\n') and 'old' not in text
  row = next(line for line in text.splitlines() if line.startswith('| shapes_run'))
  for words in (
    '50.0 | 25.0 | 12.5 | 100.0',
    '7 images, step 30',
    '30 steps in 40s',
    '`python launch/train.py X`',
    '2 cores',
    'none published',
  ):
    assert words in row, words


def test_what_a_run_says_stays_in_its_cell(run, file):
  facts = json.loads(Path(run, 'run.json').read_text())
  facts['command'] = 'a | b`\n<!-- end -->\n# mine <script>'
  Path(run, 'run.json').write_text(json.dumps(facts))
  tables.write([run], str(file), 'test')
  before, begin, head, rule, row, end, after = file.read_text().splitlines()
  assert row.endswith('| `a \\| b` &lt;!-- end --> # mine &lt;script>` |')
  assert (before, end, after) == ('before', '<!-- end -->', 'after')


def test_every_mode_of_a_split_may_have_a_row(run, file):
  """Plain first, then the others of the split; scores are those that all have."""
  for name, mode, iou in (('test_flip', 'flip', 0.75), ('val', '', 0.1)):
    result = {'split': name[:4].strip('_'), 'step': 30, 'images': 7, 'mode': mode, **SCORES}
    text = json.dumps(result | {'mean_iou': iou, 'ece': 0.5, 'nll': 1.25})
    (Path(run) / 'eval' / f'{name}.json').write_text(text)
  launch('results', run, f'--output={file}', '--modes')
  lines = [line.split(' | ') for line in file.read_text().splitlines() if 'shapes_run' in line]
  assert [(line[0], line[4]) for line in lines] == [
    ('| shapes_run', '12.5'),
    ('| shapes_run flip', '75.0'),
  ]
  assert 'ECE' not in file.read_text()
  (Path(run) / 'eval' / 'test.json').write_text(text.replace('"val"', '"test"'))
  launch('results', run, f'--output={file}')
  assert '| ECE | NLL | paper' in file.read_text() and '| 50.0 | 1.250 | none' in file.read_text()


def test_a_file_may_hold_several_tables_of_one_split(run, file):
  file.write_text('<!-- results test -->\na\n<!-- end -->\n<!-- results cells -->\nb\n<!-- end -->')
  tables.write([run], str(file), 'test', table='cells')
  first, second = file.read_text().split('<!-- results cells -->')
  assert first == '<!-- results test -->\na\n<!-- end -->\n'
  assert '| shapes_run | test, 7 images' in second and '\nb\n' not in second


def test_runs_are_compared_by_what_all_have(run, file, tmp_path):
  """Connected components of a network of pixels beside a network of objects."""
  objects = make_experiment(task='instance', model=dict(name='mask_rcnn'))
  detector = make_run(tmp_path / 'detector', PRECISION, objects)
  with pytest.raises(
    UserError, match='shapes_run/eval/test.json has no mask AP: .* --scores=components'
  ):
    tables.write([run, detector], str(file), 'test')
  both = make_run(tmp_path / 'both', SCORES | PRECISION)
  tables.write([both, detector], str(file), 'test')
  head, _, first, second = file.read_text().splitlines()[2:6]
  assert '| split | mask AP | mask AP50 | box AP | paper |' in head
  assert '| 25.0 | 50.0 | - | none published |' in first
  assert second.startswith('| detector | test, 7 images, step 30 | 25.0 |')


def test_the_papers_number_stands_beside_ours_by_its_name():
  """Scores that the row shows are not told twice; small errors keep their digits."""
  result = {'split': 'val', 'mean_iou': 0.5, 'seg': 0.75, 'neurites': {'rand_error': 0.03}}
  paper = dict(params=31, mean_iou=0.477, seg=0.9203, rand_error=0.00382, warping_error=0.1)
  paper |= dict(split='hidden', source='arXiv:1, table 2')
  assert tables.beside(paper, result, ['mean_iou']) == (
    'mean IoU 47.7, SEG 92.0 (ours 75.0), rand error 0.38 (ours 3.0), warping error 10.0 (ours not '
    'measured) on hidden: arXiv:1, table 2'
  )
  same = dict(mean_iou=0.477, split='val', source='x')
  assert tables.beside(same, result, ['mean_iou']) == 'mean IoU 47.7: x'
  assert tables.beside(dict(params=3, source='x'), result, []) == 'none published'


def test_a_run_without_scores_says_how_to_get_them(run, file):
  with pytest.raises(UserError, match='launch/evaluate.py --workdir=.* --split=val'):
    tables.write([run], str(file), 'val')


def test_a_file_without_markers_is_left_as_it_is(run, file):
  file.write_text('no markers\n')
  file.write_text(
    '<!-- results val -->\nweeks of text\n<!-- results test -->\n| a |\n|---|\n<!-- end -->'
  )
  with pytest.raises(UserError, match='and between them no other table'):
    tables.replace_table(str(file), 'val', ('a',), [('b',)])
  assert 'weeks of text' in file.read_text()
  tables.replace_table(str(file), 'test', ('a',), [('b',)])
  assert '| b |\n<!-- end -->' in file.read_text()
  file.write_text('no markers\n')
  with pytest.raises(UserError, match='<!-- results test -->'):
    tables.write([run], str(file), 'test')
  assert file.read_text() == 'no markers\n'
  (file.parent / 'link.md').symlink_to(file)
  file.write_text('<!-- results test -->\n<!-- end -->')
  with pytest.raises(OSError, match='it is a link: name the file itself'):
    tables.write([run], f'{file.parent}/link.md', 'test')
  assert file.read_text() == '<!-- results test -->\n<!-- end -->'
  with pytest.raises(UserError, match='gone.md: No such file or directory; name a file with <!--'):
    tables.write([run], f'{file.parent}/gone.md', 'test')


def test_a_run_has_the_name_of_its_folder_however_it_is_called(run, monkeypatch):
  monkeypatch.chdir(run)
  assert {collect(Path(path)).name for path in (run, '.', f'{run}/eval/..')} == {Path(run).name}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A folder of configs, one with two baselines, and a file for their table."""
  monkeypatch.chdir(tmp_path)
  Path('configs').mkdir()
  Path('configs/toy.py').write_text(CONFIG.lstrip())
  Path('configs/own.py').write_text('"""No baseline."""\n')
  Path('results.md').write_text('<!-- results baselines -->\n<!-- end -->\n')
  included = [str(path) for path in sorted(Path('configs').glob('*.py'))]
  monkeypatch.setattr(config_files, '_shipped', lambda: included)
  return tmp_path


def _rows():
  return [line for line in Path('results.md').read_text().splitlines() if 'toy' in line]


def test_a_table_is_printed_and_nothing_replaced_unless_a_file_is_named(run, folder, capsys):
  Path('docs').mkdir()
  Path('docs/results.md').write_text('<!-- results test -->\nold\n<!-- end -->\n')
  launch('results', run)
  out = capsys.readouterr().out
  assert out.startswith('| run | split | pixel accuracy |') and '\n|---|---|' in out
  assert out.count('| shapes_run |') == 1
  launch('results', '--baselines')
  assert '| `toy:large` |' in capsys.readouterr().out
  assert Path('docs/results.md').read_text() == '<!-- results test -->\nold\n<!-- end -->\n'


def test_what_was_not_run_says_so(folder):
  launch('results', '--baselines', '--output=results.md')
  small, large = _rows()
  for words in (
    'A toy net on toys: round ones',
    '`toy`',
    '1,234',
    'mean IoU 50.0 on test: table 1',
  ):
    assert words in small, words
  assert '`toy:large`' in large and 'mean IoU 75.0' in large
  assert 'not run' in small and 'not run' in large
  assert '`python launch/train.py --config=configs/toy.py:large --workdir=runs/toy_large`' in large


def test_a_run_fills_the_row_of_its_baseline(folder):
  run = make_run(
    folder / 'big', SCORES, flags='--config=configs/toy.py:large --workdir=/mnt/my/big'
  )
  tables.write_baselines('results.md', [run])
  small, large = _rows()
  assert 'not run' in small and 'not run' not in large
  for words in ('mean IoU 12.5', '(test, 7 images, step 30)', '2 cores', '30 steps in'):
    assert words in large, words
  assert '`python launch/train.py --config=configs/toy.py:large --workdir=runs/big`' in large


@pytest.mark.parametrize(
  'flags',
  [
    '--config=configs/own.py',
    '--config=configs/toy.py:large --config.batch_size=2',
    "--config=configs/toy.py:large '--config.augment.crop.size=(188, 188)'",
    "'--config=configs/toy.py:large",
  ],
)
def test_a_run_of_something_else_is_no_baseline(folder, flags):
  run = make_run(folder / 'other', SCORES, flags=flags)
  with pytest.raises(UserError, match='was not trained by a baseline'):
    tables.write_baselines('results.md', [run])


def test_the_table_in_the_docs_has_every_baseline(monkeypatch):
  monkeypatch.chdir(ROOT)
  text = Path('docs/results.md').read_text()
  table = text.split('<!-- results baselines -->')[1].split('<!-- end -->')[0]
  listed = [line.split(' | ')[1] for line in table.strip().splitlines()[2:]]
  known = [Path(spec).name.replace('.py', '') for spec, _ in baselines()]
  assert listed == [f'`{name}`' for name in known]


def test_a_picture_is_of_the_scored_step_and_takes_no_others_place(
  run, file, tmp_path, monkeypatch
):
  asked = []

  class Asked(Exception):
    pass

  def load(path, step):
    asked.append((path.name, step))
    raise Asked

  monkeypatch.setattr(tables, 'load', load)
  with pytest.raises(Asked):
    tables.write([run], str(file), 'test', pictures=str(tmp_path / 'pictures'))
  assert asked == [('shapes_run', '30')]
  monkeypatch.setattr(tables, '_draw', lambda run, evaluation, strip: strip.write_text('new'))
  (folder := tmp_path / 'pictures').mkdir(exist_ok=True)
  (strip := folder / 'shapes_run.png').write_text('mine')
  file.write_text('![my network](shapes_run.png)\n' + file.read_text())
  with pytest.raises(
    UserError, match=r'shapes_run.png exists, and no table of .*tables.md links to it'
  ):
    tables.write([run], str(file), 'test', pictures=str(folder))
  with pytest.raises(UserError, match='no table of --output links to it'):
    tables.write([run], None, 'test', pictures=str(folder))
  assert strip.read_text() == 'mine'
  strip.unlink()
  for _ in range(2):  # its own it replaces
    tables.write([run], str(file), 'test', pictures=str(folder))
    assert (
      strip.read_text() == 'new'
      and '| shapes_run ([picture](shapes_run.png)) |' in file.read_text()
    )
  with pytest.raises(UserError, match='several runs would have the picture .*shapes_run.png'):
    other = make_run(tmp_path / 'other' / 'shapes_run', SCORES)
    tables.write([run, other], str(file), 'test', pictures=str(folder))


def test_rows_of_different_files_are_told(run, file, tmp_path, capsys):
  other, third = (
    make_run(tmp_path / name, {**SCORES, 'data': name}) for name in ('other', 'third')
  )
  tables.write([run, other], str(file), 'test')
  assert not capsys.readouterr().err
  tables.write([run, other, third], str(file), 'test')
  assert 'not all rows are scored on the same files' in capsys.readouterr().err
