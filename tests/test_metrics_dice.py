"""NVIDIA's DICE, by hand, with void pixels and images that count for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics.dice import dice
from jaxseg.types import VOID


def test_by_hand():
  # one image of two pixels: class 0 with p = (.8, .2), class 1 with p = (.6, .4)
  probability = jnp.array([[[[0.8, 0.2], [0.6, 0.4]]]])
  label = jnp.array([[[0, 1]]], jnp.uint8)
  first = 2 * 0.8 / (0.64 + 0.36 + 1)  # sum p t = .8, sum p^2 = .64 + .36, sum t^2 = 1
  second = 2 * 0.4 / (0.04 + 0.16 + 1)
  total, count = jax.jit(dice)(probability, label)
  assert float(count) == 2
  assert float(total) == pytest.approx(first + second, abs=2e-6)


def test_sure_and_right_is_one_sure_and_wrong_is_zero():
  label = jnp.array([[[0, 1], [1, 1]]], jnp.uint8)
  right = jax.nn.one_hot(label, 2)
  total, count = dice(right, label)
  assert float(total / count) == pytest.approx(1)
  total, count = dice(1 - right, label)
  assert float(total / count) == pytest.approx(0, abs=1e-6)


def test_a_class_neither_there_nor_predicted_has_one():
  label = jnp.zeros((1, 2, 2), jnp.uint8)
  total, count = dice(jax.nn.one_hot(label, 3), label)
  assert float(total) == pytest.approx(3) and float(count) == 3


def test_void_pixels_and_void_images_count_for_nothing():
  rng = np.random.default_rng(0)
  probability = rng.dirichlet((1, 1), (3, 4, 6)).astype(np.float32)
  label = rng.integers(0, 2, (3, 4, 6)).astype(np.uint8)
  cut = dice(probability[:2, :, :4], label[:2, :, :4])
  label[:, :, 4:] = VOID
  label[2] = VOID
  total, count = dice(jnp.asarray(probability), jnp.asarray(label))
  assert float(count) == 4
  np.testing.assert_allclose(total, cut[0], rtol=1e-6)


def test_sums_add_over_batches():
  rng = np.random.default_rng(1)
  probability = rng.dirichlet((1, 1, 1), (4, 3, 3)).astype(np.float32)
  label = rng.integers(0, 3, (4, 3, 3)).astype(np.uint8)
  whole = dice(probability, label)
  parts = [dice(probability[i : i + 1], label[i : i + 1]) for i in range(4)]
  np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-6)
