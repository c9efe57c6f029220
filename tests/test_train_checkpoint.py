"""Checkpoints whose folder was left in a bad state."""

import numpy as np
import pytest

from jaxseg.train.checkpoint import Checkpoints
from jaxseg.types import UserError


def tree(value):
  return {'a': np.full(3, value, np.float32)}


@pytest.fixture
def folder(tmp_path):
  """Two steps, the first the better."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  for step, score in ((1, 0.5), (2, 0.4)):
    checkpoints.save(step, tree(step), {'mean_iou': score})
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
