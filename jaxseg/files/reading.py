"""Reading what anybody may have written: regular files, of a size that fits, and strict JSON."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from jaxseg.files.places import is_remote
from jaxseg.types import UserError

_LARGEST = 4 << 30  # bytes of a file, unless its reader says otherwise
_KINDS = ((stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket'))


@contextlib.contextmanager
def opened(path: Path, most: int = _LARGEST) -> Iterator[BinaryIO]:
  """Opens a file to read its bytes.

  What could never end or answer is not touched: pipes, sockets and devices, behind links too.

  Args:
    path: local or in a bucket.
    most: bytes that it may have.

  Raises:
    FileNotFoundError: there is none.
    UserError: it is no regular file, larger, or may not be read.
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
    try:  # a buffered file would cost more than all of this
      while rest and (part := os.read(descriptor, rest)):
        parts.append(part)
        rest -= len(part)
    finally:
      os.close(descriptor)
    return b''.join(parts)


def _descriptor(path: Path, most: int) -> tuple[int, int]:
  """Opens a regular file, which the caller closes; returns its size, too."""
  _size(path, os.stat(path), most)  # of a device, opening alone may have effects
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    return descriptor, _size(path, os.fstat(descriptor), most)  # it may be another one by now
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
  """Returns the text of a UTF-8 file, without the mark that Windows puts at its beginning.

  Raises:
    FileNotFoundError: there is none.
    UserError: as `opened`, or it is no UTF-8.
  """
  try:
    return read_bytes(path, most).decode('utf-8-sig')
  except UnicodeDecodeError:
    raise UserError(f'{path} is not a text file in UTF-8: save it as one') from None


def read_json(path: Path, most: int = 1 << 30) -> Any:
  """Returns what a JSON file holds; see `parsed`.

  Raises:
    FileNotFoundError: there is none.
    UserError: as `read_text`, or it is no JSON.
  """
  try:
    return parsed(read_text(path, most))
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f'{path} cannot be read as JSON: {error}') from None


def parsed(text: str | bytes) -> Any:
  """Returns JSON's value, in which every number is finite; an integer beyond 64 bits is a float.

  Raises:
    ValueError: it is no JSON, as NaN and Infinity are none, a number is beyond a float's range, or it
      is nested more than 1,024 deep.
  """
  return orjson.loads(text)
