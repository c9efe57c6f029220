"""SEG as U373 is scored: small predicted objects are dropped, and objects of the border's strip left out.

The Cell Tracking Challenge gives PhC-C2DH-U373 a field of interest, the frame without a strip of 50
pixels: what has no pixel in it counts on neither side, what has one counts whole. The U-Net authors'
script for this set also drops predicted components below 50 pixels.
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
  """Returns ids [h, w] with those of fewer than `least` pixels as background."""
  numbers, counts = np.unique(ids, return_counts=True)
  return np.where(np.isin(ids, numbers[counts >= least]), ids, 0)


def in_field(ids: np.ndarray, strip: int) -> np.ndarray:
  """Returns ids [h, w] with those as background that lie in a strip of this width along the border."""
  return np.where(np.isin(ids, ids[strip:-strip, strip:-strip]), ids, 0)
