"""The Keras reader against HDF5 files as three generations of Keras wrote them."""

import sys

import numpy as np
import pytest

from jaxseg.pretrained.readers import keras
from jaxseg.types import UserError

h5py = pytest.importorskip('h5py', reason='h5py writes the files of this test')

KERNEL = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
BIAS = np.array([1, 2, 3], np.float32)


def write(path, layers, *, root='', split=False):
  """layers: layer name -> {weight name: array}, names written as Keras does, as bytes."""
  with h5py.File(path, 'w') as file:
    group = file.create_group(root) if root else file
    names = np.array([n.encode() for n in layers])
    if split:
      group.attrs['layer_names0'], group.attrs['layer_names1'] = names[:1], names[1:]
    else:
      group.attrs['layer_names'] = names
    for layer, weights in layers.items():
      sub = group.create_group(layer)
      sub.attrs['weight_names'] = [n.encode() for n in weights]
      for weight, values in weights.items():
        sub[weight] = values
  return path


@pytest.mark.parametrize('root', ['', 'model_weights'])
@pytest.mark.parametrize('names', [('b_W_1:0', 'b_b_1:0'), ('b/kernel:0', 'b/bias:0')])
def test_names_come_from_the_attributes(tmp_path, root, names):
  layers = {'b': dict(zip(names, (KERNEL, BIAS), strict=True)), 'a': {}, 'pool': {}}
  tensors = keras.read(write(tmp_path / 'w.h5', layers, root=root))
  assert list(tensors) == [f'b/{n}' for n in names]
  np.testing.assert_array_equal(tensors[f'b/{names[0]}'], KERNEL)
  np.testing.assert_array_equal(tensors[f'b/{names[1]}'], BIAS)


def test_lists_of_names_split_over_attributes(tmp_path):
  layers = {'z': {'z/kernel:0': KERNEL}, 'a': {'a/bias:0': BIAS}, 'm': {}}
  tensors = keras.read(write(tmp_path / 'w.h5', layers, split=True))
  assert list(tensors) == ['z/z/kernel:0', 'a/a/bias:0']


def test_foreign_and_broken_files(tmp_path):
  foreign = tmp_path / 'foreign.h5'
  with h5py.File(foreign, 'w') as file:
    file['x'] = BIAS
  with pytest.raises(UserError, match='no attribute layer_names'):
    keras.read(foreign)
  broken = tmp_path / 'broken.h5'
  broken.write_bytes(foreign.read_bytes()[:300])
  with pytest.raises(UserError, match='broken or foreign'):
    keras.read(broken)
  missing = write(tmp_path / 'w.h5', {'b': {'b/kernel:0': KERNEL}})
  with h5py.File(missing, 'a') as file:
    del file['b/b/kernel:0']
  with pytest.raises(UserError, match='broken or foreign'):
    keras.read(missing)


def test_without_h5py_the_remedy_is_told(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'h5py', None)
  with pytest.raises(UserError, match='pip install h5py'):
    keras.read(tmp_path / 'w.h5')
