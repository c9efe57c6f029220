"""Axes, checked by what a layer computes: plain numpy loops on one side, the layer on the other."""

import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxseg.nn.layers import bilinear_kernel
from jaxseg.pretrained.names import layouts
from jaxseg.types import UserError

RANDOM = np.random.default_rng(0)


def normal(*shape):
  return RANDOM.normal(size=shape).astype(np.float32)


def nhwc(x):
  return np.moveaxis(x, 1, -1)


def convolve(image, kernel, groups=1):
  """VALID convolution in NHWC."""
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return lax.conv_general_dilated(
    image, kernel, (1, 1), 'VALID', dimension_numbers=numbers, feature_group_count=groups
  )


def test_convolution():
  image, weight = normal(1, 3, 4, 5), normal(2, 3, 2, 3)
  expected = np.zeros((1, 2, 3, 3), np.float32)
  for o, y, x in np.ndindex(2, 3, 3):
    expected[0, o, y, x] = (image[0, :, y : y + 2, x : x + 3] * weight[o]).sum()
  got = convolve(nhwc(image), layouts.conv(weight))
  np.testing.assert_allclose(got, nhwc(expected), rtol=1e-4, atol=1e-5)


def test_depthwise_convolution():
  image, weight = normal(1, 3, 4, 4), normal(3, 1, 2, 2)
  expected = np.zeros((1, 3, 3, 3), np.float32)
  for c, y, x in np.ndindex(3, 3, 3):
    expected[0, c, y, x] = (image[0, c, y : y + 2, x : x + 2] * weight[c, 0]).sum()
  got = convolve(nhwc(image), layouts.conv(weight), groups=3)
  np.testing.assert_allclose(got, nhwc(expected), rtol=1e-4, atol=1e-5)


def test_transposed_convolution():
  image, weight = normal(1, 2, 3, 2), normal(2, 3, 4, 4)  # in 2, out 3
  expected = np.zeros((1, 3, 8, 6), np.float32)
  for i, o, y, x in np.ndindex(2, 3, 3, 2):
    expected[0, o, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += image[0, i, y, x] * weight[i, o]
  layer = nn.ConvTranspose(3, (4, 4), strides=(2, 2), padding='VALID', use_bias=False)
  kernel = layouts.conv_transpose(weight)
  got = layer.apply({'params': {'kernel': kernel}}, nhwc(image))
  np.testing.assert_allclose(got, nhwc(expected), rtol=1e-4, atol=1e-5)


def test_fully_connected_as_convolution():
  """PyTorch and Caffe flatten c, h, w; Keras h, w, c."""
  image, weight = normal(1, 5, 7, 7), normal(4, 5 * 49)
  kernel = layouts.dense_as_conv(weight, 7)
  got = np.asarray(convolve(nhwc(image), kernel)).reshape(1, 4)
  np.testing.assert_allclose(got, image.reshape(1, -1) @ weight.T, rtol=1e-4, atol=1e-4)
  keras = normal(49 * 5, 4)
  got = np.asarray(convolve(nhwc(image), layouts.dense_hwc_as_conv(keras, 7))).reshape(1, 4)
  np.testing.assert_allclose(got, nhwc(image).reshape(1, -1) @ keras, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [3, 4, 16])
def test_bilinear_filters_are_recognised(size):
  kernel = np.zeros((size, size, 3, 3), np.float32)
  for c in range(3):
    kernel[:, :, c, c] = bilinear_kernel(size)
  assert layouts.is_bilinear(kernel)
  kernel[0, 0, 1, 2] = 0.01
  assert not layouts.is_bilinear(kernel)
  assert not layouts.is_bilinear(kernel[..., :2])


def test_roles_of_a_state_dict():
  tensors = {
    'a.0.weight': normal(2, 3, 1, 1),
    'a.0.bias': normal(2),
    'a.1.weight': normal(2),
    'a.1.bias': normal(2),
    'a.1.running_mean': normal(2),
    'a.1.running_var': normal(2),
    'a.1.num_batches_tracked': np.array(7),
    'fc.weight': normal(4, 2),
    'up.weight': normal(2, 5, 2, 2),
  }
  got = layouts.from_torch(tensors, transposed=lambda layer: layer == 'up')
  assert {name: values.shape for name, values in got.items()} == {
    'params/a_0/kernel': (1, 1, 3, 2),
    'params/a_0/bias': (2,),
    'params/a_1/scale': (2,),
    'params/a_1/bias': (2,),
    'batch_stats/a_1/mean': (2,),
    'batch_stats/a_1/var': (2,),
    'params/fc/kernel': (2, 4),
    'params/up/kernel': (2, 2, 2, 5),
  }
  np.testing.assert_array_equal(got['params/fc/kernel'], tensors['fc.weight'].T)
  with pytest.raises(UserError, match='lstm.weight_ih'):
    layouts.from_torch({'lstm.weight_ih': normal(2, 2)})
