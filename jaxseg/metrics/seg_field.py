"""SEG for U373, without small predicted objects and without objects at the border.

The Cell Tracking Challenge defines a field of interest for PhC-C2DH-U373, the frame without a strip of
50 pixels: true and predicted objects without a pixel in it are ignored, all others count in full. The
U-Net authors' script for this set also drops predicted components below 50 pixels.
"""

from typing import Any

import numpy as np

from jaxseg.metrics import seg
from jaxseg.metrics.score import Example, Prediction

_STRIP, _LEAST = 50, 50  # pixels of length, and of area


class Score(seg.Score):
  """The mean over the true objects of all images that reach into the field."""

  name = 'seg_field'

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    truth, ids = seg.objects(example, prediction, self.name)
    kept = in_field(without_small(ids, _LEAST), _STRIP)
    total, count = seg.seg_score(in_field(truth, _STRIP), kept)
    return {'total': total, 'count': count}


def without_small(ids: np.ndarray, least: int) -> np.ndarray:
  """Returns ids [h, w] without objects of fewer than `least` pixels."""
  numbers, counts = np.unique(ids, return_counts=True)
  return np.where(np.isin(ids, numbers[counts >= least]), ids, 0)


def in_field(ids: np.ndarray, strip: int) -> np.ndarray:
  """Returns ids [h, w] without objects that lie entirely in a border strip of this width."""
  return np.where(np.isin(ids, ids[strip:-strip, strip:-strip]), ids, 0)
