"""Where pixels come from when arrays are resized, mirrored or cut, by hand."""

import numpy as np
import pytest

from jaxseg.data import geometry
from jaxseg.types import VOID, UserError


def test_nearest_follows_the_half_pixel_formula_for_all_sizes():
  for old in range(1, 30):
    row = np.arange(old, dtype=np.uint8)[None]
    for new in range(1, 60):
      want = [int((i + 0.5) * old / new + 1e-9) for i in range(new)]
      np.testing.assert_array_equal(geometry.resize_label(row, (1, new))[0], want)


def test_strong_shrinking_averages_areas():
  image = np.zeros((8, 8, 1), np.uint8)
  image[::4, ::4] = 160  # one bright pixel in each 4 x 4 block: its mean is 10
  np.testing.assert_array_equal(geometry.resize_image(image, (2, 2))[..., 0], [[10, 10], [10, 10]])


def test_mirrored_borders_may_be_wider_than_the_image():
  row = np.array([[[10], [20], [30]]], np.uint8)
  mirrored = geometry.mirror_array(row, 0, 0, 5, 4)[0, :, 0]
  np.testing.assert_array_equal(mirrored, [20, 10, 20, 30, 20, 10, 20, 30, 20, 10, 20, 30])


@pytest.mark.parametrize(
  ('size', 'expected'),
  [
    ((480, 640), (800, 1067)),  # 640 * 800 / 480 = 1066.67
    ((640, 480), (1067, 800)),
    ((300, 900), (444, 1333)),  # the longer side decides: 300 * 1333 / 900 = 444.3
    ((800, 1000), (800, 1000)),
  ],
)
def test_short_and_long_sides(size, expected):
  assert geometry.by_short_side(size, 800, 1333) == expected
  assert geometry.by_short_side(expected, 800, 1333) == expected


def test_a_window_beyond_the_image_lies_on_void_ground():
  """Two rows and columns from (-1, -1), shown at twice the size: only the first pixel is inside."""
  example = {'image': np.array([[[7]]], np.uint8), 'label': np.array([[3]], np.uint8)}
  window = geometry.cut(example, (-1, -1), (2, 2), (4, 4), (9,))
  v = VOID
  np.testing.assert_array_equal(
    window['label'], [[v, v, v, v], [v, v, v, v], [v, v, 3, 3], [v, v, 3, 3]]
  )
  np.testing.assert_array_equal(window['image'][..., 0][2:, 2:], 7)
  np.testing.assert_array_equal(window['image'][..., 0][:2], 9)


def test_a_fill_has_a_value_for_each_channel():
  image = np.zeros((2, 2, 6), np.uint8)  # more than OpenCV takes at once
  padded = geometry.pad({'image': image}, 0, 1, 0, 0, fill=(1, 2, 3, 4, 5, 6))['image']
  np.testing.assert_array_equal(padded[2], [[1, 2, 3, 4, 5, 6]] * 2)
  with pytest.raises(UserError, match='2 values, the image has 6 channels: give one value or 6'):
    geometry.pad({'image': image}, 0, 1, 0, 0, fill=(1, 2))
