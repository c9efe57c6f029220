"""Straight 2N steps and N + resume + N end in the same bits; damaged checkpoints are told."""

import contextlib
import gc
import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg import report
from jaxseg.train import budget, build, loop, train
from jaxseg.train import run_folder as workdirs
from jaxseg.train.checkpoint import Checkpoints, checksums
from jaxseg.train.run_folder import RunFolder
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent
TINY = (
  'model.width=2',
  'model.depth=1',
  'model.dropout_rate=0.3',
  'data.options.size=16',
  'data.options.count=6',
  'augment.photometric.brightness=0.3',
  'num_steps=6',
  'batch_size=4',
  'eval.every=3',
  'log.checkpoint_every=2',
  'log.every=1',
  'log.figures=1',
  'compile_cache=',
)


def tiny(*overrides):
  return configs.load(f'{ROOT}/configs/unet_shapes.py:smoke', (*TINY, *overrides))


def saved(workdir: Path, step: int) -> dict:
  """Returns every array of a checkpoint, as Orbax has it on disk."""
  import orbax.checkpoint as ocp

  restored = ocp.CheckpointManager(workdir / 'checkpoints').restore(
    step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore())
  )
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored['state'])
  }


def lines(workdir: Path) -> list[dict]:
  """Returns the metrics without the times."""
  records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{k: v for k, v in r.items() if not k.startswith('time/')} for r in records]


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('straight')
  train.train(tiny(), workdir, hooks=report.hooks())
  return workdir


def test_a_training_keeps_its_state_once(tmp_path, monkeypatch):
  """From the first step on: no copy of what it began with, nor of what evaluation and saving took.

  Python's collector of cycles is off: nothing may wait for it.
  """
  others = {
    id(array): array for array in jax.live_arrays()
  }  # held, so that no number is used again
  alive, check = [], loop.Loop._check_last_step

  def spy(self):
    if self._unchecked:  # at every step, once the device has done it
      jax.block_until_ready(self._unchecked[1])
      mine = [array for array in jax.live_arrays() if id(array) not in others]
      alive.append(sum(array.shape == (3, 3, 3, 2) for array in mine))
    check(self)

  monkeypatch.setattr(loop.Loop, '_check_last_step', spy)
  gc.disable()
  try:
    train.train(tiny('optim.name=adam'), tmp_path)
  finally:
    gc.enable()
  assert set(alive) == {3} and len(alive) == 6, str(alive)  # the first kernel and Adam's moments


def test_a_workdir_holds_what_the_readme_says(straight):
  names = {p.name for p in straight.iterdir()}
  assert {'config.json', 'classes.json', 'metrics.jsonl', 'checkpoints', 'figures'} <= names
  assert any(n.startswith('events.out.tfevents') for n in names)
  assert (straight / 'figures' / 'predictions.png').stat().st_size > 100
  steps = [r['step'] for r in lines(straight) if 'train/loss' in r]
  assert steps == [1, 2, 3, 4, 5, 6]
  assert [r['step'] for r in lines(straight) if 'eval/mean_iou' in r] == [3, 6]


@pytest.mark.parametrize('stop', [2, 5])
def test_resume_is_bit_identical(straight, tmp_path, stop):
  train.train(tiny(), tmp_path, stop_at=stop)
  assert [r['step'] for r in lines(tmp_path) if 'train/loss' in r][-1] == stop
  train.train(tiny(), tmp_path)
  a, b = saved(straight, 6), saved(tmp_path, 6)
  assert a.keys() == b.keys() and len(a) > 20
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  assert lines(tmp_path) == lines(straight)


