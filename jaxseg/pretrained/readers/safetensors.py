"""Reads .safetensors files: a JSON header, then raw tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors

from jaxseg.pretrained.readers import arrays
from jaxseg.types import UserError

_DTYPES = dict(F64='float64', F32='float32', F16='float16', BF16='bfloat16')
_DTYPES |= dict(I64='int64', I32='int32', I16='int16', I8='int8', U8='uint8', BOOL='bool')


def is_safetensors(head: bytes, size: int) -> bool:
  """Tells whether a file that starts with `head` (9 bytes or more) can be one of `size` bytes."""
  return len(head) > 8 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') + 8 <= size


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads every tensor under its name in the file; bfloat16 comes back as float32.

  Raises:
    UserError: the file is broken or holds a number format that numpy lacks.
  """
  try:
    entries = safetensors.deserialize(Path(path).read_bytes())
  except safetensors.SafetensorError as error:
    raise UserError(f'{path} is a broken safetensors file: {error}') from None
  tensors = {}
  for name, entry in entries:
    if entry['dtype'] not in _DTYPES:
      raise UserError(
        f'{path}: {name} has dtype {entry["dtype"]}; allowed are {", ".join(_DTYPES)}: '
        'save it as one of these'
      )
    flat = arrays.from_bytes(entry['data'], _DTYPES[entry['dtype']])
    tensors[name] = flat.reshape(entry['shape'])
  return tensors
