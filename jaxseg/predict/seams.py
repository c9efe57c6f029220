"""Objects of overlapping tiles become those of the whole image: each once, however tiles cut it.

What reaches the inner border of a tile may go on beyond it. So tiles overlap, by half unless said
otherwise, and an object that is no larger than the overlap is whole in one of them:

  1. of objects that are whole in several tiles, the best is kept; one that is nearer to its tile's borders
     than a quarter of the tile counts less: the network has seen little around it. They are the same
     where they share more than half of the smaller one's pixels;
  2. a part of an object that is whole elsewhere goes;
  3. parts that are left are of objects larger than the overlap: those that agree where their tiles
     overlap are joined, with the best of their scores.
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
from jaxseg.data.outlines import Masks, Piece
from jaxseg.predict.tiles import Tiling, offsets
from jaxseg.types import Detections, UserError

Box = tuple[int, int, int, int]  # x0, y0, x1, y1

_SAME = 0.5  # of pixels that must be shared
_STEP = 0.75  # of a tile's side: the largest distance between two
_BORDER = 1 / 32  # of a tile's side: what comes so near to an inner border may be cut


@dataclasses.dataclass(frozen=True)
class Tile:
  """A window of the image and the objects in it, in pixels of the window."""

  top: int
  left: int
  size: Size
  found: Detections

  @property
  def window(self) -> Box:
    return self.left, self.top, self.left + self.size[1], self.top + self.size[0]


@dataclasses.dataclass(frozen=True)
class _Found:
  """An object of a tile, in pixels of the image.

  Attributes:
    tile: number of its tile.
    room: pixels between its box and the nearest inner border of the tile; infinite where all borders
      are the image's.
  """

  tile: int
  kind: int
  score: float
  box: np.ndarray
  piece: Piece
  room: float

  @functools.cached_property
  def pixels(self) -> int:
    return np.count_nonzero(self.piece.mask)


def check(tiling: Tiling) -> None:
  """Raises UserError where tiles overlap too little to tell which parts belong together."""
  for side, step in zip(tiling.tile, tiling.step, strict=True):
    if step > _STEP * side:
      raise UserError(
        f'a tile step of {step}: tiles of {side} must overlap by a quarter to tell objects apart, so '
        f'take {int(_STEP * side)} or less'
      )


def windows(
  image: np.ndarray, tiling: Tiling, scale: float
) -> Iterator[tuple[int, int, Size, np.ndarray]]:
  """Yields windows of an image: top, left, size and pixels; a tile shows one at `scale`."""
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
  """Returns the objects of an image of `size` by falling score, from those of tiles that cover it."""
  found = [one for number, tile in enumerate(tiles) for one in _placed(number, tile, size)]
  margins = [min(tile.size) * _BORDER for tile in tiles]
  whole = [one for one in found if one.room > margins[one.tile]]
  parts = [one for one in found if one.room <= margins[one.tile]]
  kept = _Kept()
  quarters = [min(tile.size) / 4 for tile in tiles]
  for one in sorted(whole, key=lambda one: -one.score * min(1.0, one.room / quarters[one.tile])):
    if not any(_same(one, other) for other in kept.near(one)):
      kept.add(one)
  parts = [part for part in parts if not any(_same(part, other) for other in kept.near(part))]
  objects = [*kept.all, *(_joined(group) for group in _groups(parts, tiles))]
  objects.sort(key=lambda one: -one.score)
  return Detections(
    boxes=np.array([one.box for one in objects], np.float32).reshape(-1, 4),
    scores=np.array([one.score for one in objects], np.float32),
    classes=np.array([one.kind for one in objects], np.int32),
    masks=Masks([one.piece for one in objects], size),
  )


def _placed(number: int, tile: Tile, size: Size) -> list[_Found]:
  """Returns a tile's objects where they lie in the image."""
  shift, ends = np.array([tile.left, tile.top] * 2), np.array(tile.window[2:])
  inner = np.array([tile.left > 0, tile.top > 0, ends[0] < size[1], ends[1] < size[0]])
  placed = []
  for i, piece in enumerate(Masks.of(tile.found.masks).pieces):
    box = np.asarray(tile.found.boxes[i]) + shift
    rooms = np.concatenate([box[:2] - shift[:2], ends - box[2:]])
    room = float(np.min(np.where(inner, rooms, np.inf)))
    moved = Piece(piece.top + tile.top, piece.left + tile.left, piece.mask)
    kind, score = int(tile.found.classes[i]), float(tile.found.scores[i])
    placed.append(_Found(number, kind, score, box, moved, room))
  return placed


