"""NAME.part, a file that is being received: one process at a time adds to it, with checksums of all it has."""

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

_WAIT = 0.5  # seconds between two looks at what another process receives
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_HASHES = {'md5': 32, 'sha1': 40, 'sha256': 64}


def check_digest(digest: str) -> str:
  """Returns a digest's kind. Raises ValueError unless it is '', 'md5:...', 'sha1:...' or 'sha256:...', and
  8 leading digits of it or more."""
  kind, _, digits = digest.partition(':')
  if digest and not (kind in _HASHES and re.fullmatch(f'[0-9a-f]{{8,{_HASHES[kind]}}}', digits)):
    raise ValueError(f'{digest!r} is no digest')
  return kind


class Part:
  """A file that grows, with the checksums of what is in it.

  Args:
    file: open, for writing too unless it is only measured.
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
    """Forgets all that came."""
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
  """Gives the part, open and locked, or None once another process has made the file.

  Raises:
    UserError: the part is a link, or anything but a file of its own.
  """
  part, mine = part_of(path), False
  while not mine:
    with contextlib.ExitStack() as stack:
      descriptor = _own(part)
      file = stack.enter_context(open(descriptor, 'r+b', buffering=0))
      locked = _lock(descriptor)
      mine = locked and _is(part, descriptor)  # else who had it has just renamed or removed it
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
  """Opens a part, which is made where there is none. Raises UserError where its bytes are another file's too."""
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
  """Whether a name is still that of an open file."""
  try:
    return path.stat().st_ino == os.fstat(descriptor).st_ino
  except FileNotFoundError:
    return False
