"""Where numbers go beside metrics.jsonl: Weights & Biases, when a project is named."""

import sys
import types

import numpy as np
import pytest

from jaxseg.train.writer import Writer, best_score
from jaxseg.types import UserError


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
  with pytest.raises(UserError, match=r"pip install -e '.*\[wandb\]'"):
    Writer(tmp_path, wandb='seg')


def test_the_best_score_and_what_has_followed():
  """An equal score is no better one; an evaluation without the score counts as one that was not."""
  log = [{'step': 1, 'eval/iou': 0.2}, {'step': 2, 'train/loss': 9.0}, {'step': 2, 'eval/iou': 0.3}]
  assert best_score(log, 'iou') == (0.3, 0)
  log += [{'step': 3, 'eval/iou': 0.3}, {'step': 4, 'eval/other': 1.0}]
  assert best_score(log, 'iou') == (0.3, 2)
  assert best_score([], 'iou') == (0.0, 0)
