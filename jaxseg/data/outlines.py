"""Validates and rasterises outlines of objects, from any annotation tool.

An outline is one of
  a list of polygons   [[x, y, x, y, ...], ...] in pixels, integers being pixel corners; may contain
                       CroppedMasks
  run lengths          {'size': [h, w], 'counts': [...] or COCO's text}, column by column
  a CroppedMask        rasterised already
Polygons are filled by COCO's tools (pycocotools), which trust their input: coordinates that are not
finite or far outside the image are rejected before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_masks

from jaxseg.data.geometry import Size, exif_turn
from jaxseg.types import UserError

_BEYOND = 0.1  # fraction of a side by which outlines may extend beyond the image


class CroppedMask(NamedTuple):
  """An object's pixels: bool [h, w] with the upper left corner at (top, left) of the image; may be empty."""

  top: int
  left: int
  mask: np.ndarray

  @property
  def window(self) -> tuple[slice, slice]:
    """Its slices of an array of the image's size."""
    height, width = self.mask.shape
    return slice(self.top, self.top + height), slice(self.left, self.left + width)

  @property
  def box(self) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1; x1 and y1 exclusive."""
    height, width = self.mask.shape
    return self.left, self.top, self.left + width, self.top + height


def rasterise(outline: Any, size: Size) -> CroppedMask:
  """Returns the pixels of an outline in an image of `size`.

  Raises:
    UserError: what is wrong with it; the caller adds the object's name.
  """
  if isinstance(outline, CroppedMask):
    return outline
  if isinstance(outline, dict):
    return tight(_of_runs(outline, size))
  if isinstance(outline, list) and any(isinstance(part, CroppedMask) for part in outline):
    return union([p if isinstance(p, CroppedMask) else rasterise([p], size) for p in outline])
  return _of_polygons(polygons(outline, size), size)


def tight(mask: np.ndarray, top: int = 0, left: int = 0) -> CroppedMask:
  """Crops bool [h, w] to what is True; its upper left corner is at (`top`, `left`)."""
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  if not len(rows):
    return CroppedMask(top, left, np.zeros((0, 0), bool))
  inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  return CroppedMask(top + int(rows[0]), left + int(columns[0]), inner.copy())


def polygons(outline: Any, size: Size) -> list[np.ndarray]:
  """Returns validated polygons as float64 [n, 2] of x and y; those with under 3 points are dropped.

  Accepts a single polygon without a list around it, too.
  """
  if not isinstance(outline, Sequence) or isinstance(outline, str):
    raise UserError(f'its outline is {type(outline).__name__}, no list of polygons')
  if outline and not isinstance(outline[0], Sequence):
    outline = [outline]
  checked = []
  for polygon in outline:
    points = numbers(polygon, 'its polygon')
    if len(points) % 2:
      raise UserError(f'its polygon has {len(points)} numbers: x and y of each corner are needed')
    check_inside(points[0::2], points[1::2], size)
    if len(points) >= 6:
      checked.append(points.reshape(-1, 2))
  if outline and not checked:
    raise UserError('its outline has fewer than three corners: draw or remove it')
  if checked and min(size) > 2 and max(part.max() for part in checked) <= 1:
    raise UserError('its corners lie between 0 and 1, as shares of the image do: pixels are needed')
  return checked


def extent(outline: Any, size: Size) -> tuple[tuple[float, ...], float]:
  """Returns the bounding box x0, y0, x1, y1 of polygons, clipped to the image, and their enclosed area."""
  parts = polygons(outline, size)
  corners = np.clip(np.concatenate(parts), 0, size[::-1])
  x_y = ((part[:, 0], part[:, 1]) for part in parts)
  area = sum(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 for x, y in x_y)
  return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()), float(area)


def numbers(values: Any, what: str) -> np.ndarray:
  """Returns a list of finite numbers as float64 [n]. Raises UserError for anything else."""
  try:
    array = np.asarray(values)
  except (ValueError, TypeError, OverflowError):  # lists of different lengths
    array = np.asarray(None)
  if array.ndim != 1 or (len(array) and array.dtype.kind not in 'iuf'):
    raise UserError(f'{what} is no list of numbers: {_short(values)}')
  array = array.astype(np.float64)
  if not np.isfinite(array).all():
    raise UserError(f'{what} has numbers that are not finite: {_short(values)}')
  return array


def check_inside(x: np.ndarray, y: np.ndarray, size: Size) -> None:
  """Raises UserError if points lie clearly outside an image."""
  for axis, values, side in (('y', y, size[0]), ('x', x, size[1])):
    most = max(2.0, _BEYOND * side)
    wrong = values[(values < -most) | (values > side + most)]
    if len(wrong):
      raise UserError(
        f'it reaches to {axis} = {wrong[0]:g} in an image of {size[1]} x {size[0]} pixels'
      )


def _of_polygons(parts: list[np.ndarray], size: Size) -> CroppedMask:
  if not parts:
    return tight(np.zeros(size, bool))
  corners = np.concatenate(parts)
  low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, None).astype(int)
  high = np.minimum(np.ceil(corners.max(axis=0)) + 1, size[::-1]).astype(int)
  (left, top), (width, height) = low, high - low
  if min(width, height) <= 0:
    return tight(np.zeros(size, bool))
  shifted = [(part - low).ravel().tolist() for part in parts]
  mask = rle_masks.decode(rle_masks.merge(rle_masks.frPyObjects(shifted, height, width)))
  return tight(mask.astype(bool), int(top), int(left))


def nearest_pixel(outline: Any, size: Size) -> CroppedMask:
  """Returns the pixel in which an outline lies that is too small to contain a pixel's centre."""
  drawn = (
    [part for part in outline if not isinstance(part, CroppedMask)]
    if isinstance(outline, list)
    else []
  )
  points = [numbers(part, 'its polygon') for part in drawn]
  points = [part for part in points if len(part)]
  if not points:
    raise UserError('its outline is empty: draw or remove it')
  centre = np.mean([(part[0::2].mean(), part[1::2].mean()) for part in points], axis=0)
  left, top = np.clip(np.floor(centre), 0, np.array(size[::-1]) - 1).astype(int)
  return CroppedMask(int(top), int(left), np.ones((1, 1), bool))


