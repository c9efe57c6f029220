"""Images in tiles: where the tiles lie, what each counts for, and finished rows as they come.

Networks with a margin (the unpadded U-Net, arXiv:1505.04597, figure 2) take overlapping inputs whose
outputs join: borders are mirrored, tiles start at multiples of the network's stride, and the result
is that of one pass over the whole image. Networks that pad have no exact joint: their tiles overlap,
and each counts most in its middle (a Gaussian whose standard deviation is an eighth of the tile, as
in nnU-Net), or all alike ('even', as PSPNet's authors test).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.types import Array, SizeRule, UserError

Run = Callable[[np.ndarray], Array]  # [H, W, c] -> float [H - 2 margin, W - 2 margin, k]

# Steps of networks that pad: the deepest stride, so that pooling falls alike in all tiles.
_ALIGN = 32


@dataclasses.dataclass(frozen=True)
class Tiling:
  """Which tiles cover an image; make it with `make_tiling`.

  Attributes:
    frame: sizes that the network takes, its margin, and what lies outside of the image.
    tile: input height and width of a tile, in pixels.
    step: distances between tiles.
    even: whether all of a tile counts alike, and an image that is smaller lies in its middle.
  """

  frame: Frame
  tile: Size
  step: Size
  even: bool = False

  @property
  def output(self) -> Size:
    """Size of what the network returns for a tile."""
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
    step: distance between tiles; None: half a tile (to a multiple of 32), or with a margin the
      output's size (to a multiple of the stride).
    size: of the image, where it is known: no tile is larger than what the network gets of it, unless
      they are even.
    even: see Tiling; tiles of networks with a margin join, and count alike anyway.

  Raises:
    UserError: a tile that the network cannot take, or a step that leaves gaps or is out of its grid.
  """
  rule = frame.rule
  for side in tile:
    if not rule.allows(side):
      raise UserError(f'a tile side of {side} does not fit this network: take {rule.nearest(side)}')
    if rule.margin and side - 2 * rule.margin < rule.multiple:
      least = rule.at_least(2 * rule.margin + rule.multiple)
      raise UserError(f'a tile side of {side} predicts too little: take {least} or more')
  asked, steps = tile, step or (None, None)
  even = even and not rule.margin
  tile = tuple(map(min, frame.input(size), tile)) if size and not even else tuple(tile)
  step = tuple(
    _default_step(rule, side) if distance is None or side < wanted else distance
    for distance, side, wanted in zip(steps, tile, asked, strict=True)
  )
  for side, distance in zip(tile, step, strict=True):
    most = side - 2 * rule.margin
    if not 1 <= distance <= most:
      raise UserError(f'a tile step of {distance}: tiles of {side} take from 1 to {most}')
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
  """Returns where tiles start so that they cover `length`; the last one ends at its end."""
  return [*range(0, length - tile, step), length - tile]


def gaussian(size: Size) -> np.ndarray:
  """Returns float32 [h, w], 1 in the middle, falling off with a sigma of an eighth of each side."""
  falls = []
  for side in size:
    distance = (np.arange(side) - (side - 1) / 2) / (side / 8)
    falls.append(np.exp(-(distance**2) / 2))
  return np.outer(*falls).astype(np.float32)


def bands(run: Run, image: np.ndarray, tiling: Tiling) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the finished rows of a tiled prediction from the top down: memory holds one row of tiles.

  Args:
    run: the network on one tile; it may return before its result is computed.
    image: [h, w, c].
    tiling: which tiles.

  Yields:
    (top, float32 [rows, w, k]), k as `run` has it; together they are [h, w, k].
  """
  if tiling.even and any(have < side for have, side in zip(image.shape, tiling.tile, strict=False)):
    yield 0, _in_the_middle(run, image, tiling)
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
    for left, part in _one_behind(run, windows):
      if total is None:
        total = np.zeros((tall, size[1], part.shape[-1]), np.float32)
        norm = np.zeros((tall, size[1], 1), np.float32)
      total[:, left : left + wide] += weight * part
      norm[:, left : left + wide] += weight
    done = after - top  # rows that no later tile touches
    finished = min(done, height - top)
    yield top, total[:finished, :width] / norm[:finished, :width]
    total, norm = (np.pad(a[done:], ((0, done), (0, 0), (0, 0))) for a in (total, norm))


def _in_the_middle(run: Run, image: np.ndarray, tiling: Tiling) -> np.ndarray:
  """Returns the maps of an image that is lower or narrower than a tile, with as much on either side."""
  size = image.shape[:2]
  plane = tuple(map(max, size, tiling.tile))
  top, left = ((whole - side) // 2 for whole, side in zip(plane, size, strict=True))
  maps = joined(run, tiling.frame.window(image, (-top, -left), plane), tiling)
  return maps[top : top + size[0], left : left + size[1]]


def joined(run: Run, image: np.ndarray, tiling: Tiling) -> np.ndarray:
  """Returns the tiled prediction of an image in one piece, float32 [h, w, k]."""
  return np.concatenate([rows for _, rows in bands(run, image, tiling)])


def _one_behind(
  run: Run, windows: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray]]:
  """Runs the next tile before the last one is fetched, so that the device does not wait."""
  waiting = None
  for left, window in windows:
    started = left, run(window)
    if waiting:
      yield waiting[0], np.asarray(waiting[1])
    waiting = started
  if waiting:
    yield waiting[0], np.asarray(waiting[1])
