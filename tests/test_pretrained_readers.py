"""read(): the content decides the format; safetensors."""

import json
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxseg.pretrained import readers
from jaxseg.pretrained.readers import safetensors
from jaxseg.types import UserError


def test_safetensors_written_by_the_library(tmp_path):
  tensors = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.array([1.5], np.float16),
    'c': np.array(7, np.int64),
    'd': np.array([True, False]),
  }
  path = tmp_path / 'weights.bin'  # the name says nothing
  save_file(tensors, path, metadata={'format': 'np'})
  got = readers.read(path)
  assert got.keys() == tensors.keys()
  for name, values in tensors.items():
    np.testing.assert_array_equal(got[name], values)
    assert got[name].dtype == values.dtype and got[name].shape == values.shape


def write_safetensors(path, dtype, data, shape):
  header = json.dumps({'w': {'dtype': dtype, 'shape': shape, 'data_offsets': [0, len(data)]}})
  path.write_bytes(struct.pack('<Q', len(header)) + header.encode() + data)
  return path


def test_safetensors_bfloat16_widens_exactly(tmp_path):
  path = write_safetensors(tmp_path / 'w', 'BF16', b'\xc0\x3f\x00\xc0', [2])
  got = readers.read(path)['w']
  assert got.tolist() == [1.5, -2.0] and got.dtype == np.float32


def test_safetensors_refusals(tmp_path):
  with pytest.raises(UserError, match='dtype U16'):
    readers.read(write_safetensors(tmp_path / 'a', 'U16', b'\0\0', [1]))
  with pytest.raises(UserError, match='broken safetensors'):
    readers.read(write_safetensors(tmp_path / 'b', 'F32', b'\0\0\0\0', [3]))
  assert not safetensors.is_safetensors(struct.pack('<Q', 1000) + b'{"', 50)


def test_content_decides(tmp_path):
  h5py = pytest.importorskip('h5py', reason='h5py writes one of the files')
  keras = tmp_path / 'keras.pth'
  with h5py.File(keras, 'w') as file:
    file.attrs['layer_names'] = [b'a']
    file.create_group('a').attrs['weight_names'] = [b'k:0']
    file['a']['k:0'] = np.ones(2, np.float32)
  assert list(readers.read(keras)) == ['a/k:0']
  caffe = tmp_path / 'caffe.h5'
  shape, data = b'\x3a\x03\x0a\x01\x02', b'\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0'
  caffe.write_bytes(b'\x12\x14\x22\x01a\x32\x0f' + shape + data)
  assert list(readers.read(caffe)) == ['a/0']


def test_files_that_are_no_weights(tmp_path):
  archive = tmp_path / 'a.zip'
  with zipfile.ZipFile(archive, 'w') as file:
    file.writestr('readme.txt', 'hello')
  files = {
    'web page': b'<!DOCTYPE html><html>',
    'pointer': b'version https://git-lfs.github.com/spec/v1',
    'empty': b'',
    'png': b'\x89PNG\r\n\x1a\n',
    'newline first': b'\n',
  }
  paths = [archive, tmp_path / 'absent.pth', tmp_path]
  for name, data in files.items():
    paths.append(tmp_path / name)
    paths[-1].write_bytes(data)
  for path in paths:
    with pytest.raises(UserError) as caught:
      readers.read(path)
    assert '\n' not in str(caught.value), path