def test_lines_past_the_restored_step_are_dropped(straight, tmp_path):
  train.train(tiny(), tmp_path, stop_at=4)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 5, "train/loss": 99}\n{"step": 6, "trai')  # written, but never saved
  train.train(tiny(), tmp_path)
  assert lines(tmp_path) == lines(straight)


def test_a_finished_run_stays_as_it_is(straight):
  before = lines(straight)
  train.train(tiny(), straight)
  assert lines(straight) == before


def test_another_config_is_refused_with_both_values(straight):
  with pytest.raises(UserError, match='seed: 0 there, 1 now'):
    train.train(tiny('seed=1'), straight)


def test_of_many_differences_three_are_shown(straight):
  text = (
    'optim.learning_rate=0.5',
    'augment.flip=False',
    'augment.crop.size=8,8',
    'model.width=3',
    'seed=1',
  )
  with pytest.raises(UserError) as error:
    train.train(tiny(*text, 'model.depth=2', f'loss.class_weights={"1.5," * 3}1.5'), straight)
  told = str(error.value).removeprefix(f'--workdir={straight} belongs to another run ')
  assert len(told) < 400 and told.count(' there, ') == 3 and '; 3 more): use another' in told


def test_keys_are_compared_one_by_one_and_long_values_cut():
  old = {'model': {'width': 4, 'depth': 2, 'remat': True}, 'z': 'x' * 200, 'log': {'every': 1}}
  new = {
    'model': {'width': 8, 'depth': 2},
    'z': 'y',
    'log': {'every': 2},
  }  # the log's rhythm is free
  first, second, third = workdirs._listed(workdirs.differences(old, new)).split('; ')
  assert first == 'model.remat: True there, None now'
  assert second == 'model.width: 4 there, 8 now'
  assert third.startswith("z: 'xxx") and third.endswith("... there, 'y' now") and len(third) < 90


def test_the_order_of_transforms_and_each_argument_count():
  flip, crop = ('flip', {'vertical': False}), ('crop', {'size': (8, 8)})
  pairs = [(flip, crop), (crop, flip)], [(flip, crop), (flip, ('crop', {'size': (8, 4)}))]
  order, argument = (workdirs.differences({'augment': old}, {'augment': new}) for old, new in pairs)
  assert order == {'augment': (('flip', 'crop'), ('crop', 'flip'))}
  assert argument == {'augment.crop.size': ((8, 8), (8, 4))}


def test_longer_is_the_same_run_where_no_rate_depends_on_it():
  def config(steps, schedule):
    return {'num_steps': steps, 'optim': {'schedule': schedule}}

  for schedule in ('constant', 'step'):
    assert not workdirs.differences(config(5, schedule), config(9, schedule))
  for schedule in ('poly', 'cosine'):
    assert workdirs.differences(config(5, schedule), config(9, schedule)) == {'num_steps': (5, 9)}


def test_patience_ends_a_run_that_is_resumed_or_not(tmp_path, monkeypatch, capsys):
  """All scores alike: the second evaluation, at step 6, is one without a better one."""
  score = {'mean_iou': 0.5, 'confusion': np.zeros((4, 4), int)}
  monkeypatch.setattr(train.Evaluator, '__call__', lambda *_: dict(score))
  config = partial(tiny, 'num_steps=20', 'optim.schedule=constant')
  train.train(config('eval.patience=1'), tmp_path, stop_at=4)
  for _ in range(2):  # the second time there is nothing to do
    train.train(config('eval.patience=1'), tmp_path, hooks=[report.Report()])
    assert 'finished at step 6 of 20: no better mIoU than 0.5000 in 1 ev' in capsys.readouterr().out
    assert [r['step'] for r in lines(tmp_path) if 'eval/mean_iou' in r] == [3, 6]
  assert '6 of 20, finished' in (tmp_path / 'report.html').read_text()
  train.train(config('eval.patience=2', 'num_steps=8'), tmp_path)
  assert lines(tmp_path)[-1]['step'] == 8


def test_a_run_in_time_is_one_of_so_many_steps(straight, tmp_path, monkeypatch, capsys):
  """Six fit: all that is computed is what a run of six steps computes, resumed or not."""
  given = []
  monkeypatch.setattr(budget, 'steps_within', lambda *args: given.append(args) or 6)
  config = tiny('num_steps=50', 'max_minutes=9')
  train.train(config, tmp_path, stop_at=4)
  assert 'budget    6 of 50 steps end within 9 minutes: ' in capsys.readouterr().out
  train.train(config, tmp_path)
  assert workdirs.load_config(tmp_path)['num_steps'] == 6
  assert lines(tmp_path) == lines(straight)
  a, b = saved(straight, 6), saved(tmp_path, 6)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  ((minutes, past, compiling, step, evaluation, every),) = given  # it is tried once
  assert (minutes, every) == (9, 3) and past > compiling > 0 and min(step, evaluation) > 0
  with pytest.raises(UserError, match='max_minutes: 9.0 there, 8.0 now'):
    train.train(tiny('num_steps=50', 'max_minutes=8'), tmp_path)


def test_how_many_steps_fit():
  """Of 10 minutes 100 s are past: 475 s are used, less 65 to compile and 10 to evaluate at the end."""
  assert budget.steps_within(10, 100, 65, step=1.9, evaluation=10, every=100) == 200
  assert budget.steps_within(1, 100, 65, step=1.9, evaluation=10, every=100) == 1
  steps = ('optim.schedule=step', 'optim.schedule_steps=(30,40)', 'num_steps=50')
  half = budget.with_steps(build.experiment(tiny(*steps)), 25)
  assert half.settings.num_steps == half.config['num_steps'] == 25
  assert half.optim.schedule_steps == half.config['optim']['schedule_steps'] == (15, 20)


def test_how_to_train_longer_is_told(straight):
  with pytest.raises(UserError) as error:
    train.train(tiny('num_steps=9'), straight)
  assert str(error.value) == (
    f'--workdir={straight} is a run of 6 steps, and so is its rate (optim.schedule=cosine): to train '
    f'longer, start another from it with --workdir=NEW --config.init_from={straight}, or go on with '
    '--config.num_steps=6; runs of --config.optim.schedule=constant or step can be extended'
  )


def test_a_run_knows_where_its_time_went(tmp_path, capsys):
  """By its own account and by a clock outside of it, to a hundredth."""

  class Slow:
    def on_evaluation(self, *_):
      time.sleep(0.3)

    def on_end(self, *_):
      time.sleep(0.2)

  begin = time.perf_counter()
  train.train(tiny(), tmp_path, hooks=[Slow()])
  outside = time.perf_counter() - begin
  (session,) = workdirs.load_run(tmp_path)['sessions']
  seconds = session['seconds']
  assert session['steps'] == [0, 6] and min(seconds.values()) >= 0
  assert sum(v for k, v in seconds.items() if k != 'wall') == pytest.approx(
    seconds['wall'], abs=1e-6
  )
  assert seconds['wall'] == pytest.approx(outside, rel=0.01, abs=0.2)
  assert 0.8 <= seconds['figures'] < 2 and seconds['compile'] > 0.1 and seconds['evaluation'] > 0
  assert 'time      ' in capsys.readouterr().out.splitlines()[-1]


def test_some_steps_are_traced(straight, tmp_path, capsys):
  train.train(tiny(), tmp_path, profile=(2, 3))
  (trace,) = (tmp_path / 'profile').rglob('*.xplane.pb')
  assert b'train' in trace.read_bytes()
  assert f'profile   steps 2 to 3: {tmp_path}/profile\n' in capsys.readouterr().out
  assert lines(tmp_path) == lines(straight)
  with pytest.raises(UserError, match='--profile=6:7: no step is still to do'):
    train.train(tiny(), tmp_path, profile=(6, 7))


def test_a_run_that_dies_before_its_first_save_gives_way(straight, tmp_path, monkeypatch):
  def die(*_):
    raise RuntimeError('power')

  monkeypatch.setattr(loop.Loop, 'run', die)
  for seed in (1, 0):
    with pytest.raises(RuntimeError, match='power'):
      train.train(tiny(f'seed={seed}'), tmp_path)
  monkeypatch.undo()
  train.train(tiny(), tmp_path)
  assert lines(tmp_path) == lines(straight)
  assert workdirs.load_config(tmp_path)['seed'] == 0
  assert len(workdirs.load_run(tmp_path)['sessions']) == 2  # those of this config


class Figures:
  """A hook that fails, and looks whether its step is saved, or being saved, before."""

  def __init__(self):
    self.saved = []

  def on_evaluation(self, run, step, variables, summary):
    end = time.monotonic() + 30  # the save makes its folder in the background
    while not (saved := self._is_saved(run.folder, step)) and time.monotonic() < end:
      time.sleep(0.01)
    self.saved.append(saved)
    raise ValueError('a formula\nthat is none')

  def _is_saved(self, folder, step):
    names = [place.name.split('.')[0] for place in folder.glob(f'checkpoints/{step}*')]
    return str(step) in names

  def on_end(self, run):
    raise ValueError('late')


def test_a_hook_that_fails_ends_no_training(straight, tmp_path, capsys):
  hook = Figures()
  train.train(tiny(), tmp_path, hooks=[hook])
  out = capsys.readouterr().out
  for step in (3, 6):
    assert f'warning: no figures at step {step}: ValueError: a formula that is none\n' in out
  assert 'warning: no figures at the end: ValueError: late\n' in out and hook.saved == [True, True]
  a, b = saved(straight, 6), saved(tmp_path, 6)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_second_process_is_refused(tmp_path):
  first = RunFolder(tmp_path, {})
  with pytest.raises(UserError, match='another process'):
    RunFolder(tmp_path, {})
  first.close()
  RunFolder(tmp_path, {}).close()


def test_a_start_that_writes_nothing_leaves_nothing(tmp_path):
  workdir = tmp_path / 'a' / 'b'
  folder = RunFolder(workdir, {})
  (workdir / 'checkpoints').mkdir()
  folder.close()
  assert not list(tmp_path.iterdir())
  folder = RunFolder(workdir, {})
  (workdir / 'notes').write_text('of somebody else')
  folder.close()
  assert [p.name for p in workdir.iterdir()] == ['notes']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_is_resumed_bit_identically(
  straight, tmp_path, capsys, monkeypatch, number
):
  check = loop.Loop._check_last_step

  def terminate(self):
    if self._unchecked and self._unchecked[0] == 2:
      os.kill(os.getpid(), number)
    check(self)

  assert threading.current_thread() is threading.main_thread()
  monkeypatch.setattr(loop.Loop, '_check_last_step', terminate)
  interrupt = number == signal.SIGINT  # what would follow, as in `train && evaluate`, must not
  hook = Figures()
  with pytest.raises(KeyboardInterrupt) if interrupt else contextlib.nullcontext():
    train.train(tiny(), tmp_path, hooks=[hook])
  out = capsys.readouterr().out
  assert 'stopped and saved at step' in out
  assert ('no figures at the end' in out) == interrupt  # a machine that is taken away has no time
  monkeypatch.undo()
  train.train(tiny(), tmp_path)
  a, b = saved(straight, 6), saved(tmp_path, 6)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  first, second = workdirs.load_run(tmp_path)['sessions']
  assert second['steps'] == [first['steps'][1], 6]


@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'empty'])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, capsys, damage):
  state = {'w': np.arange(4096, dtype=np.float32), 'n': np.int32(3)}
  checkpoints = Checkpoints(tmp_path / 'c')
  checkpoints.save(1, state)
  checkpoints.save(2, {**state, 'w': state['w'] + 1})
  checkpoints.wait()
  files = [p for p in (tmp_path / 'c' / '2').rglob('*') if p.is_file()]
  file = max((p for p in files if '/d/' in str(p)), key=lambda p: p.stat().st_size)
  data = bytearray(file.read_bytes())
  if damage == 'flipped':
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
  file_of = {'flipped': bytes(data), 'truncated': bytes(data[:50]), 'empty': b''}
  file.write_bytes(file_of[damage])
  again = Checkpoints(tmp_path / 'c')
  restored, step = again.restore_newest(state)
  assert step == 1
  np.testing.assert_array_equal(restored['w'], state['w'])
  assert 'trying the one before' in capsys.readouterr().out
  kept = tmp_path / 'c' / 'unreadable_2' / file.relative_to(tmp_path / 'c' / '2')
  assert again.steps() == [1] and kept.read_bytes() == file_of[damage]
  again.save(2, state)
  again.wait()
  assert Checkpoints(tmp_path / 'c').steps() == [1, 2]


