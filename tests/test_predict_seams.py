"""Objects over the seams of tiles are one object: the same as of the whole image."""

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.frame import Frame
from jaxseg.data.outlines import Masks
from jaxseg.predict import seams, tiles
from jaxseg.predict.seams import Tile, join, windows
from jaxseg.types import Detections, SizeRule, UserError


def detector(image):
  """Finds every connected region of an image [h, w, 1]; its value is the class, its size the score."""
  numbers, count = ndimage.label(image[..., 0])
  boxes, scores, classes, masks = [], [], [], []
  for i, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
    mask = numbers == i
    boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    scores.append(1 - 1 / (1 + mask.sum()))
    classes.append(image[..., 0][mask][0])
    masks.append(mask)
  return Detections(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(scores, np.float32),
    np.array(classes, np.int32),
    np.array(masks, bool).reshape(count, *image.shape[:2]),
  )


def tiled(image, tile, step=None, find=detector):
  tiling = tiles.make_tiling(Frame(SizeRule(multiple=4)), tile, step)
  seams.check(tiling)
  parts = [Tile(t, l, size, find(part)) for t, l, size, part in windows(image, tiling, 1.0)]
  return join(parts, image.shape[:2]), parts


def as_set(found):
  masks = np.asarray(found.masks)
  return {
    (tuple(map(float, box)), int(kind), np.packbits(mask).tobytes())
    for box, kind, mask in zip(found.boxes, found.classes, masks, strict=True)
  }


def blobs(seed, size=(200, 260), count=25, largest=18):
  """Rectangles of two classes that do not touch, some of them over several tiles of 64."""
  rng, image = np.random.default_rng(seed), np.zeros((*size, 1), np.uint8)
  for _ in range(count):
    height, width = rng.integers(3, largest, 2)
    top, left = (int(rng.integers(0, n - k)) for n, k in zip(size, (height, width), strict=True))
    around = image[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]
    if not around.any():
      image[top : top + height, left : left + width] = rng.integers(1, 3)
  return image


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('largest', [18, 150])
def test_tiles_give_the_objects_of_the_whole_image(seed, largest):
  image = blobs(seed, largest=largest)
  found, parts = tiled(image, (64, 64))
  assert len(parts) == 6 * 8 and sum(len(p.detections) for p in parts) > len(found)
  assert as_set(found) == as_set(detector(image))
  assert (np.diff(found.scores) <= 0).all() and found.masks.shape == (len(found), 200, 260)


def test_an_object_larger_than_a_tile_is_one():
  """A ring around everything: every tile sees a part of it, those in the middle none."""
  image = np.zeros((200, 200, 1), np.uint8)
  image[10:190, 10:190], image[20:180, 20:180] = 1, 0
  image[95:105, 95:105] = 1
  found, _ = tiled(image, (64, 64))
  assert as_set(found) == as_set(detector(image)) and len(found) == 2


def test_objects_that_touch_stay_two():
  """Two classes side by side over a seam; of one class, only what the detector says."""
  image = np.zeros((64, 128, 1), np.uint8)
  image[20:40, 50:64], image[20:40, 64:80] = 1, 2

  def by_class(part):
    each = [detector(np.where(part == kind, part, 0)) for kind in (1, 2)]
    fields = (
      [np.asarray(getattr(d, f)) for d in each] for f in ('boxes', 'scores', 'classes', 'masks')
    )
    return Detections(*map(np.concatenate, fields))

  found, _ = tiled(image, (64, 64), find=by_class)
  assert as_set(found) == as_set(by_class(image)) and len(found) == 2


def test_the_best_is_kept_and_counts_less_near_a_border():
  """Found whole in two tiles, a little differently, 9 and 14 pixels from the border of one of 64."""

  def one(left, right, score):
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20:30, left:right] = True
    box = np.array([[left, 20, right, 30]], np.float32)
    return Detections(box, np.array([score], np.float32), np.array([1], np.int32), mask)

  for score, box in (
    (0.7, [46, 20, 55, 30]),
    (0.9, [45, 20, 55, 30]),
  ):  # 9/16 .7 < .5 14/16 < 9/16 .9
    parts = [Tile(0, 0, (64, 64), one(45, 55, score)), Tile(0, 32, (64, 64), one(14, 23, 0.5))]
    assert join(parts, (64, 96)).boxes.tolist() == [box]


def test_tiles_that_hardly_overlap_are_refused():
  with pytest.raises(UserError, match='a tile step of 60: tiles of 64 must overlap by a quarter'):
    tiled(np.zeros((100, 100, 1), np.uint8), (64, 64), (60, 60))
  nothing, _ = tiled(np.zeros((100, 50, 1), np.uint8), (64, 64))
  assert len(nothing) == 0 and nothing.masks.shape == (0, 100, 50)


def test_windows_of_images_that_are_shown_at_another_scale():
  tiling = tiles.make_tiling(Frame(SizeRule(multiple=4)), (64, 64))
  found = list(windows(np.zeros((100, 300, 1)), tiling, 0.5))
  assert [(t, l, s) for t, l, s, _ in found] == [
    (0, left, (100, 128)) for left in (0, 64, 128, 172)
  ]


def test_masks_act_as_an_array():
  rng = np.random.default_rng(0)
  array = rng.random((4, 9, 7)) < 0.1
  array[2] = False
  masks = Masks.of(array)
  assert Masks.of(masks) is masks and masks.shape == (4, 9, 7) and len(masks) == 4
  np.testing.assert_array_equal(masks, array)
  np.testing.assert_array_equal(masks[1], array[1])
  np.testing.assert_array_equal(masks[-1:], array[-1:])
  np.testing.assert_array_equal(masks[array.any(axis=(1, 2))], array[[0, 1, 3]])
