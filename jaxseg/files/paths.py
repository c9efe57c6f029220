"""Paths of files: local, or in a bucket, given by a URL such as gs://bucket/folder.

Local paths are pathlib's, for speed; others are etils.epath's, with the same methods. A file in a
bucket appears atomically, but cannot be appended to, and a folder cannot be locked.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from jaxseg.types import UserError

_BUCKET = 'gs://'
_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:/')


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether a path is a bucket's URL."""
  return os.fspath(path).startswith(_BUCKET)


def to_path(path: str | os.PathLike) -> Path:
  """Returns a pathlib path with ~ expanded, or an epath path for a URL.

  Raises:
    UserError: not a path, an empty one, a URL that is not a bucket's, or ~ without a home folder.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise UserError(f'got {path!r:.60} for a path: give the name of a file or folder')
  text = os.fspath(path)
  if not text or '\0' in text:
    raise UserError(f'{text!r} is no path: give the name of a file or folder (. is this folder)')
  if is_remote(path) and len(text) > len(_BUCKET) and text[len(_BUCKET)] != '/':
    return epath.Path(path)
  if isinstance(path, str) and _ADDRESS.match(path):
    raise UserError(
      f'{path}: of addresses only gs://BUCKET/FOLDER is known; for a folder of this name here, begin '
      'with ./'
    )
  try:
    return Path(path).expanduser()
  except RuntimeError:
    raise UserError(
      f'{path}: no home folder is known: set HOME, or give a path without ~'
    ) from None


def absolute(path: str | os.PathLike) -> Path:
  """Returns `path` as an absolute path, independent of later changes of the working folder.

  `..` is resolved now: behind a folder that does not exist yet it would name another one later.
  """
  found = to_path(path)
  if is_remote(found):
    return found
  return Path(os.path.realpath(found)) if '..' in found.parts else found.absolute()


def to_utf8_path(path: str | os.PathLike) -> Path:
  """Returns the same path as `absolute`, for libraries that encode it in UTF-8.

  Raises:
    UserError: as `to_path`, or its bytes on the disk are not UTF-8.
  """
  found = absolute(path)
  try:
    same = is_remote(found) or os.fsencode(found) == str(found).encode()
  except UnicodeEncodeError:
    same = False
  if not same:
    raise UserError(
      f'{found}: this name is not UTF-8, which checkpoints and records need: choose a folder whose name '
      'is, or, if it looks right, a locale that is (LC_ALL=C.UTF-8)'
    )
  return found


def within(root: Path, path: Path) -> Path:
  """Returns a path given by a file in the folder `root`, which is untrusted.

  Raises:
    UserError: it is outside that folder.
  """
  if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root)):
    raise UserError(f'{path} is named by a file of {root}, and lies outside: move it there')
  return path


def own_folder(path: Path) -> Path:
  """Returns a folder inside a run or of results, creating it if absent.

  Raises:
    UserError: it is a link: in another user's run it could redirect writes anywhere.
  """
  if not is_remote(path) and path.is_symlink():
    raise UserError(
      f'{path} is a link, and nothing is written through it: put the folder itself there'
    )
  path.mkdir(parents=True, exist_ok=True)
  return path


def walk(root: Path) -> list[str]:
  """Returns the relative paths of all files below a folder, as 'a/b.png', sorted, without hidden ones.

  Links to folders are followed, once each.

  Raises:
    OSError: a folder that cannot be read.
  """
  found: list[str] = []
  seen: set[str] = set()

  def look(folder: Path, prefix: str) -> None:
    place = os.fspath(folder) if is_remote(root) else os.path.realpath(folder)
    if place in seen:
      return
    seen.add(place)
    for name, is_folder in _entries(folder):
      if name.startswith('.'):
        continue
      if is_folder:
        look(folder / name, f'{prefix}{name}/')
      else:
        found.append(prefix + name)

  look(root, '')
  return sorted(found)


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
  """Yields the name of each entry of a folder, and whether it is a folder."""
  if is_remote(folder):
    yield from ((path.name, path.is_dir()) for path in folder.iterdir())
    return
  with os.scandir(folder) as entries:
    for entry in entries:  # a link to itself is no folder, but os.DirEntry.is_dir would raise
      yield entry.name, os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def remove_folder(folder: Path) -> None:
  """Removes a folder with all its content."""
  if is_remote(folder):
    folder.rmtree()
  else:
    shutil.rmtree(folder)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
  """Yields a local path for libraries: the file itself, or a temporary copy of it."""
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as scratch:
    copy = Path(scratch) / path.name
    with path.open('rb') as source, copy.open('wb') as target:
      shutil.copyfileobj(source, target, 1 << 20)
    yield copy
