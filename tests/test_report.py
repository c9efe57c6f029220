"""The report: right numbers, everything escaped, nothing loaded, readable on a phone."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg import config, report
from jaxseg.console import Progress
from jaxseg.datasets import shapes
from jaxseg.predict.ensemble import load
from jaxseg.report import comparison, images, render, single
from jaxseg.train import build
from jaxseg.train.journal import RunView
from jaxseg.train.run_folder import Classes
from jaxseg.train.writer import read_records
from jaxseg.types import UserError
from tests.browser import Browser
from tests.test_launch import launch
from tests.tiny_runs import make_workdir

ROOT = Path(__file__).resolve().parent.parent
CONFIG = f'--config={ROOT}/configs/unet_shapes.py:smoke'
SCORES = ('pixel_accuracy', 'mean_accuracy', 'mean_iou', 'frequency_weighted_iou')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir trained by the command line for four steps; training has written its report."""
  workdir = tmp_path_factory.mktemp('runs') / 'first'
  steps = ['--config.num_steps=4', '--config.eval.every=2', '--config.log.every=1']
  launch('train', CONFIG, f'--workdir={workdir}', *steps, '--config.log.figures=1')
  return workdir


@pytest.fixture(scope='module')
def page(trained):
  return (trained / 'report.html').read_text(encoding='utf-8')


@pytest.fixture
def run(trained):
  return report.collect(trained)


def with_settings(run, **changes):
  """The same run, as if its config said something else on top."""
  settings = dataclasses.replace(run.settings, **changes)
  experiment = dataclasses.replace(run.experiment, settings=settings)
  return dataclasses.replace(run, experiment=experiment)


def with_paper(run, **paper):
  """The same run, as if its config had a published number."""
  return with_settings(run, paper=paper)


def with_data(run, **changes):
  """The same run, as if it were of other data."""
  data = dataclasses.replace(run.experiment.data, **changes)
  return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=data))


def evaluation(run, iou, split='val', mode='', **more):
  """What evaluate.py writes, all scores alike; 3 pixels of each class, one more of class 1 as 2."""
  names = dict.fromkeys(run.classes.names, iou)
  confusion = (np.eye(4, dtype=int) * 3).tolist()
  confusion[1][2] = 1
  facts = {'split': split, 'step': 4, 'images': 9, 'mode': mode}
  classes = {'per_class_iou': names, 'per_class_accuracy': names, 'confusion': confusion}
  return facts | dict.fromkeys(SCORES, iou) | classes | more


def evaluated(run, *results, name=None):
  """The run with evaluations under the names that evaluate.py gives their files, without curves."""
  evaluations = {'_'.join(filter(None, (r['split'], r['mode']))): r for r in results}
  path = run.path.with_name(name) if name else run.path
  return dataclasses.replace(run, evaluations=evaluations, path=path, records=[])


def compared(*runs, found=None):
  return comparison.page(comparison.by_name(runs), found)


def plots(text):
  """The SVG of each plot of a page by its title."""
  pairs = re.findall(r'class="plot" src="data:image/svg\+xml;base64,([^"]*)" alt="([^"]*)"', text)
  return {unescape(title): base64.b64decode(data).decode() for data, title in pairs}


def test_training_ends_with_a_report(trained, page):
  best = max(r['eval/mean_iou'] for r in read_records(trained) if 'eval/mean_iou' in r)
  assert f'<div class="name">mean IoU</div><div class="value">{best:.4f}</div>' in page
  for words in ('first', 'triangle', '7,564 parameters', '4 steps, finished', 'learning_rate'):
    assert words in page
  assert 'launch/train.py \\\n  --config=' in unescape(page)
  assert page.count('<img') == 16 * 4 + 5 and len(page) < 5e6
  names = ['Training loss', 'Scores on val', 'Learning rate', 'Images per second']
  assert list(plots(page)) == [*names, 'Confusion matrix']
  assert not list(trained.glob('*.tmp'))


