"""Tiled prediction: places tiles, weights their overlaps, and yields finished rows.

Networks with a margin (the unpadded U-Net, arXiv:1505.04597, figure 2) take overlapping inputs with
adjacent outputs: borders are mirrored, tiles start at multiples of the network's stride, and the
result equals one pass over the whole image. For networks that pad no tiling is exact: their tiles
overlap, weighted by a Gaussian (standard deviation an eighth of the tile, as in nnU-Net) or equally
('even', as PSPNet's authors test).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.types import Array, SizeRule, UserError

Run = Callable[[np.ndarray], Array]  # [H, W, c] -> float [H - 2 margin, W - 2 margin, k]

# Step multiple for networks that pad: the deepest stride, so that all tiles pool on the same grid.
_ALIGN = 32


@dataclasses.dataclass(frozen=True)
class Tiling:
  """How tiles cover an image; make it with `make_tiling`.

  Attributes:
    frame: the network's input sizes and margin, and the fill outside the image.
    tile: input height and width of a tile, in pixels.
    step: vertical and horizontal distance between tiles.
    even: weights all pixels of a tile equally, and centres images smaller than a tile.
  """

  frame: Frame
  tile: Size
  step: Size
  even: bool = False

  @property
  def output(self) -> Size:
    """Output size of a tile."""
    return tuple(side - 2 * self.frame.rule.margin for side in self.tile)


def make_tiling(
  frame: Frame,
  tile: Size,
  step: Size | None = None,
  size: Size | None = None,
  *,
  even: bool = False,
) -> Tiling:
  """Returns the checked tiling.

  Args:
    frame: of whole images; its scale is not used.
    tile: input size of a tile.
    step: distance between tiles; None: half a tile (a multiple of 32), or with a margin the output
      size (a multiple of the stride).
    size: of the image, if known: limits tiles to the image's input size, unless they are even.
    even: see Tiling; no effect for networks with a margin, whose overlapping outputs agree.

  Raises:
    UserError: a tile that the network cannot take, or a step that leaves gaps or is off its grid.
  """
  rule = frame.rule
  for side in tile:
    if not rule.allows(side):
      raise UserError(f'a tile side of {side} does not fit this network: take {rule.nearest(side)}')
    if rule.margin and side - 2 * rule.margin < rule.multiple:
      least = rule.at_least(2 * rule.margin + rule.multiple)
      raise UserError(f'a tile side of {side} predicts too little: take {least} or more')
  requested, steps = tile, step or (None, None)
  even = even and not rule.margin
  tile = tuple(map(min, frame.input(size), tile)) if size and not even else tuple(tile)
  step = tuple(
    _default_step(rule, side) if distance is None or side < full_side else distance
    for distance, side, full_side in zip(steps, tile, requested, strict=True)
  )
  for side, distance in zip(tile, step, strict=True):
    largest = side - 2 * rule.margin
    if not 1 <= distance <= largest:
      raise UserError(f'a tile step of {distance}: tiles of {side} take from 1 to {largest}')
    if rule.margin and distance % rule.multiple:
      raise UserError(
        f'a tile step of {distance}: tiles of this network join only at multiples of {rule.multiple}'
      )
  return Tiling(frame, tile, step, even)


def _default_step(rule: SizeRule, side: int) -> int:
  if rule.margin:
    return (side - 2 * rule.margin) // rule.multiple * rule.multiple
  half = max(side // 2, 1)
  return half // _ALIGN * _ALIGN or half


def offsets(length: int, tile: int, step: int) -> list[int]:
  """Returns the starts of tiles that cover `length`; the last tile ends at its end."""
  return [*range(0, length - tile, step), length - tile]


def gaussian(size: Size) -> np.ndarray:
  """Returns a Gaussian window, float32 [h, w], peak 1, sigma an eighth of each side."""
  profiles = []
  for side in size:
    distance = (np.arange(side) - (side - 1) / 2) / (side / 8)
    profiles.append(np.exp(-(distance**2) / 2))
  return np.outer(*profiles).astype(np.float32)


def bands(run: Run, image: np.ndarray, tiling: Tiling) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the finished rows of a tiled prediction, from top to bottom; holds one row of tiles in memory.

  Args:
    run: the network on one tile; may return before its result is computed.
    image: [h, w, c].
    tiling: of the image.

  Yields:
    (top, float32 [rows, w, k]), k from `run`; concatenated, they are [h, w, k].
  """
  if tiling.even and any(
    length < side for length, side in zip(image.shape, tiling.tile, strict=False)
  ):
    yield 0, _centred(run, image, tiling)
    return
  (height, width), (tall, wide) = image.shape[:2], tiling.output
  frame, margin = tiling.frame, tiling.frame.rule.margin
  size = tuple(
    max(side if tiling.even else frame.rule.at_least(side + 2 * margin), tile) - 2 * margin
    for side, tile in zip(image.shape[:2], tiling.tile, strict=True)
  )
  rows, columns = (offsets(*sides) for sides in zip(size, tiling.output, tiling.step, strict=True))
  weight = (np.ones if margin or tiling.even else gaussian)((tall, wide)).astype(np.float32)[
    ..., None
  ]
  total = norm = None
  for top, after in zip(rows, rows[1:] + [size[0]], strict=True):
    if top >= height:
      return
    windows = (
      (left, frame.window(image, (top - margin, left - margin), tiling.tile))
      for left in columns
      if left < width
    )
    for left, part in _pipelined(run, windows):
      if total is None:
        total = np.zeros((tall, size[1], part.shape[-1]), np.float32)
        norm = np.zeros((tall, size[1], 1), np.float32)
      total[:, left : left + wide] += weight * part
      norm[:, left : left + wide] += weight
    done = after - top  # rows that no later tile touches
    finished = min(done, height - top)
    yield top, total[:finished, :width] / norm[:finished, :width]
    total, norm = (np.pad(a[done:], ((0, done), (0, 0), (0, 0))) for a in (total, norm))


def _centred(run: Run, image: np.ndarray, tiling: Tiling) -> np.ndarray:
  """Returns the maps of an image smaller than a tile in some direction, centred in its padding."""
  size = image.shape[:2]
  plane = tuple(map(max, size, tiling.tile))
  top, left = ((whole - side) // 2 for whole, side in zip(plane, size, strict=True))
  maps = joined(run, tiling.frame.window(image, (-top, -left), plane), tiling)
  return maps[top : top + size[0], left : left + size[1]]


def joined(run: Run, image: np.ndarray, tiling: Tiling) -> np.ndarray:
  """Returns the complete tiled prediction of an image, float32 [h, w, k]."""
  return np.concatenate([rows for _, rows in bands(run, image, tiling)])


def _pipelined(
  run: Run, windows: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray]]:
  """Starts the next tile before fetching the last, so that the device does not wait."""
  pending = None
  for left, window in windows:
    started = left, run(window)
    if pending:
      yield pending[0], np.asarray(pending[1])
    pending = started
  if pending:
    yield pending[0], np.asarray(pending[1])
