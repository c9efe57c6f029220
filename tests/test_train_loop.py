"""The loop alone, with a step that counts: when it logs, evaluates, saves, skips and stops."""

import os
import signal

import numpy as np
import pytest

from jaxseg.train.loop import Loop
from jaxseg.train.times import Profile, Times
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment


class Journal:
  """Remembers what it is told."""

  def __init__(self, window=()):
    self.window = window
    self.saved, self.lines, self.logged, self.shown, self.waits = [], [], [], [], 0

  def say(self, line):
    self.lines.append(line)

  show = say

  def write(self, step, scalars):
    self.logged.append((step, scalars))

  def save(self, step, state, scores, window):
    self.saved.append((step, state, scores and scores['mean_iou'], [w['loss'] for w in window]))

  def on_evaluation(self, step, variables, summary):
    self.shown.append((step, variables))

  def wait(self):
    self.waits += 1


class State(int):
  """The number of steps done, which knows how to be evaluated."""

  variables = property(lambda self: {'params': int(self)})


class Batches:
  """Batch i holds example i."""

  waited_seconds = 0.0

  def __init__(self, start=0):
    self.step = start

  def __iter__(self):
    return self

  def __next__(self):
    self.step += 1
    return {'image': np.zeros(1), 'index': np.array([self.step - 1])}


class Wrapper:
  def place_batch(self, batch):
    assert 'index' not in batch
    return batch


def run(
  *overrides, start=0, last=None, spoil=None, window=(), signals=None, scores=None, best=(0.25, 0)
):
  """Runs the loop; the loss of step i is i, spoil(i) changes its metrics, signals[i] comes in it.

  The score is i / 10, or scores[i].
  """
  settings = ('num_steps=8', 'log.every=3', 'eval.every=4', 'log.checkpoint_every=5')
  experiment, journal = make_experiment(*settings, *overrides), Journal(window)

  def step(state, batch, key):
    number = int(state) + 1
    if signals and number in signals:
      os.kill(os.getpid(), signals[number])
    metrics = {'loss': number, 'grad_norm': 1.0, 'finite': 1.0, 'invalid': 0.0}
    return State(number), metrics | (spoil(number) if spoil else {})

  times = journal.times = Times()
  loop = Loop(
    experiment,
    journal,
    times,
    Profile(),
    evaluate=lambda variables: {
      'mean_iou': scores[variables['params']] if scores else variables['params'] / 10,
      'confusion': [],
    },
    schedule=lambda step: 0.5 ** int(step),
    source=[{'file_name': f'{i}.png'} for i in range(20)],
    best=best,
  )
  last = experiment.settings.num_steps if last is None else last
  with times:
    summary = loop.run(step, Wrapper(), State(start), Batches(start), None, start, last)
  journal.interrupted = loop.interrupted
  return journal, summary


def losses(journal):
  return [(s, v['train/loss']) for s, v in journal.logged if 'train/loss' in v]


def test_it_logs_evaluates_and_saves_in_its_rhythm():
  journal, summary = run()
  assert losses(journal) == [(3, 2.0), (6, 5.0), (8, 7.5)]  # means since the last line
  assert [(s, v['eval/mean_iou']) for s, v in journal.logged if len(v) == 1] == [(4, 0.4), (8, 0.8)]
  assert [(s, score) for s, _, score, _ in journal.saved] == [(4, 0.4), (5, None), (8, 0.8)]
  assert journal.saved[1][3] == [4, 5]  # the open window travels with the checkpoint
  assert journal.shown == [(4, {'params': 4}), (8, {'params': 8})]
  assert summary['mean_iou'] == 0.8
  rates = [v['train/learning_rate'] for _, v in journal.logged if 'train/loss' in v]
  assert rates == [0.5**2, 0.5**5, 0.5**7]  # of the step that was done last
  assert any('mIoU 0.400 (best 0.400)' in line for line in journal.lines)


def test_it_goes_on_from_a_checkpoint_with_its_window():
  journal, _ = run(
    start=5, window=[{'loss': 4.0, 'grad_norm': 1.0}, {'loss': 5.0, 'grad_norm': 1.0}]
  )
  assert losses(journal) == [(6, 5.0), (8, 7.5)]


def test_it_stops_and_saves_where_it_is_told_to():
  journal, summary = run(last=2)
  assert [s for s, *_ in journal.saved] == [2] and summary == {}
  assert journal.lines[-1] == 'stopped and saved at step 2; the same command resumes from there'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_after_the_step_that_is_under_way(number):
  outer, before = signal.getsignal(number), signal.default_int_handler
  signal.signal(number, before)  # a suite that runs under nohup ignores SIGHUP
  try:
    journal, _ = run(signals={2: number})
    assert signal.getsignal(number) is before
  finally:
    signal.signal(number, outer)
  assert [(s, score) for s, _, score, _ in journal.saved] == [(2, None)]
  assert 'stopped and saved at step 2' in journal.lines[-1]
  assert journal.interrupted == (number == signal.SIGINT)


def test_under_nohup_it_goes_on():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    journal, summary = run(signals={2: signal.SIGHUP})
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)
  assert summary['mean_iou'] == 0.8 and not journal.interrupted


def test_the_interrupt_of_the_last_step_is_one_too():
  journal, summary = run(signals={8: signal.SIGINT})
  assert journal.interrupted and summary['mean_iou'] == 0.8


def test_it_ends_where_no_score_has_been_better_for_long():
  scores = {1: 0.3, 2: 0.2, 3: 0.4, 4: 0.4, 5: 0.1, 6: 0.9}
  options = ('eval.every=1', 'eval.patience=2', 'num_steps=6')
  told = (
    'finished at step 5 of 6: no better mIoU than 0.4000 in 2 evaluations (config.eval.patience)'
  )
  for start, best in ((0, (0.25, 0)), (4, (0.4, 1)), (5, (0.4, 2))):
    journal, _ = run(*options, scores=scores, start=start, best=best)
    assert [s for s, *_ in journal.saved] == list(range(start + 1, 6))
    assert journal.lines[-1] == told and not any('resumes' in line for line in journal.lines)
  journal, _ = run('eval.every=1', 'eval.patience=0', 'num_steps=6', scores=scores)
  assert journal.saved[-1][0] == 6 and not any('finished' in line for line in journal.lines)


def not_finite(*steps, **counts):
  return lambda step: {'loss': np.nan, 'finite': 0.0, **counts} if step in steps else {}


def test_a_loss_that_is_not_finite_ends_it_and_names_the_file():
  with pytest.raises(
    UserError, match=r'step 2: loss nan, gradient norm 1, on the images 1.png; the'
  ):
    run(spoil=not_finite(2))


def test_so_many_in_a_row_are_told_and_left_out_of_the_log():
  counts = dict(skipped=1.0, skipped_in_a_row=1.0)
  journal, _ = run('optim.apply_if_finite=1', spoil=not_finite(2, **counts))
  assert losses(journal)[0] == (3, 2.0)  # of steps 1 and 3
  assert any(
    'step 2 is skipped (1 in a row, at most 1): loss nan' in line for line in journal.lines
  )
  with pytest.raises(UserError, match='step 2'):
    run('optim.apply_if_finite=1', spoil=not_finite(2, skipped=2.0, skipped_in_a_row=2.0))


def test_labels_outside_the_classes_end_it():
  with pytest.raises(UserError, match=r'step 3: 7 labels .* the 4 classes, in one of 2.png$'):
    run(spoil=lambda step: {'invalid': 7.0} if step == 3 else {})
