"""Writes files atomically: on any failure the file is absent, or the old one remains."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxseg.files.paths import is_remote

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk
_SAID = tuple(os.strerror(number) for number in FULL)
_PART = '.jaxseg-'  # prefix of incomplete files and folders, before 16 hexadecimal digits
_PARTS = f'{_PART}{"[0-9a-f]" * 16}*'
_LONGEST_SUFFIX = 16
_STALE_SECONDS = 24 * 3600
_UPLOAD_SECONDS = 15.0  # between two uploads of a growing file


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
  """Yields a temporary local path to write to; the file is renamed once it is complete and on the disk.

  Args:
    path: the final path.
    replace: whether it may replace an existing file.

  Raises:
    FileExistsError: it may not, and the file exists by then.
    OSError: the path is a link, which is neither replaced nor written through; or the system's error,
      with the final path.
  """
  _refuse_link(path)
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
  part = _part(path.parent, suffix)
  os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
  try:
    yield part
    _sync(part)
    if replace:
      with contextlib.suppress(FileNotFoundError):
        part.chmod(stat.S_IMODE(path.stat().st_mode))  # a private file stays private
      os.replace(part, path)
    else:
      _take_free_name(part, path)
  except OSError as error:
    if error.errno and error.filename in (None, str(part)):
      raise OSError(error.errno, error.strerror, str(path)) from None
    raise
  finally:
    part.unlink(missing_ok=True)


def _refuse_link(path: Path) -> None:
  """Whoever made a link wants its target, but in a stranger's folder it could be any file."""
  if not is_remote(path) and path.is_symlink():
    raise OSError(errno.ELOOP, 'it is a link: name the file itself, or remove the link', str(path))


def _refuse_second_name(path: Path) -> None:
  """What is appended would stand in the file of the other name too, as in a backup by hard links."""
  if not is_remote(path) and path.exists() and path.stat().st_nlink > 1:
    reason = 'the file has a second name (a hard link), and would change there too: copy it'
    raise OSError(errno.EMLINK, reason, str(path))


def _sync(path: Path) -> None:
  """Waits until a file's bytes are on the disk, which they must be before it is renamed."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _take_free_name(part: Path, path: Path) -> None:
  """Renames a file to an unused path; the system ensures it, as checking first would be a race."""
  try:
    os.link(part, path)
  except FileExistsError:
    raise
  except OSError:  # a file system without hard links: reserves the path, then replaces it
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
      os.replace(part, path)
    except OSError:
      path.unlink()
      raise


class _Writer(io.BufferedWriter):
  """Hides the descriptor: Pillow and NumPy would write to it directly, and lose the reason of errors."""

  def fileno(self) -> int:
    raise io.UnsupportedOperation('fileno')


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
  """Yields an open file that appears at its path once complete; see `whole_file`."""
  with whole_file(path, replace=replace) as part, _Writer(io.FileIO(part, 'w')) as file:
    yield file


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
  """Writes a file atomically; see `whole_file`."""
  with new_file(path, replace=replace) as file:
    file.write(data)


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
  """Writes a UTF-8 file atomically, invalid Unicode (of file names) escaped; see `whole_file`."""
  write_bytes(path, text.encode('utf-8', 'backslashreplace'), replace=replace)


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
  """Converts a library's error of a full disk, while it writes to a folder, to an OSError."""
  try:
    yield
  except Exception as error:
    texts = [str(e) for e in (error, error.__cause__, error.__context__) if e]
    for number, said in zip(FULL, _SAID, strict=True):
      if any(said in text for text in texts):
        raise OSError(number, said, str(folder)) from error
    raise


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
  """Yields a new local folder beside what it is renamed to; what is left of it is removed at the end."""
  remove_stale(parent)
  folder = _part(parent)
  folder.mkdir()  # not mkdtemp, which makes private folders
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _part(parent: Path, suffix: str = '') -> Path:
  return parent / f'{_PART}{secrets.token_hex(8)}{suffix}'


def remove_stale(folder: Path) -> None:
  """Removes incomplete files and folders of writers killed at least a day ago from a local folder."""
  for part in folder.glob(_PARTS) if not is_remote(folder) else ():
    with contextlib.suppress(OSError):  # its owner is still working in it
      inside = () if part.is_symlink() else part.rglob('*')
      newest = max(path.lstat().st_mtime for path in (part, *inside))
      if time.time() - newest > _STALE_SECONDS:
        shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()


class Appended:
  """A file to append to: written at once if local, uploaded now and then if in a bucket.

  Args:
    path: existing content is kept.

  Raises:
    OSError: as `whole_file`.
  """

  def __init__(self, path: Path):
    _refuse_link(path)
    _refuse_second_name(path)
    self._path = path
    self._file = None if is_remote(path) else open(path, 'ab', buffering=0)
    self._data = bytearray(path.read_bytes() if self._file is None and path.exists() else b'')
    self._uploaded, self._whole = time.monotonic(), True

  def write(self, data: bytes) -> None:
    """Appends bytes in one system call, so that lines of several processes do not mix."""
    if self._file:
      try:
        while data:
          data = data[self._file.write(data) :]
      except OSError as error:  # it lacks the file's name
        raise OSError(error.errno, error.strerror, str(self._path)) from None
      return
    self._data += data
    self._whole = False
    if time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
      self.sync()

  def sync(self) -> None:
    """Waits until all that was written is visible to others."""
    if self._file or self._whole:
      return
    self._path.write_bytes(bytes(self._data))
    self._uploaded, self._whole = time.monotonic(), True

  def close(self) -> None:
    self.sync()
    if self._file:
      self._file.close()
