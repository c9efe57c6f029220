"""The one place where files are read as a whole and written: what is refused, what is never lost."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxseg import files
from jaxseg.types import UserError


def names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
  ('path', 'says'),
  [
    ('', "'' is no path"),
    ('a\0b', 'is no path'),
    (3, 'got 3 for a path'),
    (b'run', "got b'run' for a path"),
    ('s3://bucket/x', 'only gs://BUCKET/FOLDER'),
    ('http://host/x', 'only gs://BUCKET/FOLDER'),
    ('file:///x', 'only gs://BUCKET/FOLDER'),
    ('gs:/bucket/x', 'only gs://BUCKET/FOLDER'),
    ('gs:///x', 'only gs://BUCKET/FOLDER'),
  ],
)
def test_what_is_no_place(path, says):
  with pytest.raises(UserError, match=says):
    files.to_path(path)


def test_folders_here_may_have_any_name():
  assert str(files.to_path('./s3:/x')) == 's3:/x'
  assert files.to_path(files.to_path('./s3:/x')) == files.to_path('./s3:/x')
  assert not files.is_remote('/tmp/gs://x')


def test_no_home(monkeypatch):
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', {}.__getitem__)
  with pytest.raises(UserError, match='~/runs: no home folder is known: set HOME'):
    files.to_path('~/runs')


def test_only_regular_files_are_read(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'zero').symlink_to('/dev/zero')
  (tmp_path / 'loop').symlink_to('loop')
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(tmp_path / 'socket'))
  for name, says in {
    'pipe': 'it is a pipe, not a file',
    'zero': 'it is a device, not a file',
    'socket': 'it is a socket, not a file',
    '.': 'it is a folder, not a file',
    'loop': 'Too many levels of symbolic links',
    'x' * 300: 'File name too long',
  }.items():
    with pytest.raises(UserError, match=f'cannot read .*{says}'):
      files.read_bytes(tmp_path / name)
  with pytest.raises(FileNotFoundError):
    files.read_bytes(tmp_path / 'none')


def test_a_file_of_a_hole_is_not_read(tmp_path):
  with (tmp_path / 'hole').open('wb') as file:
    file.truncate(40 << 30)
  with pytest.raises(UserError, match='it has 42,949,672,960 bytes, and at most 4,294,967,296'):
    files.read_bytes(tmp_path / 'hole')


def test_text_and_json(tmp_path):
  path = tmp_path / 'a'
  path.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null]}')
  assert files.read_text(path)[0] == '{' and files.read_json(path) == {'a': [1, 2.5, None]}
  path.write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match='not a text file in UTF-8'):
    files.read_json(path)
  for text, says in {
    '{"a": NaN}': 'expected a JSON value: line 1 column 7',
    '[-Infinity]': 'no digit after sign: line 1 column 3',
    '["e000123", 1e999]': 'number is infinity .*line 1 column 13',
    '[-1E+0400]': 'number is infinity',
    f'[{"9" * 310}.5]': 'number is infinity',
    '[' * 100_000: 'depth limit exceeded',
    '1' * 5000: 'number is infinity',
    '{"a": 1': 'line 1',
    '{"a": 1, "b": {"a": 2, "a": 3}}': "it has the key 'a' twice: keep one",
    '[{"a b": [1] , "a b" : ":"}]': "it has the key 'a b' twice: keep one",
    '{"a": "\\u003a", "a": 1}': "it has the key 'a' twice: keep one",
    '{"\\u0061": 1, "a": 1}': "it has the key 'a' twice: keep one",
    f'{"[" * 300}{"]" * 300}': 'nesting is deeper than 254',
  }.items():
    path.write_text(text)
    with pytest.raises(UserError, match=f'cannot be read as JSON: .*{says}'):
      files.read_json(path)


def test_a_folder_of_a_run_is_no_link(tmp_path):
  assert files.own_folder(tmp_path / 'run' / 'eval').is_dir()
  (tmp_path / 'run' / 'figures').symlink_to(tmp_path)
  with pytest.raises(UserError, match='figures is a link, and nothing is written through it'):
    files.own_folder(tmp_path / 'run' / 'figures')


def test_numbers_that_float_can_hold_are_as_json_reads_them():
  for text in (
    '[1e300, 1E+007, -1e-999]',
    f'[{"9" * 300}.5]',
    '["frame000123", "0E9999x", 2.5]',
    '[{"a:": ":", "b" : "\\u003a\\u003A"}, {"a:": "\\":"}]',
  ):
    assert files.parsed(text) == json.loads(text)
  assert files.parsed('[18446744073709551615, 18446744073709551616]') == [2**64 - 1, 2.0**64]


def test_a_file_is_whole_or_not_there(tmp_path):
  path = tmp_path / 'a.txt'
  files.write_text(path, 'ä')
  assert path.read_bytes() == 'ä'.encode() and names(tmp_path) == ['a.txt']
  (tmp_path / 'b.txt').touch()
  assert path.stat().st_mode == (tmp_path / 'b.txt').stat().st_mode
  (tmp_path / 'b.txt').unlink()
  with pytest.raises(RuntimeError), files.new_file(path) as file:
    file.write(b'half')
    raise RuntimeError
  assert path.read_bytes() == 'ä'.encode() and names(tmp_path) == ['a.txt']


def test_a_name_that_is_taken_meanwhile_stays(tmp_path, monkeypatch):
  path = tmp_path / 'a.txt'
  for _ in range(2):
    with pytest.raises(FileExistsError), files.new_file(path, replace=False) as file:
      file.write(b'ours')
      path.write_text("somebody's")
    assert path.read_text() == "somebody's" and names(tmp_path) == ['a.txt']
    path.unlink()
    files.write_text(path, 'ours', replace=False)
    assert path.read_text() == 'ours' and names(tmp_path) == ['a.txt']
    path.unlink()
    monkeypatch.setattr(os, 'link', _no_links)  # once more as on a file system without them


def _no_links(*_):
  raise PermissionError


def test_a_link_is_neither_replaced_nor_written_through(tmp_path):
  mine, link = tmp_path / 'mine', tmp_path / 'link'
  mine.write_text('mine')
  link.symlink_to(mine)
  for write in (
    files.Appended,
    partial(files.write_text, text=''),
    partial(files.new_file, replace=False),
  ):
    with pytest.raises(OSError, match='it is a link: name the file itself, or remove the link'):
      with contextlib.ExitStack() as stack:
        stack.enter_context(write(link))
  assert mine.read_text() == 'mine' and link.is_symlink() and names(tmp_path) == ['link', 'mine']


def test_what_is_appended_changes_no_other_name(tmp_path):
  (tmp_path / 'log').write_text('a')
  files.Appended(tmp_path / 'log').close()
  os.link(tmp_path / 'log', tmp_path / 'backup')
  with pytest.raises(OSError, match='the file has a second name'):
    files.Appended(tmp_path / 'log')


def test_a_private_file_stays_private(tmp_path):
  (tmp_path / 'a').touch(mode=0o600)
  files.write_text(tmp_path / 'a', 'new')
  assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o600


def test_files_of_the_user_are_never_temporary_ones(tmp_path):
  for name in ('a.tmp', '.a.part.png', 'a.part', '.jaxseg-notes'):
    (tmp_path / name).write_text('mine')
  files.write_text(tmp_path / 'a.json', '{}')
  files.write_text(tmp_path / 'a.png', '')
  files.remove_stale(tmp_path)
  assert {p.name for p in tmp_path.iterdir() if p.read_text() == 'mine'} == {
    'a.tmp',
    '.a.part.png',
    'a.part',
    '.jaxseg-notes',
  }


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path):
  with pytest.raises(KeyboardInterrupt), files.whole_file(tmp_path / 'a.png') as part:
    kept = part.with_name(part.name[:-5] + '01'[part.stem[-1] == '0'] + '.png')
    kept.touch()
    raise KeyboardInterrupt
  with files.scratch_folder(tmp_path) as folder:
    half = folder.rename(folder.with_name(folder.name[:-1] + 'x'))  # no name of ours
    mine = half.rename(folder.with_name(folder.name + '1'))
    (mine / 'in').touch()
  files.remove_stale(tmp_path)
  assert names(tmp_path) == sorted([kept.name, mine.name])
  for path in (kept, mine):
    os.utime(path, (time.time() - 100_000,) * 2)
  files.remove_stale(tmp_path)
  assert names(tmp_path) == [mine.name]  # somebody writes into it
  os.utime(mine / 'in', (time.time() - 100_000,) * 2)
  files.remove_stale(tmp_path)
  assert names(tmp_path) == []


def test_long_names(tmp_path):
  files.write_text(tmp_path / ('a' * 251 + '.txt'), 'fits')
  with pytest.raises(OSError, match='File name too long') as caught:
    files.write_text(tmp_path / ('a' * 252 + '.txt'), 'does not')
  assert caught.value.filename.endswith('aa.txt')
  assert len(names(tmp_path)) == 1


FULL = """
import errno, resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from jaxseg import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
path = Path(sys.argv[1], 'a.bin')
for write in (
  lambda file: file.write(noise),
  lambda file: np.save(file, noise),
  lambda file: Image.fromarray(noise).save(file, 'PNG'),
  lambda file: Image.fromarray(noise).save(file, 'TIFF'),
):
  try:
    with files.new_file(path) as file:
      write(file)
  except OSError as error:
    assert error.errno == errno.EFBIG and error.filename == str(path), repr(error)
  else:
    raise AssertionError(write)
"""


def test_libraries_tell_of_a_full_disk(tmp_path):
  done = subprocess.run([sys.executable, '-c', FULL, str(tmp_path)], capture_output=True, text=True)
  assert done.returncode == 0 and not done.stderr, done.stderr
  assert names(tmp_path) == []


def test_libraries_write_what_they_would(tmp_path):
  values = np.arange(6, dtype=np.float32).reshape(2, 3)
  with files.new_file(tmp_path / 'a.npy') as file:
    np.save(file, values)
  np.testing.assert_array_equal(np.load(tmp_path / 'a.npy'), values)
  with files.new_file(tmp_path / 'a.png') as file:
    Image.fromarray(values.astype(np.uint8)).save(file, 'PNG')
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), values)


def test_two_that_add_to_one_file_keep_each_line_whole(tmp_path):
  def add(letter):
    file = files.Appended(tmp_path / 'log')
    for _ in range(50):
      file.write(letter * 20_000 + b'\n')
    file.close()

  threads = [threading.Thread(target=add, args=(letter,)) for letter in (b'a', b'b')]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  lines = (tmp_path / 'log').read_bytes().splitlines()
  assert sorted(lines) == [b'a' * 20_000] * 50 + [b'b' * 20_000] * 50
