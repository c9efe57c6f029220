"""A training on a terminal: Ctrl-C, and the terminal that is closed, with real processes."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.test_kill import left
from tests.test_launch import ROOT

pytestmark = pytest.mark.slow
ENDLESS = (
  'num_steps=1000000',
  'eval.every=1000000',
  'log.checkpoint_every=1000000',
  'log.every=1',
  'model.width=2',
  'data.options.size=16',
)


class Training:
  """A training that has begun, on a terminal of its own.

  Attributes:
    terminal: our end of it.
  """

  def __init__(self, workdir: Path):
    self.terminal, theirs = os.openpty()
    command = [sys.executable, f'{ROOT}/launch/train.py', '--config=unet_shapes:smoke']
    command += [f'--workdir={workdir}', *(f'--config.{key}' for key in ENDLESS)]
    self.process = subprocess.Popen(
      command,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'TERM': 'xterm'},
      stdin=theirs,
      stdout=theirs,
      stderr=theirs,
      start_new_session=True,
      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    self.said = ''
    while 'step ' not in self.said:  # the live line skips some
      self.said += self._read()
      assert 'error' not in self.said, self.said

  def _read(self) -> str:
    try:
      return os.read(self.terminal, 4096).decode(errors='replace')
    except OSError:  # its last process has left
      return ''

  def rest(self) -> str:
    while more := self._read():
      self.said += more
    return self.said


def test_ctrl_c_saves_and_ends_with_130(tmp_path):
  training = Training(tmp_path)
  os.write(training.terminal, b'\x03')
  said = training.rest()
  assert training.process.wait(120) == 128 + signal.SIGINT
  assert 'stopped and saved at step' in said and said.rstrip().endswith('interrupted')
  assert left(tmp_path)[0] >= 1
  os.close(training.terminal)


def test_a_closed_terminal_saves_and_ends_with_0(tmp_path):
  training = Training(tmp_path)
  os.close(training.terminal)
  assert training.process.wait(120) == 0
  assert left(tmp_path)[0] >= 1
