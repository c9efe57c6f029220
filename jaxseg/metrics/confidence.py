"""Quality of confidence: calibration, and how well uncertainty predicts errors.

Expected calibration error: Guo et al., arXiv:1706.04599, section 2, over pixels, in BINS bins of equal width, the
k-th of them (k / BINS, (k + 1) / BINS]. Area under the risk-coverage curve: Geifman and El-Yaniv,
arXiv:1805.08206; the risk at a coverage is the fraction of errors among that fraction of pixels, least
uncertain first. Uncertainties that agree within 1 in 1000 are ties, averaged over their orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Prediction, Result, Sums
from jaxseg.types import VOID

BINS = 15
_LEVELS = 1 << 15  # of uncertainty: the non-negative float16 numbers, which sort like their bits
_POINTS = 50  # of the curve
_LEAST = 1e-12  # lower bound of a probability, for a finite logarithm


class Score(Sums):
  """ECE, negative log-likelihood and area under the risk-coverage curve, over all valid pixels.

  The uncertainty is prediction['uncertainty'], float [h, w], or else the entropy.
  """

  maps = True

  def __init__(self, class_names: Sequence[str]):
    del class_names
    bins, levels = np.zeros(BINS), np.zeros(_LEVELS, np.int64)
    super().__init__(
      pixels=bins, confidence=bins, correct=bins, surprise=0.0, sorted=levels, wrong=levels
    )

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    valid = np.asarray(example['label']) != VOID
    label, mask = example['label'][valid], prediction['mask'][valid]
    probabilities = prediction['probabilities'][valid]
    pixels = np.arange(len(label))
    confidence = probabilities[pixels, mask].astype(np.float64)
    correct = mask == label
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    uncertainty_map = prediction.get('uncertainty')
    uncertainty = entropy(probabilities) if uncertainty_map is None else uncertainty_map[valid]
    level = np.maximum(uncertainty, 0).astype(np.float16).view(np.uint16)
    return {
      'pixels': np.bincount(bins, minlength=BINS),
      'confidence': np.bincount(bins, confidence, BINS),
      'correct': np.bincount(bins, correct, BINS),
      'surprise': -float(np.log(np.maximum(probabilities[pixels, label], _LEAST)).sum()),
      'sorted': np.bincount(level, minlength=_LEVELS),
      'wrong': np.bincount(level[~correct], minlength=_LEVELS),
    }

  def compute(self) -> Result:
    """Returns ece, nll, aurc and excess_aurc (over the optimal order's), None if no pixel is valid.

    reliability has the non-empty bins' mean confidence, accuracy and share of all pixels; risk_coverage
    has points of the curve.
    """
    sums, pixels = self.sums, self.sums['pixels']
    total, used = pixels.sum(), pixels > 0
    if not total:
      return dict.fromkeys(('ece', 'nll', 'aurc', 'excess_aurc'))
    confidence, accuracy = (sums[key][used] / pixels[used] for key in ('confidence', 'correct'))
    share = pixels[used] / total
    area, wrong = aurc(sums['sorted'], sums['wrong']), sums['wrong'].sum()
    return {
      'ece': float(np.sum(share * np.abs(accuracy - confidence))),
      'nll': float(sums['surprise'] / total),
      'aurc': area,
      'excess_aurc': area - aurc(np.array([total - wrong, wrong]), np.array([0, wrong])),
      'reliability': _lists(confidence=confidence, accuracy=accuracy, share=share),
      'risk_coverage': _curve(sums['sorted'], sums['wrong']),
    }


def entropy(probabilities: np.ndarray) -> np.ndarray:
  """Returns the entropy of probabilities [..., k] in nats, at most log k."""
  return -np.sum(probabilities * np.log(np.maximum(probabilities, _LEAST)), axis=-1)


def aurc(counts: np.ndarray, wrong: np.ndarray) -> float:
  """Returns the area under the risk-coverage curve: the mean over n = 1..N of the risk of the first n.

  Args:
    counts: integers [levels], pixels at each level of uncertainty, ascending.
    wrong: integers [levels], how many of them are wrong; evenly spread within a level.
  """
  kept = counts > 0
  counts, wrong = counts[kept].astype(np.float64), wrong[kept]
  before, errors = np.cumsum(counts) - counts, np.cumsum(wrong) - wrong
  rate = wrong / counts
  # The risk after n pixels of a level, (errors + rate n) / (before + n), summed over n = 1..counts.
  harmonic = scipy.special.digamma(before + counts + 1) - scipy.special.digamma(before + 1)
  return float(np.sum(wrong + (errors - rate * before) * harmonic) / counts.sum())


def _curve(counts: np.ndarray, wrong: np.ndarray) -> dict[str, list[float]]:
  covered, errors = (np.concatenate([[0], np.cumsum(values)]) for values in (counts, wrong))
  coverage = np.linspace(0, 1, _POINTS + 1)[1:]
  risk = np.interp(coverage * covered[-1], covered, errors) / (coverage * covered[-1])
  return _lists(coverage=coverage, risk=risk)


def _lists(**values: np.ndarray) -> dict[str, list[float]]:
  return {name: [round(float(v), 6) for v in array] for name, array in values.items()}
