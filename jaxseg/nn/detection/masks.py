"""Low-resolution masks inside boxes: cropped from the ground truth for training, pasted for results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array


def crop(masks: Array, frames: Array, boxes: Array, size: int) -> Array:
  """Resamples objects' masks to boxes (arXiv:1703.06870, section 3.1).

  Args:
    masks: uint8 [n, m, m], the object's coverage of each cell of its frame, 255 is full.
    frames: float32 [n, 4], boxes of the masks; objects do not extend beyond them.
    boxes: float32 [n, 4], to crop to.
    size: cells along a side of the result.

  Returns:
    bool [n, size, size]: whether the object covers at least half of a cell, by bilinear interpolation,
    with averaging if the box's cells are wider than the frame's.
  """
  cells = masks.shape[-1]
  rows, columns = (
    _shares(boxes[:, i], boxes[:, i + 2], frames[:, i], frames[:, i + 2], size, cells)
    for i in (1, 0)
  )
  exact = dict(precision=jax.lax.Precision.HIGHEST)
  cover = jnp.einsum('nim,nmk,njk->nij', rows, masks.astype(jnp.float32), columns, **exact)
  return cover >= 127.5


def _shares(start: Array, end: Array, first: Array, last: Array, size: int, cells: int) -> Array:
  """Returns the weights of the frame's cells in the box's cells, [n, size, cells]."""
  unit = cells / jnp.maximum(last - first, 1e-3)
  step = (end - start) * unit / size  # of the box's cells, in the frame's
  points = ((start - first) * unit)[:, None] + step[:, None] * (jnp.arange(size) + 0.5)[None] - 0.5
  spread = jnp.maximum(step, 1.0)[:, None, None]
  distance = jnp.abs(points[:, :, None] - jnp.arange(cells, dtype=jnp.float32)[None, None])
  return jnp.maximum(0.0, 1 - distance / spread) / spread


def paste(
  masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> list[tuple[int, int, np.ndarray]]:
  """Pastes masks into their image bilinearly; NumPy, for the host.

  A pixel belongs to the object if the mask, interpolated at the pixel's centre, is at least 0.5; the
  mask fades to zero beyond its outer cells' centres.

  Args:
    masks: float [n, m, m], probabilities.
    boxes: float [n, 4], of the masks; clipped to the image.
    size: (height, width) of the image.

  Returns:
    For each mask the row and column of its first pixel, and its pixels, bool [h, w].
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
  """Returns the first pixel that a box touches along an axis, and weights [pixels, cells]."""
  first, last = max(int(np.floor(start)), 0), min(int(np.ceil(end)), length)
  pixels = np.arange(first, max(last, first)) + 0.5
  points = (pixels - start) / (end - start) * cells - 0.5
  weights = np.maximum(0, 1 - np.abs(points[:, None] - np.arange(cells)))
  return first, weights.astype(np.float32)
