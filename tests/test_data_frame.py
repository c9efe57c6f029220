"""Frames by hand: padding, mirrored margins, scales, shorter sides, and the way back."""

import numpy as np
import pytest

from jaxseg.data.frame import Frame
from jaxseg.types import SizeRule

UNET = SizeRule(multiple=4, offset=0, minimum=8, margin=3)
BY_FOUR = SizeRule(multiple=4)


def doubled(rows):
  """Returns uint8 [2 h, 2 w, 1]: each value as a block of four."""
  return np.kron(np.array(rows), np.ones((2, 2))).astype(np.uint8)[..., None]


def test_padding_by_hand():
  frame = Frame(SizeRule(multiple=4, offset=1), fill=(9,))  # 1, 5, 9, ...
  placed = frame.place(np.full((2, 3, 1), 5, np.uint8))
  np.testing.assert_array_equal(placed[..., 0], [[5, 5, 5, 9, 9]] * 2 + [[9] * 5] * 3)
  assert frame.canvas((2, 3)) == frame.input((2, 3)) == (5, 5)
  assert Frame(frame.rule, multiple=8).input((2, 3)) == (9, 9)


def test_mirrored_margin_by_hand():
  """Margin 3 and multiples of 4: 2 + 6 = 8 rows, 3 + 6 -> 12 columns; the output is 2 x 6."""
  image = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)[..., None]
  top = [20, 30, 20, 10, 20, 30, 20, 10, 20, 30, 20, 10]  # three columns left of the 10, six right
  bottom = [n + 30 for n in top]
  np.testing.assert_array_equal(Frame(UNET).place(image)[..., 0], [bottom, top] * 4)
  assert Frame(UNET).canvas((2, 3)) == Frame(UNET).output((2, 3)) == (2, 6)
  padded = Frame(UNET, mirrored=False, fill=(7,)).place(image)
  np.testing.assert_array_equal(padded[3, :, 0], [7, 7, 7, 10, 20, 30, 7, 7, 7, 7, 7, 7])


def test_half_size_by_hand():
  """4 x 6 -> 2 x 3, allowed is 4 x 4, so the canvas is 8 x 8; a label is not resized."""
  frame = Frame(BY_FOUR, scale=0.5)
  placed = frame.place(doubled([[10, 20, 30], [40, 50, 60]]))
  want = [[10, 20, 30, 0], [40, 50, 60, 0], [0] * 4, [0] * 4]
  np.testing.assert_array_equal(placed[..., 0], want)
  assert frame.canvas((4, 6)) == frame.canvas_of((4, 4)) == (8, 8)
  assert frame.factor((4, 6)) == (2, 2)
  label = np.arange(64, dtype=np.uint8).reshape(8, 8)
  np.testing.assert_array_equal(frame.cut(label, (4, 6)), label[:4, :6])


def test_a_scaled_image_is_mirrored():
  placed = Frame(UNET, scale=0.5).place(doubled([[10, 20], [30, 40]]))
  assert placed.shape == (8, 8, 1)
  np.testing.assert_array_equal(placed[3, :, 0], [20, 10] * 4)


def test_shorter_side_by_hand():
  """8 x 12, shorter side 4: 4 x 6, on 8 x 8; one pixel there is two of the image."""
  frame = Frame(BY_FOUR, multiple=1, short_side=4, long_side=20)
  image = doubled(np.arange(24).reshape(4, 6))
  placed = frame.place(image)
  assert placed.shape == (4, 8, 1) and frame.factor((8, 12)) == (2, 2)
  np.testing.assert_array_equal(placed[:, :6, 0], np.arange(24).reshape(4, 6))
  assert Frame(BY_FOUR, multiple=1, short_side=4, long_side=5).output((8, 12)) == (4, 8)  # 3 x 5
  mask = np.arange(32, dtype=np.uint8).reshape(4, 8)
  want = np.kron(mask[:, :6], np.ones((2, 2)))
  np.testing.assert_array_equal(frame.cut(mask, (8, 12)), want)


def test_images_by_their_shorter_side_share_few_programs():
  for multiple, want in ((0, 128), (64, 128), (1, 64), (256, 256)):
    frame = Frame(SizeRule(32), multiple=multiple, short_side=50)
    assert frame.input((70, 70)) == (want, want)
  assert Frame(SizeRule(32)).input((70, 70)) == (96, 96)


def test_one_image_size_by_hand():
  """Whatever the image, the network sees 2 x 4; probabilities come back bilinearly."""
  frame = Frame(SizeRule(), image_size=(2, 4))
  image = doubled([[10, 20, 30, 40], [50, 60, 70, 80]])
  np.testing.assert_array_equal(frame.place(image)[..., 0], [[10, 20, 30, 40], [50, 60, 70, 80]])
  assert frame.canvas((4, 8)) == (2, 4) and frame.factor((4, 8)) == (2, 2)
  maps = np.array([[[0.0], [1.0]]], np.float32).repeat(2, 1).repeat(2, 0)
  np.testing.assert_allclose(frame.cut(maps, (2, 8))[0, :, 0], [0, 0, 0, 0.25, 0.75, 1, 1, 1])


@pytest.mark.parametrize('scale', [0.1, 0.25, 0.4, 0.5, 0.75, 1.0, 1.3, 2.0])
@pytest.mark.parametrize('margin', [0, 3])
def test_the_canvas_is_the_output_over_scale_and_holds_the_image(scale, margin):
  frame = Frame(SizeRule(multiple=4, minimum=8, margin=margin), scale=scale)
  for size in [(h, w) for h in (5, 6, 7, 8, 30) for w in (9, 10, 13)]:
    placed = frame.place(np.zeros((*size, 1), np.uint8))
    assert placed.shape[:2] == frame.input(size)
    output, canvas = np.array(frame.output(size)), np.array(frame.canvas(size))
    np.testing.assert_array_equal(output, np.array(placed.shape[:2]) - 2 * margin)
    np.testing.assert_allclose(canvas, output / scale, atol=0.5)
    assert (canvas >= size).all()
    np.testing.assert_allclose(frame.factor(size), canvas / output)


def test_the_extent_is_the_image_without_padding():
  rule = SizeRule(multiple=32)
  assert Frame(rule).extent((40, 50)) == (0, 0, 50, 40)
  assert Frame(rule, scale=0.5).extent((40, 50)) == (0, 0, 25, 20)
  # the shorter side becomes 80, on a canvas of multiples of 128
  assert Frame(rule, short_side=80).extent((40, 50)) == (0, 0, 100, 80)
  assert Frame(rule, short_side=80, multiple=1).extent((30, 60)) == (0, 0, 160, 80)
