"""The cache folder: where it is, and what is in it complete."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxseg.data import cache
from jaxseg.types import UserError


def test_cache_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write to the cache folder .*JAXSEG_CACHE'):
    cache.publish(tmp_path / 'file' / 'folder', lambda place: None)


def test_cache_root(monkeypatch, tmp_path):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'e'))
  assert cache.cache_root(None) == tmp_path / 'e'
  assert cache.cache_root(tmp_path / 'g') == tmp_path / 'g'
  monkeypatch.delenv('JAXSEG_CACHE')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cache.cache_root(None) == tmp_path / '.cache' / 'jaxseg'


def test_publish_gives_way_to_whoever_was_first(tmp_path):
  folder, both_at_work = tmp_path / 'done', threading.Barrier(2)

  def make(place, word):
    (place / 'word').write_text(word)
    both_at_work.wait()

  with ThreadPoolExecutor(2) as pool:
    jobs = [pool.submit(cache.publish, folder, lambda p, w=w: make(p, w)) for w in 'ab']
    [job.result() for job in jobs]
  assert (folder / 'word').read_text() in 'ab'
  assert [p.name for p in tmp_path.iterdir()] == ['done']


def test_leftovers_of_killed_builds_go_after_a_day(tmp_path):
  old, new = f'.jaxseg-{16 * "0"}', f'.jaxseg-{16 * "f"}'
  for name, age in ((old, 1e6), (new, 10)):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'x').write_text('')
    now = (tmp_path / name).stat().st_mtime
    for path in (tmp_path / name / 'x', tmp_path / name):
      os.utime(path, (now - age, now - age))
  cache.publish(tmp_path / 'done', lambda place: (place / 'y').write_text(''))
  assert sorted(p.name for p in tmp_path.iterdir()) == [new, 'done']


def test_what_is_remembered_is_made_once(tmp_path):
  made = []

  def make():
    made.append(1)
    return {'n': len(made)}

  path = tmp_path / 'folder' / 'value.json'
  assert [cache.cached(path, make) for _ in range(2)] == [{'n': 1}] * 2
  path.write_text('{"n"')  # damaged
  assert cache.cached(path, make) == {'n': 2} == cache.cached(path, make)
  assert [p.name for p in path.parent.iterdir()] == ['value.json']
