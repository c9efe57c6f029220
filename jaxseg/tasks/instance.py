"""Instance segmentation: boxes, classes and masks of objects.

The losses are those of Mask R-CNN (arXiv:1703.06870, section 2), normalised as in Detectron2.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax

from jaxseg.data import objects
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.data.outlines import CroppedMask, Masks
from jaxseg.draw import objects as pictures
from jaxseg.draw.labels import Color
from jaxseg.metrics import coco
from jaxseg.metrics.score import Example, Prediction
from jaxseg.nn.detection.masks import paste
from jaxseg.tasks import Pictures, Row
from jaxseg.types import VOID, Array, Batch, Detections, Losses, Outputs, UserError

TRUTH = ('boxes', 'classes', 'crowd', 'masks', 'mask_boxes')  # the network samples from these
MIN_SCORE = 0.5  # of objects drawn into masks and pictures; lists have all detections


@dataclasses.dataclass(frozen=True)
class Task:
  """Losses and predictions of detectors. Hashable, so that it can be a static argument of jit.

  Attributes:
    num_classes: with background, which is class 0.
    max_instances, max_layers, min_area: of a training example, see data.objects.
  """

  num_classes: int
  max_instances: int = 100
  max_layers: int = 4
  min_area: int = 1
  headline: ClassVar[str] = 'mask_ap'
  weights_from_labels: ClassVar[bool] = False  # how many regions are positive depends on proposals
  maps: ClassVar[bool] = False
  takes_extent: ClassVar[bool] = True
  class_colors: ClassVar[bool] = False

  def __post_init__(self):
    if not 2 <= self.num_classes < VOID:
      raise UserError(f'num_classes is {self.num_classes}; a task has from 2 to {VOID - 1} classes')

  @property
  def num_outputs(self) -> int:
    """Classes of the network, including background."""
    return self.num_classes

  @property
  def transforms(self) -> tuple:
    return (objects.Objects(self.max_instances, self.max_layers, self.min_area),)

  def model_inputs(self, batch: Batch) -> dict[str, Any]:
    """Returns 'truth' and 'extent'. Raises UserError if the batch has no instances."""
    missing = [name for name in (*TRUTH, 'extent') if name not in batch]
    if missing:
      raise UserError(
        f'the batch has no {", ".join(missing)}: use a dataset with instances (dsb2018, coco, shapes)'
      )
    return {'truth': {name: batch[name] for name in TRUTH}, 'extent': batch['extent']}

  def losses(self, outputs: Outputs, batch: Batch) -> Losses:
    """The terms of the loss, see jaxseg.tasks.

    Args:
      outputs: of models.mask_rcnn in training, see there.
      batch: unused; the network has sampled from it.

    Returns:
      'rpn/objectness' (binary cross-entropy) and 'rpn/box' (L1) over the sampled anchors, both
      divided by the sample's size, unused rows included; 'class' (cross-entropy) and 'box' (L1, of
      the true class), both divided by the number of sampled regions; 'mask' (binary cross-entropy of
      the true class), the mean over the cells of positive regions.
    """
    del batch
    anchors = jnp.float32(outputs['rpn_labels'].size)
    objectness, box_sum = _proposal_sums(outputs)
    labels = outputs['roi_classes']
    sampled = jnp.sum(labels != VOID, dtype=jnp.float32)
    cells, total = _mask_sum(outputs)
    return {
      'rpn/objectness': (objectness, anchors),
      'rpn/box': (box_sum, anchors),
      'class': (_class_sum(outputs['class_logits'], labels), sampled),
      'box': (_box_sum(outputs['box_deltas'], outputs['box_targets'], labels), sampled),
      'mask': (total, cells),
    }

  def invalid(self, batch: Batch) -> Array:
    """Counts objects with a class out of range, int32."""
    classes = batch['classes']
    return jnp.sum((classes < 0) | (classes >= self.num_classes), dtype=jnp.int32)

  def predict(self, outputs: Outputs, size: Size, *, maps: bool = False) -> dict[str, Array]:
    """Returns 'boxes' [b, d, 4] in pixels of the network's input, 'scores' (0: unused), 'classes', 'masks'."""
    del size, maps
    return {name: outputs[name] for name in ('boxes', 'scores', 'classes', 'masks')}

  def in_image(self, row: Row, frame: Frame, size: Size) -> Prediction:
    """Returns 'detections', and 'ids' and 'mask' from `painted`.

    Detections without a pixel are dropped. Boxes are clipped to the image, but only after their masks
    were pasted: a predicted box may extend into the padding.
    """
    used, (y, x) = row['scores'] > 0, frame.factor(size)
    boxes = row['boxes'][used] * np.array([x, y, x, y], np.float32)
    pieces = [CroppedMask(*pasted) for pasted in paste(row['masks'][used], boxes, size)]
    boxes = np.clip(boxes, 0, np.array(size[::-1] * 2, np.float32))
    detections = Detections(boxes, row['scores'][used], row['classes'][used], Masks(pieces, size))
    return self.of_objects(detections[np.array([bool(p.mask.any()) for p in pieces], bool)])

  def of_objects(self, detections: Detections, score: float | None = None) -> Prediction:
    """Returns the prediction for an image's objects with at least this score; None: for all."""
    detections = detections[detections.scores >= (score or 0)]
    ids, mask = painted(detections, MIN_SCORE if score is None else score)
    return {'mask': mask, 'detections': detections, 'ids': ids}

  def scorer(
    self, class_names: Sequence[str], max_detections: int = coco.MAX_DETECTIONS
  ) -> coco.Score:
    return coco.Score(class_names, max_detections=max_detections)

  def draw(self, example: Example, prediction: Prediction | None, classes: Any) -> Pictures:
    """Returns 'image', 'truth' and 'prediction', each object in another colour, and 'errors'."""
    del classes
    return pictures.pictures(example, None if prediction is None else prediction['ids'])

  def legend(self, classes: Any, shown: Iterable[np.ndarray] = ()) -> list[tuple[str, Color]]:
    del classes, shown
    return pictures.legend()


