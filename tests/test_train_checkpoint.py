"""Checkpoints whose folder was left in a bad state."""

import json

import numpy as np
import pytest

from jaxseg.train.checkpoint import Checkpoints
from jaxseg.types import UserError


def tree(value):
  return {'a': np.full(3, value, np.float32)}


ROWS = [{'loss': 1.0}, {'loss': 3.0}]


@pytest.fixture
def folder(tmp_path):
  """Two steps, the first the better."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  for step, score in ((1, 0.5), (2, 0.4)):
    checkpoints.save(step, tree(step), {'mean_iou': score}, window=ROWS)
  checkpoints.wait()
  checkpoints.close()
  return tmp_path / 'checkpoints'


def test_what_a_killed_save_left_behind_is_removed(folder):
  half = folder / '3.orbax-checkpoint-tmp-17' / 'state'
  half.mkdir(parents=True)
  (half / 'x').write_text('')
  reader = Checkpoints(folder, read_only=True)
  assert reader.steps() == [1, 2] and half.is_dir()
  reader.close()
  writer = Checkpoints(folder)
  assert writer.steps() == [1, 2] and not half.parent.exists()
  writer.close()


def test_a_score_that_cannot_be_read_is_dropped_and_told(folder, capsys):
  (folder / '1' / 'metrics' / 'metrics').write_text('')
  with pytest.raises(UserError, match=r'checkpoints.1 is damaged: remove this folder'):
    Checkpoints(folder, read_only=True)
  checkpoints = Checkpoints(folder)
  assert 'the score of checkpoint' in capsys.readouterr().out
  assert checkpoints.steps() == [1, 2] and checkpoints.best_step() == 2
  np.testing.assert_array_equal(checkpoints.restore(tree(0), 1)['a'], [1, 1, 1])
  checkpoints.close()


def test_a_folder_that_is_no_step_is_nobodys(folder):
  mine = folder / '2024_thesis' / 'metrics' / 'metrics'
  mine.parent.mkdir(parents=True)
  mine.write_text('mine')
  Checkpoints(folder).close()
  assert mine.read_text() == 'mine'


@pytest.mark.parametrize('text', ['[]', '"x"', '[' * 50000, '{"commit_timestamp_nsecs": 1e300}'])
def test_a_time_that_cannot_be_read_is_dropped_and_told(text, folder, capsys):
  (folder / '2' / '_CHECKPOINT_METADATA').write_text(text)
  with pytest.raises(UserError, match=r'checkpoints.2 is damaged: remove this folder'):
    Checkpoints(folder, read_only=True)
  checkpoints = Checkpoints(folder)
  assert 'the time of checkpoint' in capsys.readouterr().out
  assert checkpoints.restore_newest(tree(0))[1] == 2
  checkpoints.close()


@pytest.mark.parametrize('score', ['"0.9"', '[1]', 'null'])
def test_a_score_that_is_no_number_is_dropped(score, folder):
  (folder / '1' / 'metrics' / 'metrics').write_text(f'{{"mean_iou": {score}}}')
  checkpoints = Checkpoints(folder)
  assert checkpoints.best_step() == 2
  checkpoints.close()


SUMS = {"['a']": 0}


@pytest.mark.parametrize(
  'meta',
  [
    [1],
    None,
    {'step': 2},
    {'checksums': []},
    {'checksums': 'x'},
    {'checksums': SUMS, 'window': 5},
    {'checksums': SUMS, 'window': ['a']},
    {'checksums': SUMS, 'window': [{'loss': 'x'}]},
    {'checksums': SUMS, 'window': [{'loss': 1.0}, {}]},
  ],
)
def test_a_newest_checkpoint_of_another_form_gives_way_to_the_one_before(meta, folder, capsys):
  (folder / '2' / 'meta' / 'metadata').write_text(json.dumps(meta))
  checkpoints = Checkpoints(folder)
  restored, step = checkpoints.restore_newest(tree(0))
  assert step == 1 and restored['a'][0] == 1 and checkpoints.window(1) == ROWS
  assert 'trying the one before' in capsys.readouterr().out
  assert (folder / 'unreadable_2').is_dir() and checkpoints.steps() == [1]
  checkpoints.close()