def test_the_page_loads_nothing_and_its_policy_says_so(page):
  policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
  assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
  sheet = re.search(r'<style>(.*?)</style>', page, re.S).group(1)
  digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
  assert f"'sha256-{digest}'" in policy and '&#' not in sheet
  assert not re.search(
    r'<script|<iframe|<object|<link (?!rel="icon" href="data:,")|style="|@import|url\(|\son\w+=',
    page,
  )
  assert all(s.startswith('data:image/') for s in re.findall(r'src="([^"]*)', page))
  for svg in plots(page).values():  # references within the picture are all that it has
    assert all(u.startswith(('#', 'data:')) for u in re.findall(r'href="([^"]*)', svg))


def test_figures_are_renewed_while_training(trained):
  names = {p.name for p in (trained / 'figures').iterdir()}
  assert names == {'predictions.png', 'curves.png', 'classes.png'}


def test_every_image_is_scored_and_worst_comes_first(run, trained):
  found = images.score(run, 'best', 200, 1e9, Progress())
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
  pixels = sum((source[i]['label'] != 255).sum() for i in range(16))
  assert found.total == 16 and np.sum(found.result['confusion']) == pixels


def test_scoring_is_capped_by_number_and_by_time(run, monkeypatch):
  monkeypatch.setattr(images, 'SHOWN', 1)
  found = images.score(run, 'best', 5, 1e9, Progress())
  assert len(found.scores) == 5 and len(found.worst) == len(found.best) == 1
  assert (found.worst[0].score, found.best[0].score) == (found.scores[0], found.scores[-1])
  assert len(images.score(run, 'best', 5, 0.0, Progress()).scores) == 1
  text = single.page(run, found)
  assert 'Worst images' in text and '5 of 16 images' in text


def test_photographs_become_jpeg_and_masks_png_with_their_colours():
  mask = np.zeros((16, 16, 3), np.uint8)
  mask[:, 8:] = 250, 200, 50
  noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
  example = {'image': noise, 'file_name': 7}
  shot = images._sample(example, [0.25], {'image': noise, 'truth': mask})
  assert (shot.name, shot.scores, shot.size) == ('7', (0.25,), (16, 16))
  kind, data = shot.pictures['truth'].split(';base64,')
  picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))
  assert kind == 'data:image/png' and (picture == mask).all()
  assert shot.pictures['image'].startswith('data:image/jpeg')


def test_the_papers_number_stands_beside_ours(run):
  run = evaluated(run, evaluation(run, 0.5, neurites={'rand_error': 0.125}))
  paper = dict(mean_iou=0.9, split='val', source='arXiv:1, table <2>')
  text = single.page(with_paper(run, **paper), None)
  assert 'paper 0.9000 <span class="bad">-0.4000</span>' in text
  assert 'paper, val' in text and 'table &lt;2&gt;' in text
  elsewhere = single.page(with_paper(run, mean_iou=0.9, split='test', source=''), None)
  assert 'paper 0.9000 on test<' in elsewhere and '<span class="bad">' not in elsewhere
  text = single.page(with_paper(run, mean_iou=0.0, rand_error=0.25, source=''), None)
  assert 'paper 0.0000 <span class="good">+0.5000</span>' in text
  assert 'paper 0.2500 <span class="good">-0.1250</span>' in text  # fewer errors


def test_an_evaluation_on_the_papers_split_comes_first(run):
  test = evaluation(run, 0.25, 'test', neurites={'rand_error': 0.125})
  run = evaluated(run, test, evaluation(run, 0.5))
  assert run.headline['split'] == 'val'
  tested = with_paper(run, mean_iou=0.2, split='test', source='')
  assert tested.headline['split'] == 'test'
  text = single.page(tested, None)
  matrix = plots(text)['Confusion matrix']  # the row of class 1: 3 and 1 of 4
  assert '>75</text>' in matrix and '>25</text>' in matrix
  assert 'disc → square</th><td>100.0%</td><td>25.0%</td>' in text
  assert '<b>rand error</b>' in text and '0.1250' in text and 'eval/test.json' in text
  shares = text.split('<h2>Classes</h2>')[1]
  assert re.findall(r'phoneless">([\d.]+%)', shares) == ['23.1%', '30.8%', '23.1%', '23.1%']


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


