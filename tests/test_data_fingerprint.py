"""Cache keys that follow what files hold and what their readers do, not when they were touched."""

import functools
import importlib
import os
import sys

import pytest

from jaxseg.data import fingerprint
from jaxseg.data.problems import BadFiles


@pytest.fixture
def key(tmp_path):
  return lambda paths, facts=None: fingerprint.of_files(paths, facts, tmp_path / 'cache')


def test_a_key_follows_names_content_and_facts(tmp_path, key):
  paths = [tmp_path / 'a', tmp_path / 'b']
  for path, text in zip(paths, ('one', 'two'), strict=True):
    path.write_text(text)
  keys = [key(paths, {'x': 1}), key(paths[::-1], {'x': 1}), key(paths, {'x': 2})]
  os.utime(paths[0], ns=(1, 1))
  assert key(paths, {'x': 1}) == keys[0]
  paths[0].write_text('owe')
  keys.append(key(paths, {'x': 1}))
  assert len(set(keys)) == 4


def test_bytes_that_change_behind_the_same_size_and_time_are_seen(tmp_path, key):
  path = tmp_path / 'mask.png'
  path.write_bytes(b'0' * 1000)
  before, times = key([path]), path.stat()
  path.write_bytes(b'0' * 999 + b'1')
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
  assert path.stat().st_mtime_ns == times.st_mtime_ns and key([path]) != before


def test_an_untouched_file_is_read_once(tmp_path, key, monkeypatch):
  path, read = tmp_path / 'a', []
  path.write_bytes(b'x')
  digest = fingerprint._digest
  monkeypatch.setattr(fingerprint, '_digest', lambda p, size: read.append(p) or digest(p, size))
  assert key([path]) == key([path]) and read == [path]


@pytest.mark.parametrize('place', [0, 1_234_567, 2_999_999])
def test_one_byte_of_a_large_file_counts(tmp_path, key, place):
  """As where an object is drawn into an uncompressed mask: its size stays."""
  data = bytearray(3_000_000)
  (tmp_path / 'a').write_bytes(data)
  before = key([tmp_path / 'a'])
  data[place] = 1
  (tmp_path / 'a').write_bytes(data)
  assert key([tmp_path / 'a']) != before


def test_files_that_are_missing_are_all_named(tmp_path, key):
  with pytest.raises(BadFiles, match='missing file: .*a .and 1 more like it') as error:
    key([tmp_path / 'a', tmp_path / 'b'])
  assert [problem[-1] for problem in error.value.problems] == ['a', 'b']


def test_a_key_follows_the_readers_code(tmp_path, monkeypatch):
  """Its module's, that of what it imports from its own package, and of a partial's functions."""
  package = tmp_path / 'readers_of_mine'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'colours.py').write_text('def red(x):\n  return x\n')
  (package / 'mine.py').write_text(
    'import os\nfrom readers_of_mine import colours\n\ndef read(raw, then=None):\n  return colours.red(raw)\n'
  )
  monkeypatch.syspath_prepend(tmp_path)

  def code():
    for name in [n for n in sys.modules if n.startswith('readers_of_mine')]:
      del sys.modules[name]
    importlib.invalidate_caches()
    fingerprint._source.cache_clear()
    mine = importlib.import_module('readers_of_mine.mine')
    return fingerprint.of_code(mine.read), fingerprint.of_code(
      functools.partial(print, then=mine.read)
    )

  before = code()
  assert code() == before
  (package / 'colours.py').write_text('def red(x):\n  return 2 * x\n')
  after = code()
  assert after[0] != before[0] and after[1] != before[1]


def test_a_function_typed_in_has_its_own_code():
  one, two = {}, {}
  exec('def read(raw):\n  return raw', {'__name__': 'typed'}, one)
  exec('def read(raw):\n  return raw + 1', {'__name__': 'typed'}, two)
  assert fingerprint.of_code(one['read']) != fingerprint.of_code(two['read'])
