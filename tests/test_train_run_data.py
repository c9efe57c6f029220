"""A run is resumed on the files that it began with, or says what differs."""

import json
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxseg import config as configs
from jaxseg.predict import result_file
from jaxseg.predict.evaluate import evaluate_workdir
from jaxseg.predict.runs import open_runs
from jaxseg.train import run_data, train
from jaxseg.train.run_folder import Classes, RunFolder
from jaxseg.types import UserError
from tests.bad_inputs import good_folder
from tests.test_bad_input import CONFIG
from tests.tiny_runs import PALETTE, make_experiment, make_workdir

BEFORE = {'train': {'a': '1', 'b': '2', 'c': '3'}, 'val': {'x': '9'}}


@pytest.mark.parametrize(
  ('now', 'words'),
  [
    ({'a': '2', 'b': '1', 'c': '3'}, r'train: 2 other files or labels \(a, b\)'),
    ({'a': '1', 'c': '3', 'd': '4'}, r'train: 1 new \(d\), 1 gone \(b\)'),
    ({'b': '2', 'a': '1', 'c': '3'}, 'train: another order'),
  ],
)
def test_what_differs_is_told(now, words, tmp_path):
  run_data.write(tmp_path, BEFORE)
  run_data.check(tmp_path, BEFORE)
  with pytest.raises(UserError, match=f'not those .*{words}.*config.data.changed=True'):
    run_data.check(tmp_path, {'train': now})
  assert run_data.summary(BEFORE) != run_data.summary({**BEFORE, 'train': now})


def test_splits_of_other_starts_are_kept_and_older_runs_compare_nothing(tmp_path):
  run_data.check(tmp_path, BEFORE)  # kept nothing
  run_data.write(tmp_path, BEFORE)
  run_data.write(tmp_path, {'test': {'t': '5'}})
  with pytest.raises(UserError, match=r'val: 1 gone'):
    run_data.check(tmp_path, {'val': {}})
  (tmp_path / 'data.json').write_text('[1')
  run_data.check(tmp_path, {'val': {}})


@pytest.mark.parametrize(
  'text', ['', 'nul', '[]', '{"val": []}', '{"val": {"x": [9]}, "train": {}}']
)
def test_digests_that_cannot_be_read_are_told(text, tmp_path, capsys):
  split = SimpleNamespace(split='val', digests={'x': '9'}.items())
  run_data.check(tmp_path, BEFORE)
  assert run_data.check_held_out(tmp_path, split, 'train') == capsys.readouterr().out == ''
  (tmp_path / 'data.json').write_text(text)
  told = f'warning: {tmp_path}/data.json cannot be read: the files are not compared with'
  run_data.check(tmp_path, BEFORE)
  assert capsys.readouterr().out.startswith(told)
  assert (
    run_data.check_held_out(tmp_path, split, 'train') == run_data.of_split(tmp_path, 'val') == ''
  )
  assert capsys.readouterr().out.startswith(told)
  run_data.write(tmp_path, BEFORE)  # known again from here on
  run_data.check(tmp_path, BEFORE)
  assert capsys.readouterr().out == ''


def test_what_trained_is_not_held_out(tmp_path):
  """Where a part is held out by names, further images shift the others."""
  run_data.write(tmp_path, BEFORE)

  def changes(split='val', **now):
    return run_data.check_held_out(
      tmp_path, SimpleNamespace(split=split, digests=now.items()), 'train'
    )

  assert changes(x='9') == changes('train', a='1') == changes('test', a='1') == ''
  assert changes(x='9', a='7') == '1 new (a)'  # another image of that name
  assert changes(x='8') == '1 other files or labels (x)'
  with pytest.raises(
    UserError, match=r'trained on 2 images that val has now \(a, b\): .*another --split'
  ):
    changes(x='9', a='1', b='2')
  with pytest.raises(UserError, match=r'trained on 1 images that val has now \(renamed\)'):
    changes(x='9', renamed='2')
  (tmp_path / 'data.json').unlink()
  assert changes(a='1') == ''


def test_scores_of_nothing_can_be_read(tmp_path):
  result = {
    'split': 'val',
    'step': 1,
    'images': 2,
    'mode': '',
    'mean_iou': math.nan,
    'per_class_iou': {'a': None},
  }
  written = result_file.write(result, tmp_path / 'eval/val.json', ('a', 'b'))
  assert math.isnan(written['mean_iou'])
  assert result_file.read(tmp_path / 'eval/val.json') == result | {'mean_iou': None}


