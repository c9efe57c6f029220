"""What a network's outputs mean: one task a file, always `class Task`, a frozen dataclass.

A new task is a file here, or a module of the user's own (`config.task = 'my.depth'`), a model that
gives its outputs, and a config. Nothing else looks at a task's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxseg.config import parts
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.draw.labels import Color
from jaxseg.metrics.score import Example, Prediction, Score
from jaxseg.types import Array, Batch, Losses, Outputs

Row = Mapping[str, np.ndarray]  # what `predict` says of one image
Pictures = dict[str, np.ndarray]  # title -> uint8 [h, w, 3]


class Task(Protocol):
  """The one protocol. Fields beside `num_classes` are the options of a config's group `loss`.

  Attributes:
    num_classes: in the labels.
    headline: the score that says which checkpoint is best; larger is better.
    weights_from_labels: whether the losses' weights depend on labels alone, which accumulation needs.
    maps: whether predictions are maps of class probabilities, which may be averaged over views and
      joined from tiles.
    takes_extent: whether its network wants to know what of its canvas is the image.
    class_colors: whether its pictures show classes in their colours.
    num_outputs: channels of the network's output.
    transforms: what a training example goes through last; one with `makes` names further entries of
      the batch.
  """

  num_classes: int
  headline: str
  weights_from_labels: bool
  maps: bool
  takes_extent: bool
  class_colors: bool

  @property
  def num_outputs(self) -> int: ...

  @property
  def transforms(self) -> tuple: ...

  def model_inputs(self, batch: Batch) -> dict[str, Any]:
    """Returns what the network takes in training beside the image."""

  def losses(self, outputs: Outputs, batch: Batch) -> Losses:
    """Returns name -> (sum, weight), float32 scalars to be added over devices before the division.

    The loss is the sum over terms of sum / (weight where positive, else 1).
    """

  def invalid(self, batch: Batch) -> Array:
    """Counts labels outside the classes, int32."""

  def predict(self, outputs: Outputs, size: Size, *, maps: bool = False) -> dict[str, Array]:
    """Returns a row [b, ...] for each image: on the device, pure.

    Args:
      outputs: of the network.
      size: height and width of the canvas in pixels of the image, see data.frame; static.
      maps: whether 'probabilities' float32 [b, *size, num_classes] are wanted, of a task with maps.
    """

  def in_image(self, row: Row, frame: Frame, size: Size) -> Prediction:
    """Returns what one row says of its image of `size`, without the canvas around it: on the host.

    'mask' uint8 [h, w] always; with maps 'probabilities' [h, w, num_classes]; of objects
    'detections' (types.Detections) and 'ids' uint16 [h, w]. A task of objects has `of_objects` too,
    which gives the same of detections alone: those of tiles are joined before.
    """

  def scorer(self, class_names: Sequence[str], **options: Any) -> Score:
    """Returns a new score that has the headline; `options` are config.eval.score."""

  def draw(self, example: Example, prediction: Prediction | None, classes: Any) -> Pictures:
    """Returns pictures by title: 'image', 'truth', 'prediction' and others.

    Args:
      example: as its source gives it.
      prediction: what `in_image` gives; None: the truth alone is drawn.
      classes: with `names` and `palette`.
    """

  def legend(self, classes: Any, shown: Iterable[np.ndarray] = ()) -> list[tuple[str, Color]]:
    """Returns names with the colours that its pictures of predictions have, [] where none helps.

    Args:
      classes: with `names` and `palette`.
      shown: labels and masks; of many classes only those that occur are named.
    """


def load(name: str) -> type[Task]:
  """Returns the class `Task` of jaxseg.tasks.NAME, or of the user's own module.

  Raises:
    UserError: there is no such task; the message lists those there are.
  """
  return parts.load('tasks', name).Task
