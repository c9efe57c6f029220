"""Plots: training curves, per-class bars, confusion matrices, calibration.

Each is written to a path or an open file, as PNG, or with `svg=True` as SVG. Names are drawn literally: a $
does not start a formula.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import numpy as np

File = str | os.PathLike | IO[bytes]
Points = list[tuple[float, float]]

_MOST_POINTS = 400  # of a line; more are averaged
_READABLE = 40  # most classes of a matrix with numbers
_LONGEST = 40  # characters of a name
_SVG = {'savefig.format': 'svg', 'svg.fonttype': 'none'}


def _plot(draw: Callable[..., None]) -> Callable[..., None]:
  """Draws in matplotlib's own style: a matplotlibrc in the working folder may be a stranger's."""

  @functools.wraps(draw)
  def save(*arguments, svg: bool = False, **options):
    from matplotlib import style

    with style.context(['default', _SVG if svg else {}]):
      draw(*arguments, **options)

  return save


@_plot
def save_confusion(
  file: File, matrix: np.ndarray, class_names: Sequence[str], *, title: str = ''
) -> None:
  """Draws a confusion matrix, integers [c, c]: rows are true classes, in per cent of their pixels."""
  matrix = np.asarray(matrix, np.float64)
  total = matrix.sum(axis=1, keepdims=True)
  percent = 100 * np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
  count = len(matrix)
  size = min(max(3.2, 1.6 + 0.42 * count), 24)
  figure = _new_figure((size + 1.0, size))
  axes = figure.add_subplot()
  axes.set_facecolor('0.85')  # for classes without pixels
  image = axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
  names = dict(
    labels=[*map(_short, class_names)], fontsize=9 if count <= _READABLE else 5, parse_math=False
  )
  axes.set_xticks(range(count), rotation=90, **names)
  axes.set_yticks(range(count), **names)
  axes.set_xlabel('prediction')
  axes.set_ylabel('truth')
  axes.set_title(title, fontsize=10, parse_math=False)
  for (row, column), value in np.ndenumerate(percent):
    if value >= 0.5 and count <= _READABLE:
      color = 'white' if value > 55 else 'black'
      axes.text(column, row, f'{value:.0f}', ha='center', va='center', color=color, fontsize=8)
  bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
  bar.set_label('% of the true class', fontsize=9)
  bar.ax.tick_params(labelsize=8)
  figure.savefig(
    file, dpi=120, bbox_inches='tight', pad_inches=0.05
  )  # crops the margins beside the square


@_plot
def save_class_bars(
  file: File,
  values: Sequence[float | None],
  class_names: Sequence[str],
  *,
  title: str = '',
  axis: str = '',
) -> None:
  """Draws a bar from 0 to 1 with its value for every class, no bar for None or nan (absent).

  `axis` is the quantity's name.
  """
  values = np.array(values, np.float64)
  lengths, ticks = np.nan_to_num(values), range(len(values))
  figure = _new_figure((5.2, min(0.9 + 0.26 * len(values), 40)))
  axes = figure.add_subplot()
  axes.barh(ticks, lengths, height=0.7)
  for y, (length, value) in enumerate(zip(lengths, values, strict=True)):
    text = '–' if np.isnan(value) else f'{value:.3f}'
    axes.text(length + 0.01, y, text, va='center', fontsize=8)
  axes.set_yticks(ticks, [*map(_short, class_names)], fontsize=9, parse_math=False)
  axes.set_xlim(0, 1.12)
  axes.set_xticks(np.linspace(0, 1, 6))
  axes.invert_yaxis()
  axes.set_xlabel(axis, parse_math=False)
  axes.grid(axis='x', alpha=0.3)
  axes.set_axisbelow(True)
  axes.set_title(title, fontsize=10, parse_math=False)
  figure.savefig(file, dpi=120)


@_plot
def save_reliability(file: File, bins: Mapping[str, Sequence[float]]) -> None:
  """Draws accuracy against confidence, over a histogram of confidence.

  Args:
    file: see above.
    bins: 'confidence', 'accuracy' and 'share' of the pixels, see metrics.confidence.
  """
  figure = _new_figure((5.2, 3.4))
  axes = figure.add_subplot()
  axes.bar(bins['confidence'], bins['share'], width=0.02, color='0.8', label='share of the pixels')
  axes.plot([0, 1], [0, 1], color='0.5', linestyle='--', linewidth=1, label='calibrated')
  axes.plot(bins['confidence'], bins['accuracy'], marker='o', markersize=4, label='accuracy')
  _finish(axes, 'Reliability', 'confidence', 'accuracy, share', (0, 1.02))
  figure.savefig(file, dpi=120)


@_plot
def save_risk_coverage(file: File, curve: Mapping[str, Sequence[float]]) -> None:
  """Draws the risk-coverage curve, see metrics.confidence."""
  figure = _new_figure((5.2, 3.4))
  axes = figure.add_subplot()
  axes.plot(curve['coverage'], curve['risk'], label='by uncertainty')
  axes.axhline(curve['risk'][-1], color='0.5', linestyle='--', linewidth=1, label='in any order')
  top = 1.1 * max(*curve['risk'], 1e-3)
  _finish(axes, 'Risk and coverage', 'coverage, most certain first', 'risk', (0, top))
  figure.savefig(file, dpi=120)


def _finish(axes, title: str, across: str, up: str, limits: tuple[float, float]) -> None:
  axes.set_title(title, fontsize=10)
  axes.set_xlabel(across)
  axes.set_ylabel(up)
  axes.set_xlim(0, 1.02)
  axes.set_ylim(*limits)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=8)


@_plot
def save_curves(
  file: File,
  records: Sequence[Mapping[str, float]],
  *,
  marked: tuple[str, float] | None = None,
) -> None:
  """Draws training curves: losses, scores, learning rate and speed against the step.

  Args:
    file: see above.
    records: of metrics.jsonl: each has 'step' and any of 'train/loss/...', 'eval/...',
      'train/learning_rate', 'time/images_per_second', perhaps prefixed by a run, 'run: eval/...'.
      Values that are not finite numbers are skipped.
    marked: (name, step) of a point to circle, such as the best checkpoint's score.
  """
  groups = _group_curves(records)
  columns = min(max(len(groups), 1), 2)
  lines = max(-(-len(groups) // columns), 1)
  figure = _new_figure((5.2 * columns, 3.4 * lines))
  for position, (title, curves) in enumerate(groups.items(), start=1):
    _draw_curves(figure.add_subplot(lines, columns, position), title, curves, marked)
  figure.savefig(file, dpi=120)


def _draw_curves(axes, title: str, curves: Mapping[str, Points], marked) -> None:
  for name, points in sorted(curves.items()):
    steps, values = np.transpose(_thinned(sorted(points)))
    axes.plot(
      steps, values, label=_short(name), linewidth=1.3, marker='.' if len(steps) <= 40 else None
    )
    for x, y in points:
      if marked == (name, x):
        axes.scatter(x, y, s=80, facecolors='none', edgecolors='black')
  values = [value for points in curves.values() for _, value in points]
  lowest, highest = min(values), max(values)
  if title == 'loss' and lowest > 0 and highest > 30 * lowest:
    axes.set_yscale('log')
  if title == 'scores':
    axes.set_ylim(0, 1)
  if title == 'images per second':
    axes.set_ylim(0, 1.15 * highest)
  axes.set_title(title, fontsize=10)
  axes.set_xlabel('step')
  axes.set_ylabel(title.removesuffix('s') if title == 'scores' else title)
  axes.grid(alpha=0.3)
  for text in axes.legend(fontsize=8).get_texts():
    text.set_parse_math(False)


def _short(name: str) -> str:
  """Shortens a name to leave room for the plot."""
  return name if len(name) <= _LONGEST else f'{name[: _LONGEST - 1]}…'


def _new_figure(size: tuple[float, float]):
  """Returns a matplotlib figure on the Agg canvas, outside pyplot's global state."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def _group_curves(records: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Points]]:
  """Groups the records' values into plots: title -> name -> points."""
  groups = {title: {} for title in ('loss', 'scores', 'learning rate', 'images per second')}
  for record in records:
    for key, value in record.items():
      title = _curve_title(key)
      if title and isinstance(value, (int, float)) and np.isfinite(value):
        groups[title].setdefault(key, []).append((float(record['step']), float(value)))
  losses = groups['loss']
  if len(losses) == 2 and 'train/loss' in losses:  # the only term is the total
    groups['loss'] = {'train/loss': losses['train/loss']}
  return {title: curves for title, curves in groups.items() if curves}


def _curve_title(key: str) -> str | None:
  words = key.rsplit(': ', 1)[-1].split('/')
  if 'loss' in words:
    return 'loss'
  if len(words) == 2 and words[0] == 'eval':
    return 'scores'
  return {'learning_rate': 'learning rate', 'images_per_second': 'images per second'}.get(words[-1])


def _thinned(points: Points) -> Points:
  """Averages neighbours if there are more points than a plot can resolve."""
  size = -(-len(points) // _MOST_POINTS)
  groups = (points[i : i + size] for i in range(0, len(points), size))
  return [tuple(np.mean(group, axis=0)) for group in groups]
