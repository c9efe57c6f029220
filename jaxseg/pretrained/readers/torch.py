"""Reads PyTorch's .pth/.pt files, old pickle format and new zip format, without PyTorch.

A .pth file is a pickle, which can run any code: see `pickles`, which never does. The sizes that a file
claims are added up and compared with its own before anything of that size is allocated.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import zipfile
from pathlib import Path

import numpy as np

from jaxseg import files
from jaxseg.pretrained.readers import arrays, pickles
from jaxseg.pretrained.readers.pickles import PickleError, whole_numbers
from jaxseg.types import UserError

ZIP_MAGIC = b'PK\x03\x04'
PICKLE_MAGIC = b'\x80'
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001
# Where training scripts store the weights within a checkpoint.
_NESTED_KEYS = ('state_dict', 'model', 'model_state_dict', 'model_state', 'net', 'weights')


@dataclasses.dataclass(eq=False)
class _Storage:
  dtype: str
  size: int
  values: np.ndarray | None = None  # [size], filled once the file's raw part is read
  base: _Storage | None = None  # of a view: the storage that it views from index `start`
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

  def checked_bytes(self) -> int:
    """Returns the size of the values, after checking the file's metadata so that no access is out of bounds."""
    flat, integers = self.storage.flat(), (self.offset, *self.size, *self.stride)
    if flat is None or len(self.size) != len(self.stride):
      raise UserError('a tensor has no values, or its size and stride differ in length')
    if not all(type(i) is int and i >= 0 for i in integers):
      raise UserError('a tensor has a negative or odd offset, size or stride')
    count = math.prod(self.size)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
    if count and last >= flat.size:
      raise UserError(f'a tensor of size {self.size} reaches beyond its {flat.size} stored values')
    return count * flat.itemsize

  def array(self) -> np.ndarray:
    """Returns the values of a checked tensor."""
    flat = self.storage.flat()
    strides = [s * flat.itemsize for s in self.stride]
    start = flat[self.offset :] if math.prod(self.size) else flat[:0]
    view = np.lib.stride_tricks.as_strided(start, self.size, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(self.size)


def _rebuild_tensor(storage, offset, size, stride, *_unused) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise PickleError('a tensor is built on something that is no storage')
  return _Tensor(storage, offset, whole_numbers(size), whole_numbers(stride))


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
  ('collections', 'OrderedDict'): pickles.ordered,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
  ('torch', 'Size'): whole_numbers,
  **{('torch', name): dtype for name, dtype in _STORAGES.items()},  # a string: not callable
}


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a saved state_dict under their names in the file.

  Storage offsets, strides and shared storages are honoured; bfloat16 becomes float32. If a checkpoint
  nests the state_dict ('state_dict', 'model', ...), that part is read.

  Raises:
    UserError: the file is damaged, is not a PyTorch file, or holds anything but plain containers,
      numbers, strings and dense tensors; other objects are never constructed.
  """
  try:
    with files.opened(Path(path)) as file:
      size, is_zip = os.fstat(file.fileno()).st_size, file.read(4) == ZIP_MAGIC
      file.seek(0)
      tree = _load_zip(file, size) if is_zip else _load_legacy(file.read(size))
    tensors = _find_tensors(tree)
    wanted = sum(tensor.checked_bytes() for tensor in tensors.values())
    arrays.check_size(wanted, size, 'tensors')
    return {name: tensor.array() for name, tensor in tensors.items()}
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  except MemoryError:
    raise
  except Exception as error:  # a damaged archive can raise nearly anything
    reason = str(error).replace('\n', ' ')
    raise UserError(f'{path} is no PyTorch file or a broken one: {reason}') from None


def _load_zip(file, size):
  """Reads '<name>/data.pkl' and, for each storage key, '<name>/data/<key>'."""
  with zipfile.ZipFile(file) as archive:
    arrays.check_size(sum(info.file_size for info in archive.infolist()), size, 'parts')
    found = [n for n in archive.namelist() if n.endswith('/data.pkl') and n.count('/') == 1]
    if len(found) != 1:
      raise UserError('a zip archive without data.pkl, so no PyTorch file')
    root = found[0].removesuffix('data.pkl')
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

    return pickles.load(io.BytesIO(archive.read(found[0])), _ALLOWED, persistent)


def _load_legacy(data: bytes):
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

  file = io.BytesIO(data)
  magic = [pickles.load(file, _ALLOWED) for _ in range(2)]
  if magic != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
    raise UserError('a pickle without the magic number of PyTorch, so no PyTorch file')
  system = pickles.load(file, _ALLOWED)
  tree = pickles.load(file, _ALLOWED, persistent)
  for key in pickles.load(file, _ALLOWED):
    _fill(storages[key], file, data, big_endian=not system.get('little_endian', True))
  return tree


def _fill(storage, file, data, *, big_endian):
  size = int.from_bytes(file.read(8), 'big' if big_endian else 'little')
  start, wanted = file.tell(), size * arrays.item_size(storage.dtype)
  if size != storage.size or start + wanted > len(data):
    raise UserError(f'the file is cut short: a storage of {storage.size} values is incomplete')
  part = memoryview(data)[start : start + wanted]
  storage.values = arrays.from_bytes(part, storage.dtype, big_endian=big_endian)
  file.seek(start + wanted)


def _storage_id(saved_id) -> tuple[str, str, int]:
  kind, dtype, key, _location, size, *_view = saved_id
  if kind != 'storage' or dtype not in _STORAGES.values() or not isinstance(size, int) or size < 0:
    raise PickleError(f'persistent id {kind!r} is not understood')
  return dtype, str(key), size


def _find_tensors(tree) -> dict[str, _Tensor]:
  if isinstance(tree, dict):
    tensors = {str(k): v for k, v in tree.items() if isinstance(v, _Tensor)}
    if tensors:
      return tensors
    for key in _NESTED_KEYS:
      if isinstance(tree.get(key), dict):
        return _find_tensors(tree[key])
  got = sorted(map(str, tree))[:20] if isinstance(tree, dict) else type(tree).__name__
  raise UserError(
    f'no dictionary of tensors at the top or under {", ".join(_NESTED_KEYS)}; got {got}: '
    'save the state_dict alone'
  )
