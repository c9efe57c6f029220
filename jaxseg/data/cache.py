"""The cache: entries are built under a temporary name, then renamed, so they are complete or absent."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.types import UserError


def publish(folder: Path, make: Callable[[Path], None]) -> None:
  """Creates `folder` atomically: make(temporary folder) fills it, then it is renamed."""
  make_folder(folder.parent)
  with files.scratch_folder(folder.parent) as building:
    with files.explain_full_disk(folder.parent):
      make(building)
    try:
      building.rename(folder)
    except OSError:  # not replaced as it is not empty: another process was first
      if not folder.is_dir():
        raise


def make_folder(folder: Path) -> None:
  """Creates a cache folder if absent and checks that it is writable."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder, os.W_OK)
  except OSError:
    writable = False
  if not writable:
    raise UserError(
      f'cannot write to the cache folder {folder}: set JAXSEG_CACHE to a folder that can be written'
    )


def cache_root(cache_dir: str | os.PathLike | None) -> Path:
  """Returns the folder for everything that can be rebuilt.

  Raises:
    UserError: it is in a bucket; records need random access to a local disk.
  """
  given = cache_dir or os.environ.get('JAXSEG_CACHE') or '~/.cache/jaxseg'
  if files.is_remote(given):
    raise UserError(f'the cache folder {given} must be on this machine: set config.cache_dir')
  return files.to_utf8_path(given)


def cached(path: Path, make: Callable[[], Any]) -> Any:
  """Returns the JSON-able value cached in a file, computed and written if absent."""
  value = load(path)
  if value is None:
    value = make()
    save(path, value)
  return value


def load(path: Path) -> Any:
  """Returns the value cached in a file, None if it is missing or damaged."""
  try:
    return files.read_json(path)
  except (OSError, UserError):
    return None


def save(path: Path, value: Any) -> None:
  """Caches a JSON-able value in a file."""
  make_folder(path.parent)
  files.write_text(path, json.dumps(value))