def _of_runs(code: dict, size: Size) -> np.ndarray:
  """Decodes run lengths to bool [h, w], which must match the image's size."""
  size_of_runs = code.get('size')
  if not isinstance(size_of_runs, Sequence) or list(size_of_runs) != list(size):
    raise UserError(
      f'its run lengths are of size {_short(size_of_runs)} (h, w), its image of {size}'
    )
  counts = code.get('counts')
  if isinstance(counts, (str, bytes)):
    counts = _uncompressed(counts)
  elif not isinstance(counts, Sequence):
    raise UserError(f'its run lengths are {type(counts).__name__}, no list and no text')
  runs = numbers(counts, "its list of run lengths ('counts')")
  total = math.prod(size)
  if (runs < 0).any() or (runs != np.floor(runs)).any() or runs.sum() != total:
    raise UserError(f'its run lengths add up to {runs.sum():g}, its image has {total} pixels')
  values = np.arange(len(runs)) % 2 == 1
  return np.repeat(values, runs.astype(np.int64)).reshape(size[::-1]).T


def _uncompressed(text: str | bytes) -> list[int]:
  """Decodes COCO's text of run lengths: five bits per character, deltas from the third on."""
  data = text.encode('ascii', 'replace') if isinstance(text, str) else text
  counts, value, shift = [], 0, 0
  for letter in data:
    bits = letter - 48
    if not 0 <= bits < 64 or shift > 60:
      raise UserError('its text of run lengths is damaged')
    value |= (bits & 31) << shift
    shift += 5
    if not bits & 32:
      value -= (1 << shift) if bits & 16 else 0
      counts.append(value + counts[-2] if len(counts) > 2 else value)
      value, shift = 0, 0
  if shift:
    raise UserError('its text of run lengths is cut short')
  return counts


