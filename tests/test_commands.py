"""`jaxseg ...` and `python -m jaxseg ...`: the launchers' commands, found by name, with configs that need no clone."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import jaxseg
from jaxseg import commands
from jaxseg import config as configs
from jaxseg.train import provenance
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent


def typed(monkeypatch, *words):
  monkeypatch.setattr(sys, 'argv', ['/anywhere/bin/jaxseg', *words])
  commands.run()


def refused(monkeypatch, capsys, *words):
  with pytest.raises(SystemExit) as stop:
    typed(monkeypatch, *words)
  assert stop.value.code == 2
  return capsys.readouterr().err


@pytest.mark.parametrize('words', [(), ('--help',), ('-h',), ('help',)])
def test_without_a_command_all_are_listed(words, monkeypatch, capsys):
  typed(monkeypatch, *words)
  told = capsys.readouterr().out
  for name in 'train evaluate predict report export data benchmark fidelity results'.split():
    assert f'\n  {name} ' in told
  assert 'Trains a network; the same command again resumes where it stopped.' in told


def test_a_command_that_is_none(monkeypatch, capsys):
  told = refused(monkeypatch, capsys, 'trian')
  assert told.startswith("error: no command 'trian': choose one of benchmark, ")
  assert told.endswith("did you mean 'train'?\n")


def test_a_command_speaks_of_itself_as_it_was_called(monkeypatch, capsys):
  told = refused(monkeypatch, capsys, 'train', '--config=unet_shapes')
  assert (
    told == 'error: the following arguments are required: --workdir (see jaxseg train --help)\n'
  )
  with pytest.raises(SystemExit):
    typed(monkeypatch, 'train', '--help')
  told = capsys.readouterr().out
  assert 'jaxseg train --config=configs/unet_shapes.py --workdir=' in told and 'launch/' not in told


def test_a_flag_is_not_guessed_from_its_beginning(monkeypatch, capsys):
  words = ('evaluate', '--workdir=/nowhere', '--scale=.5')
  assert 'unrecognized arguments: --scale=.5' in refused(monkeypatch, capsys, *words)


def test_a_command_runs(tmp_path, monkeypatch, capsys):
  """With a config of jaxseg's own, by its name, where there is no clone."""
  monkeypatch.chdir(tmp_path)
  typed(monkeypatch, 'data', 'check', '--config=unet_shapes:smoke', '--output=out')
  assert 'samples of train: out/samples.png' in capsys.readouterr().out


@pytest.mark.parametrize('spec', ['unet_shapes', 'unet_shapes.py', 'configs/unet_shapes.py'])
def test_a_config_of_jaxsegs_own_is_found_anywhere(spec, tmp_path, monkeypatch):
  """A path that exists comes first, but a name alone runs no file of the working folder."""
  monkeypatch.chdir(tmp_path)
  assert configs.load(f'{spec}:smoke').num_steps == 10
  (tmp_path / 'configs').mkdir()
  for name in ('unet_shapes', 'unet_shapes:smoke', 'unet_shapes.py', 'configs/unet_shapes.py'):
    shutil.copy(ROOT / 'configs' / 'fcn_pet.py', tmp_path / name)
  name = 'shapes' if spec == 'unet_shapes' else 'pet'
  assert configs.load(spec).data.name == name
  assert configs.load(f'./{spec}').data.name == 'pet'
  assert configs.load(f'{spec}:smoke').data.name == 'shapes'


@pytest.mark.slow
def test_installed_it_needs_no_clone(tmp_path):
  """In an environment of its own, from a copy that is gone afterwards."""
  source, python = tmp_path / 'source', str(tmp_path / 'venv' / 'bin' / 'python')
  leave_out = shutil.ignore_patterns('.git', 'build', '*.egg-info', 'tests', 'docs')
  shutil.copytree(ROOT, source, ignore=leave_out)
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  quiet = dict(env=environment, check=True, capture_output=True, text=True, cwd=tmp_path)
  subprocess.run(
    [sys.executable, '-m', 'venv', '--system-site-packages', tmp_path / 'venv'], **quiet
  )
  paths = [p for p in sys.path if p.endswith('site-packages')]  # where this is an environment too
  (site,) = (tmp_path / 'venv').glob('lib/python*/site-packages')
  (site / 'outer.pth').write_text('\n'.join(paths))
  options = ['--no-deps', '--ignore-installed', '--quiet']
  subprocess.run([python, '-m', 'pip', 'install', *options, source], **quiet)
  shutil.rmtree(source)

  flags = ['--workdir=run', '--config.num_steps=1', '--config.log.figures=0']
  jaxseg = str(Path(python).with_name('jaxseg'))
  subprocess.run([jaxseg, 'train', '--config=unet_shapes:smoke', *flags], **quiet)
  assert json.loads((tmp_path / 'run' / 'config.json').read_text())['num_steps'] == 1
  again = subprocess.run([python, '-m', 'jaxseg', 'evaluate', '--workdir=run'], **quiet)
  assert 'mean iou' in again.stdout
  assert (tmp_path / 'run' / 'eval' / 'val.json').is_file()


INTERRUPTED = """
import os, signal, sys
from jaxseg import commands

class Interrupts:
  def find_spec(self, name, *_):
    if name == 'jaxseg.console':
      os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
sys.meta_path.insert(0, Interrupts())
sys.argv = ['jaxseg', '--help']
commands.run()
"""


def test_ctrl_c_while_a_command_starts_has_no_traceback():
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, '-c', INTERRUPTED], env=environment, capture_output=True, text=True
  )
  assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, '', '')


def test_a_look_at_the_checkout_leaves_its_index_alone(monkeypatch):
  """A process that is killed in it would leave index.lock, and git would refuse to work."""
  asked = []
  monkeypatch.setattr(
    subprocess, 'run', lambda words, **_: asked.append(words) or SimpleNamespace(stdout='')
  )
  monkeypatch.setattr(Path, 'exists', lambda _: True)
  provenance.git_revision()
  assert len(asked) == 2 and all(words[1] == '--no-optional-locks' for words in asked)


@pytest.mark.parametrize(('workdir', 'says'), [(3, 'got 3 for a path'), ([], 'no run is given')])
def test_what_is_no_workdir(workdir, says):
  with pytest.raises(UserError, match=says):
    jaxseg.load(workdir)
