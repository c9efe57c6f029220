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
  assert list(pictures) == ['image', 'truth', 'prediction', 'errors']
  for title, expected in (
    ('truth', objects.overlay(IMAGE, IDS)),
    ('prediction', [[[100] * 3] * 5] * 5),
  ):
    np.testing.assert_array_equal(pictures[title], expected)
  np.testing.assert_array_equal(pictures['image'], pictures['prediction'])
  assert list(objects.pictures({'image': IMAGE}, None)) == ['image', 'truth']


def test_errors_are_missed_objects_and_false_ones():
  """A half that is found (IoU 0.5), one missed below it, one invented; a crowd is neither, nor what lies in it."""
  truth = np.zeros((4, 8, 2), np.uint16)
  truth[0, :4, 0], truth[2, :2, 0], truth[3, :, 1] = 1, 2, 3
  ids = np.zeros((4, 8), np.uint16)
  ids[0, :2], ids[1, 5:], ids[3, 4:6] = 4, 5, 6
  shown = objects.error_map(np.zeros((4, 8, 1), np.uint8), truth, ids, crowds=[3])
  expected = np.full((4, 8, 3), 50)
  expected[2, :2], expected[1, 5:] = objects.MISSED_COLOR, objects.FALSE_COLOR
  np.testing.assert_array_equal(shown, expected)
  alone = objects.error_map(np.zeros((4, 8, 1), np.uint8), truth[..., 0] * 0, ids * 0)
  assert (alone == 50).all()
  assert dict(objects.legend()).keys() == {'missed', 'false'}


def test_numbers_have_sixteen_bits(tmp_path):
  objects.save_numbers(tmp_path / 'a.png', IDS.astype(int) * 30000)
  with Image.open(tmp_path / 'a.png') as picture:
    np.testing.assert_array_equal(np.asarray(picture), IDS.astype(int) * 30000)
