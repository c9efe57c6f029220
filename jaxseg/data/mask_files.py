"""Masks: from a page of a file to the ids or colours that encode each pixel's class.

A mask is what its file stores, not what viewers show: palette indices, grey values of any bit depth
unchanged (0 is 0 even where TIFF or ImageJ shows it as white), 1-bit masks as 0 and 1. Ambiguities of
a single mask are not resolved here: `MaskSummary` describes a mask, and how to read masks is decided for
all of a set (data/classlist.py, datasets/folder.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jaxseg.data import pages
from jaxseg.data.problems import abbreviate
from jaxseg.types import VOID, UserError

Color = tuple[int, int, int]

MANY = 1024  # distinct values of a mask; MaskSummary lists no more


@dataclasses.dataclass(frozen=True)
class Mask:
  """A mask as stored, with no EXIF orientation applied.

  Attributes:
    path: its file.
    kind: 'index' (of a palette), 'grey' or 'colour'.
    ids: uint8, uint16 or int32 [h, w], indices or grey values, also of colour masks that are grey at
      every pixel; None for others.
    pixels: uint8 [h, w, 3], only for kind 'colour'.
    palette: uint8 [n, 3], only for kind 'index'.
    alpha: uint8 or uint16 [h, w], None if it is constant.
    orientation: EXIF's, 1 to 8.
    white_is_zero: for kind 'grey', whether viewers show 0 as white.
    highest: for kind 'grey', the value shown as white (or black): 1 for 1 bit, 15 for 4 bits.
    nodata: see pages.Header.
  """

  path: Path
  kind: str
  ids: np.ndarray | None
  pixels: np.ndarray | None = None
  palette: np.ndarray | None = None
  alpha: np.ndarray | None = None
  orientation: int = 1
  white_is_zero: bool = False
  highest: int = 255
  nodata: float | None = None

  @property
  def size(self) -> tuple[int, int]:
    """(height, width) in pixels."""
    return (self.pixels if self.ids is None else self.ids).shape[:2]

  def upright(self) -> Mask:
    """Returns the mask with its own EXIF orientation applied."""
    return self.turned(self.orientation)

  def turned(self, orientation: int) -> Mask:
    """Returns the mask with an EXIF orientation applied, such as its image's."""
    planes = {
      name: None if plane is None else pages.turned(plane, orientation)
      for name, plane in vars(self).items()
      if name in ('ids', 'pixels', 'alpha')
    }
    return dataclasses.replace(self, **planes, orientation=1)

  def as_shown(self) -> Mask:
    """Returns the mask with the values that viewers show: inverted if 0 is white."""
    if not self.white_is_zero:
      return self
    shown = self.ids.dtype.type(self.highest) - self.ids
    return dataclasses.replace(self, ids=shown, white_is_zero=False)

  def numbers(self) -> np.ndarray:
    """Returns `ids`. Raises UserError if colours are not all grey."""
    if self.ids is None:
      raise UserError(
        f'{self.path} is a mask of colours, not of class indices: save it as an 8-bit grey or palette '
        "PNG, or give each class its colour ('name r g b' in classes.txt)"
      )
    return self.ids

  def colors(self) -> np.ndarray:
    """Returns each pixel's colour, uint8 [h, w, 3]: indices by the palette, few bits scaled to 0..255.

    Raises:
      UserError: grey values above 255, or indices but 255 beyond the palette.
    """
    if self.pixels is not None:
      return self.pixels
    if self.kind == 'index':
      table = np.zeros((max(256, len(self.palette)), 3), np.uint8)
      table[: len(self.palette)] = self.palette
      beyond = self.ids[self.ids >= len(self.palette)]
      if (beyond != VOID).any():
        raise UserError(
          f'{self.path} holds the index {beyond.min()}, and its palette has {len(self.palette)} colours: the classes '
          'are read by colour; save it with the colours of all'
        )
      return table[self.ids]
    grey = self.ids * self.ids.dtype.type(max(255 // self.highest, 1))
    if grey.max(initial=0) > 255 or grey.min(initial=0) < 0:
      raise UserError(f'{self.path} has values beyond 0..255, and the classes are read by colour')
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


@dataclasses.dataclass(frozen=True)
class MaskSummary:
  """The contents of one mask, for decisions about a set; serialisable as JSON.

  Attributes:
    kind: see Mask.
    ids: distinct values, sorted, at most MANY; () if colours are not all grey.
    colors: colour of each id; for kind 'colour' the distinct ones, at most MANY.
    alpha: distinct values, () if alpha is constant.
    orientation: EXIF's.
    size: (height, width) as stored.
    white_is_zero, highest: see Mask.
    solid: for kind 'colour', the colours that fill 3 x 3 pixels somewhere, unlike those of edges.
    nodata: see Mask.
    hidden: colours that are both transparent and opaque.
  """

  kind: str
  ids: tuple[int, ...]
  colors: tuple[Color, ...]
  alpha: tuple[int, ...] = ()
  orientation: int = 1
  size: tuple[int, int] = (0, 0)
  white_is_zero: bool = False
  highest: int = 255
  solid: tuple[Color, ...] = ()
  nodata: float | None = None
  hidden: tuple[Color, ...] = ()

  @classmethod
  def of_json(cls, values: Mapping[str, Any]) -> MaskSummary:
    """Returns the facts that dataclasses.asdict turned into JSON."""
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**listed | {k: tuple(map(tuple, values[k])) for k in ('colors', 'solid', 'hidden')})


def read(path: Path, page: int | None = None, data: bytes | None = None) -> Mask:
  """Reads a mask as stored.

  Args:
    path: its file.
    page: of a stack; None: the file's only page.
    data: its content, if it is not in a file.

  Raises:
    UserError: damaged, lossily compressed (JPEG, also in TIFF, WebP), of several pages, or with
      values that are no integers.
  """
  stored = pages.read(path, data, page or 0)
  header, values = stored.header, stored.values
  if header.lossy:
    inside = '' if header.format == header.lossy else f' inside of {header.format}'
    raise UserError(
      f'{path} is a {header.lossy}{inside}: its compression changes labels; save masks as PNG'
    )
  if page is None and header.pages > 1:
    raise UserError(f'{path} holds {header.pages} masks: save each as a file of its own')
  alpha = values[..., -1] if header.alpha else None
  if alpha is not None and (alpha == alpha.flat[0]).all():
    alpha = None
  values = values[..., : header.channels - header.alpha]
  common = dict(alpha=alpha, orientation=header.orientation, nodata=header.nodata)
  if header.space == 'palette':
    return Mask(path, 'index', values[..., 0], palette=header.palette, **common)
  return _of_numbers(path, header, values, common)


def _of_numbers(
  path: Path, header: pages.Header, values: np.ndarray, common: dict[str, Any]
) -> Mask:
  if (
    values.dtype.kind == 'f' and (values == np.rint(values)).all() and np.abs(values).max() < 2**31
  ):
    values = values.astype(np.int32)  # integers that a tool saved as floats
  if values.dtype.kind not in 'iu' or values.shape[2] not in (1, 3) or header.space == 'cmyk':
    raise UserError(
      f'{path} is a mask of {values.shape[2]} x {values.dtype}, not of class indices or colours: save '
      'it as an 8-bit grey or palette PNG'
    )
  if values.dtype not in (np.uint8, np.uint16):
    if values.min(initial=0) < -(2**31) or values.max(initial=0) >= 2**31:
      raise UserError(f'{path} has mask values beyond 32 bits: number the classes from 0')
    values = values.astype(np.int32)
  one = values.shape[2] == 1 or (values == values[..., :1]).all()
  ids = values[..., 0] if one else None
  if values.shape[2] == 1:
    highest = 2**header.bits - 1 if header.bits <= 16 else 255
    common |= {'white_is_zero': header.white_is_zero, 'highest': highest}
    return Mask(path, 'grey', ids, **common)
  if values.dtype != np.uint8:
    raise UserError(f'{path} is a mask of {values.dtype} colours: save it with 8 bits a channel')
  return Mask(path, 'colour', ids, pixels=values, **common)


def summarize(path: Path, pages: Sequence[int | None] = (None,)) -> MaskSummary:
  """Returns the facts of a mask, or of these pages of a stack together; errors as `read`."""
  ids, colors, alpha, solid, hidden = set(), set(), set(), set(), set()
  for page in pages:
    mask = read(path, page)
    held = () if mask.ids is None else unique_ids(mask.ids)[:MANY]
    ids.update(held)
    if mask.pixels is not None:
      colors.update(unique_colors(mask.pixels)[:MANY])
      solid.update(_solid_colors(mask.pixels)[:MANY])
    alpha.update(() if mask.alpha is None else unique_ids(mask.alpha))
    hidden.update(_hidden_colors(mask)[:MANY])
  ids = tuple(sorted(ids))
  if mask.kind == 'index':
    palette = [tuple(map(int, color)) for color in mask.palette]
    listed = [palette[i] if i < len(palette) else (0, 0, 0) for i in ids]
  elif mask.pixels is None:
    listed = [(i * max(255 // mask.highest, 1),) * 3 for i in ids]
  else:
    listed = sorted(colors)
  rest = mask.orientation, mask.size, mask.white_is_zero, mask.highest, tuple(sorted(solid))
  return MaskSummary(
    mask.kind, ids, tuple(listed), tuple(sorted(alpha)), *rest, mask.nodata, tuple(sorted(hidden))
  )


def read_ids(path: Path, page: int | None = None, data: bytes | None = None) -> np.ndarray:
  """Reads a mask of ids, upright: uint8, uint16 or int32 [h, w].

  Palette masks give their indices (not their colours), 1-bit masks 0 and 1, grey masks their
  values, and so do colour masks that are grey at every pixel.
  """
  return read(path, page, data).upright().numbers()


def unique_ids(mask: np.ndarray) -> list[int]:
  """Returns the sorted distinct values of an integer mask."""
  if mask.dtype == np.uint8:
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
  return np.unique(mask).tolist()


def color_codes(colors: np.ndarray) -> np.ndarray:
  """Returns int32 [h, w]: r << 16 | g << 8 | b of uint8 [h, w, 3]."""
  return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def unique_colors(colors: np.ndarray) -> list[Color]:
  """Returns the distinct colours of uint8 [h, w, 3], sorted."""
  return [(c >> 16, c >> 8 & 255, c & 255) for c in np.unique(color_codes(colors)).tolist()]


def _solid_colors(colors: np.ndarray) -> list[Color]:
  """Returns the colours of uint8 [h, w, 3] that fill a square of 3 x 3 pixels somewhere, sorted."""
  square = np.ones((3, 3), np.uint8)
  inner = (cv2.erode(colors, square) == cv2.dilate(colors, square)).all(axis=-1)
  return unique_colors(colors[inner][None])


def _hidden_colors(mask: Mask) -> list[Color]:
  """Returns the colours that a mask has both transparent and opaque, sorted; grey values g as (g, g, g)."""
  if mask.alpha is None:
    return []
  codes = mask.ids if mask.pixels is None else color_codes(mask.pixels)
  both = np.intersect1d(codes[mask.alpha == 0], codes[mask.alpha == mask.alpha.max()]).tolist()
  if mask.pixels is None:
    return [(value,) * 3 for value in both]
  return [(c >> 16, c >> 8 & 255, c & 255) for c in both]


def check_ids(mask: np.ndarray, table: Mapping[int, int], path: Path) -> list[int]:
  """Returns the sorted distinct ids of a mask; one that is not a key of `table` is a UserError."""
  ids = unique_ids(mask)
  unknown = [i for i in ids if i not in table]
  if unknown:
    raise UserError(
      f'{path}: label ids {abbreviate(unknown)} are not among the allowed ids {describe_ids(table)}; '
      'correct the mask or the class list'
    )
  return ids


def map_ids(mask: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
  """Returns uint8 [h, w]: each id replaced by table[id]; errors as `check_ids`."""
  ids = check_ids(mask, table, path)
  if mask.dtype == np.uint8:
    lookup = np.zeros(256, np.uint8)
    lookup[ids] = [table[i] for i in ids]
    return lookup.take(mask)  # twice as fast as lookup[mask]
  return np.array([table[i] for i in ids], np.uint8)[np.searchsorted(ids, mask)]


def describe_ids(table: Mapping[int, int]) -> str:
  """Returns text such as '0..10, 255 (void)' for the keys of an id table."""
  classes = sorted(i for i, c in table.items() if c != VOID)
  void = sorted(i for i, c in table.items() if c == VOID)
  runs = f'{classes[0]}..{classes[-1]}'
  if len(classes) != classes[-1] - classes[0] + 1 or len(classes) < 3:
    runs = ', '.join(map(str, classes))
  return ', '.join([runs, *(f'{i} (void)' for i in void)])
