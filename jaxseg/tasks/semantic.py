"""Semantic segmentation, one class a pixel: outputs and a batch become losses and metrics."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import losses
from jaxseg.metrics import confusion
from jaxseg.metrics.dice import dice
from jaxseg.types import VOID, Array, Batch, Losses, Outputs, UserError

LOSSES = ('softmax', 'sigmoid', 'softmax_dice')
NORMALIZE = ('weights', 'pixels', 'sum')


@dataclasses.dataclass(frozen=True)
class Task:
  """How logits are trained and scored. Hashable: a jitted function may take it as static argument.

  Attributes:
    num_classes: classes in the labels, 2 for 'sigmoid'.
    loss: 'softmax'; 'sigmoid', one output channel, the log-odds of class 1; 'softmax_dice', softmax
      cross-entropy + (1 - soft Dice), each under its own name.
    normalize: what the cross-entropy is divided by, over the global batch: 'weights', the sum of
      the weights of the valid pixels; 'pixels', their number (SegNet's Caffe loss); 'sum', nothing
      (FCN's, U-Net's). Soft Dice is always a mean over images and classes.
    class_weights: one number a class; a pixel's term is multiplied by its true class's.
    use_pixel_weights: whether batch['weight'] multiplies as well (U-Net's weight map).
    aux_weight: factor of the cross-entropy of outputs['aux_logits'], where a network has them.
    absent: 'skip' or 'zero', how the means count a class that never occurs
      (metrics.confusion.summarize).
    dice: whether the metrics hold the soft DICE too (metrics.dice).
  """

  num_classes: int
  loss: str = 'softmax'
  normalize: str = 'weights'
  class_weights: tuple[float, ...] | None = None
  use_pixel_weights: bool = False
  aux_weight: float = 0.4
  absent: str = 'skip'
  dice: bool = False
  headline = 'mean_iou'  # the score that says which checkpoint is best
  weights_from_labels = True  # the weights of the losses do not depend on what the network says

  def __post_init__(self):
    _check_choice('loss', self.loss, LOSSES)
    _check_choice('normalize', self.normalize, NORMALIZE)
    _check_choice('absent', self.absent, confusion.ABSENT)
    if not 2 <= self.num_classes <= VOID:
      raise UserError(f'num_classes is {self.num_classes}; a task has from 2 to {VOID} classes')
    if self.loss == 'sigmoid' and self.num_classes != 2:
      raise UserError(f"loss 'sigmoid' is for 2 classes, got {self.num_classes}; use 'softmax'")
    if self.class_weights is not None:
      weights = tuple(float(weight) for weight in self.class_weights)
      if len(weights) != self.num_classes or min(weights) < 0:
        raise UserError(
          f'class_weights has {len(weights)} numbers, the smallest {min(weights, default=0)}; '
          f'give {self.num_classes} (one a class), none negative'
        )
      object.__setattr__(self, 'class_weights', weights)

  @property
  def num_outputs(self) -> int:
    """Channels that the network's logits have."""
    return 1 if self.loss == 'sigmoid' else self.num_classes

  def model_inputs(self, batch: Batch) -> dict[str, Array]:
    """Returns what the network takes in training beside the image: nothing."""
    del batch
    return {}

  def losses(self, outputs: Outputs, batch: Batch, *, train: bool = True) -> Losses:
    """The terms of the loss; the loss is sum over terms of sum / (weight where positive, else 1).

    Args:
      outputs: 'logits' [b, h', w', num_outputs]; when training also 'aux_logits', if the network
        has them. batch: 'label' integers [b, h, w], h >= h'; 'weight' float [b, h, w] if
        use_pixel_weights. train: whether the auxiliary term is wanted.

    Returns:
      name -> (sum, weight), float32 scalars to be added over devices before the division. 'xent';
      'dice' for 'softmax_dice'; 'aux/xent', its sum already multiplied by aux_weight.
    """
    terms = {'xent': self._cross_entropy(outputs['logits'], batch)}
    if self.loss == 'softmax_dice':
      label = align(batch['label'], outputs['logits'])
      terms['dice'] = losses.soft_dice(outputs['logits'], label)
    if train and self.aux_weight and outputs.get('aux_logits') is not None:
      total, weight = self._cross_entropy(outputs['aux_logits'], batch)
      terms['aux/xent'] = (self.aux_weight * total, weight)
    return terms

  def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
    """Returns what may be added over steps and devices.

    'confusion' int32 [c, c], rows truth; 'invalid' int32, how many pixels of the label, before it
    is cropped, are neither a class nor VOID; with `dice` also 'dice' and 'dice_count', float32.
    """
    prediction = self.predictions(outputs)
    label = align(batch['label'], prediction[..., None])
    found = {
      'confusion': confusion.confusion_matrix(label, prediction, self.num_classes),
      'invalid': self.invalid(batch),
    }
    if self.dice:
      found['dice'], found['dice_count'] = dice(self.probabilities(outputs), label)
    return found

  def invalid(self, batch: Batch) -> Array:
    """Counts the label's pixels that are neither a class nor VOID, int32."""
    label = batch['label']
    known = losses.is_valid(label, self.num_classes) | (label == VOID)
    return jnp.sum(~known, dtype=jnp.int32)

  def predictions(self, outputs: Outputs) -> Array:
    """Returns the likeliest class of each pixel, int32 [b, h', w']; the lower index wins a tie."""
    logits = outputs['logits']
    if self.loss == 'sigmoid':
      return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)

  def probabilities(self, outputs: Outputs) -> Array:
    """Returns float32 [b, h', w', num_classes], summing to 1 over the last axis."""
    logits = outputs['logits'].astype(jnp.float32)
    if self.loss == 'sigmoid':
      return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))
    return jax.nn.softmax(logits)

  def summarize(self, metrics: dict[str, np.ndarray]) -> dict:
    """Turns added-up metrics (numpy) into the log's numbers: confusion.summarize's, and 'dice'."""
    summary = confusion.summarize(metrics['confusion'], absent=self.absent)
    if 'dice' in metrics:
      summary['dice'] = float(metrics['dice'] / max(metrics['dice_count'], 1))
    return summary

  def _cross_entropy(self, logits: Array, batch: Batch) -> tuple[Array, Array]:
    if logits.shape[-1] != self.num_outputs:
      raise UserError(
        f'logits have {logits.shape[-1]} channels, loss {self.loss!r} of {self.num_classes} '
        f'classes takes {self.num_outputs}; build the model with num_classes=task.num_outputs'
      )
    label = align(batch['label'], logits)
    weights = dict(class_weights=self.class_weights)
    if self.use_pixel_weights:
      weights['pixel_weights'] = align(_weight_map(batch), logits)
    if self.loss == 'sigmoid':
      total, weight = losses.sigmoid_cross_entropy(logits[..., 0], label, **weights)
    else:
      total, weight = losses.softmax_cross_entropy(logits, label, **weights)
    if self.normalize == 'pixels':
      weight = losses.valid_pixels(label, self.num_classes).astype(jnp.float32)
    elif self.normalize == 'sum':
      weight = jnp.zeros_like(total)
    return total, weight


def align(array: Array, logits: Array) -> Array:
  """Cuts the centre of a map [b, h, w] to the height and width of `logits` [b, h', w', k].

  Raises:
    UserError: the logits are larger, or the difference is odd and no centre exists.
  """
  (height, width), size = array.shape[1:3], logits.shape[1:3]
  rows, columns = height - size[0], width - size[1]
  if rows < 0 or columns < 0 or rows % 2 or columns % 2:
    raise UserError(
      f'logits of {size[0]}x{size[1]} do not fit the centre of labels of {height}x{width}: '
      'each side may be smaller by an even number of pixels; use an input size that the model takes'
    )
  return array[:, rows // 2 : rows // 2 + size[0], columns // 2 : columns // 2 + size[1]]


def _weight_map(batch: Batch) -> Array:
  if 'weight' not in batch:
    raise UserError(
      "use_pixel_weights is on but the batch has no 'weight'; "
      'use a dataset that has one or turn it off'
    )
  return batch['weight']


def _check_choice(name: str, value: str, allowed: tuple[str, ...]):
  if value not in allowed:
    raise UserError(f'{name} is {value!r}; use one of {", ".join(allowed)}')
