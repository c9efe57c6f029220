"""Where files lie: on this machine, or in a bucket named by a URL such as gs://bucket/folder.

Local paths are pathlib's, and as fast. Others are etils.epath's, which have the same methods. A file
in a bucket appears whole or not at all, but it cannot be appended to, and a folder cannot be locked.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

_UPLOAD_SECONDS = 15.0  # between two uploads of a file that grows


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether a path is a URL."""
  return '://' in os.fspath(path)


def place(path: str | os.PathLike) -> Path:
  """Returns a path of pathlib with ~ expanded, or for a URL one of epath."""
  return epath.Path(path) if is_remote(path) else Path(path).expanduser()


def absolute(path: str | os.PathLike) -> Path:
  """Returns the same place as `place`, whatever the working folder is later."""
  return place(path) if is_remote(path) else place(path).absolute()


def write_text(path: Path, text: str) -> None:
  """Writes a file in UTF-8 in one move: there is never half of it."""
  if is_remote(path):
    path.write_text(text, encoding='utf-8')
    return
  temporary = path.with_suffix('.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


def remove_folder(folder: Path) -> None:
  """Removes a folder with all that is in it."""
  if is_remote(folder):
    folder.rmtree()
  else:
    shutil.rmtree(folder)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Gives a local name to write under; the file gets its own once it is whole, else it goes."""
  if is_remote(path):
    with tempfile.TemporaryDirectory() as scratch:
      part = Path(scratch) / path.name
      yield part
      with part.open('rb') as source, path.open('wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return
  part = path.with_name(f'.{path.stem}.part{path.suffix}')
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
  """Gives a file that libraries can open by its name: this one, or for a while a copy of it."""
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as scratch:
    copy = Path(scratch) / path.name
    with path.open('rb') as source, copy.open('wb') as target:
      shutil.copyfileobj(source, target, 1 << 20)
    yield copy


class Appended:
  """A file that grows: a local one with every `write`, one in a bucket with some of them.

  Args:
    path: kept if it is there.
  """

  def __init__(self, path: Path):
    self._path = path
    self._file = None if is_remote(path) else path.open('ab')
    self._data = bytearray(path.read_bytes() if self._file is None and path.exists() else b'')
    self._uploaded, self._whole = time.monotonic(), True

  def write(self, data: bytes) -> None:
    if self._file:
      self._file.write(data)
      self._file.flush()
      return
    self._data += data
    self._whole = False
    if time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
      self.sync()

  def sync(self) -> None:
    """Returns once others see all that was written."""
    if self._file or self._whole:
      return
    self._path.write_bytes(bytes(self._data))
    self._uploaded, self._whole = time.monotonic(), True

  def close(self) -> None:
    self.sync()
    if self._file:
      self._file.close()
