"""Object detection by one-to-one matching: F1, precision, recall, accuracy and panoptic quality.

As StarDist reports nuclei (Schmidt et al., arXiv:1806.03535, section 3.2; Caicedo et al., Nature Methods
2019): a true and a predicted object match if their IoU reaches a threshold; counts are summed over all
images before dividing. Panoptic quality: Kirillov et al., arXiv:1801.00868.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from jaxseg.metrics import seg
from jaxseg.metrics.score import Example, Prediction, Result, Sums

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Score(Sums):
  """At IoU 0.5, and in `by_iou` at each of THRESHOLDS; classes are not distinguished.

  Predicted objects are the prediction's 'ids', or else the connected components of class 1 and above.
  """

  def __init__(self, class_names: Sequence[str]):
    del class_names
    super().__init__(**{str(threshold): np.zeros(4) for threshold in THRESHOLDS})

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    iou = _iou(*seg.objects(example, prediction, 'matching'))
    return {str(threshold): np.array(counts(iou, threshold)) for threshold in THRESHOLDS}

  def compute(self) -> Result:
    """Returns f1, precision, recall, accuracy_of_objects and panoptic_quality, each None without objects."""
    rows = {threshold: _ratios(*sums) for threshold, sums in self.sums.items()}
    return {**rows[str(THRESHOLDS[0])], 'by_iou': rows}


def counts(iou: np.ndarray, threshold: float) -> tuple[int, int, int, float]:
  """Matches one image's objects: the largest number of matches, and among these the highest total IoU.

  Args:
    iou: [n, m], of n true and m predicted objects.
    threshold: smallest IoU of a match.

  Returns:
    True positives, false positives, false negatives, and the matches' total IoU.
  """
  matches = iou >= threshold
  # All IoUs together weigh less than one match.
  pairs = scipy.optimize.linear_sum_assignment(
    matches + iou / (2 * max(1, *iou.shape)), maximize=True
  )
  matched = iou[pairs][matches[pairs]]
  return len(matched), iou.shape[1] - len(matched), iou.shape[0] - len(matched), matched.sum()


def _iou(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
  shared, sizes, predicted_sizes = seg.overlaps(truth, prediction)
  return shared / (sizes[:, None] + predicted_sizes - shared)


def _ratios(matched: float, spurious: float, missed: float, iou: float) -> dict[str, float | None]:
  def share(value: float, of: float) -> float | None:
    return float(value / of) if of else None

  both = matched + (spurious + missed) / 2
  return {
    'f1': share(matched, both),
    'precision': share(matched, matched + spurious),
    'recall': share(matched, matched + missed),
    'accuracy_of_objects': share(matched, matched + spurious + missed),
    'panoptic_quality': share(iou, both),
  }