def painted(detections: Detections, least: float = MIN_SCORE) -> tuple[np.ndarray, np.ndarray]:
  """Draws detections with a score of `least` or more into maps, the best on top.

  Returns:
    uint16 [h, w], each pixel's detection, counted from 1, 0 for none; uint8 [h, w], its class.
  """
  masks = Masks.of(detections.masks)
  ids = np.zeros(masks.size, np.uint16)
  for i in np.flatnonzero(detections.scores >= least)[::-1]:
    ids[masks.pieces[i].window][masks.pieces[i].mask] = i + 1
  classes = np.concatenate([[0], detections.classes]).astype(np.uint8)
  return ids, classes[ids]


def _proposal_sums(outputs: Outputs) -> tuple[Array, Array]:
  labels = outputs['rpn_labels']
  loss = optax.sigmoid_binary_cross_entropy(outputs['rpn_logits'], labels == 1)
  objectness = jnp.sum(jnp.where(labels != VOID, loss, 0.0))
  distance = jnp.abs(outputs['rpn_deltas'] - outputs['rpn_targets']).sum(axis=-1)
  return objectness, jnp.sum(jnp.where(labels == 1, distance, 0.0))


def _class_sum(logits: Array, labels: Array) -> Array:
  used = labels != VOID
  loss = optax.softmax_cross_entropy_with_integer_labels(
    logits.astype(jnp.float32), jnp.where(used, labels, 0)
  )
  return jnp.sum(jnp.where(used, loss, 0.0))


def _box_sum(deltas: Array, targets: Array, labels: Array) -> Array:
  distance = jnp.abs(deltas.astype(jnp.float32) - targets[:, :, None]).sum(axis=-1)
  return jnp.sum(jnp.where(_is_class(distance, labels), distance, 0.0))


def _mask_sum(outputs: Outputs) -> tuple[Array, Array]:
  """Returns the number of cells of positive regions, and the loss summed over them."""
  logits, targets = outputs['mask_logits'].astype(jnp.float32), outputs['mask_targets']
  labels = outputs['roi_classes'][:, : logits.shape[1]]
  loss = optax.sigmoid_binary_cross_entropy(logits, targets[..., None])
  loss = jnp.where(_is_class(loss, labels[:, :, None, None]), loss, 0.0)
  positive = jnp.sum((labels > 0) & (labels != VOID), dtype=jnp.float32)
  return positive * targets.shape[2] * targets.shape[3], jnp.sum(loss)


def _is_class(values: Array, labels: Array) -> Array:
  """Returns bool, the shape of values [..., c - 1]: whether a channel is the label's class."""
  classes = jnp.arange(1, values.shape[-1] + 1).reshape((1,) * labels.ndim + (-1,))
  return labels[..., None] == classes
