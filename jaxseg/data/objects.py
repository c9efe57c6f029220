"""The objects of an image as a training step takes them: boxes, classes and ids of fixed shapes."""

import dataclasses
from typing import ClassVar

import numpy as np
from scipy import ndimage

from jaxseg.config.fields import check_fields, within
from jaxseg.data.geometry import Example
from jaxseg.types import LARGEST, UserError


@dataclasses.dataclass(frozen=True)
class Objects:
  """Measures the objects that the transforms before it have left; the last of a training's.

  An example has 'instances' uint16 [h,w] or [h,w,l], ids from 1, and 'instance_classes' uint8 [n],
  the class of id i at place i - 1; perhaps 'crowd' bool [n], regions of objects that nobody told
  apart. Made of them, a row for each object with pixels left, by rising id, the rest zero:

    boxes      float32 [max_instances,4]  x0, y0, x1, y1: tight, in pixels, x1 and y1 exclusive
    classes    int32 [max_instances]      1..c-1; 0 for an unused row and for a crowd
    ids        int32 [max_instances]      its number in the map
    crowd      bool [max_instances]
    instances  uint16 [h,w,layers]        as it was; layers beyond `max_layers` are painted over the
                                          last, and missing ones are empty

  Attributes:
    max_instances: rows. More objects are a UserError.
    max_layers: of a map that has layers; one without gets one.
    min_area: objects of fewer pixels are left out of the rows.
  """

  max_instances: int = within(1, 10_000, default=100)
  max_layers: int = within(1, 64, default=4)
  min_area: int = within(1, LARGEST, default=1)
  makes: ClassVar[tuple[str, ...]] = ('boxes', 'classes', 'ids', 'crowd', 'instances')

  def __post_init__(self):
    check_fields(self, 'config.loss')

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if 'instances' not in example:
      raise UserError(
        f'{_name(example)}: its dataset does not number objects, which config.task=instance needs'
      )
    layers = _layered(example['instances'], self.max_layers)
    boxes, areas = measure(layers, len(example['instance_classes']))
    ids = np.flatnonzero(areas >= self.min_area)
    if len(ids) > self.max_instances:
      raise UserError(
        f'{_name(example)} shows {len(ids)} objects, more than config.loss.max_instances='
        f'{self.max_instances}: raise it'
      )
    crowd = np.asarray(example.get('crowd', np.zeros(len(areas), bool)))[ids]
    classes = np.where(crowd, 0, example['instance_classes'][ids])
    return {
      **example,
      'boxes': self._rows(boxes[ids], np.float32),
      'classes': self._rows(classes, np.int32),
      'ids': self._rows(ids + 1, np.int32),
      'crowd': self._rows(crowd, np.bool_),
      'instances': layers,
    }

  def _rows(self, values: np.ndarray, dtype) -> np.ndarray:
    rows = np.zeros((self.max_instances, *values.shape[1:]), dtype)
    rows[: len(values)] = values
    return rows


def measure(layers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Finds where the objects of a map lie.

  Args:
    layers: uint16 [h, w] or [h, w, l]; an id is in one layer only.
    count: the highest id that there may be.

  Returns:
    int32 [count, 4] tight boxes x0, y0, x1, y1 (x1, y1 exclusive) and int64 [count] pixels, of id i
    at place i - 1; zeros where it has no pixel.

  Raises:
    UserError: an id above `count`.
  """
  boxes, areas = np.zeros((count, 4), np.int32), np.zeros(count + 1, np.int64)
  for layer in np.moveaxis(np.atleast_3d(layers), -1, 0):
    pixels = np.bincount(layer.ravel(), minlength=count + 1)
    if len(pixels) > count + 1:
      raise UserError(f'a map of instances holds the id {len(pixels) - 1} of {count} objects')
    areas += pixels
    for index, box in enumerate(ndimage.find_objects(layer)):
      if box:
        rows, columns = box
        boxes[index] = columns.start, rows.start, columns.stop, rows.stop
  return boxes, areas[1:]


def _layered(instances: np.ndarray, most: int) -> np.ndarray:
  """Returns uint16 [h, w, 1] of a plain map, and [h, w, most] of one that has layers."""
  if instances.ndim == 2:
    return instances[..., None]
  kept = np.zeros((*instances.shape[:2], most), instances.dtype)
  kept[..., : instances.shape[2]] = instances[..., :most]
  for layer in range(most, instances.shape[2]):
    further = instances[..., layer]
    np.copyto(kept[..., -1], further, where=further > 0)
  return kept


def _name(example: Example) -> str:
  return str(example.get('file_name', 'an image'))
