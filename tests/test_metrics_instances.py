"""SEG of the Cell Tracking Challenge on objects of a few pixels."""

import numpy as np
import pytest

from jaxseg.metrics import cells
from jaxseg.types import UserError

TRUTH = np.array([[1, 1, 1, 1, 0, 7, 7, 7, 7, 0, 9]])


def test_a_perfect_prediction_scores_one_an_object():
  assert cells.seg_score(TRUTH, TRUTH * 3) == (3.0, 3)


def test_seg_by_hand():
  prediction = np.array([[5, 5, 5, 0, 0, 2, 2, 3, 3, 0, 8]])
  # Object 1: 3 of 4, union 4. Object 7: exactly half twice, no match. Object 9: 1.
  assert cells.seg_score(TRUTH, prediction) == (3 / 4 + 0 + 1, 3)


def test_a_merged_pair_matches_by_majority_of_each_truth():
  prediction = (TRUTH > 0) * 4
  prediction[0, 4] = 4  # one object of 10 pixels holds all of them
  np.testing.assert_allclose(cells.seg_score(TRUTH, prediction)[0], 4 / 10 + 4 / 10 + 1 / 10)


def test_false_objects_cost_nothing_and_empty_images_count_nothing():
  empty = np.zeros((2, 3), np.uint16)
  assert cells.seg_score(empty, empty + 1) == (0.0, 0)
  assert cells.seg_score(empty + 1, empty) == (0.0, 1)
  noise = TRUTH.copy()
  noise[0, 4] = 50
  assert cells.seg_score(TRUTH, noise) == (3.0, 3)


def test_overlaps_by_hand():
  shared, sizes, claimed = cells.overlaps(
    np.array([[0, 1, 1], [2, 2, 2]]), np.array([[4, 4, 0], [4, 6, 6]])
  )
  np.testing.assert_array_equal(shared, [[1, 0], [1, 2]])
  np.testing.assert_array_equal(sizes, [2, 3])
  np.testing.assert_array_equal(claimed, [3, 2])


def test_components_through_corners_or_not():
  mask = np.array([[1, 0], [0, 1]], bool)
  assert cells.components(mask).max() == 1
  assert cells.components(mask, diagonal=False).max() == 2


def test_shapes_must_agree():
  with pytest.raises(UserError, match='one shape'):
    cells.seg_score(TRUTH, TRUTH.T)
