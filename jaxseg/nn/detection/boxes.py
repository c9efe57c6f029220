"""Boxes (x0, y0, x1, y1): areas, overlaps, anchors, and regression targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array

MAX_LOG_SCALE = math.log(1000 / 16)  # largest growth of a box in one step; keeps exp finite


def make_anchors(
  map_size: tuple[int, int],
  stride: int,
  size: float,
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  *,
  offset: float = 0.0,
  rounded: bool = False,
) -> np.ndarray:
  """Returns anchors around every cell of a feature map (arXiv:1506.01497, 3.1.1).

  Args:
    map_size: (h, w) of the map.
    stride: image pixels between cells.
    size: square root of an anchor's area.
    ratios: height over width.
    offset: centre of the first cell's anchors, in strides: 0 as in Detectron2 and torchvision, 0.5
      for the centre of the cell's pixels.
    rounded: rounds corners to integers relative to the centre, as in torchvision.

  Returns:
    float32 [h * w * len(ratios), 4], in pixels of the image, in the order [h, w, len(ratios)].
  """
  root = np.sqrt(np.asarray(ratios, np.float64))
  half = np.stack([size / root, size * root], axis=-1) / 2  # width, height
  shapes = np.concatenate([-half, half], axis=-1)
  shapes = np.round(shapes) if rounded else shapes
  y, x = (stride * (np.arange(n) + offset) for n in map_size)
  grid_x, grid_y = np.meshgrid(x, y)
  centres = np.stack([grid_x, grid_y, grid_x, grid_y], axis=-1)
  return (centres[:, :, None] + shapes).reshape(-1, 4).astype(np.float32)


def area(boxes: Array) -> Array:
  """Returns float32 [...] of boxes [..., 4], in square pixels; 0 for inverted boxes."""
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
  return sides[..., 0] * sides[..., 1]


def are_large(boxes: Array, smallest: float) -> Array:
  """Returns bool [n]: whether both sides of boxes [n, 4] are at least `smallest` pixels."""
  return jnp.min(boxes[:, 2:] - boxes[:, :2], axis=1) >= smallest


def intersection(a: Array, b: Array) -> Array:
  """Returns the intersection areas, [n, m] of a [n, 4] and b [m, 4]."""
  x0, y0, x1, y1 = a.T[:, :, None]
  u0, v0, u1, v1 = b.T[:, None]
  width = jnp.minimum(x1, u1) - jnp.maximum(x0, u0)
  height = jnp.minimum(y1, v1) - jnp.maximum(y0, v0)
  return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def iou(a: Array, b: Array) -> Array:
  """Returns intersection over union, [n, m] of a [n, 4] and b [m, 4]; 0 for two empty boxes."""
  shared = intersection(a, b)
  union = area(a)[:, None] + area(b)[None] - shared
  return shared / jnp.where(union > 0, union, 1)


def clip(boxes: Array, extent: Array) -> Array:
  """Clips boxes [..., 4] to an image's extent, float32 [4], x0, y0, x1, y1."""
  low, high = (jnp.concatenate([extent[i : i + 2]] * 2) for i in (0, 2))
  shape = (1,) * (boxes.ndim - 1) + (4,)
  return jnp.clip(boxes, low.reshape(shape), high.reshape(shape))


def image_box(image: Array) -> Array:
  """Returns the extents, float32 [b, 4], x0, y0, x1, y1, of images [b, h, w, c] without padding."""
  count, height, width, _ = image.shape
  return jnp.tile(jnp.array([[0, 0, width, height]], jnp.float32), (count, 1))


def centred_in(boxes: Array, extent: Array) -> Array:
  """Returns bool [n]: whether the centres of boxes [n, 4] lie in an image's extent, x0, y0, x1, y1."""
  centres = (boxes[:, :2] + boxes[:, 2:]) / 2
  return jnp.all((centres >= extent[None, :2]) & (centres <= extent[None, 2:]), axis=1)


def encode(
  boxes: Array, reference: Array, weights: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> Array:
  """Returns regression targets, the inverse of `decode` (arXiv:1311.2524, appendix C).

  Args:
    boxes: [..., 4]. Empty boxes (padding) give finite nonsense, to be masked.
    reference: [..., 4], anchors or proposals.
    weights: factors of (dx, dy, dw, dh), to bring them to the same scale.

  Returns:
    float32 [..., 4]: the centre's shift relative to the reference's sides, the log of the sides' ratio.
  """
  centre, sides = _centre_and_sides(boxes)
  from_centre, from_sides = _centre_and_sides(reference)
  shift = (centre - from_centre) / from_sides
  scale = jnp.log(sides / from_sides)
  return jnp.concatenate([shift, scale], axis=-1) * _row(weights, boxes)


def decode(
  deltas: Array, reference: Array, weights: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> Array:
  """Returns boxes float32 [..., 4] from a network's deltas [..., 4]; growth is bounded."""
  deltas = deltas.astype(jnp.float32) / _row(weights, deltas)
  from_centre, from_sides = _centre_and_sides(reference)
  centre = from_centre + deltas[..., :2] * from_sides
  half = jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_SCALE)) * from_sides / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def _centre_and_sides(boxes: Array) -> tuple[Array, Array]:
  sides = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + sides / 2, jnp.maximum(sides, 1e-3)


def _row(values: tuple[float, ...], boxes: Array) -> Array:
  return jnp.array(values, jnp.float32).reshape((1,) * (boxes.ndim - 1) + (4,))
