"""Pictures of objects, each in a colour of its own."""

import colorsys
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.draw.labels import as_rgb


def pictures(example: Mapping[str, Any], ids: np.ndarray | None) -> dict[str, np.ndarray]:
  """Returns 'image', 'truth' and of a prediction 'prediction', uint8 [h, w, 3] each.

  Args:
    example: with 'image' and perhaps 'instances'.
    ids: predicted objects, see `overlay`.
  """
  image = example['image']
  truth = example.get('instances', np.zeros(image.shape[:2], np.uint16))
  shown = {'image': as_rgb(image), 'truth': overlay(image, truth)}
  return shown if ids is None else {**shown, 'prediction': overlay(image, ids)}


def overlay(image: np.ndarray, instances: np.ndarray, alpha: float = 0.5) -> np.ndarray:
  """Tints every object in a colour of its own, its outline in full.

  Args:
    image: uint8 [h, w], [h, w, 1] or [h, w, 3].
    instances: integers [h, w] or [h, w, layers], 0 for none; later layers are drawn over.
    alpha: share of the colour inside.

  Returns:
    uint8 [h, w, 3].
  """
  shown = as_rgb(image).astype(np.float32)
  for ids in np.moveaxis(np.atleast_3d(instances), -1, 0):
    colors = colors_of(int(ids.max(initial=0)))[ids]
    share = np.where(_outlines(ids), 1.0, alpha)[..., None].astype(np.float32)
    shown = np.where(ids[..., None] > 0, (1 - share) * shown + share * colors, shown)
  return np.rint(shown).astype(np.uint8)


def colors_of(count: int) -> np.ndarray:
  """Returns uint8 [count + 1, 3], black and then hues a golden section apart."""
  hues = (np.arange(count) * 0.618034 + 0.05) % 1.0
  colors = [colorsys.hsv_to_rgb(hue, 0.75 + 0.25 * (i % 2), 1.0) for i, hue in enumerate(hues)]
  return np.rint(255 * np.array([(0, 0, 0), *colors])).astype(np.uint8)


def save_numbers(path: str | os.PathLike, numbers: np.ndarray) -> None:
  """Writes uint16 [h, w] as a grey PNG of 16 bits."""
  Image.fromarray(np.ascontiguousarray(numbers, np.uint16)).save(path, format='PNG')


def _outlines(ids: np.ndarray) -> np.ndarray:
  """Marks the pixels [h, w] whose neighbour above, below, left or right has another id."""
  around = np.pad(ids, 1, mode='edge')
  neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
  return np.any([n != ids for n in neighbours], axis=0)
