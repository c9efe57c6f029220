"""Downloads a file from the first of its addresses that works, with resuming, checksums and retries.

Partial data are in NAME.part beside the file. Of several processes or hosts, the one with the lock on
it downloads, and the others wait. The file gets its name once it is complete and verified. On a file
system without locks, concurrent downloads corrupt each other, which the checksum detects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from jaxseg.files.part import Part, check_digest, claimed, part_of
from jaxseg.files.paths import is_remote, to_path
from jaxseg.files.reading import opened
from jaxseg.types import UserError

_PAUSES = (0.0, 2.0, 10.0, 30.0)  # seconds before each round over the addresses
_OFFLINE_ROUNDS = 2  # if no host name resolves
_TIMEOUT = 30.0  # seconds to connect, and without receiving a byte
_SLOWEST, _WATCHED = 4096, 30.0  # bytes/s and seconds; if slower for so long, tries another address
_CONTINUED = 20  # times to resume a broken connection to one address, in a round
_WORDS = 200  # characters of an address's error
_NO_HOST = 'no such host, or no connection to the net'
_PIECE = 1 << 18
_SPARE = 64 << 20  # bytes that stay free
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes that are worth a retry


class NotFetched(UserError):
  """No address provided the file.

  Attributes:
    reasons: why each tried address failed.
  """

  def __init__(self, name: str, reasons: dict[str, str]):
    self.reasons = reasons
    super().__init__(f'cannot fetch {name}: {"; ".join(f"{a}: {r}" for a, r in reasons.items())}')


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where a file came from.

  Attributes:
    address: '' if another process downloaded it.
    size: in bytes.
    sha256: all 64 digits.
  """

  address: str
  size: int
  sha256: str


class _Passing(Exception):
  """An address that may work later."""


class _Slow(_Passing):
  """An address that is slow, so that others may be faster."""


class _Refused(Exception):
  """An address that does not have the file."""


def measured(path: Path, digest: str = '') -> tuple[int, str, bool]:
  """Returns a local file's size in bytes, its sha256, and whether it matches `digest`; see download."""
  with path.open('rb') as file:
    part = Part(file, digest)
    return part.size, part.sha256, part.fits


def download(
  addresses: Sequence[str],
  path: Path,
  *,
  size: int | None = None,
  digest: str = '',
  watch: Callable[[int, int | None], None] = lambda done, total: None,
) -> Origin:
  """Downloads a file; resumes partial data if size or digest are known.

  Args:
    addresses: http and https URLs, paths, or URLs of a bucket, in order of preference.
    path: local, in an existing folder.
    size: in bytes, None if unknown.
    digest: 'sha256:HEX' (or md5, sha1), optionally only its leading digits; '' if unknown.
    watch: called with the bytes received and the total, None if unknown.

  Raises:
    NotFetched: no address provided it.
    UserError: the disk has too little room.
    OSError: the folder cannot be written.
  """
  check_digest(digest)
  with claimed(path, lambda done: watch(done, size)) as file:
    if file is None:  # another process was first
      return Origin('', *measured(path)[:2])
    part = Part(file, digest)
    _check_room(path, size, part.size)
    try:
      address = _received(addresses, part, path.name, size, watch)
      os.fsync(file.fileno())
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(path)) from None
    os.replace(part_of(path), path)
    return Origin(address, part.size, part.sha256)


def _received(addresses, part: Part, name: str, size: int | None, watch) -> str:
  """Completes the part and returns the address that provided its last byte."""
  if part.digest and part.fits:  # complete, only not renamed yet
    return ''
  reasons: dict[str, str] = {}
  left = list(dict.fromkeys(addresses))
  for number, pause in enumerate(_PAUSES):
    if not left or (number >= _OFFLINE_ROUNDS and set(reasons.values()) == {_NO_HOST}):
      break
    time.sleep(pause)
    for address in tuple(left):
      if not (size or part.digest):
        part.restart()  # nothing could verify that both parts belong to one file
      try:
        for _ in {part.size, 0}:  # restarts once: what was there before may be the error
          _receive_all(address, part, size, watch, patient=len(left) == 1)
          if part.fits:
            return address
          part.restart()
        raise _Refused('its bytes do not have the checksum of this file')
      except _Refused as error:
        reasons[address] = str(error)
        left.remove(address)
      except _Passing as error:
        reasons[address] = str(error)
  raise NotFetched(name, reasons)


