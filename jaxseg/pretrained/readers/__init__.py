"""Reads any supported weight file; the format is recognised by content, not by the file's name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxseg import files
from jaxseg.pretrained.readers import caffe, keras, safetensors, torch
from jaxseg.types import UserError

FORMATS = 'PyTorch .pth (zip or legacy), Keras .h5, Caffe .caffemodel, .safetensors'


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads all tensors of a weight file under the file's own names.

  Args:
    path: a file of one of FORMATS, recognised by its first bytes.

  Returns:
    name -> array in the file's layout (not transposed) and dtype, bfloat16 as float32.
    Arrays may be read-only.

  Raises:
    UserError: there is no such file, its format is unknown, or it is damaged.
  """
  path = Path(path)
  try:
    with files.opened(path) as file:
      head, size = file.read(16), os.fstat(file.fileno()).st_size
  except FileNotFoundError:
    raise UserError(f'there is no weight file {path}: give the path of one ({FORMATS})') from None
  if head.startswith((torch.ZIP_MAGIC, torch.PICKLE_MAGIC)):
    return torch.read(path)
  if head.startswith(keras.MAGIC):
    return keras.read(path)
  if safetensors.is_safetensors(head, size):
    return safetensors.read(path)
  if caffe.is_caffemodel(head):
    return caffe.read(path)
  raise UserError(
    f'{path} is no weight file (it begins with {head!r}); allowed are {FORMATS}: '
    'was the download complete?'
  )
