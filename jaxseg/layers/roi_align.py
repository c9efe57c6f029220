"""RoIAlign: features of boxes by bilinear interpolation (arXiv:1703.06870, section 3).

Value i of a map of stride s is the feature at pixel coordinate s (i + 0.5) where `aligned`
(pixels are areas, Detectron2), else at s i (Detectron, torchvision). A bin is the mean of `samples` x
`samples` points spread evenly in it. Points up to one cell outside of the map take its border's
value, those further out count as zero.

The weight of a point is a product of one in y and one in x, and so is the mean over a bin's grid of
points: a box is (rows of y weights) @ map @ (columns of x weights). Their gradient is two more products,
where the gradient of gathering is a scattered sum. On large maps the weights are nearly all zero, and
gathering wins. On a CPU, forward and backward: 24 boxes of 14 x 14 bins from 64 x 64 x 64 values take
16 ms by products and 27 ms by gathers, 128 such boxes from 64 x 64 x 256 take 870 and 510.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg.types import Array

_MAX_PRODUCT_MAP = 64 * 64 * 64  # values of the largest map, up to which it is done by products


def roi_align(
  maps: Sequence[Array],
  strides: Sequence[int],
  boxes: Array,
  levels: Array,
  size: int,
  *,
  samples: int = 2,
  aligned: bool = True,
  by_product: bool | None = None,
) -> Array:
  """Cuts boxes out of a pyramid of features.

  Args:
    maps: of one image, finest first, each [h, w, c].
    strides: image pixels a cell, of each map.
    boxes: float32 [n, 4], (x0, y0, x1, y1) in image pixels; no gradient flows into them.
    levels: int32 [n], which map a box is cut from.
    size: bins along a side of the result.
    samples: points along a side of a bin.
    aligned: see above; where not, a side is at least one cell long, as published.
    by_product: True: matrix products, False: gathers; None: by the size of the largest map.

  Returns:
    [n, size, size, c] of the maps' dtype.
  """
  boxes = jax.lax.stop_gradient(boxes)
  if by_product is None:
    by_product = max(m.size for m in maps) <= _MAX_PRODUCT_MAP
  align = _by_product if by_product else _by_gather
  stride = jnp.array(strides, jnp.float32)[levels]
  points = _points(boxes / stride[:, None], size, samples, aligned)
  return align(maps, *points, levels)


def level_of(
  boxes: Array, count: int, *, finest: int = 2, canonical: int = 4, canonical_size: float = 224.0
) -> Array:
  """Returns which of `count` maps a box [..., 4] is cut from (arXiv:1612.03144, equation 1), int32.

  A box of canonical_size^2 pixels belongs to level `canonical`, map 0 is level `finest`.
  """
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
  side = jnp.sqrt(sides[..., 0] * sides[..., 1])
  level = jnp.floor(canonical + jnp.log2(side / canonical_size + 1e-8))
  return jnp.clip(level - finest, 0, count - 1).astype(jnp.int32)


def _points(boxes: Array, size: int, samples: int, aligned: bool) -> tuple[Array, Array]:
  """Returns y and x of the sampling points, [n, size, samples], in cells of the box's map."""
  start = boxes[:, :2] - (0.5 if aligned else 0.0)
  sides = boxes[:, 2:] - boxes[:, :2]
  sides = sides if aligned else jnp.maximum(sides, 1.0)
  place = (jnp.arange(size * samples, dtype=jnp.float32) + 0.5) / (size * samples)
  points = start[:, :, None] + sides[:, :, None] * place[None, None]
  points = points.reshape(-1, 2, size, samples)
  return points[:, 1], points[:, 0]


def _by_product(maps, y: Array, x: Array, levels: Array) -> Array:
  total = 0.0
  for level, features in enumerate(maps):
    height, width, _ = features.shape
    here = (levels == level)[:, None, None]
    rows = jnp.where(here, _weights(y, height), 0.0).astype(features.dtype)
    columns = _weights(x, width).astype(features.dtype)
    half = jnp.einsum('nph,hwc->npwc', rows, features)
    total += jnp.einsum('nqw,npwc->npqc', columns, half)
  return total


def _weights(points: Array, length: int) -> Array:
  """Mean over a bin's points of their bilinear weights: [n, size, samples] -> [n, size, length]."""
  inside = (points >= -1) & (points <= length)
  points = jnp.clip(points, 0, length - 1)[..., None]
  cells = jnp.arange(length, dtype=jnp.float32).reshape(1, 1, 1, -1)
  weights = jnp.maximum(0.0, 1 - jnp.abs(points - cells))
  return jnp.mean(jnp.where(inside[..., None], weights, 0.0), axis=2)


def _by_gather(maps, y: Array, x: Array, levels: Array) -> Array:
  """All maps lie in one long list of cells; a box knows where its own begins."""
  sizes = [m.shape[:2] for m in maps]
  starts = [0]
  for height, width in sizes[:-1]:
    starts.append(starts[-1] + height * width)
  cells = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in maps])
  start = jnp.array(starts)[levels]
  height, width = jnp.array(sizes)[levels].T
  rows, columns = _corners(y, height), _corners(x, width)
  total = 0.0
  for row, row_weight in rows:
    for column, column_weight in columns:
      place = row[:, :, :, None, None] * width[:, None, None, None, None]
      place = place + column[:, None, None] + start[:, None, None, None, None]
      weight = row_weight[:, :, :, None, None] * column_weight[:, None, None]
      values = cells[place] * weight[..., None].astype(cells.dtype)
      total += values.mean(axis=(2, 4))
  return total


def _corners(points: Array, length: Array) -> list[tuple[Array, Array]]:
  """Returns the two cells beside each point [n, size, samples], and their weights."""
  length = length[:, None, None]
  inside = (points >= -1) & (points <= length)
  points = jnp.clip(points, 0, length - 1)
  low = jnp.floor(points).astype(jnp.int32)
  high = jnp.minimum(low + 1, length - 1)
  share = points - low
  return [(low, inside * (1 - share)), (high, inside * share)]
