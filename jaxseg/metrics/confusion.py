"""The confusion matrix of a data set and the FCN paper's four numbers (arXiv:1411.4038, section 5).

n_ij counts the pixels of true class i predicted as j; t_i = sum_j n_ij. Matrices are added up over
images and read once: the mean of the images' IoUs is another quantity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from jaxseg.metrics.score import Result, Sums
from jaxseg.types import VOID, UserError

Absent = Literal['skip', 'zero']


class Score(Sums):
  """The four numbers, those of each class, and F-measures of chosen classes.

  Args:
    class_names: in the order of the labels.
    absent: how the means count a class that never occurs, see `summarize`.
    f_scores: class -> beta of its F-measure, see `f_score`.

  Raises:
    UserError: a class that there is not, or a beta that is not above 0.
  """

  def __init__(
    self,
    class_names: Sequence[str],
    *,
    absent: Absent = 'skip',
    f_scores: Mapping[str, float] | None = None,
  ):
    self._names, self._absent, self._betas = tuple(class_names), absent, dict(f_scores or {})
    super().__init__(confusion=np.zeros((len(self._names),) * 2, np.int64))
    _check_choice(absent)
    for name, beta in self._betas.items():
      if name not in self._names:
        raise UserError(
          f'config.eval.score.f_scores.{name}: no such class; the classes are '
          f'{", ".join(self._names)}'
        )
      if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not beta > 0:
        raise UserError(f'config.eval.score.f_scores.{name}={beta!r}: beta is a number above 0')

  def measure(self, example: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    return {'confusion': count(example['label'], prediction['mask'], len(self._names))}

  def compute(self) -> Result:
    """Returns `summarize`'s numbers by class name and 'confusion', lists.

    Where classes were chosen, f_score is the mean over those that occur, beside per_class_f_score.
    """
    matrix = self.sums['confusion']
    result = summarize(matrix, absent=self._absent)
    for name in ('per_class_iou', 'per_class_accuracy'):
      result[name] = dict(zip(self._names, map(_or_none, result[name]), strict=True))
    if self._betas:
      values = [f_score(matrix, self._names.index(n), beta) for n, beta in self._betas.items()]
      result['f_score'] = _or_none(_mean_of_present(np.array(values)))
      names = [f'{name} (beta {beta:g})' for name, beta in self._betas.items()]
      result['per_class_f_score'] = dict(zip(names, map(_or_none, values), strict=True))
    return {**result, 'confusion': matrix.tolist()}


def count(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts (true class, predicted class) pairs, int64 [c, c], rows truth.

  Args:
    label: integers [h, w], classes or VOID, which is not counted.
    prediction: integers [h, w], classes.
    num_classes: c.

  Raises:
    UserError: labels that are neither a class nor VOID.
  """
  pairs = np.asarray(label, np.int64) * num_classes + prediction
  counts = np.bincount(pairs.ravel(), minlength=(VOID + 1) * num_classes)
  matrix = counts[: num_classes**2].reshape(num_classes, num_classes)
  void = counts[VOID * num_classes : (VOID + 1) * num_classes]
  invalid = pairs.size - matrix.sum() - void.sum()
  if invalid:
    raise UserError(f'{invalid} pixels carry labels outside the {num_classes} classes')
  return matrix


def summarize(matrix: np.ndarray, *, absent: Absent = 'skip') -> dict[str, Any]:
  """Turns a confusion matrix into the four numbers.

  pixel_accuracy = sum_i n_ii / sum_i t_i; mean_accuracy = mean_i n_ii / t_i;
  mean_iou = mean_i n_ii / (t_i + sum_j n_ji - n_ii);
  frequency_weighted_iou = sum_i t_i IoU_i / sum_i t_i.

  Args:
    matrix: integers [c, c], rows truth.
    absent: what a class counts whose denominator is 0. 'skip': nothing, the mean is over the others
      (the FCN paper's script, nanmean). 'zero': 0, the mean is over all c (the SegNet script). A
      class that is predicted but never true has IoU 0 under both; its accuracy is what `absent`
      says.

  Returns:
    pixel_accuracy, mean_accuracy, mean_iou, frequency_weighted_iou: floats in [0, 1], nan where no
    pixel was counted; per_class_iou, per_class_accuracy: float64 [c], nan where the class is absent.
  """
  _check_choice(absent)
  matrix = _check_matrix(matrix)
  correct, truth, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
  accuracy = _divide(correct, truth)
  iou = _divide(correct, truth + predicted - correct)
  total = truth.sum()
  mean = _mean_of_present if absent == 'skip' else _mean_of_all
  return {
    'pixel_accuracy': float(_divide(correct.sum(), total)),
    'mean_accuracy': mean(accuracy),
    'mean_iou': mean(iou),
    'frequency_weighted_iou': float(_divide(np.sum(truth * np.nan_to_num(iou)), total)),
    'per_class_iou': iou,
    'per_class_accuracy': accuracy,
  }


def f_score(matrix: np.ndarray, class_index: int, beta: float = 1.0) -> float:
  """F-measure of one class: (1 + beta^2) P R / (beta^2 P + R).

  P = n_cc / sum_j n_jc is precision, R = n_cc / t_c is recall. The Lyft-Udacity challenge is the
  mean of road at beta 0.5 and vehicle at beta 2.

  Args:
    matrix: integers [c, c], rows truth.
    class_index: which class.
    beta: above 1 recall counts more, below 1 precision.

  Returns:
    A float in [0, 1]: 0 where nothing is hit, nan where the class is neither true nor predicted.
  """
  matrix = _check_matrix(matrix)
  hit = matrix[class_index, class_index]
  truth, predicted = matrix[class_index].sum(), matrix[:, class_index].sum()
  return float(_divide((1 + beta**2) * hit, beta**2 * truth + predicted))


def _check_choice(absent: str) -> None:
  if absent not in get_args(Absent):
    raise UserError(f'absent is {absent!r}; use one of {", ".join(get_args(Absent))}')


def _check_matrix(matrix: np.ndarray) -> np.ndarray:
  matrix = np.asarray(matrix)
  if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
    raise UserError(f'a confusion matrix is square, got shape {matrix.shape}')
  return matrix.astype(np.float64)


def _divide(numerator, denominator) -> np.ndarray:
  numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
  return np.divide(
    numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
  )


def _mean_of_present(values: np.ndarray) -> float:
  present = values[~np.isnan(values)]
  return float(present.mean()) if present.size else float('nan')


def _mean_of_all(values: np.ndarray) -> float:
  return float('nan') if np.isnan(values).all() else float(np.nan_to_num(values).mean())


def _or_none(value: float) -> float | None:
  return None if np.isnan(value) else float(value)