def turn(piece: CroppedMask, orientation: int, size: Size) -> CroppedMask:
  """Applies an EXIF orientation to pixels of an image of stored `size`."""
  swap, flip_rows, flip_columns = exif_turn(orientation)
  mask = piece.mask.T if swap else piece.mask
  mask = np.ascontiguousarray(mask[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
  x0, y0, _, _ = turn_box(piece.box, orientation, size)
  return CroppedMask(int(y0), int(x0), mask)


def turn_box(box: Sequence[float], orientation: int, size: Size) -> tuple[float, ...]:
  """Applies it to x0, y0, x1, y1."""
  swap, flip_rows, flip_columns = exif_turn(orientation)
  (x0, y0, x1, y1), (height, width) = box, size
  if swap:
    x0, y0, x1, y1, height, width = y0, x0, y1, x1, width, height
  if flip_rows:
    y0, y1 = height - y1, height - y0
  if flip_columns:
    x0, x1 = width - x1, width - x0
  return x0, y0, x1, y1


def layers(pieces: Sequence[CroppedMask], size: Size) -> np.ndarray:
  """Numbers objects from 1 in uint16 [h, w, layers]: each in the first layer where it overlaps none."""
  if len(pieces) > np.iinfo(np.uint16).max:
    raise UserError(f'{len(pieces)} objects: at most {np.iinfo(np.uint16).max} in an image')
  stack = [np.zeros(size, np.uint16)]
  for number, piece in enumerate(pieces, start=1):
    layer = next((one for one in stack if not one[piece.window][piece.mask].any()), None)
    if layer is None:
      layer = np.zeros(size, np.uint16)
      stack.append(layer)
    layer[piece.window][piece.mask] = number
  return np.stack(stack, axis=-1)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def union(pieces: Sequence[CroppedMask]) -> CroppedMask:
  """Returns the union of all pieces."""
  boxes = np.array([piece.box for piece in pieces])
  left, top, right, bottom = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
  mask = np.zeros((bottom - top, right - left), bool)
  for piece in pieces:
    mask[CroppedMask(piece.top - top, piece.left - left, piece.mask).window][piece.mask] = True
  return tight(mask, int(top), int(left))


def without(piece: CroppedMask, hole: CroppedMask) -> CroppedMask:
  """Returns a piece without the pixels of another."""
  x0, y0 = (max(a, b) for a, b in zip(piece.box[:2], hole.box[:2], strict=True))
  x1, y1 = (min(a, b) for a, b in zip(piece.box[2:], hole.box[2:], strict=True))
  if x0 >= x1 or y0 >= y1:
    return piece
  mask = piece.mask.copy()
  cut = hole.mask[y0 - hole.top : y1 - hole.top, x0 - hole.left : x1 - hole.left]
  mask[y0 - piece.top : y1 - piece.top, x0 - piece.left : x1 - piece.left] &= ~cut
  return tight(mask, piece.top, piece.left)


class Masks:
  """The masks of one image's objects: acts as an array bool [n, h, w], in less memory.

  `masks[i]` is an object's mask, bool [h, w]; slices and arrays of bools select objects; np.asarray
  returns the full array.

  Args:
    pieces: one per object.
    size: (height, width) of the image.
  """

  def __init__(self, pieces: Sequence[CroppedMask], size: Size):
    self.pieces, self.size = tuple(pieces), tuple(size)

  @classmethod
  def of(cls, masks: Masks | np.ndarray) -> Masks:
    """Converts an array bool [n, h, w]; returns Masks as they are."""
    return masks if isinstance(masks, cls) else cls([tight(m) for m in masks], masks.shape[1:])

  @property
  def shape(self) -> tuple[int, int, int]:
    return len(self.pieces), *self.size

  def __len__(self) -> int:
    return len(self.pieces)

  def __getitem__(self, chosen: Any) -> np.ndarray | Masks:
    if isinstance(chosen, (int, np.integer)):
      piece, mask = self.pieces[chosen], np.zeros(self.size, bool)
      mask[piece.window] = piece.mask
      return mask
    return Masks([self.pieces[i] for i in np.arange(len(self))[chosen]], self.size)

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # the array is always new
    stack = np.zeros(self.shape, bool if dtype is None else dtype)
    for mask, piece in zip(stack, self.pieces, strict=True):
      mask[piece.window] = piece.mask
    return stack