def test_a_run_names_the_classes_of_its_network(tmp_path):
  run = make_workdir(tmp_path / 'run', make_experiment(), Classes(('a', 'b', 'c'), PALETTE[:3]))
  with pytest.raises(UserError, match='classes.json names 3 classes, and the network has 4'):
    open_runs(run)


def test_results_of_weights_that_are_gone_are_no_results_of_a_new_run(tmp_path):
  run = make_workdir(tmp_path / 'run', make_experiment())
  (run / 'eval').mkdir()
  (run / 'eval/val.json').write_text('{}')
  RunFolder(run, make_experiment().config).close()
  shutil.rmtree(run / 'checkpoints')
  with pytest.raises(
    UserError, match='no checkpoints, but results of earlier ones .val.json.: remove eval/'
  ):
    RunFolder(run, make_experiment('seed=7').config)
  (run / 'eval/val.json').rename(run / 'temperature.json')
  with pytest.raises(UserError, match='results of earlier ones .temperature.json.'):
    RunFolder(run, make_experiment().config)
  (run / 'temperature.json').unlink()
  RunFolder(run, make_experiment('seed=7').config).close()


def test_other_scores_after_a_resume_are_told(tmp_path):
  run = make_workdir(tmp_path / 'run', make_experiment())
  folder = RunFolder(run, make_experiment('eval_split=train', 'eval.scales=0.5,1').config)
  folder.close()
  assert folder.notes == [
    "note      eval_split is 'train' from here on, 'val' before: the best checkpoint is chosen by scores of both",
    'note      eval.scales is (0.5, 1.0) from here on, (1.0,) before: the best checkpoint is chosen by scores of both',
  ]


def test_classes_keep_their_numbers(tmp_path):
  """Names may change, but none may stand for what the network knows under another one."""
  experiment = make_experiment()
  names = ('background', 'disc', 'square', 'triangle')
  assert experiment.source('val', ('ground', 'disc', 'square', 'triangle')).class_names == names
  for trained in (
    ('background', 'square', 'disc', 'triangle'),
    ('disc', 'square', 'triangle', 'x'),
  ):
    with pytest.raises(UserError, match='trained on the classes .*, but the data have background'):
      experiment.source('val', trained)
  run = make_workdir(tmp_path / 'run', experiment, Classes(names[::-1], PALETTE))
  with pytest.raises(UserError, match='trained on the classes triangle, square'):
    evaluate_workdir(run)
  with pytest.raises(UserError, match='trained on the classes triangle, square'):
    train.train(experiment.config, run)
  assert json.loads((run / 'classes.json').read_text())['names'] == [*names[::-1]]


def test_generated_data_have_no_files():
  assert run_data.digests(SimpleNamespace(split='train')) == {}


def test_a_run_is_not_resumed_on_other_masks(tmp_path, monkeypatch):
  """Two classes exchanged in one mask, behind the same size and time."""
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  good_folder(tmp_path / 'own')
  (tmp_path / 'config.py').write_text(CONFIG)
  overrides = (f'data_dir={tmp_path}/own', 'model.depth=1', 'num_steps=4', 'cpu_devices=1')
  config = configs.load(str(tmp_path / 'config.py'), overrides)
  train.train(config, tmp_path / 'run', stop_at=1)
  mask = tmp_path / 'own/train/masks/b.png'
  times = mask.stat()
  ids = np.asarray(Image.open(mask))
  Image.fromarray(np.where(ids == 1, 2, np.where(ids == 2, 1, ids)).astype(np.uint8)).save(mask)
  os.utime(mask, ns=(times.st_atime_ns, times.st_mtime_ns))
  with pytest.raises(UserError, match=r'train: 1 other files or labels \(b.png\)'):
    train.train(config, tmp_path / 'run', stop_at=2)
  (tmp_path / 'own/classes.txt').write_text('road\nground\ncar\n')
  with pytest.raises(UserError, match=r'train: 3 other files or labels .*val: 2 other files'):
    train.train(config, tmp_path / 'run', stop_at=2)
  allowed = configs.load(str(tmp_path / 'config.py'), (*overrides, 'data.changed=True'))
  train.train(allowed, tmp_path / 'run', stop_at=2)
  train.train(config, tmp_path / 'run', stop_at=3)  # these are the run's now
