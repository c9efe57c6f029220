"""Masks of a few cells inside boxes: cut from a map of instances for training, pasted for results."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array

_SAMPLES = 2  # points along a side of a cell


def crop(instances: Array, ids: Array, boxes: Array, size: int) -> Array:
  """Cuts the objects out of an image's map, as seen through boxes (arXiv:1703.06870, section 3.1).

  Args:
    instances: integers [h, w, layers], an object's id where it is.
    ids: integers [n], the object that each box looks for; 0 finds nothing.
    boxes: float32 [n, 4].
    size: cells along a side.

  Returns:
    bool [n, size, size]: whether the object covers at least half of a cell, by bilinear interpolation
    (pixels are areas) at 2 x 2 points of it.
  """
  height, width, _ = instances.shape
  rows = _neighbours(boxes[:, 1], boxes[:, 3], size, height)
  columns = _neighbours(boxes[:, 0], boxes[:, 2], size, width)
  wanted = ids.astype(jnp.int32).reshape(-1, 1, 1, 1)
  cover = 0.0
  for row, row_weight in rows:
    for column, column_weight in columns:
      pixels = instances[row[:, :, None], column[:, None]].astype(jnp.int32)
      hit = jnp.any((pixels == wanted) & (wanted > 0), axis=-1)
      cover += hit * row_weight[:, :, None] * column_weight[:, None]
  cells = cover.reshape(-1, size, _SAMPLES, size, _SAMPLES).mean(axis=(2, 4))
  return cells >= 0.5


def _neighbours(start: Array, end: Array, size: int, length: int) -> list[tuple[Array, Array]]:
  """Returns the two pixels beside each of size * 2 points [n, size * 2], and their weights."""
  share = (jnp.arange(size * _SAMPLES, dtype=jnp.float32) + 0.5) / (size * _SAMPLES)
  points = start[:, None] + (end - start)[:, None] * share[None] - 0.5
  points = jnp.clip(points, 0, length - 1)
  low = jnp.floor(points).astype(jnp.int32)
  weight = points - low
  return [(low, 1 - weight), (jnp.minimum(low + 1, length - 1), weight)]


def paste(
  masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> list[tuple[int, int, np.ndarray]]:
  """Puts masks back into their image, bilinearly; NumPy, for the host.

  A pixel belongs to the object where the mask, interpolated at the pixel's centre, is at least 0.5;
  outside of the mask's cells it fades to zero.

  Args:
    masks: float [n, m, m], probabilities.
    boxes: float [n, 4], where they belong; what is outside of the image is cut off.
    size: (height, width) of the image.

  Returns:
    Of each the row and the column of its first pixel, and its pixels, bool [h, w].
  """
  masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float64)
  pasted = []
  for mask, box in zip(masks, boxes, strict=True):
    if min(box[2:] - box[:2]) <= 0:
      pasted.append((0, 0, np.zeros((0, 0), bool)))
      continue
    (top, rows), (left, columns) = (
      _weights(box[axis], box[axis + 2], mask.shape[1 - axis], size[1 - axis]) for axis in (1, 0)
    )
    pasted.append((top, left, rows @ mask @ columns.T >= 0.5))
  return pasted


def _weights(start: float, end: float, cells: int, length: int) -> tuple[int, np.ndarray]:
  """Returns the first pixel that a side of a box touches, and [pixels, cells] weights."""
  first, last = max(int(np.floor(start)), 0), min(int(np.ceil(end)), length)
  pixels = np.arange(first, max(last, first)) + 0.5
  points = (pixels - start) / (end - start) * cells - 0.5
  weights = np.maximum(0, 1 - np.abs(points[:, None] - np.arange(cells)))
  return first, weights.astype(np.float32)
