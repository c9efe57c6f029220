"""Reads PyTorch's .pth/.pt files, old pickle format and new zip format, without PyTorch.

A .pth file is a pickle, and a pickle can run any code. The unpickler here knows the dozen names
that a dictionary of tensors needs and refuses every other: nothing else is imported or called.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np

from jaxseg.pretrained.readers import arrays
from jaxseg.types import UserError

ZIP_MAGIC = b'PK\x03\x04'
PICKLE_MAGIC = b'\x80'
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001
_MAX_EXPANSION = 1 << 28  # values; a tensor with stride 0 can claim any size
# Where training scripts keep the weights among the rest of a checkpoint.
_NESTED_KEYS = ('state_dict', 'model', 'model_state_dict', 'model_state', 'net', 'weights')


@dataclasses.dataclass(eq=False)
class _Storage:
  dtype: str
  size: int
  values: np.ndarray | None = None  # [size], filled once the file's raw part is read
  base: _Storage | None = None  # of a view: the storage that it looks into, `start` values on
  start: int = 0

  def flat(self) -> np.ndarray:
    if self.base is None:
      return self.values
    return self.base.flat()[self.start : self.start + self.size]


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self) -> np.ndarray:
    """Returns the values; every claim of the file is checked before memory is looked at."""
    flat, integers = self.storage.flat(), (self.offset, *self.size, *self.stride)
    if flat is None or len(self.size) != len(self.stride):
      raise UserError('a tensor has no values, or its size and stride differ in length')
    if not all(isinstance(i, int) and i >= 0 for i in integers):
      raise UserError('a tensor has a negative or odd offset, size or stride')
    count = math.prod(self.size)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
    if count and (last >= flat.size or count > max(flat.size, _MAX_EXPANSION)):
      raise UserError(f'a tensor of size {self.size} reaches beyond its {flat.size} stored values')
    strides = [s * flat.itemsize for s in self.stride]
    start = flat[self.offset :] if count else flat[:0]
    view = np.lib.stride_tricks.as_strided(start, self.size, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(self.size)


def _rebuild_tensor(storage, offset, size, stride, *_unused) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise pickle.UnpicklingError('a tensor is built on something that is no storage')
  return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor, *_unused):
  return tensor


_STORAGES = {
  'DoubleStorage': 'float64',
  'FloatStorage': 'float32',
  'HalfStorage': 'float16',
  'BFloat16Storage': 'bfloat16',
  'LongStorage': 'int64',
  'IntStorage': 'int32',
  'ShortStorage': 'int16',
  'CharStorage': 'int8',
  'ByteStorage': 'uint8',
  'BoolStorage': 'bool',
}
_ALLOWED = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
  ('torch', 'Size'): tuple,
  **{('torch', name): dtype for name, dtype in _STORAGES.items()},  # a plain word: not callable
}


class _Unpickler(pickle.Unpickler):
  """Finds the allowed names only, and hands persistent ids to a function."""

  def __init__(self, file, persistent=None):
    super().__init__(file, encoding='utf-8')
    self._persistent = persistent

  def find_class(self, module, name):
    if (module, name) not in _ALLOWED:
      raise UserError(
        f'it holds a Python object of type {module}.{name}, which could run any code: only '
        'tensors in dictionaries are read; save the state_dict alone'
      )
    return _ALLOWED[module, name]

  def persistent_load(self, saved_id):
    if self._persistent is None:
      raise pickle.UnpicklingError('a persistent id where none belongs')
    return self._persistent(saved_id)


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a saved state_dict under their names in the file.

  Storage offsets, strides and shared storages are honoured; bfloat16 comes back as float32. Of a
  checkpoint that nests the state_dict ('state_dict', 'model', ...) that part is read.

  Raises:
    UserError: the file is broken, is no PyTorch file, or holds anything but plain containers,
      numbers, strings and dense tensors; no such object is ever built.
  """
  with open(path, 'rb') as file:
    head = file.read(4)
  try:
    tree = _load_zip(path) if head == ZIP_MAGIC else _load_legacy(path)
    return {name: tensor.array() for name, tensor in _find_tensors(tree).items()}
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  except Exception as error:  # a broken pickle can raise nearly anything
    reason = str(error).replace('\n', ' ')
    raise UserError(f'{path} is no PyTorch file or a broken one: {reason}') from None


def _load_zip(path):
  """Reads '<name>/data.pkl' and, for each storage key, '<name>/data/<key>'."""
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n.endswith('/data.pkl') and n.count('/') == 1]
    if len(pickles) != 1:
      raise UserError('a zip archive without data.pkl, so no PyTorch file')
    root = pickles[0].removesuffix('data.pkl')
    order = archive.read(root + 'byteorder') if root + 'byteorder' in archive.namelist() else b''
    storages = {}

    def persistent(saved_id):
      dtype, key, size = _storage_id(saved_id)
      if key not in storages:
        data = archive.read(f'{root}data/{key}')
        values = arrays.from_bytes(data, dtype, big_endian=order == b'big')
        if values.size < size:
          raise UserError(f'storage {key} holds {values.size} values where {size} are announced')
        storages[key] = _Storage(dtype, size, values[:size])
      return storages[key]

    with archive.open(pickles[0]) as file:
      return _Unpickler(file, persistent).load()


def _load_legacy(path):
  """Reads magic, protocol, system, the pickle, the storage keys, then each storage's values."""
  storages = {}

  def persistent(saved_id):
    dtype, key, size = _storage_id(saved_id)
    storage = storages.setdefault(key, _Storage(dtype, size))
    view = saved_id[5] if len(saved_id) > 5 else None
    if view is None:
      return storage
    view_key, start, view_size = view
    if not 0 <= start <= start + view_size <= size:
      raise UserError(f'a view of storage {key} reaches beyond it')
    part = _Storage(dtype, view_size, base=storage, start=start)
    return storages.setdefault((key, view_key), part)

  with open(path, 'rb') as file:
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
      raise UserError('a pickle without the magic number of PyTorch, so no PyTorch file')
    system = _Unpickler(file).load()
    tree = _Unpickler(file, persistent).load()
    for key in _Unpickler(file).load():
      _fill(storages[key], file, big_endian=not system.get('little_endian', True))
  return tree


def _fill(storage, file, *, big_endian):
  size = int.from_bytes(file.read(8), 'big' if big_endian else 'little')
  wanted = size * arrays.item_size(storage.dtype)
  data = file.read(wanted) if size == storage.size else b''
  if size != storage.size or len(data) != wanted:
    raise UserError(f'the file is cut short: a storage of {storage.size} values is incomplete')
  storage.values = arrays.from_bytes(data, storage.dtype, big_endian=big_endian)


def _storage_id(saved_id) -> tuple[str, str, int]:
  kind, dtype, key, _location, size, *_view = saved_id
  if kind != 'storage' or dtype not in _STORAGES.values() or not isinstance(size, int) or size < 0:
    raise pickle.UnpicklingError(f'persistent id {kind!r} is not understood')
  return dtype, str(key), size


def _find_tensors(tree) -> dict[str, _Tensor]:
  if isinstance(tree, dict):
    tensors = {str(k): v for k, v in tree.items() if isinstance(v, _Tensor)}
    if tensors:
      return tensors
    for key in _NESTED_KEYS:
      if isinstance(tree.get(key), dict):
        return _find_tensors(tree[key])
  got = sorted(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
  raise UserError(
    f'no dictionary of tensors at the top or under {", ".join(_NESTED_KEYS)}; got {got}: '
    'save the state_dict alone'
  )
