"""Tiles: where they lie, what they weigh, and that a joined result is what one pass would give."""

import numpy as np
import pytest

from jaxseg.data.frame import Frame
from jaxseg.predict import tiles
from jaxseg.types import SizeRule, UserError

UNET = Frame(SizeRule(multiple=16, offset=12, minimum=188, margin=92))
ANY = Frame(SizeRule())
MARGIN = SizeRule(multiple=2, offset=0, minimum=4, margin=1)


def test_offsets_cover_the_length_and_end_at_its_end():
  assert tiles.offsets(10, 4, 3) == [0, 3, 6]
  assert tiles.offsets(11, 4, 3) == [0, 3, 6, 7]
  assert tiles.offsets(4, 4, 3) == [0]


def test_default_steps_are_half_a_tile_or_what_joins():
  assert tiles.make_tiling(UNET, (572, 572)).step == (384, 384)  # 388 would leave the grid of 16
  assert tiles.make_tiling(UNET, (572, 204)).step == (384, 16)
  assert tiles.make_tiling(ANY, (512, 200)).step == (256, 96)
  assert tiles.make_tiling(ANY, (20, 1)).step == (10, 1)


def test_no_tile_is_larger_than_its_image_needs():
  tiling = tiles.make_tiling(ANY, (16384, 64), (9999, 32), (100, 200))
  assert (tiling.tile, tiling.step) == ((100, 64), (32, 32))
  tiling = tiles.make_tiling(
    UNET, (16380, 572), (388 // 16 * 16, 16), (20, 4000)
  )  # 20 + 2 * 92 fit in 204
  assert (tiling.tile, tiling.step) == ((204, 572), (16, 16))
  assert tiles.make_tiling(ANY, (64, 64), (32, 48), (64, 65)).step == (32, 48)


@pytest.mark.parametrize(
  ('tile', 'step', 'message'),
  [
    ((570, 572), None, 'take 556 or 572'),
    ((100, 572), None, 'take 188'),
    ((188, 572), None, 'take 204 or more'),
    ((572, 572), (388, 384), 'multiples of 16'),
    ((572, 572), (400, 384), 'from 1 to 388'),
    ((572, 572), (0, 384), 'from 1 to 388'),
  ],
)
def test_a_tile_that_cannot_work_is_refused(tile, step, message):
  with pytest.raises(UserError, match=message):
    tiles.make_tiling(UNET, tile, step)


def test_gaussian_weights():
  weight = tiles.gaussian((16, 8))
  assert weight.shape == (16, 8) and weight.dtype == np.float32
  # Row 7 is half a pixel, row 3 four and a half from the middle of 16; sigma is 2.
  np.testing.assert_allclose(
    weight[7, 3], np.exp(-(0.25**2) / 2) * np.exp(-(0.5**2) / 2), rtol=1e-6
  )
  np.testing.assert_allclose(
    weight[3, 3] / weight[7, 3], np.exp(-(2.25**2 - 0.25**2) / 2), rtol=1e-5
  )
  np.testing.assert_array_equal(weight, weight[::-1, ::-1])


@pytest.mark.parametrize('size', [(5, 7), (16, 16), (17, 40), (41, 16)])
def test_what_every_tile_says_alike_comes_back(size):
  image = np.random.default_rng(0).integers(0, 256, (*size, 2), dtype=np.uint8)
  tiling = tiles.make_tiling(ANY, (16, 16), (5, 8))
  pieces = list(tiles.bands(lambda tile: tile.astype(np.float32), image, tiling))
  joined = np.concatenate([rows for _, rows in pieces])
  np.testing.assert_allclose(joined, image, rtol=1e-5)
  tops = [top for top, _ in pieces]
  assert tops == np.cumsum([0, *(len(rows) for _, rows in pieces[:-1])]).tolist()


def test_overlapping_tiles_are_weighted_by_hand():
  answers = iter([0.0, 1.0])
  image = np.zeros((4, 6, 1), np.uint8)
  tiling = tiles.make_tiling(ANY, (4, 4), (4, 2))
  found = tiles.joined(lambda tile: np.full((4, 4, 1), next(answers), np.float32), image, tiling)
  fall = np.exp(-((np.array([-1.5, -0.5, 0.5, 1.5]) / 0.5) ** 2) / 2)
  expected = [0, 0, fall[0] / (fall[2] + fall[0]), fall[1] / (fall[3] + fall[1]), 1, 1]
  np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def test_networks_with_a_margin_see_mirrored_borders():
  seen = []

  def centre(tile):
    seen.append(tile.copy())
    return tile[1:-1, 1:-1].astype(np.float32)

  image = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
  found = tiles.joined(centre, image, tiles.make_tiling(Frame(MARGIN), (4, 4)))
  np.testing.assert_array_equal(found, image)
  np.testing.assert_array_equal(
    seen[0][..., 0], [[6, 5, 6, 7], [1, 0, 1, 2], [6, 5, 6, 7], [11, 10, 11, 12]]
  )
  assert len(seen) == 2 * 3


def test_padding_networks_see_the_fill_colour():
  seen = []

  def run(tile):
    seen.append(tile.copy())
    return tile.astype(np.float32)

  image = np.full((2, 2, 1), 9, np.uint8)
  tiles.joined(run, image, tiles.make_tiling(Frame(SizeRule(), fill=(7,)), (3, 4)))
  np.testing.assert_array_equal(seen[0][..., 0], [[9, 9, 7, 7], [9, 9, 7, 7], [7, 7, 7, 7]])


def test_a_network_with_a_margin_that_was_trained_on_a_canvas_sees_the_canvas():
  seen = []

  def centre(tile):
    seen.append(tile.copy())
    return tile[1:-1, 1:-1].astype(np.float32)

  image = np.full((2, 2, 1), 9, np.uint8)
  tiling = tiles.make_tiling(Frame(MARGIN, fill=(7,), mirrored=False), (4, 4))
  np.testing.assert_array_equal(tiles.joined(centre, image, tiling), image)
  np.testing.assert_array_equal(
    seen[0][..., 0], [[7, 7, 7, 7], [7, 9, 9, 7], [7, 9, 9, 7], [7, 7, 7, 7]]
  )


def test_even_tiles_count_alike():
  """A row of 6 in tiles of 4, 2 apart: columns 2 and 3 are seen twice."""
  answers = iter((1.0, 4.0))
  tiling = tiles.make_tiling(ANY, (1, 4), (1, 2), even=True)
  image = np.zeros((1, 6, 1), np.uint8)
  found = tiles.joined(lambda _: np.full((1, 4, 1), next(answers), np.float32), image, tiling)
  assert found[0, :, 0].tolist() == [1, 1, 2.5, 2.5, 4, 4]


def test_an_image_that_is_smaller_than_an_even_tile_lies_in_its_middle():
  seen = []

  def run(tile):
    seen.append(tile[..., 0].tolist())
    return tile.astype(np.float32)

  frame = Frame(SizeRule(8, offset=1), fill=(7,))  # PSPNet's sizes: 9, 17 ...
  image = np.arange(1, 21, dtype=np.uint8).reshape(2, 10, 1)
  tiling = tiles.make_tiling(frame, (9, 9), (6, 6), (2, 10), even=True)
  assert tiling.tile == (9, 9)  # though less would do
  np.testing.assert_array_equal(tiles.joined(run, image, tiling), image)
  assert len(seen) == 2  # at columns 0 and 1: the last ends at the image's end
  for tile, columns in zip(seen, (slice(0, 9), slice(1, 10)), strict=True):
    assert tile == [[7] * 9] * 3 + image[:, columns, 0].tolist() + [[7] * 9] * 4


def test_tiles_that_join_are_alike_anyway():
  assert not tiles.make_tiling(UNET, (572, 572), even=True).even
