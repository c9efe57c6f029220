"""The U-Net's weight map, against numbers by hand and against a slow reference."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.border_weight import (
  balancing_weights,
  border_weight,
  separate_touching,
  two_nearest,
)


@pytest.mark.parametrize('gap', [1, 3, 5, 9])
def test_middle_of_a_gap_between_two_squares(gap):
  instances = np.zeros((20, 40), np.uint16)
  instances[5:15, 5:15] = 1
  instances[5:15, 15 + gap : 25 + gap] = 2
  weight = border_weight(instances, class_weights=(0.7, 2.5))
  assert weight.dtype == np.float32 and weight.shape == (20, 40)
  d = (gap + 1) / 2  # from the middle pixel's centre to the nearest cell pixels' centres
  expected = 0.7 + 10 * math.exp(-((d + d) ** 2) / 50)
  assert weight[10, 15 + gap // 2] == pytest.approx(expected, rel=1e-6)
  assert weight[10, 10] == weight[10, 20 + gap] == np.float32(2.5)


def test_off_the_middle_and_off_the_axis():
  instances = np.zeros((9, 9), np.int32)
  instances[4, 1], instances[4, 8] = 3, 8  # ids need not be dense
  weight = border_weight(instances, class_weights=(1, 1), w0=2, sigma=3)
  assert weight[4, 3] == pytest.approx(1 + 2 * math.exp(-((2 + 5) ** 2) / 18), rel=1e-6)
  d1, d2 = math.hypot(3, 1), math.hypot(3, 6)
  assert weight[1, 2] == pytest.approx(1 + 2 * math.exp(-((d1 + d2) ** 2) / 18), rel=1e-6)


def test_no_border_term_without_a_second_cell():
  instances = np.zeros((12, 12), np.uint16)
  instances[2:5, 2:5] = 1
  weight = border_weight(instances)  # 9 of 144 pixels are cell
  np.testing.assert_allclose(weight[instances > 0], 0.5 * 144 / 9)
  np.testing.assert_allclose(weight[instances == 0], 0.5 * 144 / 135)
  assert weight.mean() == pytest.approx(1)
  np.testing.assert_array_equal(border_weight(np.zeros((3, 4), np.uint16)), np.ones((3, 4)))


def test_balancing_weights():
  assert balancing_weights((30, 10)) == pytest.approx((40 / 60, 40 / 20))
  assert balancing_weights((5, 0)) == (1, 1)


def test_two_nearest_equals_the_full_distance_transforms():
  rng = np.random.default_rng(0)
  instances = np.zeros((70, 90), np.uint16)
  for i in range(1, 12):
    y, x = rng.integers(0, 60), rng.integers(0, 80)
    instances[y : y + rng.integers(2, 10), x : x + rng.integers(2, 10)] = i
  ids = np.setdiff1d(instances, [0])
  every = np.sort([ndimage.distance_transform_edt(instances != i) for i in ids], axis=0)
  nearest, second = two_nearest(instances, reach=30)
  near = every[1] <= 30
  np.testing.assert_allclose(nearest[near], every[0][near], atol=1e-4)
  np.testing.assert_allclose(second[near], every[1][near], atol=1e-4)
  exact = 10 * np.exp(-((every[0] + every[1]) ** 2) / 50)
  weight = border_weight(instances, class_weights=(0, 0))
  np.testing.assert_allclose(weight, np.where(instances > 0, 0, exact), atol=2e-5)


def test_touching_cells_get_a_gap_of_two():
  instances = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 3, 0]])
  expected = [[1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 3, 0]]
  result = separate_touching(instances)  # 3 would vanish, so it stays
  assert result.dtype == np.uint16
  np.testing.assert_array_equal(result, expected)


def test_cells_apart_are_left_alone():
  instances = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]], np.uint16)
  np.testing.assert_array_equal(separate_touching(instances), instances)
