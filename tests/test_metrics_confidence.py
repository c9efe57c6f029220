"""Calibration and risk-coverage, by numbers that are worked out here by hand."""

import numpy as np
import pytest

from jaxseg.metrics import confidence
from jaxseg.types import VOID

# Six pixels of two classes, the last is void. Bins are (k / 15, (k + 1) / 15].
LABEL = np.array([[0, 1, 1, 0, 1, VOID]], np.uint8)
FIRST = np.array([[0.9, 0.2, 0.58, 0.55, 0.1, 1.0]])  # probability of class 0
PREDICTION = {
  'mask': (FIRST < 0.5).astype(np.uint8),
  'probabilities': np.stack([FIRST, 1 - FIRST], axis=-1).astype(np.float32),
}


def scored(*pairs):
  score = confidence.Score(('a', 'b'))
  for example, prediction in pairs:
    score.add(example, prediction)
  return score.compute()


def test_ece_and_the_diagram_by_hand():
  """Confidences .9 right, .8 right, .58 wrong, .55 right, .9 right; .55 and .58 share the bin (8/15, 9/15]."""
  result = scored(({'label': LABEL}, PREDICTION))
  assert result['reliability'] == {
    'confidence': pytest.approx([0.565, 0.8, 0.9]),
    'accuracy': pytest.approx([0.5, 1.0, 1.0]),
    'share': pytest.approx([0.4, 0.2, 0.4]),
  }
  assert result['ece'] == pytest.approx(0.4 * 0.065 + 0.2 * 0.2 + 0.4 * 0.1)
  assert result['nll'] == pytest.approx(-np.log([0.9, 0.8, 0.42, 0.55, 0.9]).mean(), rel=1e-6)


def test_risk_and_coverage_by_hand():
  """Entropy rises from .9 (twice) over .8 and .58 (wrong) to .55: risks 0, 0, 0, 1/4, 1/5."""
  result = scored(({'label': LABEL}, PREDICTION))
  assert result['aurc'] == pytest.approx((1 / 4 + 1 / 5) / 5)
  assert result['excess_aurc'] == pytest.approx((1 / 4 + 1 / 5) / 5 - (1 / 5) / 5)  # the error last
  curve = result['risk_coverage']
  assert (curve['coverage'][-1], curve['risk'][-1]) == (1.0, 0.2)
  assert curve['risk'][curve['coverage'].index(0.6)] == 0


def test_a_given_uncertainty_takes_the_place_of_the_entropy():
  """Variances of samples, as small as 1e-6: the most uncertain pixel is the wrong one."""
  uncertainty = np.array([[1e-6, 2e-6, 8e-6, 3e-6, 4e-6, 0]], np.float32)
  result = scored(({'label': LABEL}, {**PREDICTION, 'uncertainty': uncertainty}))
  assert result['aurc'] == pytest.approx((1 / 5) / 5) and result['excess_aurc'] == pytest.approx(0)


def test_ties_count_as_the_mean_over_their_orders():
  """Levels of 2 (1 wrong) and 3 (2 wrong): (1/2, 2/2, then (1 + 2/3) / 3, ...), halves where tied."""
  expected = (0.5 / 1 + 1 / 2 + (1 + 2 / 3) / 3 + (1 + 4 / 3) / 4 + 3 / 5) / 5
  assert confidence.aurc(np.array([2, 0, 3]), np.array([1, 0, 2])) == pytest.approx(expected)


def test_nothing_but_void_has_no_confidence():
  result = scored(({'label': np.full_like(LABEL, VOID)}, PREDICTION))
  assert set(result.values()) == {None}


def test_entropy_by_hand():
  values = confidence.entropy(np.array([[0.5, 0.5], [1.0, 0.0]]))
  np.testing.assert_allclose(values, [np.log(2), 0], atol=1e-9)
