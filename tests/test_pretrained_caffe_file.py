"""The Caffe reader against a tiny protobuf writer: V1 and V2 layers, packed and unpacked numbers."""

import struct

import numpy as np
import pytest

from jaxseg.pretrained.readers import caffe
from jaxseg.types import UserError


def varint(value):
  out = b''
  while value > 0x7F:
    out += bytes([value & 0x7F | 0x80])
    value >>= 7
  return out + bytes([value])


def field(number, value):
  """Bytes and text are length-delimited, integers varints, floats fixed32."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  if isinstance(value, float):
    return varint(number << 3 | 5) + struct.pack('<f', value)
  value = value.encode() if isinstance(value, str) else value
  return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values, *, legacy=False, packed=True, double=False):
  values = np.asarray(values, '<f8' if double else '<f4')
  if legacy:
    shape = (1,) * (4 - values.ndim) + values.shape
    head = b''.join(field(i + 1, n) for i, n in enumerate(shape))
  else:
    head = field(7, field(1, b''.join(map(varint, values.shape))))
  number = 8 if double else 5
  if packed:
    return head + field(number, values.tobytes())
  tag = varint(number << 3 | (1 if double else 5))
  return head + b''.join(tag + v.tobytes() for v in values.ravel())


def net(layers, *, v1):
  """layers: name -> list of blobs, between the other fields that a real model holds."""
  out = field(1, 'net')
  for layer, blobs in layers.items():
    if v1:
      body = field(2, 'data') + field(3, layer) + field(4, layer) + field(5, 4)
      body += b''.join(field(6, b) for b in blobs) + field(7, 1.0) + field(7, 2.0)
    else:
      body = field(1, layer) + field(2, 'Convolution') + field(3, 'data') + field(5, 0.5)
      body += b''.join(field(7, b) for b in blobs) + field(10, 1)
    out += field(2 if v1 else 100, body)
  return out


WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
BIAS = np.array([0.25, -4], np.float32)


@pytest.mark.parametrize('v1', [True, False])
@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize('double', [True, False])
def test_layers_blobs_and_numbers(tmp_path, v1, packed, double):
  path = tmp_path / 'net.caffemodel'
  form = dict(legacy=v1, packed=packed, double=double)
  path.write_bytes(net({'conv1_1': [blob(WEIGHT, **form), blob(BIAS, **form)], 'relu': []}, v1=v1))
  tensors = caffe.read(path)
  assert list(tensors) == ['conv1_1/0', 'conv1_1/1']
  np.testing.assert_array_equal(tensors['conv1_1/0'], WEIGHT)
  np.testing.assert_array_equal(tensors['conv1_1/1'], BIAS.reshape((1, 1, 1, 2) if v1 else (2,)))
  assert tensors['conv1_1/0'].dtype == (np.float64 if double else np.float32)


def test_legacy_fully_connected_keeps_its_four_dimensions(tmp_path):
  path = tmp_path / 'net.caffemodel'
  path.write_bytes(net({'fc6': [blob(np.ones((3, 8)), legacy=True)]}, v1=True))
  assert caffe.read(path)['fc6/0'].shape == (1, 1, 3, 8)


def test_bytes_written_out_by_hand(tmp_path):
  path = tmp_path / 'net.caffemodel'
  shape, data = b'\x3a\x03\x0a\x01\x02', b'\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0'
  layer = b'\x0a\x01a' + b'\x3a\x0f' + shape + data
  path.write_bytes(b'\xa2\x06' + bytes([len(layer)]) + layer)
  assert {k: v.tolist() for k, v in caffe.read(path).items()} == {'a/0': [1.0, -2.0]}


def test_a_long_unpacked_list(tmp_path):
  values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
  path = tmp_path / 'net.caffemodel'
  layers = {'a': [blob(values, packed=False), blob(BIAS, packed=False)]}
  path.write_bytes(net(layers, v1=False))
  np.testing.assert_array_equal(caffe.read(path)['a/0'], values)
  np.testing.assert_array_equal(caffe.read(path)['a/1'], BIAS)


def test_broken_files_end_in_one_line(tmp_path):
  whole = net({'a': [blob(WEIGHT)]}, v1=False)
  wrong_count = field(7, field(1, b'\x05')) + field(5, BIAS.tobytes())
  broken = {
    'cut': whole[:-9],
    'count': net({'a': [wrong_count]}, v1=False),
    'odd bytes': net({'a': [field(7, field(1, b'\x01')) + field(5, b'abc')]}, v1=False),
    'no weights': field(1, 'net'),
    'text': b'\nname: "VGG"\nlayer {\n}\n',
    'empty varint': b'\x0a' + b'\xff' * 12,
    'no data': net({'a': [field(7, field(1, b'\x05'))]}, v1=False),
  }
  for case, data in broken.items():
    path = tmp_path / case
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
      caffe.read(path)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value), case
