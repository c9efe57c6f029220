"""The .pth readers against byte streams made by hand, opcode by opcode: PyTorch is not needed."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from jaxseg.pretrained.readers import pickles, torch
from jaxseg.types import UserError

# A small assembler for the pickle machine: each function returns the bytes that push one object.


def name(module, attribute):
  return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def push(value):
  if value is None:
    return b'N'
  if isinstance(value, bool):
    return b'\x88' if value else b'\x89'
  if isinstance(value, int):
    return b'J' + struct.pack('<i', value)
  if isinstance(value, str):
    return b'X' + struct.pack('<I', len(value.encode())) + value.encode()
  if isinstance(value, tuple):
    return b'(' + b''.join(map(push, value)) + b't'
  if isinstance(value, dict):
    return b'}(' + b''.join(push(k) + push(v) for k, v in value.items()) + b'u'
  return value  # bytes: already assembled


def call(function, *arguments):
  return function + push(arguments) + b'R'


def ordered_dict(items):
  return call(name('collections', 'OrderedDict')) + push(items)[1:]


def storage(kind, key, size, *view):
  return push(('storage', name('torch', kind), key, 'cpu', size, *view)) + b'Q'


def tensor(stored, offset, size, stride):
  rebuild = name('torch._utils', '_rebuild_tensor_v2')
  return call(rebuild, stored, offset, size, stride, False, ordered_dict({}))


def stream(*pushed):
  return b''.join(b'\x80\x02' + push(p) + b'.' for p in pushed)


def write_zip(path, tree, storages, byteorder=b'little', extra=()):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('net/data.pkl', stream(tree))
    archive.writestr('net/byteorder', byteorder)
    for key, data in storages.items():
      archive.writestr(f'net/data/{key}', data)
    for entry in extra:
      archive.writestr(entry, b'')
  return path


MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
SYSTEM = {'protocol_version': 1001, 'little_endian': True}


def write_legacy(path, tree, storages, system=SYSTEM, raw=None):
  """storages: key -> (number of values, bytes), in the file's order."""
  keys = b'](' + b''.join(map(push, storages)) + b'e'
  data = b''.join(struct.pack('<q', n) + values for n, values in storages.values())
  head = MAGIC + stream(1001, system, tree, keys)
  path.write_bytes(head + (data if raw is None else raw))
  return path


SIX = np.arange(6, dtype='<f4')


def test_zip_reads_offset_stride_and_shared_storage(tmp_path):
  stored = storage('FloatStorage', '0', 6)
  tree = ordered_dict(
    {
      'plain': tensor(stored, 0, (2, 3), (3, 1)),
      'transposed': tensor(stored, 0, (3, 2), (1, 3)),
      'tail': tensor(stored, 4, (2,), (1,)),
      'every_other': tensor(stored, 1, (3,), (2,)),
      'expanded': tensor(stored, 5, (2, 2), (0, 0)),
      'scalar': tensor(stored, 3, (), ()),
      'empty': tensor(stored, 0, (0, 3), (3, 1)),
    }
  )
  tensors = torch.read(write_zip(tmp_path / 'a.pth', tree, {'0': SIX.tobytes()}))
  assert {k: v.tolist() for k, v in tensors.items()} == {
    'plain': [[0, 1, 2], [3, 4, 5]],
    'transposed': [[0, 3], [1, 4], [2, 5]],
    'tail': [4, 5],
    'every_other': [1, 3, 5],
    'expanded': [[5, 5], [5, 5]],
    'scalar': 3,
    'empty': [],
  }
  assert tensors['plain'].dtype == np.float32
  assert tensors['scalar'].shape == () and tensors['empty'].shape == (0, 3)


def test_zip_reads_every_number_format(tmp_path):
  made = {
    'DoubleStorage': (np.array([1.5, -2], '<f8'), np.float64),
    'FloatStorage': (np.array([1.5, -2], '<f4'), np.float32),
    'HalfStorage': (np.array([1.5, -2], '<f2'), np.float16),
    'BFloat16Storage': (np.array([0x3FC0, 0xC000], '<u2'), np.float32),  # 1.5 and -2
    'LongStorage': (np.array([7, -2], '<i8'), np.int64),
    'IntStorage': (np.array([7, -2], '<i4'), np.int32),
    'ShortStorage': (np.array([7, -2], '<i2'), np.int16),
    'CharStorage': (np.array([7, -2], '<i1'), np.int8),
    'ByteStorage': (np.array([7, 200], '<u1'), np.uint8),
    'BoolStorage': (np.array([1, 0], '<u1'), np.bool_),
  }
  tree = {kind: tensor(storage(kind, kind, 2), 0, (2,), (1,)) for kind in made}
  path = write_zip(tmp_path / 'a.pth', tree, {k: v.tobytes() for k, (v, _) in made.items()})
  tensors = torch.read(path)
  for kind, (values, dtype) in made.items():
    expected = [1.5, -2] if kind == 'BFloat16Storage' else values.tolist()
    assert tensors[kind].tolist() == expected and tensors[kind].dtype == dtype, kind


def test_zip_reads_big_endian_values(tmp_path):
  tree = {'w': tensor(storage('FloatStorage', '0', 6), 0, (6,), (1,))}
  path = write_zip(tmp_path / 'a.pth', tree, {'0': SIX.astype('>f4').tobytes()}, b'big')
  assert torch.read(path)['w'].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize('key', ['state_dict', 'model'])
