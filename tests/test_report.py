"""The report: right numbers, everything escaped, nothing loaded, readable on a phone."""

import base64
import dataclasses
import hashlib
import json
import re
import sys
import types
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg import report
from jaxseg.datasets import shapes
from jaxseg.predict.predictor import load
from jaxseg.report import charts, comparison, images, single
from jaxseg.train import run_folder as workdirs
from jaxseg.train.writer import Progress, Writer, read_records
from jaxseg.types import UserError
from tests.browser import Browser
from tests.test_launch import launch

ROOT = Path(__file__).resolve().parent.parent
CONFIG = f'--config={ROOT}/configs/unet_shapes.py:smoke'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir trained by the command line for four steps; training has written its report."""
  workdir = tmp_path_factory.mktemp('runs') / 'first'
  steps = ['--config.num_steps=4', '--config.eval_every=2', '--config.log_every=1']
  launch('train', CONFIG, f'--workdir={workdir}', *steps, '--config.figures=1')
  return workdir


@pytest.fixture(scope='module')
def page(trained):
  return (trained / 'report.html').read_text(encoding='utf-8')


@pytest.fixture
def run(trained):
  return report.collect(trained)


def with_paper(run, **paper):
  """The same run, as if its config had a published number."""
  config = ConfigDict({**run.config.to_dict(), 'paper': paper})
  return dataclasses.replace(run, config=config)


def test_training_ends_with_a_report(trained, page):
  best = max(r['eval/mean_iou'] for r in read_records(trained) if 'eval/mean_iou' in r)
  assert f'<div class="name">mean IoU</div><div class="value">{best:.4f}</div>' in page
  for word in ('first', 'triangle', '7,564 parameters', '4 steps, finished', 'learning_rate'):
    assert word in page
  assert 'launch/train.py \\\n  --config=' in unescape(page)
  assert page.count('<img') == 16 * 4 and len(page) < 5e6
  assert not list(trained.glob('*.tmp'))


def test_the_page_loads_nothing_and_its_policy_says_so(page):
  policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
  assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
  sheet = re.search(r'<style>(.*?)</style>', page, re.S).group(1)
  digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
  assert f"'sha256-{digest}'" in policy
  assert not re.search(
    r'<script|<iframe|<object|<link (?!rel="icon" href="data:,")|style="|@import|url\(|\son\w+=',
    page,
  )
  assert all(s.startswith('data:image/') for s in re.findall(r'src="([^"]*)', page))


def test_figures_are_renewed_while_training(trained):
  names = {p.name for p in (trained / 'figures').iterdir()}
  assert {'predictions.png', 'curves.png', 'classes.png'} <= names


def test_every_image_is_scored_and_worst_comes_first(run, trained):
  found = images.score(run, 'best', 200, 1e9, print)
  predictor, source = load(trained), shapes.source('val', size=32, count=16)
  truth = {}
  for i in range(16):
    label, mask = source[i]['label'], predictor(source[i]['image'])
    ious = []
    for k in range(4):
      true, predicted = label == k, (mask == k) & (label != 255)
      if (true | predicted).any():
        ious.append((true & predicted).sum() / (true | predicted).sum())
    truth[source[i]['file_name']] = np.mean(ious)
  shown = [*found.worst, *reversed(found.best)]
  assert [s.name for s in shown] == sorted(truth, key=truth.get)
  np.testing.assert_allclose([s.score for s in shown], sorted(truth.values()), rtol=1e-6)
  assert found.total == 16 and found.confusion.sum() == sum(
    (source[i]['label'] != 255).sum() for i in range(16)
  )


def test_scoring_is_capped_by_number_and_by_time(run, monkeypatch):
  monkeypatch.setattr(images, 'SHOWN', 1)
  found = images.score(run, 'best', 5, 1e9, print)
  assert len(found.scores) == 5 and len(found.worst) == len(found.best) == 1
  assert (found.worst[0].score, found.best[0].score) == pytest.approx(
    (found.scores[0], found.scores[-1])
  )
  assert len(images.score(run, 'best', 5, 0.0, print).scores) == 1
  assert 'Worst images' in single.page(run, found) and '5 of 16 images' in single.page(run, found)


def test_confusion_of_an_image_by_hand():
  label, mask = np.array([[0, 1, 255], [1, 1, 7]], np.uint8), np.array([[0, 1, 1], [0, 1, 0]])
  assert images.confusion_of(label, mask, 2).tolist() == [[1, 0], [1, 2]]


def test_the_papers_number_stands_beside_ours(run):
  iou = run.best['mean_iou']
  paper = dict(mean_iou=0.9, split='val', source='arXiv:1, table <2>')
  text = single.page(with_paper(run, **paper), None)
  assert f'paper 0.9000 <span class="bad">{iou - 0.9:+.4f}</span>' in text
  assert 'paper, val' in text and 'table &lt;2&gt;' in text
  elsewhere = single.page(with_paper(run, mean_iou=0.9, split='test', source=''), None)
  assert 'paper 0.9000 on test<' in elsewhere and '<span class="bad">' not in elsewhere
  assert 'class="good">+' in single.tiles(with_paper(run, mean_iou=0.0, source=''))


def test_an_evaluation_on_the_papers_split_comes_first(run):
  def result(split, iou, matrix):
    scores = dict.fromkeys(single.parts.SCORE_NAMES, iou)
    names = dict.fromkeys(run.classes.names, iou)
    return {
      'split': split, 'step': 4, 'images': 9, **scores, 'per_class_iou': names,
      'per_class_accuracy': names, 'confusion': matrix, 'neurites': {'rand_error': 0.125},
    }  # fmt: skip

  matrix = (np.eye(4, dtype=int) * 3).tolist()
  matrix[1][2] = 1
  found = {'test': result('test', 0.25, matrix), 'val': result('val', 0.5, matrix)}
  run = dataclasses.replace(run, evaluations=found)
  assert run.headline['split'] == 'val'
  tested = with_paper(run, mean_iou=0.2, split='test', source='')
  assert tested.headline['split'] == 'test'
  text = single.page(tested, None)
  assert '<td class="s15">75</td><td class="s5">25</td>' in text  # row of class 1: 3 and 1 of 4
  assert 'disc → square</th><td>100.0%</td><td>25.0%</td>' in text
  assert '<b>rand error</b>' in text and '0.1250' in text and 'eval/test.json' in text


def evaluation(run, iou, split='val', mode='', **more):
  names = dict.fromkeys(run.classes.names, iou)
  scores = dict.fromkeys(single.parts.SCORE_NAMES, iou)
  found = {'split': split, 'step': 4, 'images': 9, 'mode': mode, **scores, **more}
  confusion = (np.eye(4, dtype=int) * 3).tolist()
  return found | {'per_class_iou': names, 'per_class_accuracy': names, 'confusion': confusion}


def evaluated(run, *found, name=None):
  """The run with evaluations under the names that evaluate.py gives their files."""
  evaluations = {'_'.join(filter(None, (e['split'], e['mode']))): e for e in found}
  path = run.path.with_name(name) if name else run.path
  return dataclasses.replace(run, evaluations=evaluations, path=path)


def test_the_plain_mode_stands_for_the_run_and_others_are_named(run):
  both = evaluated(run, evaluation(run, 0.9, mode='flip'), evaluation(run, 0.5))
  assert both.headline['mean_iou'] == 0.5 and both.headline['origin'] == 'eval/val.json'
  text = single.page(both, None)
  assert '<th scope="col">val, flip</th><th scope="col">val</th>' in text
  elsewhere = evaluated(run, evaluation(run, 0.9, mode='flip'), evaluation(run, 0.5, split='test'))
  assert elsewhere.headline['split'] == 'test'
  alone = single.page(evaluated(run, evaluation(run, 0.9, mode='flip')), None)
  caption = alone.split('<h2>Classes</h2>')[1][:200]
  assert 'val, 9 images, flip, eval/val_flip.json' in caption


def test_only_what_is_scored_alike_has_a_best(run):
  better = evaluated(run, evaluation(run, 0.75), name='better')
  plain = evaluated(run, evaluation(run, 0.5))
  text = comparison.page([plain, better])
  assert '<td class="best">0.7500</td>' in text and '<td class="best">0.750</td>' in text
  assert 'val, 9 images (eval/val.json)' in text and 'not comparable' not in text
  config = ConfigDict({**run.config.to_dict(), 'dataset_options': dict(size=32, count=17)})
  for other in (
    evaluated(run, evaluation(run, 0.75, mode='flip'), name='other'),
    evaluated(run, evaluation(run, 0.75, split='test'), name='other'),
    evaluated(run, evaluation(run, 0.75) | {'images': 8}, name='other'),
    dataclasses.replace(better, config=config),
  ):
    text = comparison.page([plain, other])
    summary, classes = text.split('<h2>Intersection over union by class</h2>')
    assert 'class="best">0.7' not in text and 'not comparable as they stand' in summary
    assert '0.7500' in summary and '0.750' in classes
  flip = comparison.summary([evaluated(run, evaluation(run, 0.75, mode='flip'))], ['a'])
  assert 'val, 9 images, flip (eval/val_flip.json)' in flip


def test_a_run_without_scores_keeps_its_column(run):
  bare = dataclasses.replace(run, path=run.path.with_name('bare'))
  text = comparison.classes([evaluated(run, evaluation(run, 0.5)), bare], ['first', 'bare'])
  assert '<th scope="col">first</th><th scope="col">bare</th>' in text
  assert text.count('<td>0.500</td><td>–</td>') == 4 and 'Not evaluated: bare.' in text


def test_what_comes_from_outside_is_escaped(run):
  evil = '<script>alert(1)</script>"&'
  classes = dataclasses.replace(run.classes, names=(evil, *run.classes.names[1:]))
  run = dataclasses.replace(
    run,
    classes=classes,
    run={'command': evil, 'system': evil},
    path=run.path / evil.replace('/', ''),
  )
  shot = images.Scored(evil, 0.5, {'image': 'data:image/png;base64,'}, (4, 4))
  found = images.Images(evil, 1, 1, (0.5,), np.eye(4, dtype=int), (shot,), ())
  for text in (
    single.page(run, found),
    comparison.page([run, run]),
    single.page(run, images.Images('val', problem=evil)),
  ):
    assert '<script' not in text and 'alt="image of <' not in text


def test_runs_side_by_side(trained, tmp_path, capsys):
  second = tmp_path / 'second'
  steps = ['--config.num_steps=2', '--config.eval_every=2', '--config.figures=0']
  launch('train', CONFIG, f'--workdir={second}', *steps, '--config.model_options.width=3')
  assert '<img' not in (second / 'report.html').read_text()
  launch('evaluate', f'--workdir={second}')
  launch('report', str(trained), str(second), f'--output={tmp_path}/both.html')
  assert capsys.readouterr().out.strip().endswith('both.html')
  text = (tmp_path / 'both.html').read_text()
  assert '2 runs side by side' in text and 'first, second' in text
  different = text.split('Where the configs differ')[1].split('</section>')[0]
  row = re.search(r'model_options.width</th>(.*?)</tr>', different).group(1)
  assert re.findall(r'<code>(\d+)</code>', row) == ['4', '3']
  assert 'model_options.depth' not in different and 'num_steps' in different
  assert '7,564' in text and 'polyline class="line line1"' in text


def test_a_failing_report_loses_no_training(trained, monkeypatch, capsys):
  monkeypatch.setattr(report, 'collect', lambda folder: 1 / 0)
  with Progress() as progress:
    report.after_training(trained, progress)
  out = capsys.readouterr().out
  assert out.count('\n') == 1 and out.startswith('no report: ZeroDivisionError')
  assert f'python launch/report.py {trained}' in out


def test_an_unfinished_run_gets_none_by_itself(run, monkeypatch):
  monkeypatch.setattr(
    report, 'collect', lambda folder: dataclasses.replace(run, records=[{'step': 3}])
  )
  monkeypatch.setattr(report, 'write', lambda *a, **k: pytest.fail('written'))
  with Progress() as progress:
    report.after_training(run.path, progress)


def test_without_the_data_the_rest_is_shown(run):
  config = ConfigDict({**run.config.to_dict(), 'dataset': 'camvid', 'data_dir': '/nowhere'})
  config.dataset_options = ConfigDict()
  gone = dataclasses.replace(run, config=config)
  found = images.score(gone, 'best', 5, 1e9, print)
  assert '/nowhere' in found.problem
  text = single.page(run, found)
  assert 'No image could be read' in text and 'Training loss' in text


def test_mistakes_are_one_line(trained, tmp_path):
  with pytest.raises(UserError, match='no run in'):
    report.write([tmp_path])
  with pytest.raises(UserError, match='given twice'):
    report.write([trained, trained])
  with pytest.raises(UserError, match='best, latest or one of the steps'):
    report.write([trained], step='3')
  with pytest.raises(UserError, match='can be written'):
    report.write([trained], '/proc/x/report.html', max_images=0)


def test_ticks_by_hand():
  assert charts.nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
  assert charts.nice_ticks(0.21, 0.93) == [0.2, 0.4, 0.6, 0.8, 1]
  assert charts.nice_ticks(0, 20_000) == [0, 5000, 10_000, 15_000, 20_000]
  assert charts.nice_ticks(3, 3)[0] <= 3 <= charts.nice_ticks(3, 3)[-1]
  assert charts.log_ticks(0.02, 5) == pytest.approx([0.01, 0.1, 1, 10])
  labels = [charts.label(v) for v in (0, 0.2, 0.00125, 2.5e-4, 1e-5, 15_000, 2e6)]
  assert labels == ['0', '0.2', '1.25e-3', '2.5e-4', '1e-5', '15k', '2M']


def test_a_chart_by_hand():
  text = charts.line_chart(
    'IoU <1>', {'a': [(0, 0.0), (50, 0.5), (100, 1.0), (100, float('nan'))]}, unit_range=True
  )
  path = re.search(r'polyline class="line line0" points="([^"]*)"', text).group(1)
  # left 58, right 480 - 12; bottom 250 - 30, top 10
  assert path == '58.0,220.0 263.0,115.0 468.0,10.0'
  assert 'IoU &lt;1&gt;' in text and '<title>a, step 50: 0.5</title>' in text
  assert charts.line_chart('empty', {'a': []}) == ''
  assert charts.thinned([(i, 2 * i) for i in range(800)])[:2] == [(0.5, 1.0), (2.5, 5.0)]


def test_the_run_is_recorded_once_more_at_every_start(tmp_path, monkeypatch):
  config = configs.load(f'{ROOT}/configs/unet_shapes.py:smoke')
  for command in (['launch/train.py', '--config=a b'], ['launch/train.py', '--resumed']):
    monkeypatch.setattr(sys, 'argv', command)
    folder = workdirs.Workdir(tmp_path, config)
    folder.keep_run('pmap over 8 cpu device(s)')
    folder.close()
  told = json.loads((tmp_path / 'run.json').read_text())
  assert told['command'] == 'python launch/train.py --resumed'
  assert [s['command'] for s in told['sessions']] == [
    "python launch/train.py '--config=a b'",
    'python launch/train.py --resumed',
  ]
  assert told['started'] == told['sessions'][0]['started']
  assert told['devices'] in told['hardware'] and 'cores' in told['hardware']
  assert {'python', 'jax', 'flax', 'numpy'} <= set(told['versions'])
  assert re.fullmatch(r'([0-9a-f]{40}\+?)?', told['git'])


def test_older_runs_without_a_record_are_read(tmp_path):
  assert workdirs.load_run(tmp_path) == {}
  (tmp_path / 'run.json').write_text('{"comm')
  assert workdirs.load_run(tmp_path) == {}


class FakeRun:
  def __init__(self, **arguments):
    self.arguments, self.logged, self.finished = arguments, [], False

  def log(self, values, step):
    self.logged.append((step, values))

  def finish(self):
    self.finished = True


def test_wandb_gets_scalars_and_pictures_when_asked(tmp_path, monkeypatch):
  fake, started = types.ModuleType('wandb'), []
  fake.init = lambda **arguments: started.append(FakeRun(**arguments)) or started[-1]
  fake.Image = lambda array: ('image', array.shape)
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  Writer(tmp_path).close()
  assert not started  # off unless a project is named
  for _ in range(2):
    writer = Writer(tmp_path, wandb='seg', config={'seed': 0})
    writer.write(5, {'train/loss': 2.0, 'train/bad': float('nan')})
    writer.picture(5, 'predictions', np.zeros((2, 3, 3), np.uint8))
    writer.close()
  first, second = started
  assert first.arguments['project'] == 'seg' and first.arguments['config'] == {'seed': 0}
  assert first.arguments['id'] == second.arguments['id'] and first.arguments['resume'] == 'allow'
  assert first.logged == [(5, {'train/loss': 2.0}), (5, {'predictions': ('image', (2, 3, 3))})]
  assert first.finished


def test_wandb_missing_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(UserError, match=r"pip install 'jaxseg\[wandb\]'"):
    Writer(tmp_path, wandb='seg')


@pytest.mark.browser
@pytest.mark.parametrize('width', [390, 1280])
def test_it_looks_right_in_a_browser(width, trained, run, tmp_path):
  """No error, no request, no scrolling sideways, nothing cut off; one run and two."""
  pages = {'one': trained / 'report.html', 'two': tmp_path / 'two.html'}
  other = dataclasses.replace(
    run, path=run.path.with_name('a_rather_long_name_of_another_run_' * 2)
  )
  pages['two'].write_text(comparison.page([run, other, other]))
  with Browser(width) as browser:
    for file in pages.values():
      browser.open(file)
      assert browser.errors == []
      outside = [u for u in browser.requests if not u.startswith('data:')]
      assert outside == [file.absolute().as_uri()]
      assert browser.run('return innerWidth') == width
      assert browser.run('return document.documentElement.scrollWidth') <= width
      assert browser.run(_OVERFLOWING) == []
      background = browser.run('return getComputedStyle(document.body).backgroundColor')
      assert background == 'rgb(245, 246, 248)'  # the policy lets the style in
      assert browser.run('return [...document.images].every(i => i.naturalWidth > 0)')
      browser.screenshot(tmp_path / 'page.png')
      assert (tmp_path / 'page.png').stat().st_size > 10_000


# Elements that stick out of the page and stand in no box that scrolls.
_OVERFLOWING = """
return [...document.querySelectorAll('main *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.right > document.documentElement.clientWidth + 1 && !e.closest('.scroll');
}).map(e => e.outerHTML.slice(0, 80));
"""
