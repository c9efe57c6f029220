"""Colours pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.draw import labels
from jaxseg.types import VOID, UserError

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 100, 0))
NAMES = ('background', 'square', 'disc')
LABEL = np.array([[0, 1], [2, VOID]], np.uint8)
VOID_COLOR, WRONG_COLOR = labels.VOID_COLOR, labels.wrong_color(PALETTE)


def test_colorize_by_hand():
  colors = labels.colorize(LABEL, PALETTE)
  assert colors.dtype == np.uint8
  np.testing.assert_array_equal(colors, [[PALETTE[0], PALETTE[1]], [PALETTE[2], VOID_COLOR]])
  np.testing.assert_array_equal(labels.colorize(np.array([[-1, 3]]), PALETTE), [[VOID_COLOR] * 2])


def test_palette_png_holds_classes_and_colours(tmp_path):
  labels.save_palette_png(tmp_path / 'a.png', LABEL.astype(np.int32), PALETTE)
  with Image.open(tmp_path / 'a.png') as picture:
    assert picture.mode == 'P'
    np.testing.assert_array_equal(picture, LABEL)
    np.testing.assert_array_equal(picture.convert('RGB'), labels.colorize(LABEL, PALETTE))
  with pytest.raises(UserError, match='from 0 to 255'):
    labels.save_palette_png(tmp_path / 'b.png', LABEL.astype(int) - 1, PALETTE)


def test_overlay_by_hand():
  image = np.full((2, 2, 3), 100, np.uint8)
  mixed = labels.overlay(image, LABEL, PALETTE, alpha=0.25)
  np.testing.assert_array_equal(
    mixed, [[[75, 75, 75], [125, 75, 75]], [[75, 100, 75], [100, 100, 100]]]
  )
  np.testing.assert_array_equal(labels.overlay(image[..., 0], LABEL, PALETTE, 0.25), mixed)
  np.testing.assert_array_equal(labels.overlay(image[..., :1], LABEL, PALETTE, 0.25), mixed)
  with pytest.raises(UserError, match='one size'):
    labels.overlay(image, LABEL[:1], PALETTE)


def test_pictures_by_hand():
  image = np.full((2, 2, 1), 100, np.uint8)
  prediction = np.array([[0, 2], [2, 1]])
  pictures = labels.pictures(image, LABEL, prediction, PALETTE)
  assert list(pictures) == ['image', 'truth', 'prediction', 'errors']
  np.testing.assert_array_equal(pictures['image'], np.full((2, 2, 3), 100))
  np.testing.assert_array_equal(pictures['truth'], labels.colorize(LABEL, PALETTE))
  np.testing.assert_array_equal(pictures['prediction'], labels.colorize(prediction, PALETTE))
  gray = [100] * 3
  np.testing.assert_array_equal(pictures['errors'], [[gray, WRONG_COLOR], [gray, VOID_COLOR]])
  assert list(labels.pictures(image, LABEL, None, PALETTE)) == ['image', 'truth']


def test_errors_have_a_colour_that_no_class_has():
  """Red, unless a class is red; it stays apart also from 255 classes of all kinds of colours."""
  assert labels.wrong_color(((0, 0, 0), (0, 100, 0))) == (230, 40, 40)
  red, rng = ((0, 0, 0), (255, 0, 0), (0, 255, 0)), np.random.default_rng(0)
  many = tuple(map(tuple, rng.integers(0, 256, (255, 3)).tolist()))
  for palette, least in ((red, 100), (many, 20)):
    color = labels.wrong_color(palette)
    distances = np.linalg.norm(np.array([*palette, VOID_COLOR]) - color, axis=1)
    assert distances.min() >= least, (color, palette)
  shown = labels.error_map(np.zeros((1, 1), np.uint8), np.array([[1]]), np.array([[0]]), red)
  np.testing.assert_array_equal(shown, [[labels.wrong_color(red)]])


def test_images_of_other_channels_are_shown_by_their_first_three_or_one():
  image = np.arange(8, dtype=np.uint8).reshape(1, 2, 4)
  np.testing.assert_array_equal(labels.as_rgb(image), [[[0, 1, 2], [4, 5, 6]]])
  np.testing.assert_array_equal(labels.as_rgb(image[..., :2]), [[[0] * 3, [4] * 3]])


def test_images_of_other_types_are_spread_over_what_they_hold():
  band = np.linspace(-1000, 3000, 101).astype(np.int16)[:, None]  # a per cent a step
  shown = labels.as_rgb(band)[:, 0, 0]
  assert (
    shown.dtype == np.uint8 and shown[:2].tolist() == [0, 0] and shown[-2:].tolist() == [255] * 2
  )
  np.testing.assert_allclose(shown[1:-1], np.linspace(0, 255, 99), atol=0.6)
  deep = np.dstack([band, 7 * band, np.zeros_like(band)])[..., :3].astype(np.float32)
  spread = labels.as_rgb(deep)
  np.testing.assert_array_equal(spread[..., 0], spread[..., 1])  # each channel by itself
  assert not spread[..., 2].any()


def test_legend_of_many_classes_names_those_that_occur():
  few = [*zip(NAMES, PALETTE, strict=True), ('void', VOID_COLOR)]
  assert labels.legend(PALETTE, NAMES, [LABEL * 0]) == few
  assert labels.legend(PALETTE, NAMES, errors=True) == [*few, ('wrong', WRONG_COLOR)]
  palette, names = [(k, 0, 0) for k in range(150)], [f'class {k}' for k in range(150)]
  shown = [np.array([[3, 149], [VOID, 3]]), np.array([[7, 7]])]
  found = labels.legend(palette, names, shown)
  assert found == [(f'class {k}', (k, 0, 0)) for k in (3, 7, 149)] + [('void', VOID_COLOR)]


def test_a_picture_is_a_png(tmp_path):
  labels.save(tmp_path / 'a', np.full((2, 3, 3), 9, np.uint8))
  with Image.open(tmp_path / 'a') as picture:
    assert picture.format == 'PNG'
    np.testing.assert_array_equal(picture, np.full((2, 3, 3), 9))