def test_state_dict_inside_a_checkpoint(tmp_path, key):
  weights = ordered_dict({'w': tensor(storage('FloatStorage', '0', 6), 0, (6,), (1,))})
  tree = {'epoch': 3, 'name': 'net', key: weights}
  path = write_zip(tmp_path / 'a.pth', tree, {'0': SIX.tobytes()})
  assert list(torch.read(path)) == ['w']


def test_parameters_and_a_state_dicts_metadata(tmp_path):
  made = tensor(storage('FloatStorage', '0', 6), 0, (6,), (1,))
  parameter = call(name('torch._utils', '_rebuild_parameter'), made, True, ordered_dict({}))
  tree = ordered_dict({'w': parameter}) + push({'_metadata': ordered_dict({})}) + b'b'
  path = write_zip(tmp_path / 'a.pth', tree, {'0': SIX.tobytes()})
  assert torch.read(path)['w'].tolist() == SIX.tolist()


def test_legacy_reads_storages_in_file_order_and_views(tmp_path):
  tree = ordered_dict(
    {
      'a': tensor(storage('FloatStorage', '11', 6, None), 1, (2, 2), (2, 1)),
      'b': tensor(storage('LongStorage', '22', 1, None), 0, (), ()),
      'view': tensor(storage('FloatStorage', '11', 6, ('v', 2, 3)), 1, (2,), (1,)),
    }
  )
  storages = {'22': (1, struct.pack('<q', -9)), '11': (6, SIX.tobytes())}
  tensors = torch.read(write_legacy(tmp_path / 'a.pth', tree, storages))
  assert {k: v.tolist() for k, v in tensors.items()} == {
    'a': [[1, 2], [3, 4]],
    'b': -9,
    'view': [3, 4],
  }


class Evil:
  """Writes a file when unpickled by anything careless."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def test_arbitrary_objects_are_refused_and_never_built(tmp_path):
  touched, bad = tmp_path / 'touched', tmp_path / 'bad.pth'
  evil = pickle.dumps(Evil(touched), 2)
  with zipfile.ZipFile(bad, 'w') as archive:
    archive.writestr('net/data.pkl', evil)
  with pytest.raises(UserError, match='io.open, which could run any code'):
    torch.read(bad)
  bad.write_bytes(MAGIC + stream(1001, SYSTEM) + evil)
  with pytest.raises(UserError, match='io.open'):
    torch.read(bad)
  bad.write_bytes(evil)  # no magic number: still nothing is built
  with pytest.raises(UserError, match='io.open'):
    torch.read(bad)
  assert not touched.exists()


@pytest.mark.parametrize(
  'module, attribute',
  [
    ('builtins', 'eval'),
    ('os', 'system'),
    ('torch', 'load'),
    ('torch._utils', '_rebuild_sparse_tensor'),
    ('collections', 'OrderedDict.fromkeys'),
    ('jaxseg.pretrained.readers.torch', 'read'),
  ],
)
def test_only_the_listed_names_are_found(module, attribute):
  with pytest.raises(UserError, match='could run any code'):
    pickles.load(io.BytesIO(stream(name(module, attribute))), torch._ALLOWED)


@pytest.mark.parametrize(
  'offset, size, stride',
  [
    (0, (7,), (1,)),
    (5, (2,), (1,)),
    (0, (2, 2), (5, 1)),
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (-1, -1), (1, 1)),
    (0, (2, 2), (1,)),
    (0, (1 << 20, 1 << 20), (0, 0)),
  ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, size, stride):
  tree = {'w': tensor(storage('FloatStorage', '0', 6), offset, size, stride)}
  path = write_zip(tmp_path / 'a.pth', tree, {'0': SIX.tobytes()})
  with pytest.raises(UserError, match=r'a tensor|its tensors'):
    torch.read(path)


def test_broken_files_end_in_one_line(tmp_path):
  tree = {'w': tensor(storage('FloatStorage', '0', 6), 0, (6,), (1,))}
  made = {
    'storage shorter than announced': write_zip(tmp_path / 'a', tree, {'0': SIX[:4].tobytes()}),
    'storage missing': write_zip(tmp_path / 'b', tree, {}),
    'not a torch archive': write_zip(
      tmp_path / 'c', tree, {'0': SIX.tobytes()}, extra=['x/data.pkl']
    ),
    'tail cut': write_legacy(tmp_path / 'd', tree, {'0': (6, SIX[:5].tobytes())}),
    'no values': write_legacy(tmp_path / 'e', tree, {'0': (6, b'')}, raw=b''),
    'wrong count': write_legacy(tmp_path / 'f', tree, {'0': (5, SIX[:5].tobytes())}),
    'a storage not listed': write_legacy(tmp_path / 'g', tree, {}),
  }
  plain = tmp_path / 'h'
  plain.write_bytes(pickle.dumps({'w': [1.0]}, 2))
  half = tmp_path / 'i'
  half.write_bytes(made['tail cut'].read_bytes()[:60])
  no_tensors = write_zip(tmp_path / 'j', {'epoch': 3}, {})
  cut = tmp_path / 'k'
  cut.write_bytes(made['storage missing'].read_bytes()[:100])
  for path in [*made.values(), plain, half, no_tensors, cut]:
    with pytest.raises(UserError) as caught:
      torch.read(path)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
