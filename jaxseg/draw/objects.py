"""Pictures of objects, each in another colour."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from jaxseg.draw.labels import Color, as_rgb, faint

MISSED_COLOR, FALSE_COLOR = (230, 40, 40), (50, 120, 255)
_MATCH = 0.5  # IoU from which a true and a predicted object match


def pictures(example: Mapping[str, Any], ids: np.ndarray | None) -> dict[str, np.ndarray]:
  """Returns 'image', 'truth' and, with a prediction, 'prediction' and 'errors', each uint8 [h, w, 3].

  Args:
    example: with 'image' and optionally 'instances' and 'crowd'.
    ids: predicted objects, see `overlay`.
  """
  image = example['image']
  truth = example.get('instances', np.zeros(image.shape[:2], np.uint16))
  shown = {'image': as_rgb(image), 'truth': overlay(image, truth)}
  if ids is None:
    return shown
  errors = error_map(image, truth, ids, np.flatnonzero(example.get('crowd', ())) + 1)
  return {**shown, 'prediction': overlay(image, ids), 'errors': errors}


def error_map(
  image: np.ndarray, truth: np.ndarray, ids: np.ndarray, crowds: Sequence[int] = ()
) -> np.ndarray:
  """Draws missed and falsely predicted objects on the faint image.

  Args:
    image: see `overlay`.
    truth: true objects, integers [h, w] or [h, w, layers].
    ids: predicted objects, integers [h, w]; correct if the IoU with a true one is at least 0.5.
    crowds: ids of true crowd regions, in which nothing counts as missed or false.
  """
  shown = faint(image)
  layers = np.moveaxis(np.atleast_3d(truth), -1, 0)
  matched: set[int] = set()
  for layer in layers:
    pairs = _matches(layer, ids)
    matched |= {predicted for _, predicted in pairs}
    known = [0, *crowds, *(true for true, _ in pairs)]
    shown[~np.isin(layer, known)] = MISSED_COLOR
  crowded = np.isin(layers, crowds).any(axis=0)
  for number in np.setdiff1d(ids, [0, *matched]):
    region = ids == number
    if 2 * np.count_nonzero(region & crowded) <= np.count_nonzero(region):
      shown[region] = FALSE_COLOR
  return shown


def legend() -> list[tuple[str, Color]]:
  """Returns names and colours of the errors."""
  return [('missed', MISSED_COLOR), ('false', FALSE_COLOR)]


def _matches(truth: np.ndarray, ids: np.ndarray) -> list[tuple[int, int]]:
  """Returns pairs of ids of true and predicted objects [h, w] with an IoU of at least 0.5."""
  both = (truth > 0) & (ids > 0)
  pairs, shared = np.unique(np.stack([truth[both], ids[both]]), axis=1, return_counts=True)
  sizes = np.bincount(truth.ravel())[pairs[0]] + np.bincount(ids.ravel())[pairs[1]] - shared
  return [tuple(pair) for pair in pairs.T[shared >= _MATCH * sizes].tolist()]


def overlay(image: np.ndarray, instances: np.ndarray, alpha: float = 0.5) -> np.ndarray:
  """Tints every object in another colour, with an opaque outline.

  Args:
    image: [h, w] or [h, w, c] of any dtype.
    instances: integers [h, w] or [h, w, layers], 0 for none; later layers are drawn on top.
    alpha: opacity inside.

  Returns:
    uint8 [h, w, 3].
  """
  shown = as_rgb(image).astype(np.float32)
  for ids in np.moveaxis(np.atleast_3d(instances), -1, 0):
    colors = colors_of(int(ids.max(initial=0)))[ids]
    opacity = np.where(_outlines(ids), 1.0, alpha)[..., None].astype(np.float32)
    shown = np.where(ids[..., None] > 0, (1 - opacity) * shown + opacity * colors, shown)
  return np.rint(shown).astype(np.uint8)


def colors_of(count: int) -> np.ndarray:
  """Returns uint8 [count + 1, 3], black and then hues spaced by the golden ratio."""
  hues = (np.arange(count) * 0.618034 + 0.05) % 1.0
  colors = [colorsys.hsv_to_rgb(hue, 0.75 + 0.25 * (i % 2), 1.0) for i, hue in enumerate(hues)]
  return np.rint(255 * np.array([(0, 0, 0), *colors])).astype(np.uint8)


def save_numbers(file: BinaryIO, numbers: np.ndarray) -> None:
  """Writes uint16 [h, w] as a 16-bit grey PNG."""
  Image.fromarray(np.ascontiguousarray(numbers, np.uint16)).save(file, format='PNG')


def _outlines(ids: np.ndarray) -> np.ndarray:
  """Marks the pixels [h, w] with a 4-neighbour of another id."""
  around = np.pad(ids, 1, mode='edge')
  neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
  return np.any([n != ids for n in neighbours], axis=0)
