"""Raw bytes of a weight file to numpy arrays, bfloat16 included, without a bfloat16 type."""

from __future__ import annotations

import numpy as np

from jaxseg.types import UserError

# Name in the file's own words -> numpy code without the byte order.
DTYPES = {
  'float64': 'f8',
  'float32': 'f4',
  'float16': 'f2',
  'bfloat16': 'u2',  # widened to float32, which holds every value exactly
  'int64': 'i8',
  'int32': 'i4',
  'int16': 'i2',
  'int8': 'i1',
  'uint8': 'u1',
  'bool': '?',
}


def item_size(dtype: str) -> int:
  return np.dtype(DTYPES[dtype]).itemsize


def from_bytes(data, dtype: str, *, big_endian: bool = False) -> np.ndarray:
  """Views bytes as a flat array in the machine's byte order; bfloat16 becomes float32.

  Args:
    data: anything with the buffer interface, a whole number of items long.
    dtype: a key of DTYPES.
    big_endian: byte order of `data`.

  Returns:
    [n] array, read-only where it shares memory with `data`.

  Raises:
    UserError: the bytes are not a whole number of items.
  """
  code = np.dtype(DTYPES[dtype]).newbyteorder('>' if big_endian else '<')
  if memoryview(data).nbytes % code.itemsize:
    raise UserError(f'{memoryview(data).nbytes} bytes are no whole number of {dtype} values')
  flat = np.frombuffer(data, code).astype(code.newbyteorder('='), copy=False)
  if dtype == 'bfloat16':
    flat = (flat.astype(np.uint32) << 16).view(np.float32)
  return flat
