"""Plots by what they must hold."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxseg.draw import plots

NAMES = ('background', 'square', 'disc')


def test_a_strangers_matplotlibrc_changes_no_plot(tmp_path):
  import matplotlib

  plots.save_class_bars(tmp_path / 'a.png', [0.5], ['a'])
  odd = {'text.usetex': True, 'axes.facecolor': 'red', 'savefig.format': 'pdf'}
  with matplotlib.rc_context(odd):
    plots.save_class_bars(tmp_path / 'b.png', [0.5], ['a'])
    plots.save_class_bars(svg := io.BytesIO(), [0.5], ['a'], svg=True)
    assert matplotlib.rcParams['axes.facecolor'] == 'red'
  assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
  assert b'<svg' in svg.getvalue()


def test_files_are_written(tmp_path):
  matrix = np.array([[9, 1, 0], [3, 7, 0], [0, 0, 0]])
  plots.save_confusion(tmp_path / 'confusion.png', matrix, NAMES, title='test')
  records = [
    {'step': 10 * k, 'train/loss': 2.0**-k, 'train/loss/xent': 1.0, 'eval/mean_iou': 0.1 * k}
    for k in range(8)
  ]
  records.append({'step': 90, 'train/loss': float('nan'), 'host': 'a', 'time/images_per_second': 3})
  plots.save_curves(tmp_path / 'curves.png', records)
  plots.save_curves(tmp_path / 'empty.png', [])
  for name in ('confusion', 'curves', 'empty'):
    with Image.open(tmp_path / f'{name}.png') as picture:
      assert np.asarray(picture).any()


def test_names_are_drawn_as_they_are():
  """A $ begins no formula, which would end in an error where it is none."""
  names = ('$\\frac$ x', 'caf\u00e9', 'c')
  for draw in (
    lambda file: plots.save_class_bars(file, [0.5, None, 1], names, title='$\\frac$'),
    lambda file: plots.save_confusion(file, np.eye(3), names, title='$\\frac$'),
    lambda file: plots.save_curves(file, [{'step': 1, '$\\frac$: eval/mean_iou': 0.5}]),
  ):
    file = io.BytesIO()
    draw(file)
    assert len(file.getvalue()) > 1000


def test_axes_have_names(monkeypatch):
  """Every plot says what it shows across and up, whatever is drawn."""
  figures = []
  new = plots._new_figure
  monkeypatch.setattr(plots, '_new_figure', lambda size: figures.append(new(size)) or figures[-1])
  records = [
    {
      'step': 1,
      'eval/a': 0.5,
      'train/loss': 1,
      'train/learning_rate': 1,
      'time/images_per_second': 2,
    }
  ]
  bins = {'confidence': [0.5, 0.9], 'accuracy': [0.4, 0.95], 'share': [0.25, 0.75]}
  for draw in (
    lambda file: plots.save_curves(file, records),
    lambda file: plots.save_class_bars(file, [0.5], ['a'], axis='IoU'),
    lambda file: plots.save_confusion(file, np.eye(2), 'ab'),
    lambda file: plots.save_reliability(file, bins),
    lambda file: plots.save_risk_coverage(file, {'coverage': [0.5, 1.0], 'risk': [0.0, 0.1]}),
  ):
    draw(io.BytesIO())
  axes = [ax for figure in figures for ax in figure.axes if ax.get_label() != '<colorbar>']
  assert len(axes) == 8 and all(ax.get_xlabel() for ax in axes)
  names = [ax.get_ylabel() for ax in axes]
  assert names == [
    *('loss', 'score', 'learning rate', 'images per second'),
    *('', 'truth', 'accuracy, share', 'risk'),  # bars have their classes there
  ]


def test_curves_are_sorted_into_pictures():
  records = [
    {
      'step': 5,
      'train/loss/xent': 1.5,
      'eval/mean_iou': 0.5,
      'eval/iou/road': 0.4,
      'train/grad_norm': 3.0,
      'other: eval/seg': 0.25,
    },
    {'step': 9, 'train/learning_rate': 0.1, 'time/images_per_second': 7, 'train/loss': np.inf},
  ]
  assert plots._group_curves(records) == {
    'loss': {'train/loss/xent': [(5.0, 1.5)]},
    'scores': {'eval/mean_iou': [(5.0, 0.5)], 'other: eval/seg': [(5.0, 0.25)]},
    'learning rate': {'train/learning_rate': [(9.0, 0.1)]},
    'images per second': {'time/images_per_second': [(9.0, 7.0)]},
  }


def test_the_only_term_of_a_loss_is_drawn_once():
  records = [{'step': 1, 'train/loss': 2.0, 'train/loss/xent': 2.0}]
  assert list(plots._group_curves(records)['loss']) == ['train/loss']
  records[0]['train/loss/dice'] = 1.0
  assert len(plots._group_curves(records)['loss']) == 3


def test_more_points_than_can_be_told_apart_are_averaged():
  points = [(float(k), 2.0 * k) for k in range(401)]
  thinned = plots._thinned(points)
  assert len(thinned) == 201 and thinned[0] == (0.5, 1.0) and thinned[-1] == (400.0, 800.0)
  assert plots._thinned(points[:400]) == points[:400]


def test_a_marked_point_has_a_ring():
  records = [{'step': k, 'eval/mean_iou': 0.1 * k} for k in range(5)]
  files = [io.BytesIO(), io.BytesIO()]
  plots.save_curves(files[0], records)
  plots.save_curves(files[1], records, marked=('eval/mean_iou', 3))
  plain, marked = (np.asarray(Image.open(file)).astype(int) for file in files)
  rows, columns = np.nonzero(np.abs(plain - marked).sum(axis=-1))
  assert 10 < len(rows) and np.ptp(rows) < 40 and np.ptp(columns) < 40


def test_class_bars_are_drawn_with_absent_classes(tmp_path):
  plots.save_class_bars(tmp_path / 'bars.png', [0.25, None, 1.0], NAMES, title='IoU')
  with Image.open(tmp_path / 'bars.png') as picture:
    pixels = np.asarray(picture.convert('RGB')).astype(int)
  blue = ((pixels[..., 2] > 150) & (pixels[..., 0] < 80)).sum(axis=1)
  bars = np.split(blue, np.flatnonzero(np.diff(blue > 20)) + 1)
  lengths = [bar.max() for bar in bars if bar.max() > 20]
  assert len(lengths) == 2 and lengths[1] == pytest.approx(4 * lengths[0], rel=0.05)
