"""Instance segmentation: boxes, classes and masks of objects; outputs and a batch become losses.

The losses are those of Mask R-CNN (arXiv:1703.06870, section 2), divided as Detectron2 divides them.
Precision is not additive: scoring is the evaluator's (metrics.coco).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import optax

from jaxseg.types import VOID, Array, Batch, Losses, Outputs, UserError

TRUTH = ('boxes', 'classes', 'ids', 'crowd', 'instances')  # what the network needs to sample


@dataclasses.dataclass(frozen=True)
class Task:
  """How detections are trained. Hashable: a jitted function may take it as static argument.

  Attributes:
    num_classes: with background, which is class 0.
  """

  num_classes: int
  headline = 'mask_ap'  # the score that says which checkpoint is best
  weights_from_labels = False  # how many regions are positive depends on the proposals

  def __post_init__(self):
    if not 2 <= self.num_classes < VOID:
      raise UserError(f'num_classes is {self.num_classes}; a task has from 2 to {VOID - 1} classes')

  @property
  def num_outputs(self) -> int:
    """Classes that the network tells apart, background among them."""
    return self.num_classes

  def model_inputs(self, batch: Batch) -> dict[str, dict[str, Array]]:
    """Returns what the network takes in training beside the image.

    Raises:
      UserError: the batch holds no instances.
    """
    missing = [name for name in TRUTH if name not in batch]
    if missing:
      raise UserError(
        f'the batch has no {", ".join(missing)}: use a dataset with instances (dsb2018, coco, shapes)'
      )
    return {'truth': {name: batch[name] for name in TRUTH}}

  def losses(self, outputs: Outputs, batch: Batch, *, train: bool = True) -> Losses:
    """The terms of the loss; the loss is sum over terms of sum / (weight where positive, else 1).

    Args:
      outputs: of models.mask_rcnn in training, where they are described.
      batch: unused; the network has sampled from it.
      train: unused.

    Returns:
      name -> (sum, weight), float32 scalars to be added over devices before the division:
      'rpn/objectness' (binary cross-entropy) and 'rpn/box' (L1) over the sampled anchors, both
      divided by all places that the sample has; 'class' (cross-entropy) and 'box' (L1, of the true
      class) both divided by the number of sampled regions; 'mask' (binary cross-entropy of the true
      class), the mean over the cells of positive regions.
    """
    del batch, train
    anchors = jnp.float32(outputs['rpn_labels'].size)
    objectness, moves = _proposal_sums(outputs)
    labels = outputs['roi_classes']
    sampled = jnp.sum(labels != VOID, dtype=jnp.float32)
    cells, total = _mask_sum(outputs)
    return {
      'rpn/objectness': (objectness, anchors),
      'rpn/box': (moves, anchors),
      'class': (_class_sum(outputs['class_logits'], labels), sampled),
      'box': (_box_sum(outputs['box_deltas'], outputs['box_targets'], labels), sampled),
      'mask': (total, cells),
    }

  def invalid(self, batch: Batch) -> Array:
    """Counts the objects whose class is outside of the classes, int32."""
    classes = batch['classes']
    return jnp.sum((classes < 0) | (classes >= self.num_classes), dtype=jnp.int32)


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
  """Returns the number of cells of positive regions, and the sum over them."""
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
