"""The cache folder: named after what went in, filled aside, then renamed: complete or not there."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.types import UserError

_STALE_SECONDS = 24 * 3600


def publish(folder: Path, make: Callable[[Path], None]) -> None:
  """Fills `folder` through make(temporary folder) so that it is complete or not there."""
  make_folder(folder.parent)
  _remove_stale(folder.parent)
  building = folder.parent / f'.building-{uuid.uuid4().hex}'
  building.mkdir()  # not mkdtemp: the folder is to be as readable as any other
  try:
    with files.full_disk_told(folder.parent):
      make(building)
    try:
      building.rename(folder)
    except OSError:  # a folder that is not empty cannot be replaced: another process was first
      if not folder.is_dir():
        raise
  finally:
    shutil.rmtree(building, ignore_errors=True)


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
  for building in parent.glob('.building-*'):
    try:
      newest = max(p.stat().st_mtime for p in (building, *building.rglob('*')))
      if time.time() - newest > _STALE_SECONDS:
        shutil.rmtree(building, ignore_errors=True)
    except OSError:  # its owner is at work in it
      continue


def cache_root(cache_dir: str | os.PathLike | None) -> Path:
  """Returns the folder for everything that can be made again.

  Raises:
    UserError: it is in a bucket: records are read at random places, from this machine's disk.
  """
  given = cache_dir or os.environ.get('JAXSEG_CACHE') or '~/.cache/jaxseg'
  if files.is_remote(given):
    raise UserError(f'the cache folder {given} must be on this machine: set config.cache_dir')
  return files.for_libraries(given)


def remembered(path: Path, make: Callable[[], Any]) -> Any:
  """Returns the JSON-able value kept in the file `path`, made and written there where it is not."""
  value = recalled(path)
  if value is None:
    value = make()
    remember(path, value)
  return value


def recalled(path: Path) -> Any:
  """Returns the value kept in a file, None where there is none or it is not what was written."""
  try:
    return files.read_json(path)
  except (OSError, UserError):
    return None


def remember(path: Path, value: Any) -> None:
  """Keeps a JSON-able value in a file."""
  make_folder(path.parent)
  files.write_text(path, json.dumps(value))
