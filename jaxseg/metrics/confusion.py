"""The confusion matrix of a data set and the FCN paper's four numbers (arXiv:1411.4038, section 5).

n_ij counts the pixels of true class i predicted as j; t_i = sum_j n_ij. Matrices are summed over
images before computing scores: the mean of per-image IoUs is another quantity.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from jaxseg.metrics.score import Example, Prediction, Result, Sums
from jaxseg.types import VOID, UserError

Absent = Literal['skip', 'zero']


class Score(Sums):
  """The four numbers, those of each class, and F-measures of chosen classes.

  Args:
    class_names: in the order of the labels.
    absent: how means treat a class whose denominator is 0. 'skip': excluded (the FCN paper's script,
      nanmean). 'zero': counts as 0 (the SegNet script). A class that is predicted but never true has
      IoU 0 in both cases; its accuracy depends on `absent`.
    f_scores: class -> beta of its F-measure, see `f_score`.

  Raises:
    UserError: an unknown class, or a beta that is not above 0.
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
    if absent not in get_args(Absent):
      raise UserError(f'absent is {absent!r}; use one of {", ".join(get_args(Absent))}')
    for name, beta in self._betas.items():
      where = f'config.eval.score.f_scores.{name}'
      if name not in self._names:
        raise UserError(f'{where}: no such class; the classes are {", ".join(self._names)}')
      if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not beta > 0:
        raise UserError(f'{where}={beta!r}: beta is a number above 0')

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    return {'confusion': count(example['label'], prediction['mask'], len(self._names))}

  def compute(self) -> Result:
    """Returns the four numbers, nan if no pixel was counted, per-class values, and the matrix.

    pixel_accuracy = sum_i n_ii / sum_i t_i; mean_accuracy = mean_i n_ii / t_i;
    mean_iou = mean_i n_ii / (t_i + sum_j n_ji - n_ii);
    frequency_weighted_iou = sum_i t_i IoU_i / sum_i t_i. With f_scores, f_score is the mean over the
    chosen classes that occur, beside per_class_f_score.
    """
    matrix = self.sums['confusion']
    correct, truth, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    accuracy, iou = _ratio(correct, truth), _ratio(correct, truth + predicted - correct)
    result = {
      'pixel_accuracy': float(_ratio(correct.sum(), truth.sum())),
      'mean_accuracy': self._mean(accuracy),
      'mean_iou': self._mean(iou),
      'frequency_weighted_iou': float(_ratio(np.sum(truth * np.nan_to_num(iou)), truth.sum())),
      'per_class_iou': _by_name(self._names, iou),
      'per_class_accuracy': _by_name(self._names, accuracy),
    }
    if self._betas:
      values = {k: f_score(matrix, self._names.index(k), beta) for k, beta in self._betas.items()}
      names = (f'{name} (beta {beta:g})' for name, beta in self._betas.items())
      per_class = _by_name(names, values.values())
      present = [value for value in per_class.values() if value is not None]
      result['f_score'] = float(np.mean(present)) if present else None
      result['per_class_f_score'] = per_class
    return {**result, 'confusion': matrix.tolist()}

  def _mean(self, values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    if not present.size:
      return float('nan')
    return float((present if self._absent == 'skip' else np.nan_to_num(values)).mean())


def count(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts (true class, predicted class) pairs of integers [h, w], int64 [c, c], rows truth.

  Raises:
    UserError: labels that are neither a class nor VOID (ignored).
  """
  pairs = np.asarray(label, np.int64) * num_classes + prediction
  counts = np.bincount(pairs.ravel(), minlength=(VOID + 1) * num_classes)
  matrix = counts[: num_classes**2].reshape(num_classes, num_classes)
  void = counts[VOID * num_classes : (VOID + 1) * num_classes]
  invalid = pairs.size - matrix.sum() - void.sum()
  if invalid:
    raise UserError(f'{invalid} pixels carry labels outside the {num_classes} classes')
  return matrix


def f_score(matrix: np.ndarray, class_index: int, beta: float = 1.0) -> float:
  """F-measure of one class: (1 + beta^2) P R / (beta^2 P + R).

  P = n_cc / sum_j n_jc is precision, R = n_cc / t_c is recall; beta above 1 favours recall.
  The Lyft-Udacity challenge is the mean of road at beta 0.5 and vehicle at beta 2.

  Returns:
    A float in [0, 1]: 0 without a correct pixel, nan if the class is neither true nor predicted.
  """
  hit = matrix[class_index, class_index]
  truth, predicted = matrix[class_index].sum(), matrix[:, class_index].sum()
  return float(_ratio((1 + beta**2) * hit, beta**2 * truth + predicted))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides; 0 / 0 (an absent class) is nan."""
  with np.errstate(invalid='ignore'):
    return np.divide(numerator, denominator)


def _by_name(names: Iterable[str], values: Iterable[float]) -> dict[str, float | None]:
  return {n: None if np.isnan(v) else float(v) for n, v in zip(names, values, strict=True)}
