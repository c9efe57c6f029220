"""Reads integer matrices, also inside structs, from MATLAB files of version 5.

An own reader, since native ones trust their input: a flipped bit in a length crashes the process. Here
every length is checked against the available bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_STRUCT, _NUMERIC = 2, range(6, 16)  # classes of arrays
_NUMBERS = {
  1: 'i1',
  2: 'u1',
  3: 'i2',
  4: 'u2',
  5: 'i4',
  6: 'u4',
  7: 'f4',
  9: 'f8',
  12: 'i8',
  13: 'u8',
}
_MOST = 256 << 20  # bytes of a compressed element


def read_matrix(data: bytes, names: Sequence[str]) -> np.ndarray:
  """Returns the values [h, w] of a variable, or of a nested field of it.

  Args:
    data: the file's content.
    names: the variable's, then the fields', each of a struct with one element.

  Raises:
    ValueError: damaged, or not such a file.
  """
  if len(data) < _HEADER or data[126:128] not in (b'IM', b'MI'):
    raise ValueError("it does not begin as MATLAB's version 5 does")
  order = '<' if data[126:128] == b'IM' else '>'
  for kind, body in _elements(data[_HEADER:], order):
    if kind == _COMPRESSED:
      [(kind, body)] = list(_elements(_inflated(body), order))
    if kind == _MATRIX:
      found = _Array(body, order)
      if found.name == names[0]:
        return _field(found, names[1:], order).numbers()
  raise ValueError(f'it has no variable {names[0]}')


def _inflated(body: bytes) -> bytes:
  stream = zlib.decompressobj()
  try:
    data = stream.decompress(body, _MOST)
  except zlib.error as error:
    raise ValueError(str(error)) from None
  if not stream.eof:
    raise ValueError('its compressed part is cut short, or larger than it may be')
  return data


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
  """Yields the type and content of each element in a part of the file."""
  at = 0
  while at < len(data):
    if len(data) - at < 8:
      raise ValueError('it is cut short')
    kind, count = struct.unpack_from(f'{order}II', data, at)
    if kind >> 16:  # a small element: its content, up to four bytes, follows the type
      kind, count, start = kind & 0xFFFF, kind >> 16, at + 4
      if count > 4:
        raise ValueError('a small element has more than four bytes')
      at += 8
    else:
      start = at + 8
      at = start + count + (-count % 8 if kind != _COMPRESSED else 0)
    if start + count > len(data):
      raise ValueError(f'an element says it has {count} bytes, and {len(data) - start} are there')
    yield kind, data[start : start + count]


class _Array:
  """An array's class, size and name; the rest is parsed on demand."""

  def __init__(self, body: bytes, order: str):
    self._parts = list(_elements(body, order))
    if len(self._parts) < 3 or len(self._parts[0][1]) != 8 or len(self._parts[1][1]) % 4:
      raise ValueError('an array has no class, size or name')
    flags, sizes, name = (part for _, part in self._parts[:3])
    self.kind = struct.unpack(f'{order}I', flags[:4])[0] & 0xFF
    self.shape = struct.unpack(f'{order}{len(sizes) // 4}i', sizes)
    self.name = name.decode('latin-1')
    self._order = order

  def fields(self) -> dict[str, bytes]:
    """Returns the fields of a struct with one element."""
    if self.kind != _STRUCT or math.prod(self.shape) != 1 or len(self._parts) < 5:
      raise ValueError(f'{self.name or "a field"} is no struct of one element')
    (_, length), (_, text), *values = self._parts[3:]
    width = struct.unpack(f'{self._order}i', length)[0] if len(length) == 4 else 0
    if not 0 < width <= len(text) or len(text) != width * len(values):
      raise ValueError('the names of the fields do not fit')
    names = (text[i : i + width].split(b'\0')[0] for i in range(0, len(text), width))
    return {name.decode('latin-1'): body for name, (_, body) in zip(names, values, strict=True)}

  def numbers(self) -> np.ndarray:
    """Returns the array's values, which MATLAB stores column by column."""
    numeric = self.kind in _NUMERIC and len(self._parts) > 3 and self._parts[3][0] in _NUMBERS
    if not numeric or len(self.shape) != 2:
      raise ValueError('it is no matrix of numbers')
    kind, body = self._parts[3]
    dtype = np.dtype(self._order + _NUMBERS[kind])
    if min(self.shape) < 0 or math.prod(self.shape) * dtype.itemsize != len(body):
      raise ValueError(f'{len(body)} bytes are no matrix of {self.shape}')
    return np.frombuffer(body, dtype).reshape(self.shape, order='F').astype(dtype.newbyteorder('='))


def _field(array: _Array, names: Sequence[str], order: str) -> _Array:
  for name in names:
    fields = array.fields()
    if name not in fields:
      raise ValueError(f'it has no {name}')
    array = _Array(fields[name], order)
  return array
