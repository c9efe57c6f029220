"""COCO's average precision of connected components, to compare class maps with detectors.

Each component of a class's pixels is an object; its score is the class's mean probability in it.
"""

import numpy as np
import scipy

from jaxseg.metrics import coco, seg
from jaxseg.metrics.score import Example, Prediction
from jaxseg.types import Detections


class Score(coco.Score):
  maps = True

  def add(self, example: Example, prediction: Prediction) -> None:
    detections = detections_of(prediction['mask'], prediction['probabilities'])
    super().add(example, {'detections': detections})


def detections_of(mask: np.ndarray, probabilities: np.ndarray) -> Detections:
  """Returns the best connected components of each class but background, by descending score.

  The mask is uint8 [h, w], the probabilities float32 [h, w, k].
  """
  objects = []
  for class_id in (int(k) for k in np.unique(mask) if 0 < k < probabilities.shape[-1]):
    numbers = seg.components(mask == class_id)
    means = scipy.ndimage.mean(probabilities[..., class_id], numbers, range(1, numbers.max() + 1))
    slices = scipy.ndimage.find_objects(numbers)
    for i in np.argsort(-means, kind='stable')[: coco.MAX_DETECTIONS]:
      rows, columns = slices[i]
      box = (columns.start, rows.start, columns.stop, rows.stop)
      objects.append((means[i], box, class_id, numbers == i + 1))
  objects.sort(key=lambda item: -item[0])
  scores, boxes, classes, masks = zip(*objects, strict=True) if objects else ((),) * 4
  return Detections(
    boxes=np.array(boxes, np.float32).reshape(-1, 4),
    scores=np.array(scores, np.float32),
    classes=np.array(classes, np.int32),
    masks=np.array(masks, bool).reshape(-1, *mask.shape),
  )
