"""Temperatures: what they do to probabilities, and that a fit finds the one that was used."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxseg.metrics import temperature
from jaxseg.types import VOID


@pytest.mark.parametrize('xp', [np, jnp])
def test_probabilities_are_those_of_logits_divided_by_it(xp):
  logits = np.array([[2.0, 1.0, -1.0], [0.0, 0.0, 40.0]], np.float32)
  before = xp.asarray(softmax(logits, axis=-1))
  for value in (0.5, 1.7):
    after = temperature.tempered(before, value)
    np.testing.assert_allclose(after, softmax(logits / value, axis=-1), rtol=1e-4, atol=1e-9)
  assert temperature.tempered(before, 1) is before


def test_a_very_low_one_loses_nothing():
  many = np.full(255, 1 / 255, np.float32)
  np.testing.assert_allclose(temperature.tempered(many, 0.05), many, rtol=1e-4)


def labelled(count, seed=0):
  """Returns probabilities [n, 4] and labels that are drawn from them."""
  rng = np.random.default_rng(seed)
  probabilities = softmax(2 * rng.normal(size=(count, 4)), axis=-1)
  draws = rng.random((count, 1))
  return probabilities.astype(np.float32), (draws > probabilities.cumsum(axis=-1)).sum(axis=-1)


def test_it_is_found_where_confidence_was_too_high_or_too_low():
  probabilities, labels = labelled(40_000)
  for wrong in (0.4, 1.0, 2.5):
    found = temperature.fit(temperature.tempered(probabilities, wrong), labels)
    assert found == pytest.approx(1 / wrong, rel=0.03)


def test_two_pixels_by_hand():
  """Odds of 3 to 1, right twice in three: T with 3^(1/T) = 2."""
  probabilities = np.array([[0.75, 0.25]] * 3, np.float32)
  found = temperature.fit(probabilities, np.array([0, 0, 1]))
  assert found == pytest.approx(np.log(3) / np.log(2), rel=1e-3)


def test_it_stays_within_limits_where_every_pixel_is_right():
  found = temperature.fit(np.array([[0.9, 0.1]], np.float32), np.array([0]))
  assert temperature.LIMITS[0] <= found < 0.1


def test_a_fit_keeps_an_even_sample_of_the_valid_pixels(monkeypatch):
  """Of 40 images of 100 pixels, half of them void, at most 150 pixels stay, of all images."""
  monkeypatch.setattr(temperature, '_VALUES', 600)
  probabilities, labels = labelled(4000)
  whole, first, second = (temperature.Score('abcd') for _ in range(3))
  for i in range(40):
    rows = slice(100 * i, 100 * i + 100)
    label = labels[rows].reshape(10, 10).astype(np.uint8)
    label[:5] = VOID
    pixels = np.full((10, 10, 4), i, np.float32)  # says where it is from
    for score in (whole, first if i % 2 else second):
      score.add({'label': label, 'index': i}, {'probabilities': pixels})
  first.merge(second)
  kept, kept_labels = whole.sample()
  assert 60 < len(kept) <= 150 and VOID not in kept_labels
  assert len(np.unique(kept[:, 0])) > 25
  for mine, merged in zip((kept, kept_labels), first.sample(), strict=True):
    np.testing.assert_array_equal(mine, merged)


def test_no_pixel_has_no_temperature():
  assert temperature.Score('ab').compute() == {'temperature': None}
