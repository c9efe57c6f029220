"""NAME.part, a partial download: written by one process at a time, with running checksums."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jaxseg.types import UserError

_WAIT = 0.5  # seconds between checks of another process's download
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_HASHES = {'md5': 32, 'sha1': 40, 'sha256': 64}


def check_digest(digest: str) -> str:
  """Returns a digest's algorithm. Raises ValueError unless it is '', 'md5:...', 'sha1:...' or 'sha256:...'
  with at least 8 leading digits."""
  kind, _, digits = digest.partition(':')
  if digest and not (kind in _HASHES and re.fullmatch(f'[0-9a-f]{{8,{_HASHES[kind]}}}', digits)):
    raise ValueError(f'{digest!r} is no digest')
  return kind


class Part:
  """A growing file with the checksums of its content.

  Args:
    file: open for reading, and to grow, for writing.
    digest: see download.
  """

  def __init__(self, file: BinaryIO, digest: str):
    self.digest, self._file = digest, file
    self._begin()
    file.seek(0)
    while piece := file.read(1 << 20):
      self._add(piece)

  def _begin(self) -> None:
    kind = check_digest(self.digest)
    self.size, self._hashes = 0, {k: hashlib.new(k) for k in {'sha256', kind} - {''}}

  def _add(self, data: bytes) -> None:
    for one in self._hashes.values():
      one.update(data)
    self.size += len(data)

  def write(self, data: bytes) -> None:
    self._add(data)
    while data:
      data = data[self._file.write(data) :]

  def restart(self) -> None:
    """Discards all content."""
    self._file.seek(0)
    self._file.truncate(0)
    self._begin()

  @property
  def sha256(self) -> str:
    return self._hashes['sha256'].hexdigest()

  @property
  def fits(self) -> bool:
    kind, _, digits = self.digest.partition(':')
    return not kind or self._hashes[kind].hexdigest().startswith(digits)


def part_of(path: Path) -> Path:
  return path.with_name(f'{path.name}.part')


@contextlib.contextmanager
def claimed(path: Path, wait: Callable[[int], None]) -> Iterator[BinaryIO | None]:
  """Yields the part, open and locked, or None once another process has completed the file.

  Raises:
    UserError: the part is a link, or not a regular file.
  """
  part, mine = part_of(path), False
  while not mine:
    with contextlib.ExitStack() as stack:
      descriptor = _own(part)
      file = stack.enter_context(open(descriptor, 'r+b', buffering=0))
      locked = _lock(descriptor)
      mine = locked and _is(part, descriptor)  # else its owner has just renamed or removed it
      if path.exists() and (mine or not locked):
        if mine:
          part.unlink()
        yield None
        return
      if mine:
        try:
          yield file
        finally:
          if _is(part, descriptor) and not os.fstat(descriptor).st_size:
            part.unlink()
      elif not locked:
        wait(os.fstat(descriptor).st_size)
        time.sleep(_WAIT)


def _own(part: Path) -> int:
  """Opens a part, creating it if absent. Raises UserError unless it is a regular file without links."""
  flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    descriptor = os.open(part, flags, 0o666)
  except OSError as error:
    if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
      raise
    raise UserError(f'{part} is a link, a folder or a pipe: remove it') from None
  found = os.fstat(descriptor)
  if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
    os.close(descriptor)
    raise UserError(f'{part} is no plain file of its own: remove it')
  return descriptor


def _lock(descriptor: int) -> bool:
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
  return True


def _is(path: Path, descriptor: int) -> bool:
  """Whether a path still refers to an open file."""
  try:
    return path.stat().st_ino == os.fstat(descriptor).st_ino
  except FileNotFoundError:
    return False
