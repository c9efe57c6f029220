"""Temperature scaling (Guo et al., arXiv:1706.04599, section 4.2): one number that mends confidence.

Logits are divided by T before the softmax. No prediction changes, only how sure it says it is. Here T works
on probabilities, p^(1/T) / sum p^(1/T), which is the same for one softmax or sigmoid and works as well on
what has no logits any more: means over views, tiles, samples or networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Prediction, Result
from jaxseg.types import VOID, Array

LIMITS = (0.05, 20.0)  # of a temperature that is fitted
_LEAST = 1e-30  # of a probability: its logarithm must be finite
_VALUES = 1 << 22  # probabilities that a fit keeps, 16 MiB


def tempered(probabilities: Array, temperature: float) -> Array:
  """Returns probabilities [..., k], numpy or JAX, at another temperature; at 1 they are as they were."""
  if temperature == 1:
    return probabilities
  share = probabilities / probabilities.max(axis=-1, keepdims=True)  # none of the sums vanishes
  powers = share ** (1 / temperature)
  return powers / powers.sum(axis=-1, keepdims=True)


def fit(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Returns the temperature at which the labels are likeliest, within LIMITS.

  Args:
    probabilities: float [n, k], n > 0.
    labels: integers [n].
  """
  logs = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
  logs -= logs[np.arange(len(labels)), labels][:, None]  # of the true class 0

  def loss(inverse: float) -> float:  # convex in 1 / T
    scaled = inverse * logs
    top = scaled.max(axis=1)
    return float(np.mean(top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))))

  low, high = LIMITS
  best = scipy.optimize.minimize_scalar(loss, bounds=(1 / high, 1 / low), method='bounded')
  return float(1 / best.x)


class Score:
  """Fits a temperature to a data set, on as many of its valid pixels as memory is set aside for.

  Every pixel is as likely to be among them, whatever the size of its image.
  """

  maps = True

  def __init__(self, class_names: Sequence[str]):
    self._most = _VALUES // len(class_names)
    self._rate = 1.0  # of the pixels that are kept: those whose random number lies below it
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
    """Returns temperature, None where no pixel is valid."""
    probabilities, labels = self.sample()
    return {'temperature': fit(probabilities, labels) if len(labels) else None}

  def sample(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels that were kept: probabilities float32 [n, k] and labels [n]."""
    draws, probabilities, labels = map(np.concatenate, zip(*self._parts, strict=True))
    order = np.argsort(draws, kind='stable')  # whatever the order of the images
    kept = order[: np.count_nonzero(draws < self._rate)]
    self._parts, self._count = [(draws[kept], probabilities[kept], labels[kept])], len(kept)
    return self._parts[0][1:]

  def _extend(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    self._parts += parts
    self._count += sum(len(part[0]) for part in parts)
    while self._count > self._most:
      self._rate /= 2
      self.sample()
