"""A disk that is full: told in one line, status 2; what was saved before is whole and used again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.writer import read_records

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from jaxseg import console

def fill_the_disk():  # no file may grow beyond 64 KiB from here on
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def save():
  from jaxseg.train.checkpoint import Checkpoints
  checkpoints = Checkpoints(Path(sys.argv[2]))
  state = {'w': np.random.default_rng(0).random(100_000)}
  checkpoints.save(1, state)
  checkpoints.wait()
  fill_the_disk()
  try:
    checkpoints.save(2, {'w': state['w'] + 1})
    checkpoints.wait()
  finally:
    checkpoints.close()

def log():
  from jaxseg.train.writer import Writer
  writer = Writer(Path(sys.argv[2]))
  fill_the_disk()
  for step in range(1, 2000):
    writer.write(step, {'train/loss': 1.0, 'train/grad_norm': 2.0})

console.run({'save': save, 'log': log}[sys.argv[1]])
"""


def run(job: str, folder: Path) -> subprocess.CompletedProcess:
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', SCRIPT, job, str(folder)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 2, done.stderr
  assert [line for line in done.stderr.splitlines() if line.startswith('error: ')], done.stderr
  return done


def test_a_save_that_fails_leaves_the_ones_before(tmp_path):
  folder = tmp_path / 'checkpoints'
  done = run('save', folder)
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert f'a checkpoint cannot be written to {folder}: File too large' in done.stderr
  assert 'make room there, and the same command goes on from step 1' in done.stderr
  checkpoints = Checkpoints(folder)
  state = {'w': np.zeros(100_000)}
  state, step = checkpoints.restore_newest(state)
  assert step == 1 and checkpoints.steps() == [1]
  np.testing.assert_array_equal(state['w'], np.random.default_rng(0).random(100_000))
  checkpoints.save(2, state)
  checkpoints.wait()
  assert checkpoints.steps() == [1, 2]
  checkpoints.close()


def test_a_log_that_cannot_grow_ends_the_run_and_does_not_hang(tmp_path):
  done = run('log', tmp_path)
  assert 'cannot be written: File too large; make room there' in done.stderr
  steps = [record['step'] for record in read_records(tmp_path)]
  assert steps == list(range(1, len(steps) + 1)) and len(steps) > 100
