"""Weight files written by PyTorch itself, read without it."""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import numpy as np
import safetensors.torch
import torch

from jaxseg import pretrained
from jaxseg.types import UserError

pytestmark = pytest.mark.parity


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request, tmp_path):
  """Writes an object in the new or the old format; returns the path."""

  def write(thing):
    path = tmp_path / 'weights.pth'
    torch.save(thing, path, _use_new_zipfile_serialization=request.param)
    return path

  return write


def test_every_number_format_and_layout(save):
  base = torch.arange(24.0).reshape(4, 6)
  tensors = {
    'double': base.double(),
    'float': base,
    'half': base.half(),
    'bfloat16': (base / 7).bfloat16(),
    'long': base.long() - 9,
    'int': base.int(),
    'short': base.short(),
    'char': base.char(),
    'byte': base.byte(),
    'bool': base > 7,
    'transposed': base.T,
    'part': base[1:3, 2::2],
    'column': base[:, 3],
    'expanded': base[:1].expand(5, 6),
    'shared': base.view(-1)[7:9],
    'scalar': torch.tensor(3),
    'empty': torch.zeros(0, 2),
    'channels_last': torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    'parameter': torch.nn.Parameter(base[2]),
  }
  got = pretrained.read(save(tensors))
  assert got.keys() == tensors.keys()
  for name, tensor in tensors.items():
    expected = tensor.detach()
    expected = (expected.float() if name == 'bfloat16' else expected).numpy()
    np.testing.assert_array_equal(got[name], expected, err_msg=name)
    assert got[name].dtype == expected.dtype and got[name].shape == expected.shape


def network():
  layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
  return torch.nn.Sequential(*layers).half()


def test_state_dicts_and_checkpoints(save):
  state = network().state_dict()
  checkpoint = {'epoch': 3, 'lr': 0.1, 'model': state, 'names': ['a', ('b', None)]}
  for thing in (state, checkpoint):
    got = pretrained.read(save(thing))
    assert list(got) == list(state)
    for name, tensor in state.items():
      np.testing.assert_array_equal(got[name], tensor.numpy())


def test_whole_networks_and_namespaces_are_refused(save):
  import argparse

  for thing in (network(), {'args': argparse.Namespace(lr=1), 'w': torch.ones(2)}):
    with pytest.raises(UserError, match='could run any code'):
      pretrained.read(save(thing))


def test_safetensors(tmp_path):
  tensors = {'a': (torch.arange(6.0) / 7).bfloat16().reshape(2, 3), 'b': torch.ones(2).half()}
  path = tmp_path / 'weights.safetensors'
  safetensors.torch.save_file(tensors, path)
  got = pretrained.read(path)
  np.testing.assert_array_equal(got['a'], tensors['a'].float().numpy())
  np.testing.assert_array_equal(got['b'], tensors['b'].numpy())
