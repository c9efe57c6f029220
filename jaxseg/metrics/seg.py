"""SEG, the segmentation accuracy of objects in the Cell Tracking Challenge.

Maska et al., A benchmark for comparison of cell tracking algorithms, Bioinformatics 2014. The
U-Net paper (arXiv:1505.04597) calls it "IOU".
"""

from typing import Any

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Mean, Prediction
from jaxseg.types import VOID, UserError


class Score(Mean):
  """The mean over the true objects of all images.

  Predicted objects are the prediction's 'ids', or else the connected components of class 1 and above.
  """

  name = 'seg'

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    total, count = seg_score(*objects(example, prediction, self.name))
    return {'total': total, 'count': count}


def objects(example: Example, prediction: Prediction, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the true and the predicted object ids, integers [h, w], 0 for background and void.

  Raises:
    UserError: the data have no objects, or ones that overlap.
  """
  if 'instances' not in example:
    raise UserError(
      f'the score {score} needs data that number their objects, as ctc and dsb2018 do: leave it out'
    )
  ids = prediction['ids'] if 'ids' in prediction else components(prediction['mask'] > 0)
  layers = np.atleast_3d(example['instances'])
  if (np.count_nonzero(layers, axis=2) > 1).any():
    raise UserError(
      f'the score {score} takes a pixel for one object, but in these data objects overlap: leave it out'
    )
  return _without_void(layers.sum(axis=2), ids, np.asarray(example.get('label', 0)) == VOID)


def _without_void(truth: np.ndarray, ids: np.ndarray, void: np.ndarray) -> tuple[np.ndarray, ...]:
  """Removes void's pixels, and predicted objects that lie mostly in it and touch no true one (arXiv:1801.00868)."""
  if not void.any():
    return truth, ids
  truth, count = np.where(void, 0, truth), int(ids.max()) + 1
  sizes, inside, hits = (
    np.bincount(n, minlength=count) for n in (ids.ravel(), ids[void], ids[truth > 0])
  )
  unknown = (2 * inside > sizes) & (hits == 0)
  return truth, np.where(void | unknown[ids], 0, ids)


def components(mask: np.ndarray) -> np.ndarray:
  """Numbers the 8-connected components of bool [h, w] from 1."""
  return scipy.ndimage.label(mask, structure=np.ones((3, 3)))[0]


def seg_score(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, int]:
  """SEG of one image, from object ids, integers [h, w], 0 for background.

  A true object R is matched with the predicted S that covers more than half of it, |R & S| > |R| /
  2 (there is at most one); its score is the Jaccard index |R & S| / |R | S|, or 0 if unmatched. False
  positives are not penalised.

  Returns:
    The sum over true objects, and their number: sum both over images, then divide.
  """
  shared, sizes, predicted_sizes = overlaps(truth, prediction)
  matched = 2 * shared > sizes[:, None]
  jaccard = shared / (sizes[:, None] + predicted_sizes - shared)
  return float(jaccard[matched].sum()), len(sizes)


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns the intersections of n true and m predicted objects, and the sizes of both, in pixels.

  Args:
    truth, prediction: object ids, integers [h, w], 0 for background.

  Returns:
    Integers [n, m], [n] and [m], by ascending id.
  """
  if truth.shape != prediction.shape:
    raise UserError(f'truth {truth.shape} and prediction {prediction.shape} must be of one shape')
  numbers, rows = np.unique(truth, return_inverse=True)
  predicted, columns = np.unique(prediction, return_inverse=True)
  shape = len(numbers), len(predicted)
  pairs = np.ravel_multi_index((rows.ravel(), columns.ravel()), shape)
  shared = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
  true, predicted = numbers != 0, predicted != 0  # without background
  return shared[np.ix_(true, predicted)], shared.sum(axis=1)[true], shared.sum(axis=0)[predicted]
