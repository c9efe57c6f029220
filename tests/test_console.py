"""How launchers end: what the system refuses is one line, closed streams harm nothing, names stay names."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg import console
from jaxseg.console import ending
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
  ('error', 'says'),
  [
    (OSError(errno.ENAMETOOLONG, 'File name too long', 'aaa'), 'aaa: File name too long'),
    (OSError(errno.EROFS, 'Read-only file system', 'a'), 'a: Read-only file system'),
    (FileExistsError(errno.EEXIST, 'File exists', 'run'), 'run: File exists'),
    (OSError(errno.EDQUOT, 'Disk quota exceeded', 'a'), 'a cannot be written: Disk quota exceeded'),
    (MemoryError(), 'this machine has too little memory (the allocation failed)'),
    (MemoryError('Unable to allocate 9 TiB'), 'too little memory (Unable to allocate 9 TiB)'),
    (ImportError('lib.so: failed to map segment from shared object'), 'too little memory (lib.so'),
    (RuntimeError("can't start new thread"), 'no more threads: raise the limit'),
    (UserError('a\n\x1b[2Jb\u202ec\udcff'), r'error: a \x1b[2Jb\u202ec\udcff'),
  ],
)
def test_one_line_and_status_2(error, says, capsys):
  def main():
    raise error

  with pytest.raises(SystemExit) as stop:
    console.run(main)
  told = capsys.readouterr().err
  assert stop.value.code == 2 and says in told and told.count('\n') == 1


def test_a_working_folder_that_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
  (tmp_path / 'gone').mkdir()
  monkeypatch.chdir(tmp_path / 'gone')
  (tmp_path / 'gone').rmdir()
  with pytest.raises(SystemExit) as stop:
    console.run(lambda: None)
  assert stop.value.code == 2
  assert capsys.readouterr().err == 'error: this folder has been removed: cd to one that exists\n'


def test_a_mistake_of_ours_keeps_its_traceback():
  def main():
    raise FileNotFoundError(errno.ENOENT, 'No such file', 'ours')

  with pytest.raises(FileNotFoundError):
    console.run(main)


def test_a_name_cannot_command_the_terminal(capsys):
  with console.Progress() as progress:
    progress.say('a\x1b]0;title\x07.png\nerror: none')
    progress.show('\x9b2J')
  assert capsys.readouterr().out == 'a\\x1b]0;title\\x07.png\\nerror: none\n\\x9b2J\n'
  assert console.plain('Fläche 12.png') == 'Fläche 12.png'


def test_lines_tables_and_the_line_of_a_long_pass_show_names_as_they_are(capsys):
  console.say('two', 'a\nb\x1b[2J')
  console.say('\rerror', error=True)
  console.overwrite('\x1b]8;;http://x\x07')
  table = console.Table('class\x1b[8m', title='a\x9bb')
  table.add_column('[b]:car:', justify='right')
  table.add_row('x\ny', '\u202e')
  console.say(table)
  out, err = capsys.readouterr()
  assert out.startswith('two\na\\nb\\x1b[2J\n')
  assert err == '\\rerror\n\r\x1b[K\\x1b]8;;http://x\\x07'
  for told in ('a\\x9bb', 'class\\x1b[8m', '[b]:car:', 'x\\ny', '\\u202e'):
    assert told in out
  assert not {c for c in out if not c.isprintable()} - {'\n'}


CLOSED = """
import os, sys
from jaxseg import console

def main():
  with open(sys.argv[1], 'w') as file:
    assert file.fileno() > 2
    print('not for the file')
    os.write(1, b'nor this')
    with console.Progress() as progress:
      progress.say('line')
    file.write('whole')

console.run(main)
"""


@pytest.mark.parametrize(
  ('streams', 'status'), [('>&-', 0), ('>&- 2>&-', 0), ('<&- >&- 2>&-', 0), ('>/dev/full', 2)]
)
def test_streams_that_are_closed_or_full(streams, status, tmp_path):
  command = f'exec "$0" -c "$1" "$2" {streams}'
  done = subprocess.run(
    ['sh', '-c', command, sys.executable, CLOSED, str(tmp_path / 'a')],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == status, done.stderr
  assert done.stderr.count('\n') == (status == 2) and 'Traceback' not in done.stderr
  if not status:
    assert (tmp_path / 'a').read_text() == 'whole'


def test_an_extra_is_installed_from_the_clone_or_by_its_packages(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  assert console.command('train') == 'python launch/train.py'
  assert console.install_hint('wandb') == "pip install -e '.[wandb]'"
  monkeypatch.chdir(tmp_path)
  assert console.install_hint('gcs') == f"pip install -e '{ROOT}[gcs]'"
  package = tmp_path / 'site-packages' / 'jaxseg'
  monkeypatch.setattr(console.speaking, '__file__', str(package / 'console' / 'speaking.py'))
  listed = ['numpy>=2.0', 'gcsfs>=2024.9; extra == "gcs"', 'wandb>=0.18; extra == "wandb"']
  listed.append('google-cloud-storage>=2.18; extra == "gcs"')
  monkeypatch.setattr(console.speaking.importlib.metadata, 'requires', lambda name: listed)
  told = console.install_hint('gcs')
  assert told == "pip install 'gcsfs>=2024.9' 'google-cloud-storage>=2.18'"
  assert console.command('train') == 'jaxseg train'


def test_of_a_long_error_the_middle_is_left_out(capsys):
  assert ending.report_error(UserError('a' * 4000)) == 2
  assert capsys.readouterr().err == f'error: {"a" * 4000}\n'
  assert ending.report_error(UserError('a' * 60_001 + 'b' * 999)) == 2
  shown = f'{"a" * 3000} [57,000 characters left out] a{"b" * 999}'
  assert capsys.readouterr().err == f'error: {shown}\n'
