"""Objects in colours of their own, pixel by pixel."""

import numpy as np
from PIL import Image

from jaxseg.draw import objects

IDS = np.zeros((5, 5), np.uint16)
IDS[1:4, 1:4], IDS[0, 0] = 2, 1
IMAGE = np.full((5, 5, 1), 100, np.uint8)


def test_overlay_by_hand():
  """3 x 3 pixels of the second of two objects: the ring in its colour, the middle half of it."""
  shown, colors = objects.overlay(IMAGE, IDS), objects.colors_of(2).astype(int)
  assert len({tuple(color) for color in colors}) == 3
  np.testing.assert_array_equal(shown[1, 1:4], [colors[2]] * 3)
  np.testing.assert_array_equal(shown[2, 2], np.rint((100 + colors[2]) / 2))
  np.testing.assert_array_equal(shown[4], [[100, 100, 100]] * 5)
  layers = np.stack([IDS, np.where(IDS == 1, 3, 0)], axis=-1)
  np.testing.assert_array_equal(objects.overlay(IMAGE, layers)[0, 0], objects.colors_of(3)[3])


def test_pictures():
  example = {'image': IMAGE, 'instances': IDS}
  pictures = objects.pictures(example, IDS * 0)
  assert list(pictures) == ['image', 'truth', 'prediction']
  for title, expected in (
    ('truth', objects.overlay(IMAGE, IDS)),
    ('prediction', [[[100] * 3] * 5] * 5),
  ):
    np.testing.assert_array_equal(pictures[title], expected)
  np.testing.assert_array_equal(pictures['image'], pictures['prediction'])
  assert list(objects.pictures({'image': IMAGE}, None)) == ['image', 'truth']


def test_numbers_have_sixteen_bits(tmp_path):
  objects.save_numbers(tmp_path / 'a.png', IDS.astype(int) * 30000)
  with Image.open(tmp_path / 'a.png') as picture:
    np.testing.assert_array_equal(np.asarray(picture), IDS.astype(int) * 30000)
