"""The DICE that NVIDIA's U-Net for ISBI 2012 is published by (DeepLearningExamples, UNet_Medical).

It is soft, of probabilities (`losses.dice`), and the mean over images and classes, background too. A
sure and right network has 1; an unsure one is punished even where its mask is right.
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
    values = values[has_pixels]  # none of an image that is void
    return {'total': float(values.sum()), 'count': values.size}
