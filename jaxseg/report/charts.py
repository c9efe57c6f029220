"""Line charts as inline SVG: no script, no style attributes (the page's policy forbids both)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Points = Sequence[tuple[float, float]]

COLORS = 8  # classes line0 ... line7 in the style sheet
WIDTH, HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 30
_MOST_POINTS = 400


def line_chart(
  title: str,
  curves: dict[str, Points],
  *,
  unit_range: bool = False,
  from_zero: bool = False,
  marked: tuple[str, float] | None = None,
) -> str:
  """Draws curves over the training step as a <figure>; '' where there are no points.

  Args:
    title: above it.
    curves: name -> points (step, value), finite.
    unit_range: the axis is 0 to 1.
    from_zero: the axis starts at 0. Otherwise a range of more than 30 makes it logarithmic.
    marked: (name, step) of a point that gets a ring.
  """
  curves = {n: [p for p in points if math.isfinite(p[1])] for n, points in curves.items()}
  curves = {n: points for n, points in curves.items() if points}
  if not curves:
    return ''
  values = [y for points in curves.values() for _, y in points]
  low, high = min(values), max(values)
  log = not (unit_range or from_zero) and low > 0 and high > 30 * low
  if unit_range:
    low, high = 0.0, 1.0
  elif from_zero:
    low, high = 0.0, high * 1.08
  ticks = log_ticks(low, high) if log else nice_ticks(low, high)
  low, high = min(low, ticks[0]), max(high, ticks[-1])
  last = max(x for points in curves.values() for x, _ in points)
  steps = [t for t in nice_ticks(0, last, 5) if t <= last]
  scale = math.log10 if log else float
  span = (scale(high) - scale(low)) or 1.0

  def place(x: float, y: float) -> tuple[float, float]:
    across = _LEFT + (WIDTH - _LEFT - _RIGHT) * x / (last or 1)
    down = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (scale(y) - scale(low)) / span
    return round(across, 1), round(down, 1)

  parts = _axes(ticks, steps, place, low)
  for number, (name, points) in enumerate(curves.items()):
    parts += _line(name, points, number % COLORS, place)
    if marked and marked[0] == name:
      parts += [
        f'<circle class="ring" cx="{x}" cy="{y}" r="6"/>'
        for x, y in (place(*p) for p in points if p[0] == marked[1])
      ]
  drawing = (
    f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    f'{"".join(parts)}</svg>'
  )
  return f'<figure class="card"><figcaption>{escape(title)}{_legend(curves)}</figcaption>{drawing}</figure>'


def _axes(ticks, steps, place, low) -> list[str]:
  parts = []
  for tick in ticks:
    _, y = place(0, tick)
    parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
    parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4}">{label(tick)}</text>')
  for step in steps:
    x, _ = place(step, low or ticks[0])
    anchor = 'start' if step == 0 else 'middle' if x < WIDTH - 40 else 'end'
    parts.append(f'<text class="tick {anchor}" x="{x}" y="{HEIGHT - 8}">{label(step)}</text>')
  return parts


def _line(name: str, points: Points, number: int, place) -> list[str]:
  placed = [place(*p) for p in thinned(points)]
  path = ' '.join(f'{x},{y}' for x, y in placed)
  parts = [f'<polyline class="line line{number}" points="{path}"/>']
  if len(points) <= 40:
    for (x, y), (step, value) in zip(placed, points, strict=True):
      words = f'{name}, step {step:g}: {value:.4g}'
      parts.append(
        f'<circle class="dot line{number}" cx="{x}" cy="{y}" r="3"><title>{escape(words)}</title></circle>'
      )
  return parts


def _legend(curves: dict[str, Points]) -> str:
  if len(curves) < 2:
    return ''
  items = ''.join(
    f'<li><svg class="swatch" viewBox="0 0 10 10"><rect class="fill{i % COLORS}" width="10" height="10"/>'
    f'</svg>{escape(name)}</li>'
    for i, name in enumerate(curves)
  )
  return f'<ul class="legend">{items}</ul>'


def thinned(points: Points) -> list[tuple[float, float]]:
  """Averages neighbours where there are more points than can be told apart."""
  size = -(-len(points) // _MOST_POINTS)
  groups = [points[i : i + size] for i in range(0, len(points), size)]
  return [tuple(sum(values) / len(values) for values in zip(*g, strict=True)) for g in groups]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Returns round numbers, a step of 1, 2, 2.5 or 5 times a power of ten apart, around a range."""
  span = (high - low) or abs(high) or 1.0
  raw = span / count
  power = 10 ** math.floor(math.log10(raw))
  step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
  """Returns the powers of ten around a range."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  step = max(1, (last - first) // 6)
  return [10.0**i for i in range(first, last + 1, step)]


def label(value: float) -> str:
  """Writes a tick: 20000 as 20k, 0.0025 as 2.5e-3."""
  if value == 0:
    return '0'
  if abs(value) >= 1e6:
    return f'{value / 1e6:g}M'
  if abs(value) >= 1e4:
    return f'{value / 1e3:g}k'
  if abs(value) < 0.01:
    power = math.floor(math.log10(abs(value)) + 1e-9)
    return f'{value / 10.0**power:.4g}e{power}'
  return f'{value:.6g}'
