"""Reads the values of the pipeline's options; each refuses what cannot work in one line."""

from __future__ import annotations

import math
from numbers import Integral, Real

from jaxseg.types import UserError


def size(name: str, value) -> tuple[int, int] | None:
  """Returns (height, width) from a pair or one integer; None stays None."""
  if value is None:
    return None
  pair = _pair((value, value) if isinstance(value, Integral) else value)
  if not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in pair):
    raise UserError(f'{name}={value!r}: give (height, width) or one integer, in pixels above 0')
  return int(pair[0]), int(pair[1])


def number(name: str, value, most: float = math.inf) -> float:
  """Returns a number between 0 and `most`."""
  if not isinstance(value, Real) or not 0 <= value <= most:
    allowed = '0 or larger' if most == math.inf else f'between 0 and {most}'
    raise UserError(f'{name}={value!r}: give a number {allowed}')
  return float(value)


def whole(name: str, value, least: int = 0, most: float = math.inf) -> int:
  """Returns a whole number between `least` and `most`."""
  if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
    allowed = f'{least} or larger' if most == math.inf else f'between {least} and {most}'
    raise UserError(f'{name}={value!r}: give a whole number {allowed}')
  return int(value)


def factor(name: str, value) -> float:
  """Returns a factor above 0."""
  if not isinstance(value, Real) or not 0 < value < math.inf:
    raise UserError(f'{name}={value!r}: give a factor above 0')
  return float(value)


def span(name: str, value) -> tuple[float, float]:
  """Returns (lowest, highest), factors above 0; None is (1, 1)."""
  low, high = _pair((1.0, 1.0) if value is None else value)
  if not all(isinstance(n, Real) for n in (low, high)) or not 0 < low <= high < math.inf:
    raise UserError(f'{name}={value!r}: give (lowest, highest) factors above 0, as in (0.5, 2.0)')
  return float(low), float(high)


def colour(name: str, value) -> tuple[int, ...]:
  """Returns the values of a colour, each 0..255: one for all channels or one for each."""
  values = (value,) if isinstance(value, Real) else tuple(value)
  if not values or not all(isinstance(v, Real) and 0 <= v <= 255 for v in values):
    raise UserError(f'{name}={value!r}: give one value for each channel, each between 0 and 255')
  return tuple(round(v) for v in values)


def _pair(value) -> tuple:
  try:
    first, second = value
  except (TypeError, ValueError):
    return None, None
  return first, second
