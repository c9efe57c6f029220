"""Breaks errors down by the true object's size, and by distance to outlines and to the image border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jaxseg.data.geometry import edges
from jaxseg.metrics.score import Example, Prediction, Result, Sums
from jaxseg.types import VOID

EDGES = (2, 4, 8, 16, 32, 64, 128)  # pixels; upper bounds of all rows of the tables but the last
ROWS = ('to 2 px', *(f'{a} to {2 * a} px' for a in EDGES[:-1]), f'above {EDGES[-1]} px')


class Score(Sums):
  """Three tables with a row for each range of pixels; void is ignored.

  Objects are the data's instances, or else the 8-connected components of each class; an object's size is
  the square root of its area. Outlines separate pixels of different labels; in an image without any,
  all pixels are far from one.
  """

  def __init__(self, class_names: Sequence[str]):
    del class_names
    counts = np.zeros((2, len(ROWS)), np.int64)
    sizes = np.zeros((4, len(ROWS)), np.int64)
    super().__init__(object_size=sizes, outline_distance=counts, border_distance=counts)

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    label = np.asarray(example['label'])
    correct, valid = prediction['mask'] == label, label != VOID
    numbers = [np.where(valid, n, 0) for n in objects_of(example)]  # crowds are void
    return {
      'object_size': np.sum([_sizes(n, correct) for n in numbers], axis=0, dtype=np.int64),
      'outline_distance': _pixels(outline_distance(label)[valid], correct[valid]),
      'border_distance': _pixels(border_distance(label.shape)[valid], correct[valid]),
    }

  def compute(self) -> Result:
    """Returns by_object_size: objects, the fraction found (more than half of its pixels correct), pixel
    accuracy; by_outline_distance and by_border_distance: share of pixels, share of errors, accuracy."""
    rows = zip(ROWS, self.sums['object_size'].T.tolist(), strict=True)
    return {
      'by_object_size': {
        row: {'objects': objects, 'found': hits / objects, 'accuracy': correct / pixels}
        for row, (objects, hits, pixels, correct) in rows
        if objects
      },
      **{f'by_{name}': self._shares(name) for name in ('outline_distance', 'border_distance')},
    }

  def _shares(self, name: str) -> dict[str, dict[str, float]]:
    pixels, correct = self.sums[name].tolist()
    total, errors = sum(pixels), sum(pixels) - sum(correct)
    return {
      row: {
        'share of pixels': n / total,
        'share of errors': (n - good) / max(errors, 1),
        'accuracy': good / n,
      }
      for row, n, good in zip(ROWS, pixels, correct, strict=True)
      if n
    }


def objects_of(example: Example) -> list[np.ndarray]:
  """Returns id maps [h, w]; each numbers its objects from 1, and each object is in one map."""
  if 'instances' in example:
    return list(np.moveaxis(np.atleast_3d(example['instances']), -1, 0))
  label = np.asarray(example['label'])
  classes = [k for k in np.unique(label) if k != VOID]
  return [
    cv2.connectedComponents((label == k).astype(np.uint8), connectivity=8)[1] for k in classes
  ]


def outline_distance(label: np.ndarray) -> np.ndarray:
  """Returns float32 [h, w]: 1 next to another label (4-neighbours), 2 one pixel further in."""
  inside = ~edges(label)
  return 1 + cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def border_distance(size: tuple[int, int]) -> np.ndarray:
  """Returns int64 [h, w]: 1 in the image's outermost pixels."""
  rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1 for n in size)
  return np.minimum(rows[:, None], columns)


def _pixels(distance: np.ndarray, correct: np.ndarray) -> np.ndarray:
  rows = np.searchsorted(EDGES, distance)
  return np.stack([np.bincount(r, minlength=len(ROWS)) for r in (rows, rows[correct])])


def _sizes(numbers: np.ndarray, correct: np.ndarray) -> np.ndarray:
  """Returns int64 [4, rows]: objects, found objects, pixels and correct pixels."""
  pixels = np.bincount(numbers.ravel())[1:]
  good = np.bincount(numbers[correct], minlength=len(pixels) + 1)[1:]
  used = pixels > 0
  pixels, good = pixels[used], good[used]
  rows = np.searchsorted(EDGES, np.sqrt(pixels))
  sums = [np.bincount(rows, w, len(ROWS)) for w in (None, 2 * good > pixels, pixels, good)]
  return np.stack(sums).astype(np.int64)
