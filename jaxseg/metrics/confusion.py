"""The confusion matrix of a dataset and the FCN paper's four numbers (arXiv:1411.4038, section 5).

n_ij counts the pixels of true class i predicted as j; t_i = sum_j n_ij. Add matrices over batches
and devices and summarise once: the mean of per-batch IoUs is another quantity.
"""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import VOID, Array, UserError

ABSENT = ('skip', 'zero')


def confusion_matrix(label: Array, prediction: Array, num_classes: int) -> Array:
  """Counts (true class, predicted class) pairs on the device.

  Args:
    label: integers [h, w] or [b, h, w]; VOID and all else outside [0, num_classes) is not counted.
    prediction: integers, the same shape; pixels predicted outside [0, num_classes) are not counted.
    num_classes: c.

  Returns:
    int32 [c, c], rows truth, columns prediction. Exact: a sum over more than 2^31 pixels needs
    int64, so add the matrices of many batches in numpy.
  """
  chex.assert_rank(label, {2, 3})
  chex.assert_equal_shape((label, prediction))
  chex.assert_type((label, prediction), int)
  label, prediction = label.astype(jnp.int32), prediction.astype(jnp.int32)
  counted = (label != VOID) & (label >= 0) & (label < num_classes)
  counted &= (prediction >= 0) & (prediction < num_classes)
  label = jnp.where(counted, label, num_classes)
  by_scatter = partial(_count_by_scatter, num_classes=num_classes)
  by_product = partial(_count_by_product, num_classes=num_classes)
  # A CPU adds into a table at 1 ns a pixel and takes 20 to 1000 times longer to multiply one-hot
  # matrices. On an accelerator, adds that collide wait for each other, and few cells collide a lot.
  return jax.lax.platform_dependent(label, prediction, cpu=by_scatter, default=by_product)


def summarize(matrix: np.ndarray, *, absent: str = 'skip') -> dict:
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
    pixel was counted; per_class_accuracy, per_class_iou: float64 [c], nan where the class is
    absent.
  """
  if absent not in ABSENT:
    raise UserError(f'absent is {absent!r}; use one of {", ".join(ABSENT)}')
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
    'per_class_accuracy': accuracy,
    'per_class_iou': iou,
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


def _count_by_scatter(label: Array, prediction: Array, *, num_classes: int) -> Array:
  cell = jnp.where(label < num_classes, label * num_classes + prediction, num_classes**2)
  table = jnp.bincount(cell.reshape(-1), length=num_classes**2 + 1)[:-1]
  return table.astype(jnp.int32).reshape(num_classes, num_classes)


def _count_by_product(label: Array, prediction: Array, *, num_classes: int) -> Array:
  """One product an image: float32 accumulators are exact up to 2^24 pixels."""
  shape = (-1, *label.shape[-2:])
  channel = jnp.arange(num_classes, dtype=jnp.int32)[None, None, None]
  truth = (label.reshape(shape)[..., None] == channel).astype(jnp.bfloat16)
  chosen = (prediction.reshape(shape)[..., None] == channel).astype(jnp.bfloat16)
  table = jnp.einsum('bhwi,bhwj->bij', truth, chosen, preferred_element_type=jnp.float32)
  return jnp.sum(table.astype(jnp.int32), axis=0)


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
