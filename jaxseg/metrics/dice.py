"""The Dice score published for NVIDIA's U-Net on ISBI 2012 (DeepLearningExamples, UNet_Medical).

It is soft, of probabilities (`losses.dice`), averaged over images and classes, background included. A
confident and correct network has 1; an uncertain one has less, even where its mask is correct.
"""

from typing import Any

import numpy as np

from jaxseg import losses
from jaxseg.metrics.score import Example, Mean, Prediction


class Score(Mean):
  name, maps = 'dice', True

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    probabilities = np.asarray(prediction['probabilities'])
    values, has_pixels = losses.dice(probabilities[None], np.asarray(example['label'])[None])
    values = values[has_pixels]  # empty if the image is all void
    return {'total': float(values.sum()), 'count': values.size}
