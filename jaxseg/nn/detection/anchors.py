"""Anchors: boxes of fixed shapes around every cell of a feature map (arXiv:1506.01497, 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def make_anchors(
  map_size: tuple[int, int],
  stride: int,
  size: float,
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  *,
  offset: float = 0.0,
  rounded: bool = False,
) -> np.ndarray:
  """Returns the anchors of one level, float32 [h * w * len(ratios), 4], in pixels of the image.

  They are in the order of a map [h, w, len(ratios)], which the network's outputs have as well.

  Args:
    map_size: (h, w) of the level's feature map.
    stride: image pixels between two cells.
    size: square root of an anchor's area.
    ratios: height over width.
    offset: centre of the first cell's anchors, in strides: 0 as in Detectron2 and torchvision, 0.5
      in the middle of the cell's pixels.
    rounded: corners rounded to whole pixels around the centre, as torchvision's are.
  """
  root = np.sqrt(np.asarray(ratios, np.float64))
  half = np.stack([size / root, size * root], axis=-1) / 2  # width, height
  shapes = np.concatenate([-half, half], axis=-1)
  shapes = np.round(shapes) if rounded else shapes
  y, x = (stride * (np.arange(n) + offset) for n in map_size)
  grid_x, grid_y = np.meshgrid(x, y)
  centres = np.stack([grid_x, grid_y, grid_x, grid_y], axis=-1)
  anchors = centres[:, :, None] + shapes
  return anchors.reshape(-1, 4).astype(np.float32)
