"""Outlines become pixels: by hand, as pycocotools fills them, turned with their image; and hostile ones."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as rle_masks

from jaxseg.data import outlines
from jaxseg.data.outlines import CroppedMask, rasterise, turn, turn_box
from jaxseg.types import UserError

SIZE = (6, 8)


def full(piece, size=SIZE):
  mask = np.zeros(size, bool)
  mask[piece.window][piece.mask] = True
  return mask


def test_a_square_by_hand():
  piece = rasterise([[1, 2, 4, 2, 4, 5, 1, 5]], SIZE)
  assert (piece.top, piece.left, piece.mask.shape, piece.box) == (2, 1, (3, 3), (1, 2, 4, 5))
  assert piece.mask.all()
  # one polygon without a list around it; two that are one object
  np.testing.assert_array_equal(full(rasterise([1, 2, 4, 2, 4, 5, 1, 5], SIZE)), full(piece))
  two = full(rasterise([[0, 0, 2, 0, 2, 1, 0, 1], [6, 4, 8, 4, 8, 6, 6, 6]], SIZE))
  assert two.sum() == 6 and two[0, :2].all() and two[4:, 6:].all()


def test_filled_as_pycocotools_fills_the_whole_image():
  """Only the window around an object is filled, and what reaches over the border is cut off."""
  rng = np.random.default_rng(0)
  for _ in range(60):
    size = tuple(int(n) for n in rng.integers(20, 60, 2))
    corners = rng.uniform(-1.9, 1.9, (int(rng.integers(3, 9)), 2)) + rng.uniform(0, 1, (1, 2)) * 15
    corners = corners * rng.uniform(0.5, 3)
    corners = np.clip(corners, -1.9, np.array(size[::-1]) + 1.9)
    polygon = [corners.ravel().tolist()]
    expected = rle_masks.decode(rle_masks.merge(rle_masks.frPyObjects(polygon, *size)))
    np.testing.assert_array_equal(full(rasterise(polygon, size), size), expected.astype(bool))


def test_run_lengths_in_both_ways():
  """Down the columns, background first: column 5 rows 0 to 5, column 6 rows 0 and 1."""
  code = {'size': list(SIZE), 'counts': [30, 8, 10]}
  expected = np.zeros(SIZE, bool)
  expected[:, 5] = expected[:2, 6] = True
  np.testing.assert_array_equal(full(rasterise(code, SIZE)), expected)
  rng = np.random.default_rng(1)
  for _ in range(20):
    mask = rng.random((40, 50)) < 0.4
    told = rle_masks.encode(np.asfortranarray(mask, np.uint8))
    for counts in (told['counts'], told['counts'].decode()):
      piece = rasterise({'size': [40, 50], 'counts': counts}, (40, 50))
      np.testing.assert_array_equal(full(piece, (40, 50)), mask)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_as_pillow_turns_images(orientation):
  mask = np.zeros(SIZE, np.uint8)
  mask[1:3, 2:7] = mask[3, 2] = 1
  picture = Image.fromarray(mask)
  picture.getexif()[0x0112] = orientation
  upright = np.asarray(ImageOps.exif_transpose(picture)).astype(bool)
  piece = outlines.tight(mask.astype(bool))
  turned = turn(piece, orientation, SIZE)
  np.testing.assert_array_equal(full(turned, upright.shape), upright)
  assert turn_box(piece.box, orientation, SIZE) == turned.box


def test_layers_and_small_outlines():
  pieces = [CroppedMask(0, 0, np.ones((2, 3), bool)), CroppedMask(1, 2, np.ones((2, 2), bool))]
  made = outlines.layers([*pieces, CroppedMask(4, 4, np.ones((1, 1), bool))], SIZE)
  assert made.shape == (*SIZE, 2) and made.dtype == np.uint16
  assert made[..., 0].sum() == 6 * 1 + 3 and made[1:3, 2:4, 1].tolist() == [[2, 2], [2, 2]]
  dot = [[3.1, 2.2, 3.2, 2.2, 3.2, 2.3]]
  assert rasterise(dot, SIZE).mask.size == 0
  assert outlines.nearest_pixel(dot, SIZE).box == (3, 2, 4, 3)
  joined = outlines.union(pieces)
  assert joined.box == (0, 0, 4, 3) and joined.mask.sum() == 9
  with pytest.raises(UserError, match='65536 objects: at most 65535'):
    outlines.layers([pieces[0]] * 65536, SIZE)


HOSTILE = {
  'reaches to x = 1e.09 in an image of 8 x 6': [[0, 0, 1e9, 0, 5, 5]],
  'reaches to y = -400': [[0, 0, 5, 0, 5, -400]],
  'not finite': [[0, 0, float('nan'), 0, 5, 5]],
  'numbers that are not finite': [[0, 0, float('inf'), 0, 5, 5]],
  'its polygon is no list of numbers': [[0, 0, 'five', 0, 5, 5]],
  'its polygon is no list': [[0, 0, None, 0, 5, 5]],
  'is no list of numbers': [[0, 0, 10**400, 0, 5, 5]],
  'has 7 numbers: x and y': [[0, 0, 5, 0, 5, 5, 1]],
  'its outline is str': 'abc',
  'its outline is int': 7,
  'no list of numbers: ..0, 0': [[[0, 0], [5, 0], [5, 5]]],
  'of size .6, 9. ': {'size': [6, 9], 'counts': [54]},
  'of size None': {'counts': [48]},
  'add up to 47, its image has 48': {'size': [6, 8], 'counts': [30, 8, 9]},
  'add up to 48, its image': {'size': [6, 8], 'counts': [58, -20, 10]},
  'add up to 1e.12': {'size': [6, 8], 'counts': [10**12]},
  'no list of numbers: .True': {'size': [6, 8], 'counts': [True]},
  'no list and no text': {'size': [6, 8], 'counts': 48},
  'text of run lengths is damaged': {'size': [6, 8], 'counts': 'a\x01'},
  'text of run lengths is cut short': {'size': [6, 8], 'counts': 'ZZ'},
  'its run lengths add up to': {'size': [6, 8], 'counts': '0'},
}


@pytest.mark.parametrize('words', HOSTILE)
def test_nothing_hostile_reaches_a_native_reader(words):
  with pytest.raises(UserError, match=words.replace('1e.', r'1e\+')):
    rasterise(HOSTILE[words], SIZE)


@pytest.mark.slow
def test_mutated_run_lengths_never_crash():
  code = rle_masks.encode(np.asfortranarray(np.eye(40, dtype=np.uint8)))['counts']
  rng = np.random.default_rng(2)
  for _ in range(20_000):
    damaged = bytearray(code)
    for _ in range(int(rng.integers(1, 4))):
      damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
    try:
      assert rasterise({'size': [40, 40], 'counts': bytes(damaged)}, (40, 40)).mask.size <= 1600
    except UserError:
      pass
