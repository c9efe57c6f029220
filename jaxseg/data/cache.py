"""The cache folder: named after what went in, filled aside, seen whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.datasets import BadFiles
from jaxseg.types import UserError

_STALE_SECONDS = 24 * 3600
_LINE_SECONDS = 10

Progress = Callable[[int, int], None]  # (examples done, examples in all)


def publish(folder: Path, make: Callable[[Path], None]) -> None:
  """Fills `folder` through make(temporary folder) so that it is seen whole or not at all."""
  make_folder(folder.parent)
  _remove_stale(folder.parent)
  place = folder.parent / f'.building-{uuid.uuid4().hex}'
  place.mkdir()  # not mkdtemp: the folder is to be as readable as any other
  try:
    make(place)
    try:
      place.rename(folder)
    except OSError:  # a folder that is not empty cannot be replaced: another process was first
      if not folder.is_dir():
        raise
  finally:
    shutil.rmtree(place, ignore_errors=True)


def make_folder(folder: Path) -> None:
  """Makes a cache folder where there is none and sees that it can be written to."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder, os.W_OK)
  except OSError:
    writable = False
  if not writable:
    raise UserError(
      f'cannot write to the cache folder {folder}: set JAXSEG_CACHE to a folder that can be written'
    )


def _remove_stale(parent: Path) -> None:
  """Removes what builds that were killed long ago left behind."""
  for place in parent.glob('.building-*'):
    try:
      newest = max(p.stat().st_mtime for p in (place, *place.rglob('*')))
      if time.time() - newest > _STALE_SECONDS:
        shutil.rmtree(place, ignore_errors=True)
    except OSError:  # its owner is at work in it
      continue


def fingerprint(paths: Sequence[Path], facts: Any) -> str:
  """Returns 16 hex digits of the files' paths, sizes and times, and of any JSON-able facts."""
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
  problems = []
  for path in paths:
    try:
      size, changed = _facts(path)
    except FileNotFoundError:
      problems.append(f'missing file: {path}')
      continue
    except OSError as error:
      problems.append(f'cannot read {path}: {error.strerror}')
      continue
    whole = path if files.is_remote(path) else path.absolute()
    digest.update(os.fsencode(whole))  # a name need not be valid Unicode
    digest.update(f'|{size}|{changed}\n'.encode())
  if problems:
    raise BadFiles(problems)
  return digest.hexdigest()[:16]


def _facts(path: Path) -> tuple[int, int]:
  """Returns a file's size and the time of its last change."""
  stat = path.stat()
  if files.is_remote(path):
    return stat.length, stat.mtime
  return stat.st_size, stat.st_mtime_ns


def cache_root(cache_dir: str | os.PathLike | None) -> Path:
  """Returns the folder for everything that can be made again.

  Raises:
    UserError: it is in a bucket: records are read at random places, from this machine's disk.
  """
  given = cache_dir or os.environ.get('JAXSEG_CACHE') or '~/.cache/jaxseg'
  if files.is_remote(given):
    raise UserError(f'the cache folder {given} must be on this machine: set config.cache_dir')
  return Path(given).expanduser().absolute()


def remembered(path: Path, make: Callable[[], Any]) -> Any:
  """Returns the JSON-able value kept in the file `path`, made and written there where it is not."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):  # absent, or not what was written
    value = make()
  make_folder(path.parent)
  write_text(path, json.dumps(value))
  return value


def write_text(path: Path, text: str) -> None:
  """Writes a file in one move: there is never half of it."""
  partial = path.with_name(f'.{uuid.uuid4().hex}')
  partial.write_text(text, encoding='utf-8')
  partial.replace(path)


class progress_line:
  """A context that gives a progress callback: the caller's, or one that shows a line on stderr.

  On a terminal that is a live bar, elsewhere a plain line every ten seconds.
  """

  def __init__(self, title: str, progress: Progress | None = None):
    self._title, self._progress, self._live = title, progress, None
    self._told = time.monotonic()

  def __enter__(self) -> Progress:
    if self._progress is not None:
      return self._progress
    if not sys.stderr.isatty():
      return self._tell
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Live

    self._live = Live(console=Console(stderr=True), transient=True)
    self._live.start()
    task = self._live.add_task(escape(self._title), total=None)
    return lambda done, total: self._live.update(task, completed=done, total=total)

  def _tell(self, done: int, total: int) -> None:
    if time.monotonic() - self._told > _LINE_SECONDS:
      self._told = time.monotonic()
      print(f'{self._title}: {done} of {total}', file=sys.stderr, flush=True)

  def __exit__(self, *unused) -> None:
    if self._live is not None:
      self._live.stop()
