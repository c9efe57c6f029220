"""SEG of the Cell Tracking Challenge: how well separate objects are found.

Maska et al., A benchmark for comparison of cell tracking algorithms, Bioinformatics 2014. The
U-Net paper (arXiv:1505.04597) calls it "IOU".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from jaxseg.metrics.score import Result, Sums
from jaxseg.types import UserError


class Score(Sums):
  """The mean over the true objects of all images.

  Objects are those that the prediction numbers ('ids'), else the connected components of class 1 and
  above.
  """

  def __init__(self, class_names: Sequence[str]):
    del class_names
    super().__init__(total=0.0, count=0)

  def measure(self, example: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    if 'instances' not in example:
      raise UserError(
        'the score seg needs data that number their objects, as ctc and dsb2018 do: leave it out'
      )
    ids = prediction['ids'] if 'ids' in prediction else components(prediction['mask'] > 0)
    total, count = seg_score(example['instances'], ids)
    return {'total': total, 'count': count}

  def compute(self) -> Result:
    """Returns 'seg', None where there is no object."""
    return {'seg': self.sums['total'] / self.sums['count'] if self.sums['count'] else None}


def components(mask: np.ndarray) -> np.ndarray:
  """Numbers the connected components of a mask bool [h, w]; pixels that touch at a corner belong together.

  Returns:
    int32 [h, w], components from 1, 0 elsewhere.
  """
  return ndimage.label(mask, structure=np.ones((3, 3)))[0]


def overlaps(
  truth: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Counts the pixels that each true and each predicted object share.

  Args:
    truth: integers [h, w], a number an object, 0 background.
    prediction: integers [h, w], as `truth`.

  Returns:
    int64 [n, m] shared pixels, [n] and [m] sizes, n true and m predicted objects by rising number.
  """
  truth, prediction = np.asarray(truth), np.asarray(prediction)
  if truth.shape != prediction.shape:
    raise UserError(f'truth {truth.shape} and prediction {prediction.shape} must be of one shape')
  numbers, rows = np.unique(truth, return_inverse=True)
  predicted, columns = np.unique(prediction, return_inverse=True)
  shape = len(numbers), len(predicted)
  pairs = rows.reshape(-1) * shape[1] + columns.reshape(-1)
  table = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
  real, claimed = numbers != 0, predicted != 0
  return table[real][:, claimed], table.sum(axis=1)[real], table.sum(axis=0)[claimed]


def seg_score(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, int]:
  """SEG of one image: mean Jaccard index over true objects.

  A true object R is matched with the predicted S that covers more than half of it, |R & S| > |R| /
  2 (there is at most one); it counts |R & S| / |R | S|, or 0 unmatched. Objects predicted for
  nothing cost nothing.

  Args:
    truth: integers [h, w], a number an object, 0 background.
    prediction: integers [h, w], as `truth`.

  Returns:
    (sum of the Jaccard indices, number of true objects): add both over images, divide once.
  """
  shared, sizes, claimed = overlaps(truth, prediction)
  matched = 2 * shared > sizes[:, None]
  union = sizes[:, None] + claimed[None] - shared
  return float((shared / union)[matched].sum()), len(sizes)
