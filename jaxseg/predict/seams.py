"""Merges the detections of overlapping tiles, so that each object of the image appears once.

A detection that touches an inner border of its tile may be cut off. Tiles therefore overlap, by half by
default, so that an object no larger than the overlap is complete in one of them:

  1. of duplicates that are complete in several tiles the best is kept; a score counts less within a
     quarter tile of the border, where the network has little context. Duplicates share more than half
     of the smaller one's pixels;
  2. fragments of an object that is complete elsewhere are dropped;
  3. the remaining fragments belong to objects larger than the overlap: those that agree where their
     tiles overlap are merged, with the best of their scores.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy

from jaxseg.data import outlines
from jaxseg.data.geometry import Size
from jaxseg.data.outlines import CroppedMask, Masks
from jaxseg.predict.tiles import Tiling, offsets
from jaxseg.types import Detections, UserError

Box = tuple[int, int, int, int]  # x0, y0, x1, y1

_SAME = 0.5  # fraction of pixels that duplicates, and fragments of one object, share at least
_STEP = 0.75  # of a tile's side: the largest step between tiles
_BORDER = 1 / 32  # of a tile's side: a detection closer to an inner border may be cut off


@dataclasses.dataclass(frozen=True)
class Tile:
  """A window of the image and the objects in it, in pixels of the window."""

  top: int
  left: int
  size: Size
  detections: Detections

  @property
  def window(self) -> Box:
    return self.left, self.top, self.left + self.size[1], self.top + self.size[0]


@dataclasses.dataclass(frozen=True)
class _Object:
  """A detection of a tile, in pixels of the image.

  Attributes:
    tile: index of its tile.
    margin: pixels between its box and the nearest inner border of the tile; infinite if all borders
      are the image's.
  """

  tile: int
  class_id: int
  score: float
  box: np.ndarray
  piece: CroppedMask
  margin: float

  @functools.cached_property
  def pixels(self) -> int:
    return np.count_nonzero(self.piece.mask)


def check(tiling: Tiling) -> None:
  """Raises UserError if tiles overlap too little to match fragments of one object."""
  for side, step in zip(tiling.tile, tiling.step, strict=True):
    if step > _STEP * side:
      raise UserError(
        f'a tile step of {step}: tiles of {side} must overlap by a quarter to tell objects apart, so '
        f'take {int(_STEP * side)} or less'
      )


def windows(
  image: np.ndarray, tiling: Tiling, scale: float
) -> Iterator[tuple[int, int, Size, np.ndarray]]:
  """Yields the windows of an image, (top, left, size, pixels); resized by `scale` each fills a tile."""
  sides = [
    (min(round(tile / scale), side), max(round(step / scale), 1))
    for tile, step, side in zip(tiling.tile, tiling.step, image.shape, strict=False)
  ]
  rows, columns = (offsets(side, *window) for side, window in zip(image.shape, sides, strict=False))
  height, width = (length for length, _ in sides)
  for top in rows:
    for left in columns:
      yield top, left, (height, width), image[top : top + height, left : left + width]


def join(tiles: Sequence[Tile], size: Size) -> Detections:
  """Merges the detections of tiles that cover an image of `size`, sorted by descending score."""
  found = [item for number, tile in enumerate(tiles) for item in _in_image(number, tile, size)]
  margins = [min(tile.size) * _BORDER for tile in tiles]
  complete = [item for item in found if item.margin > margins[item.tile]]
  parts = [item for item in found if item.margin <= margins[item.tile]]
  selection = _Selection()
  quarters = [min(tile.size) / 4 for tile in tiles]
  for item in sorted(
    complete, key=lambda item: -item.score * min(1.0, item.margin / quarters[item.tile])
  ):
    if not any(_is_duplicate(item, other) for other in selection.near(item)):
      selection.add(item)
  parts = [
    part for part in parts if not any(_is_duplicate(part, other) for other in selection.near(part))
  ]
  objects = [*selection.all, *(_merged(group) for group in _groups(parts, tiles))]
  objects.sort(key=lambda item: -item.score)
  return Detections(
    boxes=np.array([item.box for item in objects], np.float32).reshape(-1, 4),
    scores=np.array([item.score for item in objects], np.float32),
    classes=np.array([item.class_id for item in objects], np.int32),
    masks=Masks([item.piece for item in objects], size),
  )


def _in_image(number: int, tile: Tile, size: Size) -> list[_Object]:
  """Returns a tile's detections in image coordinates."""
  shift, ends = np.array([tile.left, tile.top] * 2), np.array(tile.window[2:])
  inner = np.array([tile.left > 0, tile.top > 0, ends[0] < size[1], ends[1] < size[0]])
  placed = []
  for i, piece in enumerate(Masks.of(tile.detections.masks).pieces):
    box = np.asarray(tile.detections.boxes[i]) + shift
    margins = np.concatenate([box[:2] - shift[:2], ends - box[2:]])
    margin = float(np.min(np.where(inner, margins, np.inf)))
    moved = CroppedMask(piece.top + tile.top, piece.left + tile.left, piece.mask)
    class_id, score = int(tile.detections.classes[i]), float(tile.detections.scores[i])
    placed.append(_Object(number, class_id, score, box, moved, margin))
  return placed


