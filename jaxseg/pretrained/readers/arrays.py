"""Converts raw bytes of a weight file to numpy arrays; bfloat16, which numpy lacks, becomes float32."""

from __future__ import annotations

import numpy as np

from jaxseg.types import UserError

_BFLOAT16 = 'bfloat16'
# Most bytes of arrays per byte of their file, and what is always allowed in addition.
_MOST_TIMES, _MOST_ANYWAY = 4, 1 << 20


def check_size(wanted: int, size: int, what: str) -> None:
  """Raises UserError if a file claims `wanted` bytes, much more than its own `size`."""
  if wanted > _MOST_TIMES * size + _MOST_ANYWAY:
    raise UserError(
      f'its {what} would have {wanted:,} bytes, more than {_MOST_TIMES} times the file: it is damaged'
    )


def item_size(dtype: str) -> int:
  return np.dtype('uint16' if dtype == _BFLOAT16 else dtype).itemsize


def from_bytes(data, dtype: str, *, big_endian: bool = False) -> np.ndarray:
  """Views bytes as a flat array in the machine's byte order; bfloat16 becomes float32.

  Args:
    data: anything with the buffer interface, a whole number of items long.
    dtype: numpy's name, or 'bfloat16'.
    big_endian: byte order of `data`.

  Returns:
    [n] array, read-only where it shares memory with `data`.

  Raises:
    UserError: the bytes are not a whole number of items.
  """
  count, size = memoryview(data).nbytes, item_size(dtype)
  if count % size:
    raise UserError(f'{count} bytes are no whole number of {dtype} values')
  stored = np.dtype('uint16' if dtype == _BFLOAT16 else dtype)
  flat = np.frombuffer(data, stored.newbyteorder('>' if big_endian else '<'))
  flat = flat.astype(stored, copy=False)
  return (flat.astype(np.uint32) << 16).view(np.float32) if dtype == _BFLOAT16 else flat
