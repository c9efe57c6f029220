"""Scores of separate objects: SEG of the Cell Tracking Challenge.

Maska et al., A benchmark for comparison of cell tracking algorithms, Bioinformatics 2014. The
U-Net paper (arXiv:1505.04597) calls it "IOU".
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from jaxseg.types import UserError


def components(mask: np.ndarray, *, diagonal: bool = True) -> np.ndarray:
  """Numbers the connected components of a mask.

  Args:
    mask: bool [h, w].
    diagonal: whether pixels that touch at a corner belong together.

  Returns:
    int32 [h, w], components from 1, 0 elsewhere.
  """
  return ndimage.label(mask, structure=np.ones((3, 3)) if diagonal else None)[0]


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
  names, rows = np.unique(truth, return_inverse=True)
  found, columns = np.unique(prediction, return_inverse=True)
  table = np.bincount(
    rows.reshape(-1) * len(found) + columns.reshape(-1), minlength=len(names) * len(found)
  ).reshape(len(names), len(found))
  real, claimed = names != 0, found != 0
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
