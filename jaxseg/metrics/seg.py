"""SEG of the Cell Tracking Challenge: how well separate objects are found.

Maska et al., A benchmark for comparison of cell tracking algorithms, Bioinformatics 2014. The
U-Net paper (arXiv:1505.04597) calls it "IOU".
"""

from typing import Any

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Mean, Prediction
from jaxseg.types import UserError


class Score(Mean):
  """The mean over the true objects of all images.

  Predicted objects are those that the prediction numbers ('ids'), else the connected components of
  class 1 and above.
  """

  name = 'seg'

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    total, count = seg_score(*objects(example, prediction, self.name))
    return {'total': total, 'count': count}


def objects(example: Example, prediction: Prediction, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the true and the predicted objects, integers [h, w], 0 for background."""
  if 'instances' not in example:
    raise UserError(
      f'the score {score} needs data that number their objects, as ctc and dsb2018 do: leave it out'
    )
  ids = prediction['ids'] if 'ids' in prediction else components(prediction['mask'] > 0)
  return example['instances'], ids


def components(mask: np.ndarray) -> np.ndarray:
  """Numbers the connected components of bool [h, w] from 1; pixels that touch at a corner belong together."""
  return scipy.ndimage.label(mask, structure=np.ones((3, 3)))[0]


def seg_score(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, int]:
  """SEG of one image, by integers [h, w], a number an object and 0 for background.

  A true object R is matched with the predicted S that covers more than half of it, |R & S| > |R| /
  2 (there is at most one); it counts its Jaccard index |R & S| / |R | S|, or 0 unmatched. Objects
  predicted for nothing cost nothing.

  Returns:
    The sum over true objects, and how many there are: add both over images, divide once.
  """
  shared, sizes, found = overlaps(truth, prediction)
  matched = 2 * shared > sizes[:, None]
  jaccard = shared / (sizes[:, None] + found - shared)
  return float(jaccard[matched].sum()), len(sizes)


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns the pixels that each true object [n] shares with each predicted [m], and those of each.

  Args:
    truth, prediction: integers [h, w], a number an object and 0 for background.

  Returns:
    Integers [n, m], [n] and [m], by rising number.
  """
  if truth.shape != prediction.shape:
    raise UserError(f'truth {truth.shape} and prediction {prediction.shape} must be of one shape')
  numbers, rows = np.unique(truth, return_inverse=True)
  predicted, columns = np.unique(prediction, return_inverse=True)
  shape = len(numbers), len(predicted)
  pairs = np.ravel_multi_index((rows.ravel(), columns.ravel()), shape)
  shared = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
  true, found = numbers != 0, predicted != 0
  return shared[np.ix_(true, found)], shared.sum(axis=1)[true], shared.sum(axis=0)[found]
