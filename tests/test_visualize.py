"""Colours pixel by pixel; larger pictures by what they must hold."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.draw import labels
from jaxseg.types import VOID, UserError

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 100, 0))
NAMES = ('background', 'square', 'disc')
LABEL = np.array([[0, 1], [2, VOID]], np.uint8)
VOID_COLOR = labels.VOID_COLOR


def test_default_palette_is_vocs():
  palette = labels.default_palette(256)
  assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
  assert palette[8] == (64, 0, 0) and palette[20] == (0, 64, 128) and palette[15] == (192, 128, 128)
  assert palette[255] == VOID_COLOR == (224, 224, 192)
  assert len(set(palette)) == 256


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


def test_error_map_by_hand():
  image = np.full((2, 2, 3), 100, np.uint8)
  wrong, gray = labels.WRONG_COLOR, [100] * 3
  np.testing.assert_array_equal(
    labels.error_map(image, LABEL, np.array([[0, 2], [2, 1]])),
    [[gray, wrong], [gray, VOID_COLOR]],
  )


def test_panel_draws_truth_and_prediction_side_by_side():
  image = np.full((2, 2, 3), 77, np.uint8)
  prediction = np.array([[0, 1], [2, 1]])
  picture = labels.panel([(image, LABEL, prediction)] * 2, PALETTE, NAMES, cell_size=40)
  assert picture.dtype == np.uint8 and picture.shape[2] == 3
  gap, text, cell = 8, 20, 40
  top = gap + text
  lefts = [gap + k * (cell + gap) for k in range(4)]
  for row_top in (top, top + cell + gap):
    cells = [picture[row_top : row_top + cell, x : x + cell] for x in lefts]
    np.testing.assert_array_equal(cells[0], np.full((cell, cell, 3), 77))
    for cell_picture, label in ((cells[1], LABEL), (cells[2], prediction)):
      expected = labels.colorize(label, PALETTE).repeat(20, axis=0).repeat(20, axis=1)
      np.testing.assert_array_equal(cell_picture, expected)
    np.testing.assert_array_equal(cells[3][-1, -1], VOID_COLOR)


def test_panel_centres_a_smaller_prediction_and_leaves_out_missing_columns():
  image = np.full((4, 4, 1), 77, np.uint8)
  picture = labels.panel([(image, None, np.ones((2, 2), int))], PALETTE, NAMES, cell_size=4)
  np.testing.assert_array_equal(
    picture[28:32, 20:24],
    labels.colorize(np.pad(np.ones((2, 2), int), 1, constant_values=VOID), PALETTE),
  )
  assert (picture[28:32, 32:] == 255).all()  # neither truth nor errors
  assert labels.panel([(image, None, None)], PALETTE, NAMES, captions=['a.png']).size
  with pytest.raises(UserError, match='does not fit'):
    labels.panel([(image, np.zeros((6, 6), int), None)], PALETTE, NAMES)
  with pytest.raises(UserError, match='at least one'):
    labels.panel([], PALETTE, NAMES)


def test_legend_of_many_classes_names_those_that_occur():
  palette = labels.default_palette(150)
  rows = [(np.zeros((2, 2, 3), np.uint8), np.array([[3, 149], [VOID, 3]]), None)]
  assert labels._legend_classes(rows, palette) == [3, 149]
  assert labels._legend_classes(rows, PALETTE) == [0, 1, 2]


def test_files_are_written(tmp_path):
  matrix = np.array([[9, 1, 0], [3, 7, 0], [0, 0, 0]])
  labels.save_confusion(tmp_path / 'confusion.png', matrix, NAMES, title='test')
  records = [
    {'step': 10 * k, 'train/loss': 2.0**-k, 'train/loss/xent': 1.0, 'eval/mean_iou': 0.1 * k}
    for k in range(8)
  ]
  records.append({'step': 90, 'train/loss': float('nan'), 'host': 'a', 'time/images_per_second': 3})
  labels.save_curves(tmp_path / 'curves.png', records)
  labels.save_curves(tmp_path / 'empty.png', [])
  labels.save(tmp_path / 'new' / 'panel.png', np.zeros((2, 3, 3), np.uint8))
  for name in ('confusion.png', 'curves.png', 'empty.png', 'new/panel.png'):
    with Image.open(tmp_path / name) as picture:
      assert np.asarray(picture).any() or name == 'new/panel.png'


def test_names_are_drawn_as_they_are(tmp_path):
  """A $ begins no formula, which would end in an error where it is none."""
  names = ('$\\frac$ x', 'caf\u00e9', 'c')
  labels.save_class_bars(tmp_path / 'bars.png', [0.5, 0.5, 1], names, title='$\\frac$')
  labels.save_confusion(tmp_path / 'confusion.png', np.eye(3), names, title='$\\frac$')
  assert (tmp_path / 'bars.png').stat().st_size > 1000


def test_the_font_has_letters_beyond_ascii():
  """A letter that a font lacks is drawn as the box of U+FFFF, which is no letter."""
  font = labels.load_font(14)
  box = bytes(font.getmask('\uffff'))
  letters = '\u00e9\u00e4\u0151\u0141\u0416\u03a9'
  assert all(bytes(font.getmask(letter)) != box for letter in letters)
  blank = labels.panel([(np.zeros((9, 99, 3), np.uint8), None, None)], PALETTE, (' ', ' ', ' '))
  drawn = [
    labels.panel([(np.zeros((9, 99, 3), np.uint8), None, None)], PALETTE, (letter, ' ', ' '))
    for letter in '\u00e9\uffff'
  ]
  assert (drawn[0] != drawn[1]).any() and (drawn[0] != blank).any()


def test_curves_are_sorted_into_pictures():
  records = [
    {
      'step': 5,
      'train/loss/xent': 1.5,
      'eval/mean_iou': 0.5,
      'eval/iou/road': 0.4,
      'train/grad_norm': 3.0,
    },
    {'step': 9, 'train/learning_rate': 0.1, 'time/images_per_second': 7, 'train/loss': np.inf},
  ]
  assert labels._group_curves(records) == {
    'loss': {'train/loss/xent': [(5.0, 1.5)]},
    'scores': {'eval/mean_iou': [(5.0, 0.5)]},
    'learning rate': {'train/learning_rate': [(9.0, 0.1)]},
    'images per second': {'time/images_per_second': [(9.0, 7.0)]},
  }


def test_class_bars_are_drawn_with_absent_classes(tmp_path):
  labels.save_class_bars(tmp_path / 'bars.png', [0.25, float('nan'), 1.0], NAMES, title='IoU')
  with Image.open(tmp_path / 'bars.png') as picture:
    pixels = np.asarray(picture.convert('RGB')).astype(int)
  blue = ((pixels[..., 2] > 150) & (pixels[..., 0] < 80)).sum(axis=1)
  bars = np.split(blue, np.flatnonzero(np.diff(blue > 20)) + 1)
  lengths = [bar.max() for bar in bars if bar.max() > 20]
  assert len(lengths) == 2 and lengths[1] == pytest.approx(4 * lengths[0], rel=0.05)


def test_the_only_term_of_a_loss_is_drawn_once():
  records = [{'step': 1, 'train/loss': 2.0, 'train/loss/xent': 2.0}]
  assert list(labels._group_curves(records)['loss']) == ['train/loss']
  records[0]['train/loss/dice'] = 1.0
  assert len(labels._group_curves(records)['loss']) == 3
