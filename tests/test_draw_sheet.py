"""Where sheets have their pictures, titles, captions and legends."""

import numpy as np
import pytest

from jaxseg.draw import labels, sheet
from jaxseg.types import VOID, UserError

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 100, 0))
NAMES = ('background', 'square', 'disc')
LABEL = np.array([[0, 1], [2, VOID]], np.uint8)
IMAGE = np.full((2, 2, 3), 77, np.uint8)
GAP, TEXT = 8, 20


def test_panel_draws_pictures_side_by_side_under_their_titles():
  row = labels.pictures(IMAGE, LABEL, np.array([[0, 1], [2, 1]]), PALETTE)
  picture = sheet.panel([row] * 2, cell_size=40)
  cell, top = 40, GAP + TEXT
  assert picture.dtype == np.uint8 and picture.shape == (top + 2 * (cell + GAP), 320, 3)
  for y in (top, top + cell + GAP):
    for k, title in enumerate(row):
      left = GAP + k * (cell + GAP)
      shown = picture[y : y + cell, left : left + cell]
      np.testing.assert_array_equal(shown, row[title].repeat(20, axis=0).repeat(20, axis=1))
  assert (picture[:top].min(axis=2) < 128).any()  # the titles
  assert (picture[top : top + cell, 4 * (cell + GAP) + GAP :] == 255).all()


def test_missing_pictures_leave_their_cell_empty():
  rows = [{'image': IMAGE, 'truth': IMAGE}, {'image': IMAGE}]
  picture = sheet.panel(rows, titled=False, cell_size=2)
  assert (picture[8:10, 18:20] == 77).all() and (picture[18:20, 18:20] == 255).all()
  with pytest.raises(UserError, match='at least one'):
    sheet.panel([])


def test_rows_in_columns_with_captions():
  rows = [{'image': np.full((2, 2, 3), 50 * k, np.uint8)} for k in range(3)]
  picture = sheet.panel(rows, captions=['a', 'b', 'c'], titled=False, columns=2, cell_size=40)
  assert picture.shape == (GAP + 2 * (40 + GAP + TEXT), 320, 3)
  for k, (y, x) in enumerate(((8, 8), (8, 8 + 56), (8 + 68, 8))):
    assert (picture[y : y + 40, x : x + 40] == 50 * k).all()
    assert (picture[y + 40 : y + 60, x : x + 40] < 128).any()


def test_large_pictures_shrink_smoothly_and_labels_by_nearest():
  image = np.zeros((100, 60, 3), np.uint8)
  image[::2] = 200
  row = {'image': image, 'truth': image}
  picture = sheet.panel([row], titled=False, cell_size=50)
  shown, nearest = picture[8:58, 8:38], picture[8:58, 46:76]
  assert 60 < shown.min() and shown.max() < 140 and set(np.unique(nearest)) <= {0, 200}


def test_contact_sheet():
  weight = np.array([[0, 1], [4, 1]], np.float32)
  examples = [{'image': IMAGE[..., :1], 'label': LABEL, 'weight': weight}] * 3
  picture = sheet.contact_sheet(examples, PALETTE, NAMES, ['a', 'b', 'c'], cell_size=10)
  cells = [picture[8:18, 8 + 18 * k : 18 + 18 * k] for k in range(3)]
  assert (cells[0] == 77).all()
  expected = labels.colorize(LABEL, PALETTE).repeat(5, axis=0).repeat(5, axis=1)
  np.testing.assert_array_equal(cells[1], expected)
  # black; square roots of 1/4 and 1: 3 * .5 in red and half of green; all of red and green and blue
  np.testing.assert_array_equal(
    cells[2][::5, ::5], [[[0, 0, 0], [255, 128, 0]], [[255] * 3, [255, 128, 0]]]
  )
  legend = picture[8 + 2 * (10 + GAP + TEXT) :].reshape(-1, 3)
  assert {*PALETTE, labels.VOID_COLOR} <= {tuple(pixel) for pixel in legend.tolist()}


def test_samples_show_every_class_and_are_spread():
  counts = np.zeros((10, 3), int)
  counts[:, 0] = 100
  counts[4, 1], counts[8, 2], counts[7, 2] = 5, 9, 8
  assert sheet.pick_samples(counts, 2) == [4, 8]
  assert sheet.pick_samples(counts, 4) == [0, 3, 4, 8]  # 0, 3, 6, 9 are spread evenly
  assert sheet.pick_samples(counts, 99) == list(range(10))


def test_the_font_has_letters_beyond_ascii():
  """A letter that a font lacks is drawn as the box of U+FFFF, which is no letter."""
  font = sheet.load_font(14)
  box = bytes(font.getmask('\uffff'))
  letters = '\u00e9\u00e4\u0151\u0141\u0416\u03a9'
  assert all(bytes(font.getmask(letter)) != box for letter in letters)
  drawn = [sheet.panel([{'image': IMAGE}], legend=[(name, (1, 2, 3))]) for name in ' \u00e9\uffff']
  assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()
