"""Rejects sets of masks whose colours can be understood in two ways; the user then chooses, see mask_set.Choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxseg.data.classlist import ClassList
from jaxseg.data.mask_files import Color, MaskSummary
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

KEY = '--config.data.options.'
_BLACK_AND_WHITE = {(0, 0, 0), (255, 255, 255)}


def refuse_hidden(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects transparent pixels of a colour that opaque ones have too: they look different, and may be another class."""
  if found := [(path, one.hidden[0]) for path, one in facts.items() if one.hidden]:
    path, color = found[0]
    raise UserError(
      f'{len(found)} masks, such as {path}, have opaque and transparent pixels of one colour, {color}: save masks '
      f'without transparency, or add {KEY}read_by=colors or ids if transparent pixels are of the same class, '
      'read_by=alpha if the opacity encodes the classes'
    )


def refuse_palettes(facts: Mapping[Path, MaskSummary], listed: ClassList | None) -> None:
  """Rejects ids whose colours differ between files, 1-bit ones included: either may encode the classes."""
  first: dict[int, tuple[Color, Path]] = {}
  remedy = 'with each class given its colour in the list, ' if listed else ''
  for path, one in sorted(facts.items(), key=lambda item: item[1].kind != 'index'):
    shows = one.kind == 'index' or one.highest == 1 and not one.white_is_zero
    for number, color in zip(one.ids, one.colors, strict=False) if shows else ():
      known, where = first.setdefault(number, (color, path))
      if known != color and (one.kind == 'index' or {known, color} == _BLACK_AND_WHITE):
        raise UserError(
          f'the palettes of the masks differ: {number} is {known} in {where} and {color} in {path}; '
          f'{KEY}read_by=ids takes the numbers, {remedy}read_by=colors the colours'
        )


def refuse_equal_colors(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects palettes that show two of a mask's indices alike, as those filled up with black do."""
  for path, one in facts.items():
    if one.kind == 'index' and len({*one.colors}) < len(one.colors):
      color = max(one.colors, key=one.colors.count)
      ids = [number for number, other in zip(one.ids, one.colors, strict=True) if other == color]
      raise UserError(
        f'the palette of {path} has one colour, {color}, for the indices {abbreviate(ids)}: {KEY}read_by=ids takes the '
        'numbers (255 is void), read_by=colors the colours'
      )


def refuse_edges(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects colours that mostly occur only at edges: they are blends, not classes."""
  coloured = {path: one for path, one in facts.items() if one.kind == 'colour'}
  colors = {color for one in coloured.values() for color in one.colors}
  thin = colors - {color for one in coloured.values() for color in one.solid}
  if 2 * len(thin) > len(colors):
    path = next(p for p, one in coloured.items() if thin & set(one.colors))
    raise UserError(
      f'{len(thin)} of {len(colors)} colours of the masks, such as {min(thin)} in {path}, never fill 3 x 3 '
      "pixels, as at soft edges: save masks without smoothing, or list the classes as 'name r g b'"
    )


def refuse_greys(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects masks of greys alone beside coloured ones that lack these greys: they may be class ids."""
  is_grey = {path: all(r == g == b for r, g, b in one.colors) for path, one in facts.items()}
  elsewhere = {color for path, one in facts.items() if not is_grey[path] for color in one.colors}
  found = {
    path: [r for r, g, b in one.colors if r and (r, g, b) not in elsewhere]
    for path, one in facts.items()
    if is_grey[path]
  }
  found = {path: greys for path, greys in found.items() if greys}
  if found and elsewhere:
    path, greys = next(iter(found.items()))
    raise UserError(
      f'{len(found)} masks, such as {path}, hold the grey values {abbreviate(greys)}, and others colours: save all '
      f"alike, list the classes as 'name r g b', or add {KEY}read_by=colors if each grey is a class of its own"
    )
