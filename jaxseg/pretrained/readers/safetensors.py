"""Reads .safetensors files: the length of a JSON header, the header, then the raw tensors.

Strict, and without the format's own library, as that aborts the process for some headers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.pretrained.readers import arrays
from jaxseg.types import UserError

_DTYPES = dict(F64='float64', F32='float32', F16='float16', BF16='bfloat16')
_DTYPES |= dict(I64='int64', I32='int32', I16='int16', I8='int8', U8='uint8', BOOL='bool')
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the format's own library
_MOST_SIDES = 32


def is_safetensors(head: bytes, size: int) -> bool:
  """Whether a file of `size` bytes that starts with `head` (at least 9 bytes) can be one."""
  return len(head) > 8 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') + 8 <= size


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads every tensor under its name in the file; bfloat16 comes back as float32.

  Raises:
    UserError: the file is damaged or has a dtype that numpy lacks.
  """
  data = files.read_bytes(Path(path))
  start = 8 + int.from_bytes(data[:8], 'little')
  try:
    if start > min(len(data), _LONGEST_HEADER):
      raise ValueError('its header is longer than the file')
    header = files.parsed(data[8:start])
    entries = {name: entry for name, entry in header.items() if name != '__metadata__'}
    return _tensors(entries, memoryview(data)[start:])
  except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
    reason = (
      error if isinstance(error, ValueError) else f'its header is no list of tensors ({error})'
    )
    broken = '' if isinstance(error, UserError) else 'is a broken safetensors file: '
    raise UserError(f'{path} {broken}{reason}') from None


def _tensors(entries: dict[str, Any], data: memoryview) -> dict[str, np.ndarray]:
  """Returns the tensors, which must be contiguous and fill the data."""
  tensors, end = {}, 0
  for name, entry in sorted(entries.items(), key=lambda item: item[1]['data_offsets']):
    dtype, shape, (first, last) = entry['dtype'], entry['shape'], entry['data_offsets']
    if dtype not in _DTYPES:
      allowed = ', '.join(_DTYPES)
      raise UserError(
        f'has {name} of dtype {dtype}; allowed are {allowed}: save it as one of these'
      )
    if not all(type(n) is int and n >= 0 for n in (first, *shape)) or len(shape) > _MOST_SIDES:
      raise ValueError(f'the shape of {name} is {shape}')
    wanted = math.prod(shape) * arrays.item_size(_DTYPES[dtype])
    if first != end or last - first != wanted or last > len(data):
      raise ValueError(f'{name} of shape {shape} does not lie where it should')
    tensors[name] = arrays.from_bytes(data[first:last], _DTYPES[dtype]).reshape(shape)
    end = last
  if end != len(data):
    raise ValueError('the file is longer than its tensors')
  return tensors
