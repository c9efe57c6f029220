"""Reads Keras .h5 weight files (HDF5), the format of keras.applications."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.pretrained.readers import arrays
from jaxseg.types import UserError

MAGIC = b'\x89HDF\r\n\x1a\n'


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads every weight under '<layer>/<weight name>', in the order of the network's layers.

  Layer and weight names come from the attributes `layer_names` and `weight_names`, as Keras releases
  named the same weight `block1_conv1_W_1:0` or `block1_conv1/kernel:0`.

  Raises:
    UserError: h5py is not installed, or the file is not a Keras weight file.
  """
  try:
    import h5py
  except ImportError:
    raise UserError(f'{path} is an HDF5 file, and h5py is missing: pip install h5py') from None
  try:
    with files.opened(Path(path)) as raw:  # a regular file of an accepted size
      size = os.fstat(raw.fileno()).st_size
    with h5py.File(path, 'r') as file:
      root = _own(file, 'model_weights') if 'model_weights' in file else file
      weights = {}
      for layer in _names(root, 'layer_names', path, size):
        group = _own(root, layer)
        for name in _names(group, 'weight_names', path, size):
          weights[f'{layer}/{name}'] = _own(group, name)
      _check(weights, size)
      return {name: np.asarray(weight) for name, weight in weights.items()}
  except (UserError, MemoryError):
    raise
  except Exception as error:  # the HDF5 library reports damage by many types
    reason = str(error).replace('\n', ' ')
    raise UserError(f'{path} is a broken or foreign HDF5 file: {reason}') from None


def _own(group: Any, path: str) -> Any:
  """Returns the object at a path; refuses links, which could lead to another file or form a cycle."""
  for part in filter(None, path.split('/')):
    link = group.get(part, getlink=True)
    if type(link).__name__ != 'HardLink':
      raise ValueError(f'{part} is {"a link" if link is not None else "not there"}')
    group = group[part]
  return group


def _check(weights: Mapping[str, Any], size: int) -> None:
  """Raises ValueError for anything but numeric arrays that fit in a file of this size."""
  for name, weight in weights.items():
    if weight.dtype.kind not in 'fiub' or weight.external or weight.is_virtual:
      raise ValueError(f'{name} holds no numbers of its own')
  arrays.check_size(sum(w.size * w.dtype.itemsize for w in weights.values()), size, 'weights')


def _names(group: Any, attribute: str, path: str | Path, size: int) -> list[str]:
  """Reads a list of names; Keras splits long ones into attributes numbered from 0."""
  found = [attribute] if attribute in group.attrs else []
  if not found:
    numbered = (f'{attribute}{i}' for i in range(len(group.attrs)))
    found = [name for name in numbered if name in group.attrs]
  if not found:
    raise UserError(
      f'{path}: group {group.name} has no attribute {attribute}, so it is no Keras .h5 weight '
      'file: save with model.save_weights(path) of Keras 2 (HDF5 format)'
    )
  stored = [group.attrs.get_id(name) for name in found]
  if sum(math.prod(s.shape or ()) * s.dtype.itemsize for s in stored) > size:
    raise ValueError(f'{attribute} is longer than the file')
  names = [name for chunk in found for name in group.attrs[chunk]]
  return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
