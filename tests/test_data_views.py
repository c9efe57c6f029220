"""Views of a source: resized by hand, what is passed on, and what memory keeps."""

import pickle
import types

import numpy as np
import pytest

from jaxseg.data import contrast, geometry
from jaxseg.data.views import Cached, Resized, Stretched
from jaxseg.export import run


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


def test_labels_by_shares():
  resized = Resized(_source(), (4, 8), 'shares')
  # columns 0 1 2 3 at twice the width look at -.25, .25, .75, 1.25 ...: the nearest class has 3/4
  assert resized[0]['label'][0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
  halves = Resized(
    _source(), (4, 2), 'shares'
  )  # each looks between two, of which the higher counts
  assert halves[0]['label'][0].tolist() == [1, 3]
  assert halves.identity != Resized(_source(), (4, 2)).identity
  np.testing.assert_array_equal(halves.label(0), halves[0]['label'])
  edge = np.array([[1, 0, 0, 0]], np.uint8)  # 4 -> 2 columns: the first looks at 0 and 1
  assert geometry.resize_label(edge, (1, 2), 'shares').tolist() == [[1, 0]]
  assert geometry.resize_label(edge, (1, 2)).tolist() == [[0, 0]]


def test_passes_on_what_it_does_not_change():
  resized = Resized(_source(), (2, 3))
  assert len(resized) == 2 and resized.num_classes == 2 and resized.split == 'val'
  assert resized.size(1) == (2, 3) and Cached(resized).size(0) == (2, 3)
  assert resized.identity != Resized(_source(), (3, 2)).identity
  assert pickle.loads(pickle.dumps(resized))[1]['label'].shape == (2, 3)
  assert not isinstance(getattr(resized, 'file_name', None), types.MethodType)


IMAGE = np.array([[10, 20, 30, 60, 110]])  # of five values the 25th percentile is the second
STRETCHED = {  # from 20..60, by hand: 0, 0, 1/4, 1, 1 of the dtype's maximum, rounded half to even
  'uint8': [0, 0, 64, 255, 255],
  'uint16': [0, 0, 16384, 65535, 65535],
  'int16': [0, 0, 8192, 32767, 32767],
  'float32': [0, 0, 0.25, 1, 1],
}


@pytest.mark.parametrize('dtype', STRETCHED)
def test_contrast_by_hand(dtype):
  image = np.array(IMAGE, dtype)[..., None]
  for how in (
    contrast.stretch,
    lambda i, p: run.stretched(i[None], p)[0],
  ):  # an export brings its own
    stretched = how(image, (25, 75))
    assert stretched.dtype == dtype and stretched[0, :, 0].tolist() == STRETCHED[dtype]
    np.testing.assert_array_equal(how(stretched, (25, 75)), stretched)
    np.testing.assert_array_equal(how(np.full_like(image, 7), (1, 99)), np.full_like(image, 7))


def test_channels_are_stretched_alike():
  image = np.array([[[0, 50, 100]]], np.uint8)
  assert contrast.stretch(image, (0, 100)).tolist() == [[[0, 128, 255]]]


def test_a_stretched_source():
  source = _source()
  stretched = Stretched(source, (0, 100))  # of 0..150
  assert stretched[0]['image'][0, :, 0].tolist() == [0, 17, 34, 51]
  np.testing.assert_array_equal(stretched[0]['label'], source[0]['label'])
  assert source[0]['image'].max() == 150 and stretched.num_classes == 2
  assert len({source.identity, stretched.identity, Stretched(source, (1, 99)).identity}) == 3


def test_what_was_measured_in_pixels_is_dropped():
  tables = {'area': np.ones(5), 'instance_boxes': np.ones((5, 4)), 'crowd': np.zeros(5, bool)}
  example = {**_source()[0], 'instances': np.eye(4, dtype=np.uint16), **tables}
  resized = Resized([example], (8, 10))[0]
  assert resized['instances'].shape == (8, 10)
  how = {'drawn', 'extent', 'place'}  # it came to lie, see geometry.py
  assert resized.keys() - how == {'image', 'label', 'instances', 'crowd', 'file_name'}


class _Counted(_Source):
  """Counts how often each example is read."""

  def __init__(self, count):
    super().__init__(
      dict(image=np.full((20, 30, 3), i, np.uint8), label=np.zeros((20, 30), np.uint8), file_name=i)
      for i in range(count)
    )
    self.reads = [0] * count

  def __getitem__(self, index):
    self.reads[index] += 1
    return super().__getitem__(index)


def test_what_is_remembered_is_read_once():
  source = _Counted(6)
  kept = Cached(source)
  for _ in range(3):
    assert [kept[i]['file_name'] for i in range(6)] == list(range(6))
  assert source.reads == [1] * 6 and len(kept) == 6 and kept.num_classes == 2
  assert kept.held_bytes == 6 * 20 * 30 * 4
  np.testing.assert_array_equal(kept[-1]['image'], source[5]['image'])
  with pytest.raises(IndexError):
    kept[6]
  with pytest.raises(AttributeError, match='palette'):
    _ = kept.palette
  with pytest.raises(ValueError, match='read-only'):
    kept[0]['image'][0] = 0
  source[0]['image'][0, 0] = 1  # the wrapped source's own arrays stay writable


def test_what_is_beyond_the_bound_is_read_again():
  source = _Counted(6)
  kept = Cached(source, 2 * 20 * 30 * 4 + 10)
  for _ in range(2):
    for i in range(6):
      assert kept[i]['file_name'] == i
  assert source.reads == [1, 1, 2, 2, 2, 2] and kept.held_bytes == 2 * 20 * 30 * 4
  assert [kept.size(i) for i in range(6)] == [(20, 30)] * 6
  assert source.reads == [1, 1, 2, 2, 2, 2]  # sizes are remembered beyond the bound