def test_what_it_trained_on_never_stands_for_a_run_nor_does_an_ensemble(run):
  """Whatever was evaluated last: the training split counts only where nothing else is known."""
  train = evaluation(run, 0.9, split='train')
  ours = {'runs': ['first', 'other']} | evaluation(run, 0.8, mode='with other')
  records = [{'step': 4, 'eval/mean_iou': 0.25}]
  seen = dataclasses.replace(evaluated(run, train, ours), records=records)
  assert (seen.headline['origin'], seen.headline['mean_iou']) == ('while training', 0.25)
  held_out = evaluated(run, train, ours, evaluation(run, 0.5, split='test'))
  assert held_out.headline['origin'] == 'eval/test.json'
  assert evaluated(run, train, ours).headline['origin'] == 'eval/train.json'
  assert 'val, with other' in single.page(held_out, None)


def test_confidence_and_breakdowns_are_shown_where_they_were_measured(run):
  curve = {'coverage': [0.5, 1.0], 'risk': [0.1, 0.25]}
  bins = {'confidence': [0.4, 0.9], 'accuracy': [0.5, 0.8], 'share': [0.25, 0.75]}
  by = {'north': {'images': 1200, 'mean_iou': 0.25}, 'south': {'images': 3, 'mean_iou': None}}
  more = dict(ece=0.125, reliability=bins, risk_coverage=curve, by_site=by)
  text = single.page(evaluated(run, evaluation(run, 0.5, **more)), None)
  assert list(plots(text)) == ['Confusion matrix', 'reliability', 'risk coverage']
  assert '<div class="name">ECE</div><div class="value">0.1250</div>' in text
  table = text.split('By site (val, 9 images)')[1].split('</table>')[0]
  assert re.findall(r'<td>(.*?)</td>', table) == ['1,200', '0.250', '3', '–']
  plain = single.page(evaluated(run, evaluation(run, 0.5)), None)
  assert 'Where it fails' not in plain and '<h2>Confidence</h2>' not in plain


def test_the_images_on_which_runs_differ_stand_side_by_side(run, trained, monkeypatch):
  """The second says ground everywhere; each image has the names of both and the larger gaps come first."""

  class Ground:
    def predict(self, image):
      return {'mask': np.zeros(image.shape[:2], np.uint8)}

  monkeypatch.setattr(images, 'SHOWN', 3)
  one = images._Run(run, 'best')
  other = images._Run(run, 'best')
  monkeypatch.setattr(other, '_predictor', Ground())
  pair = iter([one, other])
  monkeypatch.setattr(images, '_Run', lambda *_: next(pair))
  found = images.compare({'a': run, 'b': run}, 'best', 16, 1e9, Progress())
  assert (found.count, found.total, len(found.samples)) == (16, 16, 3) and sum(found.better) <= 16
  gaps = [abs(shot.scores[0] - shot.scores[1]) for shot in found.samples]
  assert gaps == sorted(gaps, reverse=True) and gaps[-1] > 0
  titles = ['image', 'truth', 'prediction, a', 'prediction, b', 'errors, a', 'errors, b']
  assert list(found.samples[0].pictures) == titles
  text = compared(run, dataclasses.replace(run, path=run.path.with_name('b')), found=found)
  gallery = text.split('<h2>The same images</h2>')[1].split('</section>')[0]
  assert (
    gallery.count('<img') == 3 * 6 and f'<b>first {found.samples[0].scores[0]:.3f}</b>' in gallery
  )
  assert f'scored one by one with step {one.step} of first, step {one.step} of b; shown' in gallery
  assert comparison.share_images([run, run])
  assert not comparison.share_images([run, with_data(run, options=dict(size=64))])