class _Kept:
  """Objects that stay, and which of them may overlap another of a class from another tile."""

  def __init__(self):
    self.all: list[_Found] = []
    self._rows = np.zeros((0, 6))  # box, class, tile

  def add(self, one: _Found) -> None:
    if len(self.all) == len(self._rows):
      self._rows = np.concatenate([self._rows, np.zeros((max(16, len(self._rows)), 6))])
    self._rows[len(self.all)] = *one.box, one.kind, one.tile
    self.all.append(one)

  def near(self, one: _Found) -> list[_Found]:
    x0, y0, x1, y1, kind, tile = self._rows[: len(self.all)].T
    u0, v0, u1, v1 = one.box
    meet = (x0 < u1) & (u0 < x1) & (y0 < v1) & (v0 < y1) & (kind == one.kind) & (tile != one.tile)
    return [self.all[i] for i in np.flatnonzero(meet)]


def _overlap(a: Box, b: Box) -> Box:
  """Returns what two windows share; one that is turned inside out where they share nothing."""
  return *map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])


def _part(piece: Piece, window: Box) -> np.ndarray:
  """Returns the pixels of a piece in a window of the image, bool [y1 - y0, x1 - x0]."""
  x0, y0, x1, y1 = window
  part = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
  u0, v0, u1, v1 = _overlap(piece.box, window)
  if u0 < u1 and v0 < v1:
    rows, columns = slice(v0 - piece.top, v1 - piece.top), slice(u0 - piece.left, u1 - piece.left)
    part[v0 - y0 : v1 - y0, u0 - x0 : u1 - x0] = piece.mask[rows, columns]
  return part


def _shared(a: _Found, b: _Found) -> int:
  window = _overlap(a.piece.box, b.piece.box)
  return np.count_nonzero(_part(a.piece, window) & _part(b.piece, window))


def _same(a: _Found, b: _Found) -> bool:
  return _shared(a, b) > _SAME * min(a.pixels, b.pixels)


def _groups(parts: Sequence[_Found], tiles: Sequence[Tile]) -> list[list[_Found]]:
  """Puts together the parts of each object: those that agree where their tiles overlap."""
  pairs = [
    (i, j)
    for (i, one), (j, other) in itertools.combinations(enumerate(parts), 2)
    if one.kind == other.kind and one.tile != other.tile and _agree(one, other, tiles)
  ]
  rows, columns = np.array(pairs, int).reshape(-1, 2).T
  graph = scipy.sparse.coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(parts),) * 2)
  count, group_of = scipy.sparse.csgraph.connected_components(graph, directed=False)
  groups: list[list[_Found]] = [[] for _ in range(count)]
  for part, group in zip(parts, group_of, strict=True):
    groups[group].append(part)
  return groups


def _agree(a: _Found, b: _Found, tiles: Sequence[Tile]) -> bool:
  """Whether two parts show the same object in the window that both their tiles show."""
  if not _shared(a, b):
    return False
  window = _overlap(tiles[a.tile].window, tiles[b.tile].window)
  first, second = _part(a.piece, window), _part(b.piece, window)
  return np.count_nonzero(first & second) > _SAME * np.count_nonzero(first | second)


def _joined(group: Sequence[_Found]) -> _Found:
  best = max(group, key=lambda one: one.score)
  if len(group) == 1:
    return best
  boxes = np.array([one.box for one in group])
  box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
  return dataclasses.replace(best, box=box, piece=outlines.union([one.piece for one in group]))
