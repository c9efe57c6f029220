"""Bad input ends in one clear line and status 2, and leaves nothing half done; see bad_inputs.py.

    BAD_INPUT_TABLE=docs/reliability.md pytest tests/test_bad_input.py

renews the table of what each case said in that file.
"""

import codecs
import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents, tiny_runs
from tests.bad_inputs import ROOT, Case, Place, good_folder
from tests.bad_runs import CASES
from tests.test_launch import launch

TABLE = 'BAD_INPUT_TABLE'
SAID: dict[str, str] = {}  # a case's group and title -> what its launcher said

CONFIG = """
from jaxseg.config import base


def get_config(variant=None):
  config = base()
  config.data = dict(name='folder')
  config.num_classes = 3
  config.model = dict(name='unet', width=2, depth=2, padding='same')
  config.loss.class_weights = 'median_frequency'
  config.num_steps = 2
  config.batch_size = 2
  config.log.figures = 0
  config.compile_cache = ''
  return config
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
  """A workdir with a checkpoint at step 1."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  model = dict(name='unet', width=2, depth=2, padding='same')
  tiny_runs.make_workdir(workdir, tiny_runs.make_experiment(model=model))
  return workdir


@pytest.fixture
def place(tmp_path, monkeypatch, request) -> Place:
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  monkeypatch.chdir(tmp_path)
  good_folder(tmp_path / 'own')
  (tmp_path / 'config.py').write_text(CONFIG)

  def trained() -> Path:
    return shutil.copytree(request.getfixturevalue('run'), tmp_path / 'run')

  return Place(tmp_path, trained)


def command_of(found: Case, place: Place) -> list[str]:
  """Returns launcher, job and flags; a flag that the case gives replaces the usual one."""
  given = found.spoil(place) or []
  data = [f'--config={place.here}/config.py', f'--config.data_dir={place.own}']
  usual = {
    'train': [*data, f'--workdir={place.here}/workdir'],
    'check': [*data, f'--output={place.here}/out'],
    'evaluate': [],
    'predict': [f'--output={place.here}/out'],
  }[found.job]
  names = {flag.split('=')[0] for flag in given}
  flags = [*(f for f in usual if f.split('=')[0] not in names), *given]
  return ['data', 'check', *flags] if found.job == 'check' else [found.job, *flags]


@contextlib.contextmanager
def nobody(folder: Path):
  """Gives up root's rights for a while; the folder belongs to nobody and can be reached."""
  if os.geteuid():
    yield
    return
  for module in ('jaxseg.train.train', 'jaxseg.datasets.folder'):  # nobody may not be able to
    importlib.import_module(module)
  codecs.lookup('utf-8-sig')
  for path in (folder, *folder.rglob('*')):
    os.chown(path, 65534, 65534)
  for parent in folder.parents:
    if parent.stat().st_mode & 0o077 == 0:
      parent.chmod(0o711)
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(0)


def judge(found: Case, place: Place, status: int, out: str, err: str) -> None:
  """Holds what came out against the case, and looks for anything that was left half done."""
  if found.works:
    assert status == found.status, err
    assert found.says in out, out
  else:
    assert status == 2, out + err
    lines = [line for line in err.splitlines() if not line.startswith('warning: ')]
    assert len(lines) == 1 and lines[0].startswith('error: '), err
    assert found.says in lines[0]
  assert 'Traceback' not in err
  assert not list(place.here.glob('workdir/checkpoints/*'))
  assert not list(place.here.rglob('.jaxseg-*')) and not list(place.here.rglob('jaxseg_bomb'))
  for records in place.here.glob('cache/folder/*-*/'):
    assert list(records.glob('*/*/dataset_info.json')), f'{records} is half a set of records'
  said = 'goes on' if found.works else lines[0].removeprefix('error: ')
  SAID[name_of(found)] = said.replace(f'{place.here}/', '').replace(f'{ROOT}/', '')


def name_of(found: Case) -> str:
  return f'{found.group} {found.title}'


@pytest.mark.parametrize('found', CASES, ids=name_of)
def test_bad_input(found, place, capsys):
  launcher, *flags = command_of(found, place)
  status = 0
  capsys.readouterr()
  try:
    with nobody(place.here) if found.as_nobody else contextlib.nullcontext():
      launch(launcher, *flags)
  except SystemExit as stop:
    status = stop.code
  judge(found, place, status, *capsys.readouterr())


PROCESSES = [c for c in CASES if c.process]


@pytest.mark.parametrize('found', PROCESSES, ids=name_of)
def test_bad_input_in_a_process_of_its_own(found, place):
  launcher, *flags = command_of(found, place)
  command = [sys.executable, str(ROOT / 'launch' / f'{launcher}.py'), *flags]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
  judge(found, place, done.returncode, done.stdout, done.stderr)


def test_the_good_folder_is_good(place, capsys):
  """Else every case above could fail for a reason of its own."""
  launch('data', 'check', f'--config={place.here}/config.py', f'--config.data_dir={place.own}')
  assert 'samples of train' in capsys.readouterr().out


def table() -> str:
  """Returns the cases and what was said as a table."""
  lines = [
    f'{len(CASES)} cases, {len(PROCESSES)} of them also as processes of their own. Written by',
    f'`{TABLE}=docs/reliability.md pytest tests/test_bad_input.py`.',
    '',
    '| what is wrong | launcher | the one line it ends with (status 2) |',
    '|---|---|---|',
  ]
  for found in CASES:
    job = 'data check' if found.job == 'check' else found.job
    said = SAID[name_of(found)].replace('|', '\\|')
    lines.append(f'| {found.group}: {found.title} | {job} | {said} |')
  return '\n'.join(lines)


def test_the_table_is_in_the_documents():
  """Writes it where the environment asks for that; else sees that no case is missing there."""
  if os.environ.get(TABLE):
    assert len(SAID) == len(CASES), 'the table needs every case to run, in one process'
    documents.renew(TABLE, 'Bad input', 'bad input', table())
    return
  text = documents.section('bad input')
  absent = [name_of(c) for c in CASES if f'| {c.group}: {c.title} |' not in text]
  assert not absent, f'renew it: {TABLE}=docs/reliability.md pytest tests/test_bad_input.py'