def test_where_the_time_went_is_shown_over_all_starts(run):
  sessions = [
    {'seconds': {'wall': 60.0, 'compile': 15.0, 'steps': 30.0, 'other': 15.0}},
    {'command': 'killed before its first save'},
    {'seconds': {'wall': 40.0, 'compile': 10.0, 'steps': 30.0, 'other': 0.0}},
  ]
  run = dataclasses.replace(run, provenance={'sessions': sessions})
  table = single.page(run, None).split('Where the time went')[1].split('</table>')[0]
  rows = dict(re.findall(r'<th scope="row">(.*?)</th>.*?(\d+%)', table))
  assert (rows['compile'], rows['steps'], rows['other']) == ('25%', '60%', '15%')
  assert '<td>1m40s</td>' in table and 'waiting for data' in rows
  assert 'wall time' in compared(run, dataclasses.replace(run, path=run.path.with_name('b')))
  older = dataclasses.replace(run, provenance={})
  assert 'Where the time went' not in single.page(older, None)


def test_only_what_is_scored_alike_has_a_best(run):
  better = evaluated(run, evaluation(run, 0.75), name='better')
  plain = evaluated(run, evaluation(run, 0.5))
  text = compared(plain, better)
  assert '<td class="best">0.7500</td>' in text and '<td class="best">0.750</td>' in text
  assert 'val, 9 images (eval/val.json)' in text and 'not comparable' not in text
  more_data = with_data(better, options=dict(size=32, count=17))
  same_truth = with_data(better, options=better.experiment.data.options | {'border_weight': True})
  assert comparison.comparable([plain, same_truth])
  assert comparison.comparable([plain, with_settings(better, data_dir='/elsewhere')])
  own = [with_data(with_settings(r, data_dir=f'/{r.name}'), name='folder') for r in (plain, better)]
  assert not comparison.comparable(own)
  files = [
    evaluated(run, evaluation(run, s) | {'data': d}, name=d) for s, d in ((0.5, 'a'), (0.7, 'b'))
  ]
  assert comparison.comparable([files[0], files[0], plain])
  assert not comparison.comparable(files)  # as after labels were corrected
  for other in (
    evaluated(run, evaluation(run, 0.75, mode='flip'), name='other'),
    evaluated(run, evaluation(run, 0.75, split='test'), name='other'),
    evaluated(run, evaluation(run, 0.75) | {'images': 8}, name='other'),
    more_data,
  ):
    text = compared(plain, other)
    summary, classes = text.split('<h2>IoU by class</h2>')
    assert 'class="best">0.7' not in text and 'not comparable as they stand' in summary
    assert '0.7500' in summary and '0.750' in classes


def test_of_errors_the_lowest_is_the_best():
  cells = comparison.ranked([0.5, None, 0.25], render.score, lower=True)
  assert cells == [('0.5000', False), ('–', False), ('0.2500', True)]


def test_a_run_without_scores_keeps_its_column(run):
  bare = dataclasses.replace(run, path=run.path.with_name('bare'))
  text = compared(evaluated(run, evaluation(run, 0.5)), bare)
  text = text.split('<h2>IoU by class</h2>')[1]
  assert '<th scope="col">first</th><th scope="col">bare</th>' in text
  assert text.count('<td>0.500</td><td>–</td>') == 4 and 'Not evaluated: bare.' in text


def test_what_comes_from_outside_is_escaped(run):
  evil = '<script>alert(1)</script>"&$x'
  classes = dataclasses.replace(run.classes, names=(evil, *run.classes.names[1:]))
  run = dataclasses.replace(
    run,
    evaluations={'val': evaluation(run, 0.5)},
    classes=classes,
    provenance={'command': evil, 'system': evil},
    path=run.path / evil.replace('/', ''),
  )
  shot = images.Sample(evil, (0.5,), {evil: 'data:image/png;base64,'}, (4, 4))
  found = images.Images(evil, 1, 1, (0.5,), worst=(shot,))
  for text in (
    single.page(run, found),
    compared(run, dataclasses.replace(run, path=run.path.with_name(evil[:20].replace('/', '')))),
    single.page(run, images.Images('val', problem=evil)),
  ):
    assert '&lt;script&gt;' in text and plots(text)
    for part in (text, *plots(text).values()):
      assert '<script' not in part and 'of <' not in part


