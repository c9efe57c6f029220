"""Reads Caffe .caffemodel files with a minimal protobuf wire reader: no Caffe, no protobuf.

Fields used, from BVLC's caffe.proto: NetParameter.layers = 2 (V1) and .layer = 100 (V2);
V1LayerParameter.name = 4, .blobs = 6; LayerParameter.name = 1, .blobs = 7; BlobProto.num, channels,
height, width = 1..4 (legacy), data = 5, shape = 7, double_data = 8; BlobShape.dim = 1.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxseg import files
from jaxseg.types import UserError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIRST_BYTES = (b'\x0a', b'\x12', b'\xa2')  # tag of name, layers or layer, the first field
_MOST_FIELDS = 1 << 20  # per message; a network of a thousand layers has 50,000 in total
_MOST_SIDES = 32
_LAYERS = {2: (4, 6), 100: (1, 7)}  # field of the net -> fields of name and blobs in it


class _WireError(ValueError):
  """The bytes are not a valid protobuf message."""


def is_caffemodel(head: bytes) -> bool:
  """Whether a file that starts with `head` can be a caffemodel: protobuf has no magic number."""
  return head[:1] in _FIRST_BYTES


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads every blob under '<layer>/<number>': number 0 is the weight, 1 the bias.

  Both the old `layers` (blobs always 4-D, such as (1, 1, 4096, 25088) for fc6) and the new `layer`
  field are read; shapes are the file's own. Returns float32, or float64 for double blobs.

  Raises:
    UserError: the file is not a caffemodel, or holds no weights.
  """
  tensors = {}
  try:
    for number, wire, value in _fields(memoryview(files.read_bytes(Path(path)))):
      if number in _LAYERS and wire == _BYTES:
        tensors |= _read_layer(value, *_LAYERS[number])
  except (_WireError, UnicodeDecodeError) as error:
    raise UserError(f'{path} is no Caffe model or a broken one: {error}') from None
  if not tensors:
    raise UserError(
      f'{path} holds no Caffe weights (a V0 model? upgrade it with upgrade_net_proto_binary)'
    )
  return tensors


def _read_layer(message, name_field: int, blobs_field: int) -> dict[str, np.ndarray]:
  name, blobs = '', []
  for number, wire, value in _fields(message):
    if wire == _BYTES and number == name_field:
      name = bytes(value).decode()
    elif wire == _BYTES and number == blobs_field:
      blobs.append(_read_blob(value))
  return {f'{name}/{i}': blob for i, blob in enumerate(blobs)}


def _read_blob(message) -> np.ndarray:
  legacy, shape, pieces = {}, None, []
  for number, wire, value in _fields(message):
    if number in (1, 2, 3, 4) and wire == _VARINT:
      legacy[number] = value
    elif number == 7 and wire == _BYTES:
      shape = _read_shape(value)
    elif number in (5, 8):
      pieces.append(_numbers(value, wire, '<f4' if number == 5 else '<f8'))
  if shape is None:
    shape = [legacy.get(i, 0) for i in (1, 2, 3, 4)] if legacy else []
  flat = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.float32), *pieces])
  if len(shape) > _MOST_SIDES or max(shape, default=0) > sys.maxsize:
    raise _WireError(f'a blob of {len(shape)} sides, the longest {max(shape)}')
  if math.prod(shape) != flat.size:
    raise _WireError(f'a blob of shape {tuple(shape)} holds {flat.size} values')
  return flat.reshape(shape)


def _read_shape(message) -> list[int]:
  dims = []
  for number, wire, value in _fields(message):
    if number == 1 and wire == _VARINT:
      dims.append(value)
    elif number == 1 and wire == _BYTES:  # packed
      at = 0
      while at < len(value):
        dim, at = _varint(value, at)
        dims.append(dim)
  return dims


def _numbers(value, wire, dtype) -> np.ndarray:
  if wire == _BYTES:  # packed
    if len(value) % np.dtype(dtype).itemsize:
      raise _WireError('a packed list of numbers is cut short')
    return np.frombuffer(value, dtype)
  if wire == (_FIXED32 if dtype == '<f4' else _FIXED64):
    return value
  raise _WireError(f'a list of numbers has wire type {wire}')


def _fields(message) -> Iterator[tuple[int, int, object]]:
  """Yields (field number, wire type, value); runs of equal fixed-size fields are returned as one array."""
  at = count = 0
  while at < len(message):
    start, count = at, count + 1
    if count > _MOST_FIELDS:
      raise _WireError(f'more than {_MOST_FIELDS} fields')
    tag, at = _varint(message, at)
    number, wire = tag >> 3, tag & 7
    if number == 0:
      raise _WireError(f'field number 0 at byte {start}')
    if wire == _VARINT:
      value, at = _varint(message, at)
    elif wire == _BYTES:
      length, at = _varint(message, at)
      value, at = message[at : at + length], at + length
    elif wire in (_FIXED32, _FIXED64):
      value, at = _fixed_run(message, start, at, '<f4' if wire == _FIXED32 else '<f8')
    else:
      raise _WireError(f'wire type {wire} at byte {start}')
    if at > len(message):
      raise _WireError(f'field {number} runs past the end of its message')
    yield number, wire, value


def _fixed_run(message, start, at, dtype) -> tuple[np.ndarray, int]:
  """Reads a run of fields with the same tag, as unpacked lists have millions of them."""
  record = np.dtype([('tag', 'u1', (at - start,)), ('value', dtype)])
  if not (count := (len(message) - start) // record.itemsize):
    raise _WireError(f'a number at byte {start} is cut short')
  records = np.frombuffer(message, record, count, start)
  run, look = 1, 16
  while run < count:  # in growing steps, as most runs are short and the message may be huge
    other = (records['tag'][run : run + look] != records['tag'][0]).any(axis=1)
    if other.any():
      run += int(other.argmax())
      break
    run, look = min(run + look, count), look * 2
  return np.ascontiguousarray(records['value'][:run]), start + run * record.itemsize


def _varint(message, at) -> tuple[int, int]:
  value = 0
  for i in range(10):
    if at + i >= len(message):
      raise _WireError('a varint is cut short')
    byte = message[at + i]
    value |= (byte & 0x7F) << (7 * i)
    if byte < 0x80:
      return value, at + i + 1
  raise _WireError(f'a varint at byte {at} is longer than 10 bytes')
