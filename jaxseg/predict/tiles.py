"""Images in tiles: where the tiles lie, what each counts for, and finished rows as they come.

Networks with a margin (the unpadded U-Net, arXiv:1505.04597, figure 2) take overlapping inputs whose
outputs join: borders are mirrored, tiles start at multiples of the network's stride, and the result
is that of one pass over the whole image. Networks that pad have no exact joint: their tiles overlap,
and each counts most in its middle (a Gaussian whose standard deviation is an eighth of the tile, as
in nnU-Net).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from jaxseg.data import geometry
from jaxseg.data.geometry import Fill
from jaxseg.types import Array, SizeRule, UserError

Run = Callable[[np.ndarray], Array]  # uint8 [H, W, c] -> float [H - 2 margin, W - 2 margin, k]
Size = tuple[int, int]

_ALIGN = (
  32  # steps of padding networks: the deepest stride, so that pooling falls alike in all tiles
)


@dataclasses.dataclass(frozen=True)
class Tiling:
  """Which tiles cover an image; make it with `make_tiling`.

  Attributes:
    rule: sizes that the network takes, and its margin.
    tile: input height and width of a tile, in pixels.
    step: distances between tiles.
    fill: colour of what lies outside the image where that is not mirrored.
    mirrored: whether the image is mirrored outwards.
  """

  rule: SizeRule
  tile: Size
  step: Size
  fill: Fill = (0,)
  mirrored: bool = False

  @property
  def output(self) -> Size:
    """Size of what the network returns for a tile."""
    return tuple(side - 2 * self.rule.margin for side in self.tile)


def make_tiling(
  rule: SizeRule,
  tile: Size,
  step: Size | None = None,
  *,
  fill: Fill = (0,),
  mirror_border: bool | None = None,
) -> Tiling:
  """Returns the checked tiling.

  Args:
    rule: of the network.
    tile: input size of a tile, (height, width).
    step: distance between tiles; None: half a tile (to a multiple of 32), or with a margin the
      output's size (to a multiple of the stride).
    fill: see Tiling.
    mirror_border: mirror the image outwards; None: exactly where the rule has a margin.

  Raises:
    UserError: a tile that the network cannot take, or a step that leaves gaps or is out of its grid.
  """
  for side in tile:
    if not rule.allows(side):
      above = rule.at_least(side)
      below = above - rule.multiple
      near = f'{below} or {above}' if below >= rule.minimum else f'{above}'
      raise UserError(f'a tile side of {side} does not fit this network: take {near}')
    if rule.margin and side - 2 * rule.margin < rule.multiple:
      least = rule.at_least(2 * rule.margin + rule.multiple)
      raise UserError(f'a tile side of {side} predicts too little: take {least} or more')
  step = tuple(_default_step(rule, side) for side in tile) if step is None else tuple(step)
  for side, distance in zip(tile, step, strict=True):
    most = side - 2 * rule.margin
    if not 1 <= distance <= most:
      raise UserError(f'a tile step of {distance}: tiles of {side} take from 1 to {most}')
    if rule.margin and distance % rule.multiple:
      raise UserError(
        f'a tile step of {distance}: tiles of this network join only at multiples of {rule.multiple}'
      )
  mirrored = rule.margin > 0 if mirror_border is None else mirror_border
  return Tiling(rule, tuple(tile), step, fill, mirrored)


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
    image: uint8 [h, w, c].
    tiling: which tiles.

  Yields:
    (top, float32 [rows, w, k]), k as `run` has it; together they are [h, w, k].
  """
  height, width = image.shape[:2]
  canvas, size = _canvas(image, tiling)
  (tall, wide), margin = tiling.output, tiling.rule.margin
  rows, columns = (offsets(*sides) for sides in zip(size, tiling.output, tiling.step, strict=True))
  weight = (np.ones if margin else gaussian)((tall, wide)).astype(np.float32)[..., None]
  total = norm = None
  for top, after in zip(rows, rows[1:] + [size[0]], strict=True):
    if top >= height:
      return
    windows = (
      (left, canvas[top : top + tiling.tile[0], left : left + tiling.tile[1]])
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
    yield top, total[: min(done, height - top), :width] / norm[: min(done, height - top), :width]
    total, norm = (np.pad(a[done:], ((0, done), (0, 0), (0, 0))) for a in (total, norm))


def whole(run: Run, image: np.ndarray, tiling: Tiling) -> np.ndarray:
  """Returns the tiled prediction of an image in one piece, float32 [h, w, k]."""
  return np.concatenate([rows for _, rows in bands(run, image, tiling)])


def _canvas(image: np.ndarray, tiling: Tiling) -> tuple[np.ndarray, Size]:
  """Pads the image to what the tiles cover; returns it and the size of the joined output."""
  rule = tiling.rule
  size = tuple(
    max(rule.at_least(side + 2 * rule.margin), tile) - 2 * rule.margin
    for side, tile in zip(image.shape[:2], tiling.tile, strict=True)
  )
  below, right = (whole - have for whole, have in zip(size, image.shape[:2], strict=True))
  m = rule.margin
  borders = m, m + below, m, m + right
  if tiling.mirrored:
    return geometry.mirror_array(image, *borders), size
  return geometry.pad({'image': image}, *borders, tiling.fill)['image'], size


def _one_behind(run: Run, windows) -> Iterator[tuple[int, np.ndarray]]:
  """Runs the next tile before the last one is fetched, so that the device does not wait."""
  waiting = None
  for left, window in windows:
    started = left, run(window)
    if waiting:
      yield waiting[0], np.asarray(waiting[1])
    waiting = started
  if waiting:
    yield waiting[0], np.asarray(waiting[1])
