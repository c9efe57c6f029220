"""Tasks interpret a network's outputs: one per file, always `class Task`, a frozen dataclass.

A new task is a file here, or a user's module (`config.task = 'my.depth'`), a model with its outputs,
and a config. No other code depends on a task's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxseg.config import parts
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.draw.labels import Color
from jaxseg.metrics.score import Example, Prediction, Score
from jaxseg.types import Array, Batch, Losses, Outputs, UserError

Row = Mapping[str, np.ndarray]  # result of `predict` for one image
Pictures = dict[str, np.ndarray]  # title -> uint8 [h, w, 3]


class Task(Protocol):
  """The protocol of tasks. Fields beside `num_classes` are the options of a config's group `loss`.

  Attributes:
    num_classes: in the labels.
    headline: the score that ranks checkpoints; larger is better.
    weights_from_labels: whether the losses' weights depend on labels only, as accumulation requires.
    maps: whether predictions are maps of class probabilities, which can be averaged over views and
      tiled.
    takes_extent: whether its network takes the image's extent on the canvas.
    class_colors: whether its pictures show classes in their colours.
    num_outputs: channels of the network's output.
    transforms: the last transforms of a training example; those with `makes` add entries to the batch.
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
    """Returns the network's further inputs in training, beside the image."""

  def losses(self, outputs: Outputs, batch: Batch) -> Losses:
    """Returns name -> (sum, weight), float32 scalars, which are summed over devices before the division.

    The loss is the sum over terms of sum / weight (1 in place of a weight of 0).
    """

  def invalid(self, batch: Batch) -> Array:
    """Counts labels outside the classes, int32."""

  def predict(self, outputs: Outputs, size: Size, *, maps: bool = False) -> dict[str, Array]:
    """Returns arrays [b, ...], a row per image. Pure, on the device.

    Args:
      outputs: of the network.
      size: height and width of the canvas in pixels of the image, see data.frame; static.
      maps: adds 'probabilities' float32 [b, *size, num_classes], for tasks with maps.
    """

  def in_image(self, row: Row, frame: Frame, size: Size) -> Prediction:
    """Converts a row from the canvas to its image of `size`. On the host.

    Always 'mask' uint8 [h, w]; with maps 'probabilities' [h, w, num_classes]; for objects 'detections'
    (types.Detections) and 'ids' uint16 [h, w]. A task that detects objects also has `of_objects`, which
    returns the same for given detections, such as those merged from tiles.
    """

  def scorer(self, class_names: Sequence[str], **options: Any) -> Score:
    """Returns an empty score that computes the headline; `options` are config.eval.score."""

  def draw(self, example: Example, prediction: Prediction | None, classes: Any) -> Pictures:
    """Returns pictures by title: 'image', 'truth', 'prediction' and others.

    Args:
      example: from its source.
      prediction: from `in_image`; None: draws only the truth.
      classes: with `names` and `palette`.
    """

  def legend(self, classes: Any, shown: Iterable[np.ndarray] = ()) -> list[tuple[str, Color]]:
    """Returns (name, colour) pairs for its pictures of predictions, [] if none is useful.

    Args:
      classes: with `names` and `palette`.
      shown: labels and masks; if there are many classes, lists only those that occur.
    """


def load(name: str) -> type[Task]:
  """Returns the class `Task` of jaxseg.tasks.NAME, or of a user's module.

  Raises:
    UserError: no such task, the message lists them all; or one that lacks a part of the protocol.
  """
  task = parts.load('tasks', name).Task
  fields = {'num_classes'}  # without a default, so no attribute of the class
  members = {*Task.__annotations__, *vars(Task)} - fields
  missing = [n for n in sorted(members) if not (n.startswith('_') or hasattr(task, n))]
  if missing:
    raise UserError(
      f'task {name!r} lacks {", ".join(missing)}: jaxseg/tasks/__init__.py says what each is'
    )
  return task