class _Selection:
  """Selected objects; `near` finds possible duplicates: same class, other tile, overlapping boxes."""

  def __init__(self):
    self.all: list[_Object] = []
    self._rows = np.zeros((0, 6))  # box, class, tile

  def add(self, item: _Object) -> None:
    if len(self.all) == len(self._rows):
      self._rows = np.concatenate([self._rows, np.zeros((max(16, len(self._rows)), 6))])
    self._rows[len(self.all)] = *item.box, item.class_id, item.tile
    self.all.append(item)

  def near(self, item: _Object) -> list[_Object]:
    x0, y0, x1, y1, class_id, tile = self._rows[: len(self.all)].T
    u0, v0, u1, v1 = item.box
    meet = (
      (x0 < u1)
      & (u0 < x1)
      & (y0 < v1)
      & (v0 < y1)
      & (class_id == item.class_id)
      & (tile != item.tile)
    )
    return [self.all[i] for i in np.flatnonzero(meet)]


def _overlap(a: Box, b: Box) -> Box:
  """Returns the intersection of two windows, with x1 <= x0 or y1 <= y0 if it is empty."""
  return *map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])


def _crop(piece: CroppedMask, window: Box) -> np.ndarray:
  """Returns the pixels of a piece in a window of the image, bool [y1 - y0, x1 - x0]."""
  x0, y0, x1, y1 = window
  part = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
  u0, v0, u1, v1 = _overlap(piece.box, window)
  if u0 < u1 and v0 < v1:
    rows, columns = slice(v0 - piece.top, v1 - piece.top), slice(u0 - piece.left, u1 - piece.left)
    part[v0 - y0 : v1 - y0, u0 - x0 : u1 - x0] = piece.mask[rows, columns]
  return part


def _shared_pixels(a: _Object, b: _Object) -> int:
  window = _overlap(a.piece.box, b.piece.box)
  return np.count_nonzero(_crop(a.piece, window) & _crop(b.piece, window))


def _is_duplicate(a: _Object, b: _Object) -> bool:
  return _shared_pixels(a, b) > _SAME * min(a.pixels, b.pixels)


def _groups(parts: Sequence[_Object], tiles: Sequence[Tile]) -> list[list[_Object]]:
  """Groups the fragments of each object: those that agree where their tiles overlap."""
  pairs = [
    (i, j)
    for (i, item), (j, other) in itertools.combinations(enumerate(parts), 2)
    if item.class_id == other.class_id and item.tile != other.tile and _agree(item, other, tiles)
  ]
  rows, columns = np.array(pairs, int).reshape(-1, 2).T
  graph = scipy.sparse.coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(parts),) * 2)
  count, group_of = scipy.sparse.csgraph.connected_components(graph, directed=False)
  groups: list[list[_Object]] = [[] for _ in range(count)]
  for part, group in zip(parts, group_of, strict=True):
    groups[group].append(part)
  return groups


def _agree(a: _Object, b: _Object, tiles: Sequence[Tile]) -> bool:
  """Whether two fragments agree in the window that their tiles share."""
  if not _shared_pixels(a, b):
    return False
  window = _overlap(tiles[a.tile].window, tiles[b.tile].window)
  first, second = _crop(a.piece, window), _crop(b.piece, window)
  return np.count_nonzero(first & second) > _SAME * np.count_nonzero(first | second)


def _merged(group: Sequence[_Object]) -> _Object:
  best = max(group, key=lambda item: item.score)
  if len(group) == 1:
    return best
  boxes = np.array([item.box for item in group])
  box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
  return dataclasses.replace(best, box=box, piece=outlines.union([item.piece for item in group]))
