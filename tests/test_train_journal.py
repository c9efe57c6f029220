"""The journal: hooks that fail are told, one that is stuck ends the run; times go to the run folder."""

import json
from types import SimpleNamespace

import pytest

from jaxseg.train.journal import Journal
from jaxseg.train.times import Times
from jaxseg.types import StuckError


class Hook:
  remedy = 'draw it by hand'

  def __init__(self, error):
    self._error = error

  def on_evaluation(self, run, step, variables, summary):
    raise self._error

  def on_end(self, run):
    raise self._error


class Checkpoints:
  def window(self, step):
    return []

  def save(self, *_, **__):
    pass

  wait = close = save


@pytest.fixture
def make(tmp_path):
  """Returns a function of hooks: the journal of a run that has started, and the lines it says."""
  (tmp_path / 'run.json').write_text(json.dumps({'command': 'x', 'sessions': [{}, {'git': 'y'}]}))
  lines = []
  with Times() as times:

    def journal(*hooks):
      task = SimpleNamespace(headline='mean_iou')
      writer = SimpleNamespace(sync=lambda: None, close=lambda: None)
      run = SimpleNamespace(
        experiment=SimpleNamespace(task=task),
        folder=tmp_path,
        writer=writer,
        progress=SimpleNamespace(say=lines.append),
      )
      return Journal(run, Checkpoints(), times, hooks, step=4), lines

    yield journal


def test_a_hook_that_fails_is_told_with_its_remedy(make):
  journal, lines = make(Hook(ValueError('a\nb')), Hook(ZeroDivisionError()))
  journal.on_evaluation(8, None, {})
  journal.on_end()
  assert lines[:3] == [
    'warning: no hook at step 8: ValueError: a b; draw it by hand',
    'warning: no hook at step 8: ZeroDivisionError: ; draw it by hand',
    'warning: no hook at the end: ValueError: a b; draw it by hand',
  ]


def test_a_hook_that_is_stuck_ends_the_run(make):
  """Its thread would keep a process that only tells of it."""
  journal, lines = make(Hook(StuckError('no data')))
  for call in (lambda: journal.on_evaluation(8, None, {}), journal.on_end):
    with pytest.raises(StuckError):
      call()
  assert not lines


def test_times_are_kept_at_every_save_and_at_the_end(make, tmp_path):
  journal, lines = make()
  for step in (6, 8):
    journal.save(step, None, None, [])
    first, second = json.loads((tmp_path / 'run.json').read_text())['sessions']
    assert first == {} and second['git'] == 'y' and second['steps'] == [4, step]
  before = second['seconds']
  journal.on_end()
  run = json.loads((tmp_path / 'run.json').read_text())
  assert run['command'] == 'x' and run['sessions'][1]['seconds']['wall'] >= before['wall']
  assert lines[-1].startswith('time      0s in 2 starts: ')
