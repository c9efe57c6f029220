"""The confusion matrix counted by hand, its four numbers as fractions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.metrics import confusion
from jaxseg.types import VOID, UserError

# Class 2 is predicted twice and never true, class 3 is neither.
MATRIX = np.array([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int64)
COUNTS = [
  confusion.confusion_matrix,
  lambda *args: confusion._count_by_product(*args[:2], num_classes=args[2]),
]


def test_counts_pairs_and_skips_void_strange_labels_and_strange_predictions():
  label = np.array([[0, 0, 1], [1, 2, VOID]], np.uint8)
  prediction = np.array([[0, 1, 1], [1, 0, 2]], np.int32)
  expected = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
  counted = jax.jit(confusion.confusion_matrix, static_argnums=2)
  matrix = counted(label, prediction, 3)
  assert matrix.dtype == jnp.int32
  np.testing.assert_array_equal(matrix, expected)
  more = np.concatenate([label.astype(np.int32), [[-1, 3, 0]]])
  odd = np.concatenate([prediction, [[0, 0, 3]]])
  np.testing.assert_array_equal(counted(more[None], odd[None], 3), expected)


def test_both_ways_of_counting_agree_also_on_a_mesh():
  rng = np.random.default_rng(0)
  label = rng.integers(0, 6, (4, 8, 6)).astype(np.int32)
  prediction = rng.integers(0, 5, (4, 8, 6)).astype(np.int32)
  expected = np.zeros((5, 5), np.int64)
  for true, chosen in zip(label.ravel(), prediction.ravel(), strict=True):
    if true < 5:
      expected[true, chosen] += 1
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ('data', 'spatial'))
  sharding = NamedSharding(mesh, PartitionSpec('data', 'spatial'))
  for count in COUNTS:
    count = jax.jit(count, static_argnums=2)
    np.testing.assert_array_equal(count(label, prediction, 5), expected)
    shards = jax.device_put((label, prediction), sharding)
    np.testing.assert_array_equal(count(*shards, 5), expected)


def test_four_numbers_by_hand_skipping_the_absent():
  scores = confusion.summarize(MATRIX)
  np.testing.assert_allclose(scores['pixel_accuracy'], 5 / 8)
  np.testing.assert_allclose(scores['mean_accuracy'], (3 / 4 + 2 / 4) / 2)
  np.testing.assert_allclose(scores['mean_iou'], (3 / 4 + 2 / 5 + 0) / 3)
  np.testing.assert_allclose(scores['frequency_weighted_iou'], (4 * 3 / 4 + 4 * 2 / 5) / 8)
  np.testing.assert_array_equal(scores['per_class_accuracy'], [3 / 4, 1 / 2, np.nan, np.nan])
  np.testing.assert_array_equal(scores['per_class_iou'], [3 / 4, 2 / 5, 0, np.nan])
  assert type(scores['mean_iou']) is float


def test_four_numbers_by_hand_with_the_absent_at_zero():
  scores = confusion.summarize(MATRIX, absent='zero')
  np.testing.assert_allclose(scores['pixel_accuracy'], 5 / 8)
  np.testing.assert_allclose(scores['mean_accuracy'], (3 / 4 + 2 / 4) / 4)
  np.testing.assert_allclose(scores['mean_iou'], (3 / 4 + 2 / 5) / 4)
  np.testing.assert_allclose(scores['frequency_weighted_iou'], (4 * 3 / 4 + 4 * 2 / 5) / 8)
  assert np.isnan(scores['per_class_iou'][3])


def test_nothing_counted_is_nan():
  for absent in confusion.ABSENT:
    scores = confusion.summarize(np.zeros((2, 2), np.int64), absent=absent)
    assert np.isnan([scores[key] for key in scores if not key.startswith('per_class')]).all()


def test_f_score_by_hand():
  matrix = np.array([[6, 2], [4, 8]])  # class 0: precision 6/10, recall 6/8
  np.testing.assert_allclose(confusion.f_score(matrix, 0), 2 * 0.6 * 0.75 / (0.6 + 0.75))
  np.testing.assert_allclose(
    confusion.f_score(matrix, 0, 0.5), 1.25 * 0.6 * 0.75 / (0.25 * 0.6 + 0.75)
  )
  np.testing.assert_allclose(confusion.f_score(matrix, 0, 2), 5 * 0.6 * 0.75 / (4 * 0.6 + 0.75))
  assert confusion.f_score(np.array([[0, 3], [0, 1]]), 0, 2) == 0
  assert np.isnan(confusion.f_score(np.array([[0, 0], [0, 1]]), 0, 2))


def test_wrong_arguments_are_named():
  with pytest.raises(UserError, match="'never'; use one of skip, zero"):
    confusion.summarize(MATRIX, absent='never')
  with pytest.raises(UserError, match='square'):
    confusion.summarize(MATRIX[:2])
