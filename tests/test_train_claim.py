"""Whose a workdir is: an empty folder's or a run's, one process's; and what a failed start leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.train.run_folder import RunFolder
from jaxseg.types import UserError
from tests.tiny_runs import CLASSES, make_experiment

ROOT = Path(__file__).resolve().parent.parent
CONFIG = make_experiment().config


def names(folder):
  return sorted(path.name for path in folder.rglob('*'))


@pytest.mark.parametrize(
  'mine', ['config.json', 'metrics.jsonl', 'classes.json', 'report.html', 'photo.jpg', 'run.json']
)
def test_somebodys_folder_is_no_workdir(mine, tmp_path, monkeypatch):
  (tmp_path / mine).write_text('{"model_type": "bert"}')
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=f'holds other files .{mine}. and no run: choose an empty'):
    RunFolder('.', CONFIG)
  assert names(tmp_path) == [mine]


@pytest.mark.parametrize(
  'name',
  [
    '.lock',
    'metrics.jsonl',
    'checkpoints',
    'figures',
    'config.json',
    'checkpoints/2',
    'profile/a/b',
  ],
)
@pytest.mark.parametrize('there', [True, False])
def test_nothing_is_written_through_a_link_of_somebodys_run(name, there, tmp_path):
  folder = RunFolder(tmp_path / 'run', CONFIG)
  folder.write_facts(CLASSES, 'no device')
  folder.close()
  if there:
    (tmp_path / 'mine').write_text('mine')
  (tmp_path / 'run' / name).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / 'run' / name).unlink(missing_ok=True)
  (tmp_path / 'run' / name).symlink_to(tmp_path / 'mine')
  with pytest.raises(UserError, match=f'{name} in it is a link'):
    RunFolder(tmp_path / 'run', CONFIG)
  assert (tmp_path / 'mine').read_text() == 'mine' if there else not (tmp_path / 'mine').exists()


def test_a_folder_behind_one_that_is_not_there_is_looked_at_too(tmp_path, monkeypatch):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'config.json').write_text('mine')
  monkeypatch.chdir(tmp_path)
  for path in ('new/../mine', tmp_path / 'new' / '..' / 'mine'):
    with pytest.raises(UserError, match='mine holds other files .config.json. and no run'):
      RunFolder(path, CONFIG)
  assert names(tmp_path) == ['config.json', 'mine']


def test_a_lock_of_somebodys_stays(tmp_path):
  (tmp_path / '.lock').write_text('mine')
  with pytest.raises(UserError, match="its .lock is no run's: choose another folder"):
    RunFolder(tmp_path, CONFIG)
  assert (tmp_path / '.lock').read_text() == 'mine' and names(tmp_path) == ['.lock']


def test_an_empty_lock_is_empty_again_after_a_refused_start(tmp_path):
  (tmp_path / '.lock').touch()
  RunFolder(tmp_path, CONFIG).close()
  assert (tmp_path / '.lock').read_bytes() == b''


def test_what_a_shell_has_opened_is_no_obstacle(tmp_path):
  for name in ('train.log', 'slurm-1.out', '.DS_Store'):
    (tmp_path / name).touch()
  folder = RunFolder(tmp_path, CONFIG)
  folder.close()
  assert names(tmp_path) == ['.DS_Store', 'slurm-1.out', 'train.log']


def test_a_start_that_fails_leaves_nothing(tmp_path):
  folder = RunFolder(tmp_path / 'a' / 'run', CONFIG)
  (folder.path / 'checkpoints' / 'x').mkdir(parents=True)
  folder.begin()
  (folder.path / 'metrics.jsonl').touch()
  folder.close()
  assert names(tmp_path) == []
  (tmp_path / 'a').mkdir()
  folder = RunFolder(tmp_path / 'a' / 'run', CONFIG)
  (folder.path / "somebody's").touch()
  folder.close()
  assert names(tmp_path) == ['a', 'run', "somebody's"]


def test_what_another_program_writes_meanwhile_stays(tmp_path):
  folder = RunFolder(tmp_path / 'run', CONFIG)
  (folder.path / 'checkpoints' / 'epoch1').mkdir(parents=True)
  for name in ('config.json', 'checkpoints/epoch1/net.pt'):
    (folder.path / name).write_text('mine')
  with pytest.raises(UserError, match='config.json has appeared while the run was starting'):
    folder.begin()
  folder.close()
  assert names(tmp_path) == ['checkpoints', 'config.json', 'epoch1', 'net.pt', 'run']


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('config.json', '{"model_type": "bert"}'),
    ('classes.json', '["cat"]'),
    ('run.json', '{"epochs": 3}'),
    ('data.json', '{"train": [1, 2]}'),
    ('metrics.jsonl', 'loss 0.1\n'),
    ('metrics.jsonl', '{"loss": 0.1}\n'),
  ],
)
def test_what_lies_in_the_folder_of_a_killed_start_is_no_runs_for_its_name(name, text, tmp_path):
  folder = RunFolder(tmp_path / 'run', CONFIG)
  folder.write_facts(CLASSES, 'no device')
  folder.close()
  (tmp_path / 'run' / 'metrics.jsonl').write_text('{"step": 1, "train/l')  # half of a line
  RunFolder(tmp_path / 'run', CONFIG).close()
  (tmp_path / 'run' / name).write_text(text)
  with pytest.raises(UserError, match=f'no checkpoints, and a {name} that no run wrote'):
    RunFolder(tmp_path / 'run', CONFIG)
  assert (tmp_path / 'run' / name).read_text() == text


def test_a_run_stays_and_is_known_again(tmp_path):
  for _ in range(2):
    folder = RunFolder(tmp_path / 'run', CONFIG)
    folder.write_facts(CLASSES, 'no device')
    folder.close()
  (tmp_path / 'run' / '.lock').unlink()  # as runs of before had none of this content
  RunFolder(tmp_path / 'run', CONFIG).close()
  assert {'config.json', 'classes.json', 'run.json'} < set(names(tmp_path / 'run'))


def test_a_run_that_was_killed_early_is_known_by_its_lock(tmp_path):
  code = (
    'import os, sys\nfrom tests.test_train_claim import CONFIG, RunFolder\n'
    'folder = RunFolder(sys.argv[1], CONFIG)\n(folder.path / "metrics.jsonl").touch()\nos._exit(9)'
  )
  command = [sys.executable, '-c', code, str(tmp_path / 'run')]
  done = subprocess.run(command, env={**os.environ, 'PYTHONPATH': str(ROOT)}, timeout=120)
  assert done.returncode == 9 and (tmp_path / 'run' / 'metrics.jsonl').exists()
  folder = RunFolder(tmp_path / 'run', CONFIG)
  folder.close()
  assert (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_of_two_only_one_has_it(tmp_path):
  first = RunFolder(tmp_path / 'run', CONFIG)
  with pytest.raises(UserError, match='another process is training there'):
    RunFolder(tmp_path / 'run', CONFIG)
  first.close()
  second = RunFolder(tmp_path / 'run', CONFIG)  # whose lock is a new file
  with pytest.raises(UserError, match='another process is training there'):
    RunFolder(tmp_path / 'run', CONFIG)
  second.close()


def test_a_name_that_is_no_unicode(tmp_path):
  with pytest.raises(UserError, match='this name is not UTF-8'):
    RunFolder(os.fsdecode(os.fsencode(tmp_path) + b'/\xff'), CONFIG)
  assert names(tmp_path) == []
