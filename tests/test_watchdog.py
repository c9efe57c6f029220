"""A stuck read and a dead worker are errors in the process that waits, within its patience."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from jaxseg.pipeline.loader import eval_batches, train_batches
from jaxseg.types import SizeRule, StuckError, UserError

ROOT = Path(__file__).resolve().parent.parent


class Source:
  """Eight tiny examples; reading the sixth does what the test wants."""

  def __init__(self, at_five):
    self._at_five = at_five

  def __len__(self):
    return 8

  def __getitem__(self, index):
    if index == 5:
      self._at_five()
    image = np.full((4, 4, 3), index, np.uint8)
    return {'image': image, 'label': np.zeros((4, 4), np.uint8), 'file_name': f'{index}.png'}

  def file_name(self, index):
    return f'{index}.png'


@pytest.fixture
def never():
  """Waits until the test is over."""
  event = threading.Event()
  yield event.wait
  event.set()


def until_the_end(batches) -> list[int]:
  found: list[int] = []
  with pytest.raises(UserError) as error:
    for _, batch in zip(range(8), batches, strict=False):
      found += batch['index'].tolist()
  assert '\n' not in str(error.value)
  return found, error


def test_a_stuck_read_is_told_with_its_file(never):
  batches = train_batches(Source(never), (), seed=0, batch_size=1, timeout=1.0)
  found, error = until_the_end(batches)
  assert error.type is StuckError
  assert 'no data for 1 s, with 5.png under way' in str(error.value)
  assert 5 not in found
  with pytest.raises(StopIteration):  # it is over, and does not wait again
    next(batches)


def test_a_stuck_read_in_evaluation(never):
  options = dict(batch_size=1, size_rule=SizeRule(), timeout=1.0)
  found, error = until_the_end(eval_batches(Source(never), **options))
  assert error.type is StuckError and found == [0, 1, 2, 3, 4]


def test_a_file_whose_name_cannot_be_read_either_is_told_by_its_number(never):
  source = Source(never)
  source.file_name = never
  _, error = until_the_end(train_batches(source, (), seed=0, batch_size=1, timeout=1.0))
  assert 'with example 5 under way' in str(error.value)


def test_slow_is_not_stuck():
  """Each example takes a third of the patience, a batch more than all of it."""
  wait = threading.Event().wait
  batches = train_batches(
    Source(lambda: None),
    (lambda example, rng: (wait(0.2), example)[1],),
    seed=0,
    batch_size=8,
    timeout=0.6,
  )
  assert sorted(next(batches)['index'].tolist()) == list(range(8))
  batches.close()


def test_a_worker_that_ends_is_an_error():
  _, error = until_the_end(
    train_batches(Source(lambda: sys.exit('enough')), (), seed=0, batch_size=1, timeout=9.0)
  )
  assert 'a thread that makes batches ended with SystemExit: enough' in str(error.value)


def test_what_a_source_raises_comes_out_as_it_is():
  def fail():
    raise KeyError('no such record')

  batches = train_batches(Source(fail), (), seed=0, batch_size=1, timeout=9.0)
  with pytest.raises(KeyError, match='no such record'):
    for _ in range(8):
      next(batches)


def test_the_thread_goes_with_the_batches():
  batches = train_batches(Source(lambda: None), (), seed=0, batch_size=1, timeout=9.0)
  next(batches)
  batches.close()
  for thread in threading.enumerate():
    if thread.name == 'batches':
      thread.join(5.0)
      assert not thread.is_alive()


def test_a_stuck_process_ends(tmp_path):
  """A plain exit would wait for the thread that reads."""
  script = tmp_path / 'stuck.py'
  script.write_text(
    'import time\n'
    'from jaxseg import command\n'
    'from jaxseg.pipeline.loader import train_batches\n'
    'from tests.test_watchdog import Source\n'
    'source = Source(lambda: time.sleep(1e6))\n'
    'command.run(lambda: list(train_batches(source, (), seed=0, batch_size=1, timeout=1.0)))\n'
  )
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith('error: no data for 1 s, with 5.png under way')
  assert len(done.stderr.splitlines()) == 1
