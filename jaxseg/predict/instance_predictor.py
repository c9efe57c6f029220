"""Instances found in single images of any size: boxes, classes, scores and masks.

`InstancePredictor` is what `jaxseg.load` gives for a run of the task 'instance'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg.data import geometry
from jaxseg.data.loader import eval_batches
from jaxseg.metrics.coco import Detections
from jaxseg.nn.detection.masks import paste
from jaxseg.predict.averages import Options
from jaxseg.train import build
from jaxseg.train.run_folder import Classes
from jaxseg.types import VOID, UserError

_MULTIPLE = 128
MIN_SCORE = 0.5  # of what is painted into masks and pictures; all that was found is in the lists


class InstancePredictor:
  """Maps images to instances: `found = predictor.instances(image)`.

  Args:
    config: of the run.
    variables: {'params': ..., 'batch_stats': ...}.
    classes: names and colours of the classes.
    options: only `multiple` has a meaning here; 1 stays 1, else it is what programs need at least.

  Raises:
    UserError: options that average or cut, which would need objects to be matched between views.
  """

  def __init__(
    self, config: ConfigDict, variables: Any, classes: Classes, options: Options | None = None
  ):
    self.config, self.classes, self.options = config, classes, options or Options()
    check_options(self.options)
    self.variables = jax.device_put(variables)
    self._model = build.model_from(config)
    self._preprocess = build.preprocessing_from(config)
    self._network = jax.jit(self._detect)
    asked = self.options.multiple
    self._multiple = 1 if asked == 1 else max(asked, Seen([], config).multiple)

  def instances(self, image: np.ndarray) -> Detections:
    """Returns what is found in an image uint8 [h, w, c] or [h, w], by falling score."""
    return at_own_size(self.outputs(image), image.shape[:2])

  def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the network's outputs, boxes in pixels of the image and masks of 28 x 28 cells."""
    image = checked(image, self.config.channels)
    seen = Seen([{'image': image}], self.config)
    batch = next(
      eval_batches(
        seen,
        batch_size=1,
        size_rule=self._model.size_rule,
        scale=float(self.config.eval_scales[0]),
        fill=self._preprocess.fill,
        mirror_border=build.mirror_border_from(self.config),
        min_multiple=self._multiple,
        num_threads=0,
      )
    )
    found = jax.device_get(self._network(self.variables, batch['image']))
    row, (label, pixels) = {k: v[0] for k, v in found.items()}, (batch['label'], batch['image'])
    canvas = own_canvas(self.config, image.shape[:2], label.shape[1:3])
    return in_image(row, canvas, pixels.shape[1:3])

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel's best instance, uint8 [h, w], 0 where there is none."""
    return painted(self.instances(image))[1]

  def replace(self, **changes: Any) -> InstancePredictor:
    """Returns the same network with other options."""
    options = Options(**{**vars(self.options), **changes})
    return InstancePredictor(self.config, self.variables, self.classes, options)

  def canvas(self, height: int, width: int) -> tuple[int, int]:
    """Returns the size of the program that an image of this size runs in."""
    multiple, scale = self._multiple, float(self.config.eval_scales[0])
    seen = build.network_size_from(self.config, (height, width))
    sides = (round(side * scale) for side in seen)
    return tuple(self._model.size_rule.at_least(n + -n % multiple) for n in sides)

  def _detect(self, variables: Any, image: jax.Array) -> dict[str, jax.Array]:
    return self._model.apply(variables, self._preprocess(image), train=False)

  def _refused(self, *_: Any) -> Any:
    raise UserError(
      'a network of instances gives boxes, scores, classes and masks (predictor.instances(image)), '
      'no probability or uncertainty of pixels'
    )

  probabilities = uncertainty = bands = _refused


class Seen:
  """A source as a network of instances is to see it: images at its size, and nothing to score.

  Attributes:
    multiple: of the sizes of programs; where every image has another size, so that there are few.
  """

  def __init__(self, source: Any, config: ConfigDict):
    self._source, self._config = source, config
    self.file_name = getattr(source, 'file_name', None)
    self.multiple = _MULTIPLE if config.short_side else 1

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._source[index]
    size = build.network_size_from(self._config, example['image'].shape[:2])
    image = geometry.resize_image(example['image'], size)
    return {**example, 'image': image, 'label': np.full(size, VOID, np.uint8)}

  def size(self, index: int) -> tuple[int, int]:
    """Returns height and width of an image, in pixels."""
    ask = getattr(self._source, 'size', None)
    own = ask(index) if ask else self._source[index]['image'].shape[:2]
    return build.network_size_from(self._config, tuple(own))


def own_canvas(
  config: ConfigDict, size: tuple[int, int], canvas: tuple[int, int]
) -> tuple[float, float]:
  """Returns a padded canvas in pixels of the image, of `size`, where `Seen` has resized it."""
  seen = build.network_size_from(config, size)
  height, width = (n * own / shown for n, own, shown in zip(canvas, size, seen, strict=True))
  return height, width


def check_options(options: Options) -> None:
  """Refuses what averages pictures of pixels. Raises UserError."""
  given = Options(multiple=options.multiple, max_pixels=options.max_pixels)
  if options != given:
    raise UserError(
      f'{options.describe()}: a network of instances sees the whole image once; leave out scales, '
      'flips, rotations, samples and tiles'
    )


def checked(image: np.ndarray, channels: int) -> np.ndarray:
  """Returns an image as [h, w, c]. Raises UserError where a network of `channels` cannot take it."""
  image = image[..., None] if image.ndim == 2 else image
  if image.dtype != np.uint8 or image.shape[-1] != channels:
    raise UserError(
      f'image is {image.dtype} with {image.shape[-1]} channels; this network takes uint8 with '
      f'{channels}'
    )
  return image


def in_image(
  found: Mapping[str, np.ndarray], canvas: tuple[float, float], seen: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Moves one image's boxes from what the network saw to the image.

  They may reach into the padding: a mask belongs to its box as the network gave it.

  Args:
    found: boxes [d, 4] in pixels of what the network saw, and other outputs [d, ...].
    canvas: height and width of the image with the padding right and below, in its own pixels.
    seen: of the canvas as the network saw it.
  """
  factor = np.array([canvas[axis] / seen[axis] for axis in (1, 0, 1, 0)], np.float32)
  return {**found, 'boxes': found['boxes'] * factor}


def at_own_size(found: Mapping[str, np.ndarray], size: tuple[int, int]) -> Detections:
  """Pastes one image's masks.

  Args:
    found: boxes [d, 4] in pixels of the image, scores [d] (0: unused), classes [d] and masks
      [d, 28, 28].
    size: height and width of the image.

  Returns:
    Those that have a pixel, by falling score, boxes clipped to the image.
  """
  used = found['scores'] > 0
  boxes = found['boxes'][used]
  masks = paste(found['masks'][used], boxes, size)
  height, width = size
  boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
  whole = Detections(boxes, found['scores'][used], found['classes'][used], masks)
  return whole[masks.any(axis=(1, 2))]


def painted(found: Detections, least: float = MIN_SCORE) -> tuple[np.ndarray, np.ndarray]:
  """Paints the detections into an image, the best on top.

  Returns:
    uint16 [h, w], place + 1 of each pixel's instance, 0 for none; uint8 [h, w], its class.
  """
  ids = np.zeros(found.masks.shape[1:], np.uint16)
  for place in np.flatnonzero(found.scores >= least)[::-1]:
    ids[found.masks[place]] = place + 1
  classes = np.concatenate([[0], found.classes]).astype(np.uint8)
  return ids, classes[ids]
