"""Converts tensors from PyTorch's, Caffe's and Keras' axes to Flax's (kernels [kh,kw,in,out])."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxseg.nn.layers import bilinear_kernel
from jaxseg.types import UserError

_TORCH_ROLES = {
  'bias': 'params/{}/bias',
  'running_mean': 'batch_stats/{}/mean',
  'running_var': 'batch_stats/{}/var',
}


def conv(weight: np.ndarray) -> np.ndarray:
  """[out,in,kh,kw] of PyTorch and Caffe -> [kh,kw,in,out]; depthwise [c,1,kh,kw] alike."""
  return weight.transpose(2, 3, 1, 0)


def conv_transpose(weight: np.ndarray) -> np.ndarray:
  """[in,out,kh,kw] -> [kh,kw,in,out], flipped, for `transpose_kernel=False`."""
  return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


def dense_as_conv(weight: np.ndarray, size: int) -> np.ndarray:
  """Fully connected [out,in], inputs in the order c, h, w -> convolution [size,size,c,out]."""
  return conv(weight.reshape(weight.shape[0], -1, size, size))


def dense_hwc_as_conv(kernel: np.ndarray, size: int) -> np.ndarray:
  """Keras' fully connected [in,out], inputs in the order h, w, c -> [size,size,c,out]."""
  return kernel.reshape(size, size, -1, kernel.shape[1])


def is_bilinear(kernel: np.ndarray) -> bool:
  """Whether [k,k,c,c] is FCN's fixed filter: bilinear on the diagonal, zero elsewhere."""
  size, channels = kernel.shape[0], kernel.shape[-1]
  if kernel.shape != (size, size, channels, channels):
    return False
  expected = bilinear_kernel(size)[:, :, None, None] * np.eye(channels)
  return bool(np.allclose(kernel, expected, atol=1e-6))


def from_torch(
  tensors: Mapping[str, np.ndarray],
  rename: Callable[[str], str] | None = None,
  *,
  transposed: Callable[[str], bool] = lambda name: False,
  dense_as: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
  """Translates a state_dict whose modules are convolutions, linear layers and batch norms.

  Args:
    tensors: 'module.weight', 'module.bias', 'module.running_mean', ... -> array.
    rename: module -> our layer; the default writes '_' for '.'.
    transposed: whether our layer of that name is a transposed convolution.
    dense_as: our layer -> side of the convolution that replaces a linear layer.

  Returns:
    'params/<layer>/kernel' and so on; views of the given arrays where possible.

  Raises:
    UserError: a tensor of any other module.
  """
  rename = rename or (lambda module: module.replace('.', '_'))
  dense_as, out = dense_as or {}, {}
  for name, values in tensors.items():
    module, _, role = name.rpartition('.')
    if role == 'num_batches_tracked':
      continue
    layer = rename(module)
    if role in _TORCH_ROLES:
      out[_TORCH_ROLES[role].format(layer)] = values
    elif role == 'weight' and values.ndim == 1:
      out[f'params/{layer}/scale'] = values
    elif role == 'weight' and values.ndim == 2 and layer in dense_as:
      out[f'params/{layer}/kernel'] = dense_as_conv(values, dense_as[layer])
    elif role == 'weight' and values.ndim == 2:
      out[f'params/{layer}/kernel'] = values.T
    elif role == 'weight' and values.ndim == 4:
      out[f'params/{layer}/kernel'] = (conv_transpose if transposed(layer) else conv)(values)
    else:
      raise UserError(
        f'{name} {values.shape} is no part of a convolution, a linear layer or a batch norm'
      )
  return out
