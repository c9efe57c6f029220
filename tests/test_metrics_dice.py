"""NVIDIA's DICE, by hand, with void pixels and images that count for nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import losses
from jaxseg.metrics.dice import Score
from jaxseg.types import VOID


def dice_of(*images, classes=2):
  """Returns the score of (probabilities [h, w, c], label [h, w]) and how many values it averages."""
  score = Score(('a', 'b', 'c')[:classes])
  for probabilities, label in images:
    score.add({'label': np.asarray(label, np.uint8)}, {'probabilities': np.asarray(probabilities)})
  return score.compute()['dice'], score.sums['count']


def test_by_hand():
  # one image of two pixels: class 0 with p = (.8, .2), class 1 with p = (.6, .4)
  first = 2 * 0.8 / (0.64 + 0.36 + 1)  # sum p t = .8, sum p^2 = .64 + .36, sum t^2 = 1
  second = 2 * 0.4 / (0.04 + 0.16 + 1)
  value, count = dice_of(([[[0.8, 0.2], [0.6, 0.4]]], [[0, 1]]))
  assert (value, count) == (pytest.approx((first + second) / 2, abs=1e-6), 2)


def test_sure_and_right_is_one_sure_and_wrong_is_zero():
  label = np.array([[0, 1], [1, 1]])
  assert dice_of((np.eye(2)[label], label))[0] == pytest.approx(1)
  assert dice_of((1 - np.eye(2)[label], label))[0] == pytest.approx(0, abs=1e-6)


def test_a_class_neither_there_nor_predicted_has_one():
  label = np.zeros((2, 2), int)
  assert dice_of((np.eye(3)[label], label), classes=3) == (pytest.approx(1), 3)


def test_void_pixels_and_void_images_count_for_nothing():
  rng = np.random.default_rng(0)
  probabilities = rng.dirichlet((1, 1), (4, 6)).astype(np.float32)
  label = rng.integers(0, 2, (4, 6))
  cut = dice_of((probabilities[:, :4], label[:, :4]))
  label[:, 4:] = VOID
  void = np.full((4, 6), VOID)
  value, count = dice_of((probabilities, label), (probabilities, void))
  assert (value, count) == (pytest.approx(cut[0], rel=1e-6), 2)
  assert dice_of((probabilities, void)) == (None, 0)


def test_numpy_and_jax_agree():
  rng = np.random.default_rng(1)
  probabilities = rng.dirichlet((1, 1, 1), (4, 5, 7)).astype(np.float32)
  label = rng.integers(0, 4, (4, 5, 7)).astype(np.uint8)
  label[3] = VOID
  ours, has_pixels = losses.dice(probabilities, label)
  assert isinstance(ours, np.ndarray) and has_pixels.tolist() == [True, True, True, False]
  np.testing.assert_allclose(
    ours, losses.dice(jnp.asarray(probabilities), jnp.asarray(label))[0], rtol=1e-6
  )