def test_the_newest_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'c', keep=2)
  for step, score in enumerate([0.3, 0.5, 0.4, 0.2, 0.1], start=1):
    checkpoints.save(step, {'w': np.full(3, step, np.float32)}, {'mean_iou': score})
  checkpoints.save(6, {'w': np.full(3, 6, np.float32)})
  checkpoints.wait()
  assert checkpoints.steps() == [2, 5, 6]
  assert checkpoints.best_step() == 2


def test_checksums_tell_one_bit():
  tree = {'a': np.zeros(8, np.float32)}
  other = {'a': np.frombuffer(b'\x00' * 31 + b'\x01', np.float32)}
  assert checksums(tree) != checksums(other)


def test_too_little_memory_is_answered_with_what_to_change(tmp_path, monkeypatch):
  def exhausted(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 8 GiB.\nmore')

  monkeypatch.setattr(train, '_train', exhausted)
  with pytest.raises(UserError) as error:
    train.train(tiny(), tmp_path)
  for part in ('accumulate=2', 'remat=True', 'bfloat16', '8 GiB'):
    assert part in str(error.value)
  assert '\n' not in str(error.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'c')
  checkpoints.save(1, {'w': np.zeros((3, 4), np.float32)})
  checkpoints.wait()
  with pytest.raises(UserError, match='another network|cannot be read'):
    checkpoints.restore({'w': np.zeros((3, 5), np.float32)}, 1)
