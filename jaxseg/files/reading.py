"""Reads untrusted files: only regular ones, of limited size, and strict JSON."""

import contextlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from jaxseg.files.paths import is_remote
from jaxseg.types import UserError

_LARGEST = 4 << 30  # default limit in bytes
_KINDS = ((stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket'))


@contextlib.contextmanager
def opened(path: Path, most: int = _LARGEST) -> Iterator[BinaryIO]:
  """Opens a file to read its bytes.

  Files that may block or never end are not opened: pipes, sockets and devices, also through links.

  Args:
    path: local or in a bucket.
    most: limit in bytes.

  Raises:
    FileNotFoundError: it does not exist.
    UserError: it is not a regular file, too large, or not readable.
  """
  if is_remote(path):
    with path.open('rb') as file:
      _bounded(path, path.stat().length, most)
      yield file
    return
  with _told(path):
    file = open(_descriptor(path, most)[0], 'rb')  # noqa: SIM115
  with file:
    yield file


def read_bytes(path: Path, most: int = _LARGEST) -> bytes:
  """Returns the content of a file. Raises as `opened` does."""
  with _told(path):
    if is_remote(path):
      with opened(path, most) as file:
        return file.read(most)
    descriptor, rest = _descriptor(path, most)
    parts = []
    try:  # a buffered file object would cost more than all of this
      while rest and (part := os.read(descriptor, rest)):
        parts.append(part)
        rest -= len(part)
    finally:
      os.close(descriptor)
    return b''.join(parts)


def _descriptor(path: Path, most: int) -> tuple[int, int]:
  """Opens a regular file and returns its descriptor, which the caller closes, and size."""
  _size(path, os.stat(path), most)  # before opening, which alone may have effects on a device
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    return descriptor, _size(path, os.fstat(descriptor), most)  # it may have been replaced since
  except UserError:
    os.close(descriptor)
    raise


def _size(path: Path, found: os.stat_result, most: int) -> int:
  if not stat.S_ISREG(found.st_mode):
    kind = next((words for test, words in _KINDS if test(found.st_mode)), 'a device')
    raise UserError(f'cannot read {path}: it is {kind}, not a file')
  return _bounded(path, found.st_size, most)


def _bounded(path: Path, size: int, most: int) -> int:
  if size > most:
    raise UserError(f'cannot read {path}: it has {size:,} bytes, and at most {most:,} are read')
  return size


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
  try:
    yield
  except FileNotFoundError:
    raise
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from None


def read_text(path: Path, most: int = 64 << 20) -> str:
  """Returns the text of a UTF-8 file, without a byte order mark.

  Raises:
    FileNotFoundError: it does not exist.
    UserError: as `opened`, or it is not UTF-8.
  """
  try:
    return read_bytes(path, most).decode('utf-8-sig')
  except UnicodeDecodeError:
    raise UserError(f'{path} is not a text file in UTF-8: save it as one') from None


def read_json(path: Path, most: int = 1 << 30) -> Any:
  """Returns the content of a JSON file; see `parsed`.

  Raises:
    FileNotFoundError: it does not exist.
    UserError: as `read_text`, or it is not valid JSON.
  """
  try:
    return parsed(read_text(path, most))
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f'{path} cannot be read as JSON: {error}') from None


def parsed(text: str | bytes) -> Any:
  """Parses JSON; all numbers are finite, and integers beyond 64 bits become floats.

  Raises:
    ValueError: it is not valid JSON (nor are NaN and Infinity), a number exceeds a float's range, the
      nesting is deeper than 254, or an object repeats a key.
  """
  value = orjson.loads(text)
  # The parser keeps the last of repeated keys. A dropped one takes its colon along, and no other colon is lost.
  colon, escaped = (':', '\\u003') if isinstance(text, str) else (b':', b'\\u003')
  try:
    kept = orjson.dumps(value).count(b':')
  except orjson.JSONEncodeError:
    raise ValueError('its nesting is deeper than 254') from None
  if text.count(colon) > kept or escaped in text:
    json.loads(text, object_pairs_hook=_once)
  return value


def _once(pairs: list[tuple[str, Any]]) -> None:
  """Rejects repeated keys of an object."""
  if len(pairs) != len({key for key, _ in pairs}):
    key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
    raise ValueError(f'it has the key {key!r} twice: keep one')
