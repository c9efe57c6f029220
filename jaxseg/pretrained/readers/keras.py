"""Reads Keras .h5 weight files (HDF5), the format of keras.applications."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxseg.types import UserError

MAGIC = b'\x89HDF\r\n\x1a\n'


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads every weight under '<layer>/<weight name>', in the order of the network's layers.

  Layer and weight names are read from the attributes `layer_names` and `weight_names`: releases
  of Keras named the same weight `block1_conv1_W_1:0` and `block1_conv1/kernel:0`.

  Raises:
    UserError: h5py is not installed, or the file is no Keras weight file.
  """
  try:
    import h5py
  except ImportError:
    raise UserError(f'{path} is an HDF5 file, and h5py is missing: pip install h5py') from None
  try:
    with h5py.File(path, 'r') as file:
      root = file['model_weights'] if 'model_weights' in file else file
      tensors = {}
      for layer in _names(root, 'layer_names', path):
        for weight in _names(root[layer], 'weight_names', path):
          tensors[f'{layer}/{weight}'] = np.asarray(root[layer][weight])
      return tensors
  except (OSError, KeyError) as error:
    reason = str(error).replace('\n', ' ')
    raise UserError(f'{path} is a broken or foreign HDF5 file: {reason}') from None


def _names(group, attribute, path) -> list[str]:
  """Reads a list of names; long ones are spread over attributes numbered from 0 by Keras."""
  if attribute in group.attrs:
    chunks = [group.attrs[attribute]]
  else:
    numbered = range(len(group.attrs))
    chunks = [group.attrs[f'{attribute}{i}'] for i in numbered if f'{attribute}{i}' in group.attrs]
    if not chunks:
      raise UserError(
        f'{path}: group {group.name} has no attribute {attribute}, so it is no Keras .h5 weight '
        'file: save with model.save_weights(path) of Keras 2 (HDF5 format)'
      )
  names = [name for chunk in chunks for name in chunk]
  return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
