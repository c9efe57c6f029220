"""The DICE that NVIDIA's U-Net for ISBI 2012 is published by (DeepLearningExamples, UNet_Medical).

It is soft, of probabilities (`losses.dice`), and the mean over images and classes, background too. A
sure and right network has 1; an unsure one is punished even where its mask is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg import losses
from jaxseg.metrics.score import Result, Sums


class Score(Sums):
  maps = True

  def __init__(self, class_names: Sequence[str]):
    del class_names
    super().__init__(total=0.0, count=0)

  def measure(self, example: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    probabilities = np.asarray(prediction['probabilities'])
    values, has_pixels = losses.dice(probabilities[None], np.asarray(example['label'])[None])
    values = values[has_pixels]  # none of an image that is void
    return {'total': float(values.sum()), 'count': values.size}

  def compute(self) -> Result:
    """Returns 'dice', None where no image has a pixel that counts."""
    return {'dice': self.sums['total'] / self.sums['count'] if self.sums['count'] else None}
