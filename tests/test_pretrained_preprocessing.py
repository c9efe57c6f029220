"""The preprocessing record: values by hand, numpy and JAX alike, mistakes refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.pretrained.names import sources
from jaxseg.types import UserError

PIXEL = np.array([[[10, 20, 30]]], np.uint8)  # red, green, blue


def test_values_by_hand():
  record = Preprocessing(mean=(1, 2, 3), std=(2, 4, 8))
  assert record(PIXEL).tolist() == [[[4.5, 4.5, 3.375]]]
  flipped = dataclasses.replace(record, channel_order='bgr')
  assert flipped(PIXEL).tolist() == [
    [[3.375, 4.5, 4.5]]
  ]  # the red mean meets red: it is in RGB order
  assert flipped(PIXEL).dtype == np.float32


def test_published_records():
  np.testing.assert_allclose(sources.CAFFE(PIXEL)[0, 0], [-73.939, -96.779, -113.68], 1e-6)
  np.testing.assert_allclose(
    sources.TORCHVISION(PIXEL)[0, 0],
    (np.array([10, 20, 30]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    1e-5,
  )
  np.testing.assert_allclose(sources.KERAS_MOBILENET(PIXEL), PIXEL / 127.5 - 1, 1e-5)


@pytest.mark.parametrize('shape', [(5, 4, 3), (2, 5, 4, 3)])
@pytest.mark.parametrize('record', [sources.FCN, sources.TORCHVISION])
def test_jax_equals_numpy(record, shape):
  image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  np.testing.assert_allclose(record(jnp.asarray(image)), record(image), rtol=1e-6)


def test_other_numbers_of_channels():
  assert Preprocessing((100,), (50,))(np.full((1, 1, 1), 200, np.uint8)).tolist() == [[[2]]]
  depth = Preprocessing((0, 0, 0, 1), (1, 1, 1, 1), 'bgr')(np.array([[[1, 2, 3, 4]]], np.uint8))
  assert depth.tolist() == [[[3, 2, 1, 3]]]  # the fourth channel stays where it is


def test_mistakes():
  with pytest.raises(UserError, match='allowed are rgb, bgr'):
    Preprocessing(channel_order='gbr')
  with pytest.raises(UserError, match='no std may be 0'):
    Preprocessing(std=(0, 1, 1))
  with pytest.raises(UserError, match='mean has 3 values, but the image has 1 channels'):
    sources.TORCHVISION(np.zeros((2, 2, 1), np.uint8))
  with pytest.raises(UserError, match='bgr, but the image has 1 channels'):
    sources.CAFFE(np.zeros((2, 2, 1), np.uint8))


def test_lists_from_json_compare_equal():
  assert Preprocessing([1, 2, 3], [1, 1, 1]) == Preprocessing((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))


def test_a_fill_is_the_mean_in_the_image_s_own_order():
  assert sources.FCN.fill == (123, 117, 104)


def test_what_differs_to_a_network():
  """Caffe's and FCN's means are 1 grey level apart, and FCN did train Caffe's weights."""
  assert sources.CAFFE.differences(sources.FCN, 3) == ()
  assert sources.CAFFE.differences(sources.SEGNET, 3) == ('mean',)
  every = sources.CAFFE.differences(sources.TORCHVISION, 3)
  assert every == ('std', 'channel_order')
  gray = Preprocessing((127.5,), (127.5,))
  assert gray.differences(Preprocessing((127.5,) * 3, (127.5,) * 3), 3) == ()
  assert gray.differences(Preprocessing((127.5,), (129.0,)), 1) == ()
  assert gray.differences(Preprocessing((124.0,), (131.0,), 'bgr'), 1) == ('mean', 'std')
