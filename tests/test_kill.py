"""kill -9 at seeded moments, with real processes: what is resumed ends in the bits of what never fell.

    KILL_TABLE=docs/reliability.md pytest -m slow -n0 tests/test_kill.py

renews the table of the kills in that file.
"""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import documents

ROOT = Path(__file__).resolve().parent.parent
STEPS = 48
TABLE = 'KILL_TABLE'
HEAD = (
  '| killed | newest checkpoint then | half of one left | resumed and ended |\n|---|---|---|---|'
)
OPTIONS = (
  'model.width=2',
  'model.depth=1',
  'model.dropout_rate=0.3',
  'data.options.size=16',
  'data.options.count=6',
  'augment.photometric.brightness=0.3',
  f'num_steps={STEPS}',
  'batch_size=4',
  'eval.every=16',
  'log.checkpoint_every=1',  # so that a save is nearly always under way
  'log.every=3',  # so that most checkpoints are between two lines of the log
  'log.keep=3',
  'log.figures=0',
  'cpu_devices=2',
)


@dataclasses.dataclass(frozen=True)
class Moment:
  """`seconds` after the line of `step` or the first of a later one; 0: after the run's first line."""

  step: int
  seconds: float

  def __str__(self) -> str:
    after = f'step {self.step}/' if self.step else 'workdir'
    return f'{self.seconds * 1000:.0f} ms after "{after}"'

  def begins(self, line: str) -> bool:
    if not self.step:
      return line.startswith('workdir')
    step = re.match(r'step (\d+)/', line)
    return bool(step) and int(step[1]) >= self.step


def command(workdir: Path, cache: Path) -> list[str]:
  overrides = [f'--config.{option}' for option in (*OPTIONS, f'compile_cache={cache}')]
  config = f'--config={ROOT}/configs/unet_shapes.py:smoke'
  return [sys.executable, f'{ROOT}/launch/train.py', config, f'--workdir={workdir}', *overrides]


def start(workdir: Path, cache: Path) -> subprocess.Popen:
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  return subprocess.Popen(command(workdir, cache), env=environment, **pipes)


def finish(workdir: Path, cache: Path) -> str:
  process = start(workdir, cache)
  said, _ = process.communicate(timeout=900)
  assert process.returncode == 0, said
  return said


def kill(workdir: Path, cache: Path, moment: Moment) -> bool:
  """Kills a training; returns whether it still ran."""
  process = start(workdir, cache)
  for line in process.stdout:
    if moment.begins(line):
      time.sleep(moment.seconds)
      break
  process.send_signal(signal.SIGKILL)
  process.stdout.close()
  return process.wait(timeout=60) == -signal.SIGKILL


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
  """Returns parameters, statistics and the optimiser's state, as Orbax has them on disk."""
  with ocp.CheckpointManager(workdir / 'checkpoints') as manager:
    items = ocp.args.Composite(state=ocp.args.PyTreeRestore())
    state = manager.restore(step, args=items)['state']
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def scalars(workdir: Path) -> list[dict[str, float]]:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return [{k: v for k, v in r.items() if not k.startswith('time/')} for r in records]


def left(workdir: Path) -> tuple[int, bool]:
  """Returns the newest checkpoint, 0 where there is none, and whether half of another is there."""
  names = [p.name for p in (workdir / 'checkpoints').glob('*')]
  return max((int(n) for n in names if n.isdigit()), default=0), any('tmp' in n for n in names)


def assert_times_add_up(workdir: Path, starts: int) -> None:
  """Of every start that came to a save; and each goes on from a save of an earlier one."""
  sessions = json.loads((workdir / 'run.json').read_text())['sessions']
  timed = [s for s in sessions if 'seconds' in s]
  assert 1 <= len(timed) <= len(sessions) <= starts and timed[-1]['steps'][1] == STEPS
  for session in timed:
    *parts, wall = (v for _, v in sorted(session['seconds'].items()))
    assert len(parts) == 7 and min(parts) > -0.01
    assert sum(parts) == pytest.approx(wall, rel=0.01)
  for before, after in itertools.pairwise(timed):
    assert before['steps'][0] <= after['steps'][0] <= before['steps'][1] + 1


def assert_same_end(workdir: Path, straight: Path) -> None:
  got, want = arrays(workdir, STEPS), arrays(straight, STEPS)
  assert got.keys() == want.keys() and len(want) > 20
  assert {k.split("'")[1] for k in want} == {'step', 'params', 'batch_stats', 'opt_state'}
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)
  assert scalars(workdir) == scalars(straight)
  assert [r['step'] for r in scalars(straight) if 'train/loss' in r] == list(range(3, STEPS + 1, 3))


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> Path:
  return tmp_path_factory.mktemp('xla')


@pytest.fixture(scope='module')
def straight(tmp_path_factory, cache) -> Path:
  workdir = tmp_path_factory.mktemp('straight')
  finish(workdir, cache)
  return workdir


def moments(seed: int, count: int) -> list[Moment]:
  """Draws moments that lie later and later in a run, so that a run can be killed at all of them.

  In its first half: where the machine is busy, a run goes on while its line is read and it is killed, and
  one that was saved at its last step prints no later line.
  """
  rng = np.random.default_rng(seed)
  steps = np.sort(rng.choice(np.arange(1, STEPS // 6), size=count, replace=False)) * 3
  return [Moment(int(step), float(rng.uniform(0, 0.12))) for step in steps]


def test_killed_twice_and_resumed_ends_in_the_same_bits(straight, cache, tmp_path):
  for moment in moments(seed=0, count=2):
    assert kill(tmp_path, cache, moment)
  assert 'resumed at step' in finish(tmp_path, cache)
  assert_same_end(tmp_path, straight)
  assert_times_add_up(tmp_path, starts=3)


@pytest.mark.slow
def test_twenty_kills(straight, cache, tmp_path):
  """Four runs, each killed five times: while it starts, once, and at four moments of its loop."""
  rows = []
  for run in range(4):
    workdir = tmp_path / str(run)
    early = Moment(0, float(np.random.default_rng([1, run]).uniform(0, 2)))
    plan = moments(seed=run, count=4)
    killed = []
    for moment in (*plan[:run], early, *plan[run:]):
      assert kill(workdir, cache, moment), f'{moment}: it had ended'
      killed.append((moment, *left(workdir)))
    said = finish(workdir, cache)
    newest = killed[-1][1]
    assert f'resumed at step {newest}' in said
    assert_same_end(workdir, straight)
    assert_times_add_up(workdir, starts=6)
    for moment, step, half in killed:
      place = f'step {step}' if step else 'none'
      rows.append(f'| {moment} | {place} | {"yes" if half else "no"} | bit-identical |')
  assert len(rows) == 20
  assert sum('| yes |' in row for row in rows) > 2, 'too few kills hit a save: draw other moments'
  heading = (
    'Four runs, killed five times each (SIGKILL from another process), resumed by the same command;\n'
    f'`{TABLE}=docs/reliability.md pytest -m slow -n0 tests/test_kill.py`.\n'
  )
  documents.renew(TABLE, 'Kills', 'kill', '\n'.join([heading, HEAD, *rows]))


def test_the_table_is_in_the_documents():
  assert documents.section('kill').count('bit-identical') == 20