def test_runs_side_by_side(trained, tmp_path, capsys):
  second = Path(shutil.copytree(trained, tmp_path / 'second'))
  launch('evaluate', f'--workdir={second}')
  config = json.loads((second / 'config.json').read_text())
  config['model']['dropout_rate'], config['num_steps'] = 0.5, 2
  (second / 'config.json').write_text(json.dumps(config))
  launch('report', str(trained), str(second), f'--output={tmp_path}/both.html')
  assert capsys.readouterr().out.strip().endswith('both.html')
  text = (tmp_path / 'both.html').read_text()
  assert '2 runs side by side' in text and 'first, second' in text
  assert 'val, 16 images (eval/val.json)' in text and '4 of 2' in text
  different = text.split('Where the configs differ')[1].split('</section>')[0]
  row = re.search(r'model.dropout_rate</th>(.*?)</tr>', different).group(1)
  assert re.findall(r'<code>(.*?)</code>', row) == ['0', '0.5']
  assert 'model.depth' not in different and 'num_steps' in different
  assert '7,564' in text and 'second: eval/mean_iou' in plots(text)['mean IoU']
  assert '<h2>The same images</h2>' in text and 'errors, second' in text


@pytest.fixture
def at_the_end(run, trained, tmp_path):
  """What the hooks of training get; a copy of the folder, which they write to."""
  trained = Path(shutil.copytree(trained, tmp_path / 'copy'))
  with Progress() as progress:
    yield RunView(run.experiment, trained, None, run.classes, None, progress)


def test_where_no_figures_are_wanted_no_image_is_scored(at_the_end):
  log = dataclasses.replace(at_the_end.experiment.log, figures=0)
  experiment = dataclasses.replace(at_the_end.experiment, log=log)
  report.Report().on_end(dataclasses.replace(at_the_end, experiment=experiment))
  assert (at_the_end.folder / 'report.html').read_text().count('<img') == 4  # the curves


def test_an_unfinished_run_gets_none_by_itself(at_the_end, run, monkeypatch):
  unfinished = dataclasses.replace(run, records=[{'step': 3}])
  monkeypatch.setattr(report, 'collect', lambda folder: unfinished)
  monkeypatch.setattr(report, 'write', lambda *a, **k: pytest.fail('written'))
  report.Report().on_end(at_the_end)


def test_without_the_data_the_rest_is_shown(run):
  gone = with_data(with_settings(run, data_dir='/nowhere'), name='camvid', options={})
  found = images.score(gone, 'best', 5, 1e9, Progress())
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
  mine = tmp_path / 'mine.html'
  for text in ('my notes {}', '<!doctype html> {} and what I think of it' + 400 * '.'):
    mine.write_text(text.format('<footer>Written by jaxseg.'))
    with pytest.raises(UserError, match='exists and is not a report'):
      report.write([trained], mine)


def test_a_line_a_run_and_a_plot_a_number():
  records = [{'step': 1, 'train/loss': 2.0, 'train/loss/xent': 1.0}, {'step': 2, 'eval/iou': 0.5}]
  charts = {'Loss': 'train/loss', 'Scores': 'eval/*', 'Rate': 'train/learning_rate'}
  both = render.curves({'a': records, 'b': records}, charts)
  assert list(both) == ['Loss', 'Scores']
  svg = base64.b64decode(both['Loss'].partition(',')[2]).decode()
  assert 'a: train/loss<' in svg and 'b: train/loss<' in svg and 'xent' not in svg
  alone = render.curves({'a': records}, {'Loss': 'train/loss'})['Loss']
  assert 'a: ' not in base64.b64decode(alone.partition(',')[2]).decode()


def test_numbers_and_names_by_hand():
  assert [render.score(v) for v in (0.5, 0.0, 0.00125, None)] == [
    '0.5000',
    '0.0000',
    '0.00125',
    '–',
  ]
  names = ['mean_iou', 'mask_ap50', 'boundary_f1', 'seg', 'box_ap', 'mask_ap_small', 'capacity']
  titles = ['mean IoU', 'mask AP50', 'boundary F1', 'SEG', 'box AP', 'mask AP small', 'capacity']
  assert [render.title(name) for name in names] == titles
  assert render.plain({'size': (2, 0.5), 'name': ''}) == "size=(2, 0.5), name=''"


