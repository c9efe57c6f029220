"""Downloads what the manifest lists, after showing the terms and checking for room; verifies every file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import console, files
from jaxseg.data import cache
from jaxseg.fetch.manifest import Dataset, RemoteFile
from jaxseg.files import download
from jaxseg.types import UserError

_ORIGIN = '.origin.json'


@dataclasses.dataclass(frozen=True)
class FetchOptions:
  """How to get files.

  Attributes:
    mirror: tried first: a path, or a URL of http, https or a bucket, with the layout of the data folder
      (voc/benchmark.tgz) and weights in weights/; '' is $JAXSEG_MIRROR, if set.
    yes: whether to agree to the terms without asking.
    cache_dir: default $JAXSEG_CACHE, else ~/.cache/jaxseg.
  """

  mirror: str = ''
  yes: bool = False
  cache_dir: str | os.PathLike | None = None

  def addresses(self, item: RemoteFile, group: str) -> tuple[str, ...]:
    """Returns a file's addresses, the mirror first."""
    mirror = (self.mirror or os.environ.get('JAXSEG_MIRROR', '')).rstrip('/')
    return (f'{mirror}/{group}/{item.name}', *item.addresses) if mirror else item.addresses


def dataset(
  entry: Dataset,
  root: Path,
  way: FetchOptions,
  splits: tuple[str, ...] | None = None,
  options: Mapping[str, Any] | None = None,
) -> None:
  """Gets a dataset's files into its folder, as its reader expects them.

  Args:
    root: the data folder, created if absent; may be in a bucket.
    splits, options: of the dataset; None: all its files.

  Raises:
    UserError: an account is needed, the terms are not agreed to, there is too little room, or no
      address provides a file; the message says what to do.
  """
  folder = root / entry.name
  wanted = [i for i in entry.files if splits is None or i.is_needed(splits, options or {})]
  absent = [i for i in wanted if not _is_there(i, folder, root)]
  for item in (i for i in wanted if i not in absent):
    if (folder / item.name).exists():
      verify(item, folder / item.name)
  if by_hand := [i.name for i in absent if not way.addresses(i, entry.name)]:
    steps = entry.steps.format(folder=folder)
    raise UserError(
      f'{entry.name}: {" and ".join(by_hand)} cannot be downloaded without an account ({entry.licence}): {steps}'
    )
  if absent:
    ask_to_agree(entry.name, f'{entry.licence}; {entry.page}', way)
    _check_room(absent, folder)
  for item in absent:
    if files.is_remote(folder):
      staged = file(item, cache.cache_root(way.cache_dir) / 'staged', entry.name, way)
      with files.new_file(folder / item.name) as target, staged.open('rb') as source:
        shutil.copyfileobj(source, target, 1 << 20)
      staged.unlink()
    else:
      file(item, folder, entry.name, way)
  console.say(f'{entry.name}: {", ".join(i.name for i in wanted)} in {folder}')


def file(item: RemoteFile, folder: Path, group: str, way: FetchOptions) -> Path:
  """Gets one file into a local folder, unless it exists, and returns its path."""
  path = folder / item.name
  if path.exists():
    verify(item, path)
    return path
  addresses = way.addresses(item, group)
  folder.mkdir(parents=True, exist_ok=True)
  try:
    with console.Progress() as progress:
      meter = _Meter(item.name, progress)
      origin = download.download(
        addresses, path, size=item.bytes, digest=item.digest, watch=meter.show
      )
  except download.NotFetched as error:
    raise UserError(
      f'{error}: get {(item.addresses or addresses)[0]} on a machine that can, put it at {path}, and run the '
      'same command again'
    ) from None
  except KeyboardInterrupt:
    raise KeyboardInterrupt(f'the same command goes on with {path}.part') from None
  if origin.address:
    _note(path, origin)
  return path


def verify(item: RemoteFile, path: Path) -> None:
  """Verifies a file that was put there by hand, once.

  Raises:
    UserError: it is another file, or damaged.
  """
  note = _note_of(path)
  if files.is_remote(path) or (note.is_file() and item.bytes in (None, path.stat().st_size)):
    return
  size, sha256, fits = download.measured(path, item.digest)
  if not fits or item.bytes not in (None, size):
    raise UserError(
      f'{path} is another file, or damaged: its {size:,} bytes do not have the checksum or the size of '
      f'{item.name}; remove it, and run the same command again'
    )
  _note(path, download.Origin('put here by hand', size, sha256))


def ask_to_agree(name: str, terms: str, way: FetchOptions) -> None:
  """Shows terms and asks to agree to them, once.

  Raises:
    UserError: the user does not agree, or cannot be asked.
  """
  kept = cache.cache_root(way.cache_dir) / 'agreed' / f'{name}.json'
  if cache.load(kept) == terms:
    return
  console.say(f'{name}: {terms}')
  if not way.yes:
    asked = sys.stdin.isatty() and sys.stdout.isatty()
    if not asked or input('agree to these terms? [y/N] ').strip().lower() not in ('y', 'yes'):
      raise UserError(
        f'{name}: its terms are not agreed to: read them above, and add --yes to '
        f'{console.command("data")} get {name} if you do'
      )
  cache.save(kept, terms)


def _is_there(item: RemoteFile, folder: Path, root: Path) -> bool:
  here = (folder / name for name in (item.name, *item.holds))
  return any(path.exists() for path in (*here, *(root / name for name in item.holds)))


def _check_room(items: list[RemoteFile], folder: Path) -> None:
  if files.is_remote(folder):
    return
  folder.mkdir(parents=True, exist_ok=True)
  needed, free = sum(item.bytes or 0 for item in items), shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f'{folder}: {", ".join(i.name for i in items)} have {needed:,} bytes, and {free:,} are free: make '
      'room there, or set JAXSEG_DATA to a folder on another disk'
    )


def _note_of(path: Path) -> Path:
  return path.with_name(path.name + _ORIGIN)


def _note(path: Path, origin: download.Origin) -> None:
  """Saves a file's origin and full checksum beside it."""
  values = {**dataclasses.asdict(origin), 'date': datetime.date.today().isoformat()}
  files.write_text(_note_of(path), json.dumps(values, indent=1) + '\n')


class _Meter:
  """A line such as 'images.tar.gz: 120.4 of 791.9 MB, 11.2 MB/s, ETA 59s'; less often if not on a terminal."""

  def __init__(self, name: str, progress: console.Progress):
    self._name, self._progress = name, progress
    self._first: tuple[float, int] | None = None

  def show(self, done: int, total: int | None) -> None:
    now = time.monotonic()
    self._first = self._first or (now, done)
    if not self._progress.is_due():
      return
    began, had = self._first
    rate = max(done - had, 0) / max(now - began, 1e-9)
    size = f'{done / 1e6:.1f} of {total / 1e6:.1f} MB' if total else f'{done / 1e6:.1f} MB'
    words = [size, f'{rate / 1e6:.2g} MB/s']
    if total and rate:
      words.append(f'ETA {console.duration((total - done) / rate)}')
    self._progress.show(f'{self._name}: {", ".join(words)}')
