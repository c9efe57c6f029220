"""Masks cut from a map of instances and pasted back."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.outlines import CroppedMask, Masks
from jaxseg.nn.detection import masks
from jaxseg.nn.detection.masks import crop


def paste(cells, boxes, size):
  return np.asarray(Masks([CroppedMask(*one) for one in masks.paste(cells, boxes, size)], size))


def crop_one(mask, frame, box, size):
  """Of a mask of zeros and ones, one cell a pixel of its frame unless that says otherwise."""
  masks = jnp.array(255 * np.asarray(mask, np.uint8))[None]
  frames, boxes = (jnp.array([one], jnp.float32) for one in (frame, box))
  return np.asarray(jax.jit(crop, static_argnums=3)(masks, frames, boxes, size)[0]).astype(int)


PLUS = np.array([[0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_cells_that_are_pixels():
  np.testing.assert_array_equal(crop_one(PLUS, (0, 0, 4, 4), (0, 0, 4, 4), 4), PLUS)
  np.testing.assert_array_equal(crop_one(PLUS, (8, 4, 12, 8), (8, 4, 12, 8), 4), PLUS)
  np.testing.assert_array_equal(crop_one(PLUS, (0, 0, 4, 4), (1, 0, 3, 2), 2), PLUS[:2, 1:3])


def test_beyond_the_frame_is_nothing():
  full = np.ones((4, 4), int)
  expected = np.zeros((8, 8), int)
  expected[2:6, 2:6] = 1
  np.testing.assert_array_equal(crop_one(full, (2, 2, 6, 6), (0, 0, 8, 8), 8), expected)
  assert not crop_one(full, (2, 2, 6, 6), (20, 20, 28, 28), 8).any()


def test_an_object_of_half_the_box_fills_half_the_cells():
  wide = np.zeros((8, 8), int)
  wide[:, :4] = 1
  frame = (0, 0, 8, 8)
  np.testing.assert_array_equal(crop_one(wide, frame, (0, 0, 8, 8), 2), [[1, 0], [1, 0]])
  np.testing.assert_array_equal(
    crop_one(wide, frame, (2, 2, 6, 6), 4), np.tile((1, 1, 0, 0), (4, 1))
  )


def test_soft_cells_place_an_outline_within_a_pixel():
  """A cell of which a quarter is covered: the outline lies a quarter of a cell inside of it."""
  soft = np.zeros((1, 4, 4), np.uint8)
  soft[0, :, 0], soft[0, :, 1] = 255, 64  # 1.25 of 4 cells
  box = jnp.array([[0, 0, 4, 4]], jnp.float32)
  found = crop(jnp.array(soft), box, box, 32)[0]
  # the cover falls below a half at 1.17 cells; at the frame's own border it fades as well
  assert found[8:24].sum(axis=1).tolist() == [9] * 16


def test_paste_fills_a_box_exactly():
  found = paste(np.ones((2, 28, 28)), np.array([(1, 2, 4, 7), (-5, 6, 3, 40)]), (9, 8))
  expected = np.zeros((2, 9, 8), bool)
  expected[0, 2:7, 1:4] = expected[1, 6:, :3] = True
  np.testing.assert_array_equal(found, expected)


def test_paste_by_hand():
  """Two by two cells of which the left ones are set, over four pixels: .75 1-, .5 boundary."""
  mask = np.array([[1.0, 0], [1, 0]])
  row = paste(mask[None], np.array([(0, 0, 4, 4)]), (4, 4))[0, 1]
  np.testing.assert_array_equal(row, (1, 1, 0, 0))
  sharp = paste(np.array([[[0.4]], [[0.6]]]), np.array([(0, 0, 2, 2)] * 2), (2, 2))
  np.testing.assert_array_equal(sharp[0], np.zeros((2, 2)))


def test_boxes_without_area_or_outside_paste_nothing():
  boxes = np.array([(3, 3, 3, 3), (20, 20, 30, 30), (0, 0, 0, 0)])
  found = paste(np.ones((3, 28, 28)), boxes, (8, 8))
  assert found.shape == (3, 8, 8) and found.dtype == bool and not found.any()
  assert paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), (8, 8)).shape == (0, 8, 8)


def test_what_is_cropped_can_be_pasted():
  """A disc of 60 pixels through 28 cells: all but its outline comes back."""
  y, x = np.mgrid[:80, :100]
  disc = (y - 40) ** 2 + (x - 50) ** 2 < 30**2
  box = (21, 11, 80, 70)
  cells = crop_one(disc[11:70, 21:80], box, box, 28)
  again = paste(np.asarray(cells, np.float32)[None], np.array([box]), disc.shape)[0]
  assert (again & disc).sum() / (again | disc).sum() > 0.96