def page_of_one(run):
  """A semantic run with everything that an evaluation can measure."""
  rows = {f'site {i}': dict(images=5, mean_iou=0.5, mean_accuracy=0.5) for i in range(3)}
  bins = {'confidence': [0.4, 0.9], 'accuracy': [0.5, 0.8], 'share': [0.25, 0.75]}
  curve = {'coverage': [0.5, 1.0], 'risk': [0.1, 0.25]}
  more = dict(ece=0.1, reliability=bins, risk_coverage=curve, by_site=rows, by_camera=rows)
  return single.page(
    evaluated(run, evaluation(run, 0.5, **more)), images.score(run, 'best', 8, 60, Progress())
  )


def page_of_instances(folder):
  """A run of Mask R-CNN that found its objects a little to the left."""
  experiment = build.experiment(config.load(f'{ROOT}/configs/mask_rcnn_dsb2018.py:smoke'))
  source, task = experiment.source('val'), experiment.task
  run = report.collect(
    make_workdir(folder, experiment, Classes(source.class_names, source.palette))
  )
  shots = []
  for i in range(3):
    prediction = {'ids': np.roll(source[i]['instances'], -3 * i, axis=1)}
    shots.append(images._sample(source[i], [0.5], task.draw(source[i], prediction, run.classes)))
  found = images.Images('val', 1, 3, (0.5,) * 3, {'per_class_ap': {'disc': 0.5}}, tuple(shots))
  return single.page(run, found)


def page_of_two(run):
  other = dataclasses.replace(
    run, path=run.path.with_name('a_rather_long_name_of_another_run_' * 2)
  )
  named = comparison.by_name([run, other])
  found = images.compare(dict.fromkeys(named, run), 'best', 8, 60, Progress())
  return comparison.page(named, found)


@pytest.mark.browser
@pytest.mark.parametrize('width', [390, 1280])
def test_it_looks_right_in_a_browser(width, run, tmp_path):
  """No error, no request, no scrolling sideways, nothing cut off, no hole; one run, of objects too, and two."""
  texts = page_of_one(run), page_of_instances(tmp_path / 'instances'), page_of_two(run)
  with Browser(width) as browser:
    for i, text in enumerate(texts):
      file = tmp_path / f'{i}.html'
      file.write_text(text)
      browser.open(file)
      assert browser.errors == []
      outside = [u for u in browser.requests if not u.startswith('data:')]
      assert outside == [file.absolute().as_uri()]
      assert browser.run('return innerWidth') == width
      assert browser.run('return document.documentElement.scrollWidth') <= width
      assert browser.run(_OVERFLOWING) == []
      assert browser.run(_HOLES) == []
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

# Cards and columns without content, pictures beside nothing, plots that leave some of their card empty, names that are
# not below their pictures.
_HOLES = """
const inner = e => e.clientWidth - parseFloat(getComputedStyle(e).paddingLeft) * 2;
const empty = [...document.querySelectorAll('.card, .stack, .charts, figcaption')]
  .filter(e => e.offsetHeight < 12 || !(e.textContent.trim() || e.querySelector('img')));
const alone = [...document.querySelectorAll('.views')].filter(e => {
  const last = e.lastElementChild.getBoundingClientRect();
  return last.right < e.getBoundingClientRect().right - 2;
});
const narrow = [...document.querySelectorAll('.card img.plot')]
  .filter(e => e.offsetWidth < inner(e.closest('.scroll') || e.closest('.card')) - 2);
const above = [...document.querySelectorAll('.shot figcaption')]
  .filter(e => e.getBoundingClientRect().top < e.previousElementSibling.getBoundingClientRect().bottom);
return [...empty, ...alone, ...narrow, ...above].map(e => e.outerHTML.slice(0, 120));
"""
