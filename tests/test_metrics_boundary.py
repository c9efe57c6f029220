"""BF on boundaries drawn by hand; images of 6x8 have a diagonal of 10 pixels."""

import numpy as np
import pytest

from jaxseg.metrics import boundary
from jaxseg.types import VOID, UserError


def halves(column, height=6, width=8):
  """Class 0 left of `column`, class 1 from it."""
  return np.tile((np.arange(width) >= column).astype(np.uint8), (height, 1))


def test_boundary_is_one_pixel_wide_towards_the_origin_and_not_the_border():
  np.testing.assert_array_equal(
    boundary.boundary_map(halves(2, 2, 4)), [[False, True, False, False]] * 2
  )
  block = np.zeros((4, 4), bool)
  block[2, 2] = True
  expected = np.zeros((4, 4), bool)
  expected[1:3, 1:3] = True
  np.testing.assert_array_equal(boundary.boundary_map(block), expected)
  assert not boundary.boundary_map(np.ones((3, 3))).any()


def test_matching_is_one_to_one():
  first, second = np.zeros((2, 5), bool), np.zeros((2, 5), bool)
  first[0, 1] = second[0, :3] = True
  assert boundary.count_matches(first, second, 1.0) == 1
  assert boundary.count_matches(second, first, 1.0) == 1


def test_matching_is_the_largest_not_the_greedy_one():
  # Column 1 reaches 0 and 2; column 3 reaches only 2, so column 1 has to take 0.
  first, second = np.zeros((1, 5), bool), np.zeros((1, 5), bool)
  first[0, [1, 3]] = True
  second[0, [0, 2]] = True
  assert boundary.count_matches(first, second, 1.0) == 2
  assert boundary.count_matches(first, second, 0.9) == 0


def test_radius_is_euclidean_and_inclusive():
  first, second = np.zeros((3, 3), bool), np.zeros((3, 3), bool)
  first[0, 0] = second[1, 1] = True
  assert boundary.count_matches(first, second, 1.4) == 0
  assert boundary.count_matches(first, second, np.sqrt(2)) == 1
  assert boundary.count_matches(first, np.zeros((3, 3), bool), 3) == 0


def test_default_tolerance_is_four_and_a_half_pixels_at_camvid_size():
  truth = halves(100, 360, 480)
  np.testing.assert_array_equal(boundary.boundary_f1(truth, halves(104, 360, 480), 2), [1, 1])
  np.testing.assert_array_equal(boundary.boundary_f1(truth, halves(105, 360, 480), 2), [0, 0])


def test_f1_by_hand():
  # Truth: 6 boundary pixels. Prediction: the same edge in the upper rows, none below, where the map
  # turns along row 2: 3 pixels of column 3 and then row 2 to the right, columns 4 to 7.
  truth, prediction = halves(4), halves(4)
  prediction[3:] = 0
  found = boundary.boundary_map(prediction == 1)
  assert found.sum() == 3 + 4
  scores = boundary.boundary_f1(truth, prediction, 3, tolerance=0.0)
  np.testing.assert_allclose(scores[:2], 2 * 3 / (6 + 7))
  assert np.isnan(scores[2])
  # With one pixel of slack, the truth's fourth pixel takes the corner's neighbour at no gain:
  # row 3 of column 3 reaches row 2 of column 3, which the truth's own row 2 can leave for column 4.
  scores = boundary.boundary_f1(truth, prediction, 2, tolerance=0.1)
  np.testing.assert_allclose(scores, 2 * 4 / (6 + 7))


def test_class_in_one_map_only_counts_zero_and_in_neither_not_at_all():
  truth, prediction = halves(4), halves(4)
  prediction[0, 0] = 2
  scores = boundary.boundary_f1(truth, prediction, 4)
  assert scores[2] == 0 and np.isnan(scores[3]) and scores[1] == 1
  np.testing.assert_allclose(scores[0], 2 * 6 / (6 + 7))  # the patch adds a pixel to its boundary


def test_void_is_of_no_class_in_the_truth():
  truth = halves(4)
  truth[:, 4:] = VOID
  np.testing.assert_array_equal(boundary.boundary_f1(truth, halves(4), 2), [1, 0])


def test_mean_over_classes_then_over_images():
  score, whole = boundary.Score(('a', 'b', 'c')), np.zeros((6, 8), np.uint8)
  assert score.compute()['boundary_f1'] is None
  truth = halves(4)
  truth[:, 6:] = 2
  score.add({'label': truth}, {'mask': halves(4)})  # b's right edge is not found, nor is c
  score.add({'label': whole}, {'mask': whole})  # no boundary at all: left out
  score.add({'label': halves(4)}, {'mask': halves(4)})
  per_image = [(1 + 2 * 6 / (12 + 6) + 0) / 3, (1 + 1) / 2]
  assert score.compute() == {
    'boundary_f1': pytest.approx(np.mean(per_image)),
    'per_class_boundary_f1': {'a': 1, 'b': pytest.approx((2 / 3 + 1) / 2), 'c': 0},
  }
  score = boundary.Score(('a', 'b', 'c'))
  score.add({'label': halves(4)}, {'mask': halves(4)})
  assert score.compute()['per_class_boundary_f1']['c'] is None


def test_shapes_must_agree():
  with pytest.raises(UserError, match='must be one'):
    boundary.boundary_f1(np.zeros((4, 4)), np.zeros((4, 5)), 2)
