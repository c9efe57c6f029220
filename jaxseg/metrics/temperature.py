"""Temperature scaling (Guo et al., arXiv:1706.04599, section 4.2): calibration by a single parameter.

Logits are divided by T before the softmax, which changes the confidence but not the predicted class.
Here T acts on probabilities, p^(1/T) / sum p^(1/T), which is equivalent for one softmax or sigmoid and
also works for averages over views, tiles, samples or networks, which have no logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Prediction, Result
from jaxseg.types import VOID, Array

LIMITS = (0.05, 20.0)  # of a fitted temperature
_LEAST = 1e-30  # lower bound of a probability, for a finite logarithm
_VALUES = 1 << 22  # probabilities to keep for the fit, 16 MiB


def tempered(probabilities: Array, temperature: float) -> Array:
  """Returns probabilities [..., k], numpy or JAX, at another temperature; unchanged at 1."""
  if temperature == 1:
    return probabilities
  ratios = probabilities / probabilities.max(axis=-1, keepdims=True)  # avoids sums of 0
  powers = ratios ** (1 / temperature)
  return powers / powers.sum(axis=-1, keepdims=True)


def fit(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Returns the maximum-likelihood temperature, within LIMITS.

  Args:
    probabilities: float [n, k], n > 0.
    labels: integers [n].
  """
  logs = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
  logs -= logs[np.arange(len(labels)), labels][:, None]  # 0 for the true class

  def loss(inverse: float) -> float:  # convex in 1 / T
    scaled = inverse * logs
    top = scaled.max(axis=1)
    return float(np.mean(top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))))

  low, high = LIMITS
  best = scipy.optimize.minimize_scalar(loss, bounds=(1 / high, 1 / low), method='bounded')
  return float(1 / best.x)


class Score:
  """Fits a temperature to a uniform random sample of a data set's valid pixels, of bounded size."""

  maps = True

  def __init__(self, class_names: Sequence[str]):
    self._most = _VALUES // len(class_names)
    self._rate = 1.0  # sampling rate: keeps pixels whose random number is below it
    self._count = 0
    none = (
      np.zeros(0, np.float32),
      np.zeros((0, len(class_names)), np.float32),
      np.zeros(0, np.uint8),
    )
    self._parts = [none]  # random numbers, probabilities, labels

  def add(self, example: Example, prediction: Prediction) -> None:
    label = np.asarray(example['label'])
    draws = np.random.default_rng(int(example.get('index', 0))).random(label.shape, np.float32)
    kept = (label != VOID) & (draws < self._rate)
    self._extend([(draws[kept], prediction['probabilities'][kept], label[kept])])

  def merge(self, other: Score) -> None:
    self._rate = min(self._rate, other._rate)
    self._extend(other._parts)

  def compute(self) -> Result:
    """Returns 'temperature', None if no pixel is valid."""
    probabilities, labels = self.sample()
    return {'temperature': fit(probabilities, labels) if len(labels) else None}

  def sample(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sampled pixels: probabilities float32 [n, k] and labels [n]."""
    draws, probabilities, labels = map(np.concatenate, zip(*self._parts, strict=True))
    order = np.argsort(draws, kind='stable')  # independent of the order of the images
    kept = order[: np.count_nonzero(draws < self._rate)]
    self._parts, self._count = [(draws[kept], probabilities[kept], labels[kept])], len(kept)
    return self._parts[0][1:]

  def _extend(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    self._parts += parts
    self._count += sum(len(part[0]) for part in parts)
    while self._count > self._most:
      self._rate /= 2
      self.sample()
