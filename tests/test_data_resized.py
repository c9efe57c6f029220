"""Sources at one size: what is resized how, and what is passed on."""

import pickle
import types

import numpy as np

from jaxseg.data.resized import Resized
from jaxseg.data.views import remember


class _Source(list):
  num_classes, split, identity = 2, 'val', 'two squares'


def _source():
  image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
  label = np.array([[0, 1, 2, 3]] * 4, np.uint8)
  wide = np.zeros((6, 9, 1), np.uint8), np.ones((6, 9), np.uint8)
  return _Source(
    dict(image=i, label=x, file_name=n) for i, x, n in ((image, label, 'a'), (*wide, 'b'))
  )


def test_by_hand():
  resized = Resized(_source(), (2, 2))
  example = resized[0]
  # half-pixel bilinear at half size is the mean of each block of 2 x 2
  assert example['image'][..., 0].tolist() == [[25, 45], [105, 125]]
  assert example['label'].tolist() == [[1, 3], [1, 3]]  # nearest: floor((i + .5) * 2) = 1, 3
  assert example['file_name'] == 'a' and resized[1]['image'].shape == (2, 2, 1)
  np.testing.assert_array_equal(resized.label(0), example['label'])


def test_passes_on_what_it_does_not_change():
  resized = Resized(_source(), (2, 3))
  assert len(resized) == 2 and resized.num_classes == 2 and resized.split == 'val'
  assert resized.size(1) == (2, 3) and remember(resized).size(0) == (2, 3)
  assert resized.identity != Resized(_source(), (3, 2)).identity
  assert pickle.loads(pickle.dumps(resized))[1]['label'].shape == (2, 3)
  assert not isinstance(getattr(resized, 'file_name', None), types.MethodType)
