"""A stuck read and a dead worker are errors in the process that waits, within its time limit."""

import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxseg.data import archives, image_files, label_check, mask_set, raw_files, threads
from jaxseg.data.frame import Frame
from jaxseg.data.loader import eval_batches, train_batches
from jaxseg.data.options import Data
from jaxseg.predict.evaluate import score_images
from jaxseg.types import SizeRule, StuckError, UserError
from tests.tiny_runs import make_experiment

ROOT = Path(__file__).resolve().parent.parent


class Source:
  """Eight tiny examples; reading the sixth does what the test wants."""

  name, split, identity = 'own', 'train', 'eight'
  num_classes, class_names = 1, ('ground',)

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


@pytest.fixture
def own(tmp_path, monkeypatch, never):
  """A folder of eight images and masks whose cache is empty; files called 5.png are never read."""
  for kind in ('images', 'masks'):
    (tmp_path / 'data' / 'train' / kind).mkdir(parents=True)
    for i in range(8):
      pixels = np.full((4, 4), i % 2, np.uint8)
      (tmp_path / 'data' / 'train' / kind / f'{i}.png').write_bytes(image_files.encode_png(pixels))
  read = raw_files.read_bytes
  held = lambda path: (path.name == '5.png' and never(), read(path))[1]  # noqa: E731
  monkeypatch.setattr(raw_files, 'read_bytes', held)
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'data'


def stuck_in(call, seconds=0.5) -> str:
  """Returns the line of the StuckError that a call ends with; one that hangs fails the test."""
  ended = Future()

  def run():
    try:
      with threads.time_limit(seconds):
        ended.set_result(call())
    except BaseException as error:
      ended.set_exception(error)

  threading.Thread(target=run, daemon=True).start()
  error = ended.exception(timeout=30.0)
  assert type(error) is StuckError
  assert '\n' not in str(error)
  return str(error)


def until_the_end(batches):
  """Returns the places of the examples that came, and the error that ended them."""
  found: list[int] = []
  with pytest.raises(UserError) as error:
    for _, batch in zip(range(8), batches, strict=False):
      found += [e['index'] for e in batch.get('examples', ())] or batch['index'].tolist()
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
  batches = eval_batches(Source(never), Frame(SizeRule()), batch_size=1, timeout=1.0)
  found, error = until_the_end(batches)
  assert error.type is StuckError and found == [0, 1, 2, 3, 4]


def test_a_file_whose_name_cannot_be_read_either_is_told_by_its_number(never):
  source = Source(never)
  source.file_name = never
  _, error = until_the_end(train_batches(source, (), seed=0, batch_size=1, timeout=1.0))
  assert 'with example 5 under way' in str(error.value)


def test_slow_is_not_stuck():
  """Each example takes a third of the time limit, a batch more than all of it."""
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
    if thread.name.startswith('batches'):
      thread.join(5.0)
      assert not thread.is_alive()


def test_a_stuck_label_in_the_scan_before_training(never, tmp_path):
  source = Source(lambda: None)
  source.label = lambda index: (index == 5 and never(), np.zeros((4, 4), np.uint8))[1]
  line = stuck_in(lambda: label_check.check(source, cache_dir=tmp_path))
  assert line.startswith('no data for 0.5 s, with 5.png under way')
  assert not list(tmp_path.rglob('*'))  # half a scan is not remembered


def test_a_stuck_file_while_records_are_built(own, tmp_path):
  """By the config's time limit; nothing of the build stays."""
  experiment = make_experiment(
    data_dir=str(own), num_classes=2, data=dict(name='folder', timeout=0.5)
  )
  (own / 'classes.txt').write_text('ground 0 0 0\ndisc 1 1 1\n')
  line = stuck_in(lambda: experiment.source('train'), seconds=600.0)
  assert line.startswith(f'no data for 0.5 s, with {own / "train/masks/5.png"} under way')
  assert not list((tmp_path / 'cache').rglob('*building*')) + list(
    (tmp_path / 'cache').rglob('rec*')
  )


def test_a_stuck_mask_while_its_ids_are_looked_for(own, tmp_path):
  line = stuck_in(lambda: mask_set.inspect(sorted((own / 'train/masks').iterdir())))
  assert f'with {own / "train/masks/5.png"} under way' in line
  assert not list((tmp_path / 'cache' / 'folder').rglob('*'))


def test_a_data_folder_on_a_dead_disk(never, monkeypatch):
  class Dead(type(Path())):
    is_dir = never

  monkeypatch.setattr(archives.files, 'to_path', Dead)
  assert 'with /mnt/dead under way' in stuck_in(lambda: archives.data_root('/mnt/dead'))


def test_a_stuck_image_while_an_evaluation_is_planned(never):
  """Sizes are read before there is a first batch."""
  frame, options = Frame(SizeRule()), dict(batch_size=2, timeout=0.5)
  line = stuck_in(lambda: eval_batches(Source(never), frame, **options), seconds=600.0)
  assert line.startswith('no data for 0.5 s, with 5.png under way')


def test_a_stuck_image_while_a_predictor_is_scored(never):
  experiment = SimpleNamespace(data=Data(timeout=0.5))
  predictor = SimpleNamespace(experiment=experiment, predict=lambda image, maps: {})
  score, done = SimpleNamespace(maps=False, add=lambda example, prediction: None), []
  line = stuck_in(lambda: score_images(predictor, Source(never), score, done.append), seconds=600.0)
  assert line.startswith('no data for 0.5 s, with 5.png under way')
  assert done == [1, 2, 3, 4, 5]


def test_one_slow_file_is_not_stuck_while_others_are_read():
  """The first takes longer than the time limit, but something is finished all the time."""
  wait, others = threading.Event().wait, threading.Semaphore(0)

  def read(index):
    if index == 0:
      return [others.acquire() for _ in range(14)] and index
    wait(0.1)
    others.release()
    return index

  options = dict(num_threads=2, prefetch=20, timeout=1.0)
  assert list(threads.results(read, range(15), **options)) == list(range(15))


def test_a_time_limit_holds_inside_of_it_and_may_be_none(never):
  items = iter(range(2))
  with threads.time_limit(0.2), pytest.raises(StuckError, match='no data for 0.2 s, with 1 under'):
    list(threads.results(lambda i: i and never(), items, name=str))
  with threads.time_limit(0.1):
    wait = threading.Event().wait
    assert list(threads.results(lambda i: wait(0.3), [0], timeout=0)) == [False]


@pytest.mark.parametrize(
  'job',
  [
    'list(train_batches(source, (), seed=0, batch_size=1, timeout=1.0))',
    'list(threads.examples(source, range(8), timeout=1.0))',
  ],
)
def test_a_stuck_process_ends(tmp_path, job):
  """A plain exit would wait for the thread that reads."""
  script = tmp_path / 'stuck.py'
  script.write_text(
    'import time\n'
    'from jaxseg import console\n'
    'from jaxseg.data import threads\n'
    'from jaxseg.data.loader import train_batches\n'
    'from tests.test_watchdog import Source\n'
    'source = Source(lambda: time.sleep(1e6))\n'
    f'console.run(lambda: {job})\n'
  )
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith('error: no data for 1 s, with 5.png under way')
  assert len(done.stderr.splitlines()) == 1
