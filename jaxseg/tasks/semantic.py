"""Semantic segmentation: losses, predictions, score and pictures."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import losses
from jaxseg.config import parts
from jaxseg.config.fields import check_fields, within
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.draw import labels
from jaxseg.metrics import confusion
from jaxseg.metrics.score import Example, Prediction
from jaxseg.nn.layers import laid_out_by_class, resize_bilinear
from jaxseg.tasks import Pictures, Row
from jaxseg.types import VOID, Array, Batch, Losses, Outputs, UserError

Loss = Literal['softmax', 'sigmoid', 'softmax_dice']
Normalize = Literal['weights', 'pixels', 'sum']


@dataclasses.dataclass(frozen=True)
class Task:
  """Losses and predictions from logits. Hashable, so that it can be a static argument of jit.

  Attributes:
    num_classes: classes in the labels, 2 for 'sigmoid'.
    name: 'softmax'; 'sigmoid', one output channel, the log-odds of class 1; 'softmax_dice', softmax
      cross-entropy + (1 - soft Dice), as two terms; or the dotted path of a user's function with the
      signature of `losses.softmax_cross_entropy`, and an attribute `weights_from_labels = True` if its
      weights do not depend on the logits, which accumulation requires.
    normalize: divisor of the first term, the cross-entropy or a user's loss, over the global batch:
      'weights', the sum of the valid pixels' weights; 'pixels', their number (SegNet's Caffe loss); 'sum',
      1 (FCN's, U-Net's). Soft Dice is always a mean over images and classes.
    class_weights: one number per class, the factor of its pixels' loss; or 'median_frequency', which
      has to be computed from the training data first.
    pixel_weights: whether to multiply by batch['weight'] too (U-Net's weight map).
    aux_weight: factor of the first term of outputs['aux_logits'], if a network has them.
  """

  num_classes: int
  name: Loss | str = 'softmax'
  normalize: Normalize = 'weights'
  class_weights: tuple[float, ...] | Literal['median_frequency'] | None = None
  pixel_weights: bool = False
  aux_weight: float = within(0, 1e6, default=0.4)
  headline: ClassVar[str] = 'mean_iou'
  maps: ClassVar[bool] = True
  takes_extent: ClassVar[bool] = False
  class_colors: ClassVar[bool] = True
  transforms: ClassVar[tuple] = ()

  def __post_init__(self):
    check_fields(self, 'config.loss')
    if '.' in self.name:
      parts.own_function(self.name, 'loss')  # reports a wrong path before any data are read
    else:
      _check_choice('name', self.name, get_args(Loss))
    _check_choice('normalize', self.normalize, get_args(Normalize))
    if not 2 <= self.num_classes <= VOID:
      raise UserError(f'num_classes is {self.num_classes}; a task has from 2 to {VOID} classes')
    if self.name == 'sigmoid' and self.num_classes != 2:
      raise UserError(
        f"config.loss.name='sigmoid' is for 2 classes, got {self.num_classes}; use 'softmax'"
      )
    if self.class_weights is not None and not isinstance(self.class_weights, str):
      weights = tuple(float(weight) for weight in self.class_weights)
      right = len(weights) == self.num_classes and all(0 <= w < math.inf for w in weights)
      if not (right and any(weights)):
        raise UserError(
          f'config.loss.class_weights={self.class_weights}: {len(weights)} numbers for '
          f'{self.num_classes} classes; give one a class, none negative and not all 0'
        )
      object.__setattr__(self, 'class_weights', weights)

  @property
  def num_outputs(self) -> int:
    """Channels of the network's logits."""
    return 1 if self.name == 'sigmoid' else self.num_classes

  @property
  def weights_from_labels(self) -> bool:
    if '.' not in self.name:
      return True
    return getattr(parts.own_function(self.name, 'loss'), 'weights_from_labels', False)

  def model_inputs(self, batch: Batch) -> dict[str, Array]:
    del batch
    return {}

  def losses(self, outputs: Outputs, batch: Batch) -> Losses:
    """The terms of the loss, see jaxseg.tasks.

    Args:
      outputs: 'logits' [b, h', w', num_outputs], and 'aux_logits' if the network has them.
      batch: 'label' integers [b, h, w], h >= h'; 'weight' float [b, h, w] if pixel_weights.

    Returns:
      'xent' (for a user's loss, the function's name); 'dice' if enabled; the first again under 'aux/',
      its sum already multiplied by its factor.
    """
    name_of_first = self.name.rpartition('.')[2] if '.' in self.name else 'xent'
    logits = _by_class(outputs['logits'])
    terms = {name_of_first: self._first_term(logits, batch)}
    if self.name == 'softmax_dice':
      terms['dice'] = losses.soft_dice(logits, align(batch['label'], logits))
    if self.aux_weight and outputs.get('aux_logits') is not None:
      aux = _by_class(outputs['aux_logits'])
      total, weight = self._first_term(aux, batch)
      terms[f'aux/{name_of_first}'] = (self.aux_weight * total, weight)
    return terms

  def invalid(self, batch: Batch) -> Array:
    """Counts pixels whose label is neither a class nor VOID, int32."""
    label = batch['label']
    known = losses.is_valid(label, self.num_classes) | (label == VOID)
    return jnp.sum(~known, dtype=jnp.int32)

  def predict(self, outputs: Outputs, size: Size, *, maps: bool = False) -> dict[str, Array]:
    """Returns 'mask' uint8 [b, *size], the most probable class, the lower index on ties.

    With `maps` also 'probabilities' float32 [b, *size, num_classes]; both from resized logits.
    """
    logits = resize_bilinear(outputs['logits'], size)
    sigmoid = self.name == 'sigmoid'
    mask = logits[..., 0] > 0 if sigmoid else jnp.argmax(logits, axis=-1)
    rows = {'mask': mask.astype(jnp.uint8)}
    if maps:
      logits = logits.astype(jnp.float32)
      if sigmoid:
        rows['probabilities'] = jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))
      else:
        rows['probabilities'] = jax.nn.softmax(logits)
    return rows

  def in_image(self, row: Row, frame: Frame, size: Size) -> Prediction:
    """Crops every map of the row from the canvas to the image."""
    return {name: frame.cut(np.asarray(values), size) for name, values in row.items()}

  def scorer(
    self,
    class_names: Sequence[str],
    *,
    absent: confusion.Absent = 'skip',
    f_scores: Mapping[str, float] | None = None,
  ) -> confusion.Score:
    return confusion.Score(class_names, absent=absent, f_scores=f_scores)

  def draw(self, example: Example, prediction: Prediction | None, classes: Any) -> Pictures:
    """Returns 'image', 'truth', 'prediction' and 'errors', see jaxseg.tasks."""
    mask = None if prediction is None else prediction['mask']
    return labels.pictures(example['image'], example['label'], mask, classes.palette)

  def legend(
    self, classes: Any, shown: Iterable[np.ndarray] = ()
  ) -> list[tuple[str, labels.Color]]:
    return labels.legend(classes.palette, classes.names, shown, errors=True)

  def _first_term(self, logits: Array, batch: Batch) -> tuple[Array, Array]:
    if logits.shape[-1] != self.num_outputs:
      raise UserError(
        f'logits have {logits.shape[-1]} channels, loss {self.name!r} of {self.num_classes} '
        f'classes takes {self.num_outputs}; build the model with num_classes=task.num_outputs'
      )
    label = align(batch['label'], logits)
    if isinstance(self.class_weights, str):
      raise UserError(f'class_weights={self.class_weights!r} needs the training data')
    weights = align(_weight_map(batch), logits) if self.pixel_weights else None
    options = dict(class_weights=self.class_weights, pixel_weights=weights)
    if self.name == 'sigmoid':
      total, weight = losses.sigmoid_cross_entropy(logits[..., 0], label, **options)
    else:
      own = '.' in self.name
      loss = parts.own_function(self.name, 'loss') if own else losses.softmax_cross_entropy
      total, weight = loss(logits, label, **options)
    if self.normalize == 'pixels':
      count = jnp.sum(losses.is_valid(label, self.num_classes), dtype=jnp.int32)
      weight = count.astype(jnp.float32)
    elif self.normalize == 'sum':
      weight = jnp.zeros_like(total)
    return total, weight


def _by_class(logits: Array) -> Array:
  """Applies laid_out_by_class under pmap only: on a mesh XLA might gather the map to do it."""
  try:
    jax.lax.psum(1, 'data')  # a constant, if the axis exists
  except NameError:
    return logits
  return laid_out_by_class(logits)


def align(array: Array, logits: Array) -> Array:
  """Centre-crops a map [b, h, w] to the height and width of `logits` [b, h', w', k].

  Raises:
    UserError: the logits are larger, or the difference is odd.
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
      "config.loss.pixel_weights is on but the batch has no 'weight'; "
      'use a dataset that has one or turn it off'
    )
  return batch['weight']


def _check_choice(name: str, value: str, allowed: tuple[str, ...]):
  if value not in allowed:
    raise UserError(f'config.loss.{name}={value!r}: choose one of {", ".join(allowed)}')