def _receive_all(address: str, part: Part, size: int | None, watch, patient: bool) -> None:
  """Receives the missing bytes, reconnecting as long as there is progress."""
  for _ in range(_CONTINUED):
    before = part.size
    try:
      return _receive(address, part, size, watch, patient)
    except _Slow:
      raise
    except _Passing:
      if part.size <= before:
        raise
  raise _Passing(f'broke off {_CONTINUED} times')


def _receive(address: str, part: Part, size: int | None, watch, patient: bool) -> None:
  if size is not None and part.size == size:
    return
  if size is not None and part.size > size:
    part.restart()
  with contextlib.ExitStack() as stack:
    with _told():
      stream, begins, total = stack.enter_context(_opened(address, part.size))
    if size is not None and total is not None and total != size:
      raise _Refused(f'has {total:,} bytes and not {size:,}: another file')
    if begins != part.size:
      part.restart()
    read, total = getattr(stream, 'read1', stream.read), total if size is None else size
    since, then = time.monotonic(), part.size
    while True:
      with _told():
        piece = read(_PIECE)
      if not piece:
        break
      part.write(piece)
      watch(part.size, total)
      if total is not None and part.size > total:
        part.restart()
        raise _Refused(f'gives more than {total:,} bytes')
      if (now := time.monotonic()) - since > _WATCHED:
        if part.size - then < _SLOWEST * (now - since) and not patient:
          raise _Slow(f'gives {(part.size - then) / (now - since):.0f} bytes a second')
        since, then = now, part.size
    if total is not None and part.size != total:
      raise _Passing(f'broke off at {part.size:,} of {total:,} bytes')
    if not part.size:
      raise _Refused('gives nothing')


@contextlib.contextmanager
def _told() -> Iterator[None]:
  """Converts a connection's errors to _Passing (worth a retry) or _Refused."""
  try:
    yield
  except urllib.error.HTTPError as error:
    kind = _Passing if error.code in _PASSING else _Refused
    raise kind(f'HTTP {error.code} {" ".join(str(error.reason).split())}'[:_WORDS]) from None
  except urllib.error.URLError as error:
    raise _Passing(_words(error.reason)) from None
  except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
    raise _Refused(error.strerror or str(error)) from None
  except (ValueError, OverflowError) as error:  # an invalid redirect or header
    if isinstance(error, UserError):
      raise
    raise _Refused(' '.join(str(error).split())[:_WORDS]) from None
  except (OSError, http.client.HTTPException) as error:
    raise _Passing(_words(error)) from None


def _words(error: BaseException | str) -> str:
  if isinstance(error, socket.gaierror):
    return _NO_HOST
  if isinstance(error, TimeoutError):
    return f'nothing came for {_TIMEOUT:g} seconds'
  return getattr(error, 'strerror', None) or str(error) or type(error).__name__


@contextlib.contextmanager
def _opened(address: str, start: int) -> Iterator[tuple[BinaryIO, int, int | None]]:
  """Opens a stream; yields it, its offset in the file, and the file's total size, None if unknown."""
  if not re.match('https?:', address):
    path = to_path(address.removeprefix('file://'))
    total = path.stat().length if is_remote(path) else path.stat().st_size
    with opened(path) as file:
      file.seek(min(start, total))
      yield file, min(start, total), total
    return
  headers = {'User-Agent': 'jaxseg', 'Accept-Encoding': 'identity'}
  if start:
    headers['Range'] = f'bytes={start}-'
  try:
    request = urllib.request.Request(address, headers=headers)
    response = urllib.request.urlopen(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
      raise
    error.close()
    with _opened(address, 0) as whole:
      yield whole
    return
  with response:
    if response.headers.get_content_type() == 'text/html':
      raise _Refused('gives a web page')
    if ranged := re.fullmatch(
      r'bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})', response.headers.get('Content-Range', '')
    ):
      yield response, int(ranged[1]), int(ranged[2])
    else:
      length = response.headers.get('Content-Length', '')
      yield response, 0, int(length) if re.fullmatch('[0-9]{1,18}', length) else None


def _check_room(path: Path, size: int | None, there: int) -> None:
  needed, free = (size or 0) - there + _SPARE, shutil.disk_usage(path.parent).free
  if needed > free:
    raise UserError(
      f'{path.name} has {size or 0:,} bytes, of which {there:,} are here, and {free:,} are free in '
      f'{path.parent}: make room there, or choose a folder on another disk'
    )
