"""Writing: a file is whole or not there, whatever fails, and no other file is lost for it."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxseg.files.places import is_remote

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the system says where nothing more fits
_SAID = tuple(os.strerror(number) for number in FULL)
_PART = '.jaxseg-'  # begins the names of files that are not whole yet
_LONGEST_SUFFIX = 16
_STALE_SECONDS = 24 * 3600
_UPLOAD_SECONDS = 15.0  # between two uploads of a file that grows


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
  """Gives a local name to write under; the file gets its own once it is whole and on the disk.

  Args:
    path: its name in the end.
    replace: whether it may take the place of a file that is there.

  Raises:
    FileExistsError: it may not, and one is there by now.
    OSError: what the system says, of the file's own name.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory() as scratch:
      part = Path(scratch) / path.name
      yield part
      if not replace and path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
      with part.open('rb') as source, path.open('wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return
  suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ''
  part = path.with_name(f'{_PART}{secrets.token_hex(8)}{suffix}')
  os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
  try:
    yield part
    _sync(part)
    if replace:
      os.replace(part, path)
    else:
      _take_free_name(part, path)
  except OSError as error:
    if error.errno and error.filename in (None, str(part)):
      raise OSError(error.errno, error.strerror, str(path)) from None
    raise
  finally:
    part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
  """Returns once a file's bytes are on the disk: a name must not come before them."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _take_free_name(part: Path, path: Path) -> None:
  """Renames a file to a name that nothing has, which the system sees to, not a look before."""
  try:
    os.link(part, path)
  except FileExistsError:
    raise
  except OSError:  # a file system without hard links: the name is taken first, then filled
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
      os.replace(part, path)
    except OSError:
      path.unlink()
      raise


class _Writer(io.BufferedWriter):
  """Has no descriptor: Pillow and NumPy would write to it themselves, and lose why that failed."""

  def fileno(self) -> int:
    raise io.UnsupportedOperation('fileno')


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
  """Gives an open file that appears under its name once it is whole; see `whole_file`."""
  with whole_file(path, replace=replace) as part, _Writer(io.FileIO(part, 'w')) as file:
    yield file


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
  """Writes a file in one move; see `whole_file`."""
  with new_file(path, replace=replace) as file:
    file.write(data)


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
  """Writes a file in UTF-8 in one move, names that are no Unicode escaped; see `whole_file`."""
  write_bytes(path, text.encode('utf-8', 'backslashreplace'), replace=replace)


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
  """Turns what a library makes of a full disk, while it writes to a folder, into an OSError."""
  try:
    yield
  except Exception as error:
    texts = [str(e) for e in (error, error.__cause__, error.__context__) if e]
    for number, said in zip(FULL, _SAID, strict=True):
      if any(said in text for text in texts):
        raise OSError(number, said, str(folder)) from error
    raise


def remove_stale(folder: Path) -> None:
  """Removes what writers that were killed a day ago or longer have left in a local folder."""
  for part in folder.glob(f'{_PART}*') if not is_remote(folder) else ():
    with contextlib.suppress(OSError):
      if time.time() - part.lstat().st_mtime > _STALE_SECONDS:
        part.unlink()


class Appended:
  """A file that grows: a local one with every `write`, one in a bucket with some of them.

  Args:
    path: kept if it is there.
  """

  def __init__(self, path: Path):
    self._path = path
    self._file = None if is_remote(path) else open(path, 'ab', buffering=0)
    self._data = bytearray(path.read_bytes() if self._file is None and path.exists() else b'')
    self._uploaded, self._whole = time.monotonic(), True

  def write(self, data: bytes) -> None:
    """Adds bytes, in one call to the system: of two processes that add, each keeps its lines whole."""
    if self._file:
      try:
        while data:
          data = data[self._file.write(data) :]
      except OSError as error:  # it does not say of what file
        raise OSError(error.errno, error.strerror, str(self._path)) from None
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
