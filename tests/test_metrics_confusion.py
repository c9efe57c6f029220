"""The confusion matrix counted by hand, its four numbers and F-measures as fractions."""

import numpy as np
import pytest

from jaxseg.metrics import confusion
from jaxseg.types import VOID, UserError

# Class 2 is predicted twice and never true, class 3 is neither.
MATRIX = np.array([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int64)
NAMES = ('a', 'b', 'c', 'd')


def score_of(*matrices, names=NAMES, **options):
  score = confusion.Score(names, **options)
  for matrix in matrices:
    pairs = [(i, j) for (i, j), n in np.ndenumerate(matrix) for _ in range(n)]
    label, mask = np.array(pairs, np.uint8).T[:, None]
    score.add({'label': label}, {'mask': mask})
  return score


def test_counts_pairs_and_skips_void():
  label = np.array([[0, 0, 1], [1, 2, VOID]], np.uint8)
  mask = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
  counts = confusion.count(label, mask, 3)
  np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 2, 0], [1, 0, 0]])
  assert counts.dtype == np.int64


def test_labels_that_are_no_class_are_refused():
  mask = np.zeros((1, 3), np.uint8)
  for label in ([[0, 4, 255]], np.array([[0, 254, 255]], np.uint8), [[0, 300, 255]]):
    with pytest.raises(UserError, match='1 pixels carry labels outside the 4 classes'):
      confusion.Score(NAMES).add({'label': np.asarray(label)}, {'mask': mask})


def test_counts_of_up_to_255_classes():
  label = np.array([[254, 0, VOID]], np.uint8)
  counts = confusion.count(label, np.array([[254, 254, 3]], np.uint8), 255)
  assert counts[254, 254] == counts[0, 254] == 1 and counts.sum() == 2


def test_result_by_class_name_over_two_images():
  result = score_of(MATRIX, MATRIX).compute()
  assert list(result) == [
    'pixel_accuracy',
    'mean_accuracy',
    'mean_iou',
    'frequency_weighted_iou',
    'per_class_iou',
    'per_class_accuracy',
    'confusion',
  ]
  assert result['per_class_iou'] == {'a': 3 / 4, 'b': 2 / 5, 'c': 0, 'd': None}
  assert result['per_class_accuracy'] == {'a': 3 / 4, 'b': 1 / 2, 'c': None, 'd': None}
  assert result['confusion'] == (2 * MATRIX).tolist()


def test_four_numbers_by_hand_skipping_the_absent():
  scores = score_of(MATRIX).compute()
  np.testing.assert_allclose(scores['pixel_accuracy'], 5 / 8)
  np.testing.assert_allclose(scores['mean_accuracy'], (3 / 4 + 2 / 4) / 2)
  np.testing.assert_allclose(scores['mean_iou'], (3 / 4 + 2 / 5 + 0) / 3)
  np.testing.assert_allclose(scores['frequency_weighted_iou'], (4 * 3 / 4 + 4 * 2 / 5) / 8)
  assert type(scores['mean_iou']) is float


def test_four_numbers_by_hand_with_the_absent_at_zero():
  scores = score_of(MATRIX, absent='zero').compute()
  np.testing.assert_allclose(scores['pixel_accuracy'], 5 / 8)
  np.testing.assert_allclose(scores['mean_accuracy'], (3 / 4 + 2 / 4) / 4)
  np.testing.assert_allclose(scores['mean_iou'], (3 / 4 + 2 / 5) / 4)
  np.testing.assert_allclose(scores['frequency_weighted_iou'], (4 * 3 / 4 + 4 * 2 / 5) / 8)
  assert scores['per_class_iou']['d'] is None


def test_nothing_counted_is_nan():
  for absent in ('skip', 'zero'):
    scores = confusion.Score(NAMES, absent=absent).compute()
    assert np.isnan([value for value in scores.values() if isinstance(value, float)]).all()
    assert set(scores['per_class_iou'].values()) == {None}


def test_f_score_by_hand():
  matrix = np.array([[6, 2], [4, 8]])  # class 0: precision 6/10, recall 6/8
  np.testing.assert_allclose(confusion.f_score(matrix, 0), 2 * 0.6 * 0.75 / (0.6 + 0.75))
  np.testing.assert_allclose(
    confusion.f_score(matrix, 0, 0.5), 1.25 * 0.6 * 0.75 / (0.25 * 0.6 + 0.75)
  )
  np.testing.assert_allclose(confusion.f_score(matrix, 0, 2), 5 * 0.6 * 0.75 / (4 * 0.6 + 0.75))
  assert confusion.f_score(np.array([[0, 3], [0, 1]]), 0, 2) == 0
  assert np.isnan(confusion.f_score(np.array([[0, 0], [0, 1]]), 0, 2))


def test_f_scores_of_chosen_classes():
  """Class a: P = 6/8, R = 6/10. Class c neither is nor is predicted."""
  matrix = np.array([[6, 4, 0], [2, 8, 0], [0, 0, 0]])
  result = score_of(matrix, names=('a', 'b', 'c'), f_scores={'a': 2.0, 'c': 1.0}).compute()
  expected = 5 * 0.75 * 0.6 / (4 * 0.75 + 0.6)
  assert result['per_class_f_score'] == {'a (beta 2)': pytest.approx(expected), 'c (beta 1)': None}
  assert result['f_score'] == pytest.approx(expected)
  for betas, message in (
    ({'road': 1.0}, 'f_scores.road: no such class; the classes are a, b, c, d'),
    ({'a': 0}, 'f_scores.a=0: beta is a number above 0'),
  ):
    with pytest.raises(UserError, match=message):
      confusion.Score(NAMES, f_scores=betas)


def test_wrong_arguments_are_named():
  with pytest.raises(UserError, match="'never'; use one of skip, zero"):
    confusion.Score(NAMES, absent='never')
