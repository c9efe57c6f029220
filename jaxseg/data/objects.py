"""The objects of an image as training targets: boxes, classes and masks of fixed shapes."""

import dataclasses
from typing import ClassVar

import numpy as np
import scipy

from jaxseg.config.fields import check_fields, within
from jaxseg.data.geometry import Example, drawn_of, move_boxes
from jaxseg.types import LARGEST, UserError

CELLS = 56  # along a side of an object's mask: twice the resolution of the network's masks
_SLACK = 0.5  # pixels by which a box may extend beyond the image


@dataclasses.dataclass(frozen=True)
class Objects:
  """Finds the objects that remain after the other transforms; the last transform of training.

  An example has 'instances' uint16 [h,w] or [h,w,l], ids from 1, and 'instance_classes' uint8 [n],
  the class of id i at index i - 1; optionally 'crowd' bool [n], regions of objects that were not
  separated, and 'instance_boxes' float32 [n,4]. From these it makes a row for each object with pixels
  left, sorted by id, padded with zeros:

    boxes       float32 [max_instances,4]  x0, y0, x1, y1 in pixels
    classes     int32 [max_instances]      1..c-1; 0 for an unused row and for a crowd
    crowd       bool [max_instances]
    masks       uint8 [max_instances,56,56]  coverage of each cell of `mask_boxes` by the object
    mask_boxes  float32 [max_instances,4]  of the whole object, even beyond the border
    extent      float32 [4]                x0, y0, x1, y1 of the image; anything beyond is padding

  A box is the annotated one, transformed like the image; where the border cuts the object, and after a
  warp, it is measured from the remaining pixels. Masks come from the data at original resolution, not
  from a resized map, unless the image was warped.

  Attributes:
    max_instances: rows. More objects are a UserError.
    max_layers: of a layered map; further ones are painted over the last.
    min_area: objects with fewer remaining pixels are dropped.
  """

  max_instances: int = within(1, 10_000, default=100)
  max_layers: int = within(1, 64, default=4)
  min_area: int = within(1, LARGEST, default=1)
  makes: ClassVar[tuple[str, ...]] = (
    'boxes',
    'classes',
    'crowd',
    'masks',
    'mask_boxes',
    'extent',
  )

  def __post_init__(self):
    check_fields(self, 'config.loss')

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if 'instances' not in example:
      raise UserError(
        f'{_name(example)}: its dataset does not number objects, which config.task=instance needs'
      )
    layers, count = (
      _layered(example['instances'], self.max_layers),
      len(example['instance_classes']),
    )
    left, areas = measure(layers, count)
    ids = np.flatnonzero(areas >= self.min_area)
    if len(ids) > self.max_instances:
      raise UserError(
        f'{_name(example)} shows {len(ids)} objects, more than config.loss.max_instances='
        f'{self.max_instances}: raise it'
      )
    crowd = np.asarray(example.get('crowd', np.zeros(len(areas), bool)))[ids]
    classes = np.where(crowd, 0, example['instance_classes'][ids])
    drawn, extent, place = drawn_of(example)
    boxes = mask_boxes = left[ids].astype(np.float32)
    if place is None:
      masks = [_soft(part) for part in _parts(layers, left, ids)]
    else:
      drawn = _layered(drawn, self.max_layers)
      tight, _ = measure(drawn, count)
      masks = [_turned(_soft(part), place) for part in _parts(drawn, tight, ids)]
      mask_boxes = move_boxes(tight[ids].astype(np.float64), place)
      own = example.get('instance_boxes', tight)[ids].astype(np.float64)
      boxes = _whole(move_boxes(own, place), boxes, extent)
    return {
      **example,
      'boxes': self._rows(boxes, np.float32),
      'classes': self._rows(classes, np.int32),
      'crowd': self._rows(crowd, np.bool_),
      'masks': self._rows(np.array(masks).reshape(-1, CELLS, CELLS), np.uint8),
      'mask_boxes': self._rows(mask_boxes, np.float32),
      'extent': extent.astype(np.float32),
    }

  def _rows(self, values: np.ndarray, dtype) -> np.ndarray:
    rows = np.zeros((self.max_instances, *values.shape[1:]), dtype)
    rows[: len(values)] = values
    return rows


def _whole(moved: np.ndarray, left: np.ndarray, extent: np.ndarray) -> np.ndarray:
  """Returns the transformed boxes of objects that lie in the image, else those of the remaining pixels."""
  low, high = extent[:2] - _SLACK, extent[2:] + _SLACK
  inside = (moved[:, :2] >= low).all(axis=1) & (moved[:, 2:] <= high).all(axis=1)
  inside &= (moved[:, 2:] > moved[:, :2]).all(axis=1)
  return np.where(inside[:, None], np.clip(moved, [*extent[:2]] * 2, [*extent[2:]] * 2), left)


def measure(layers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Measures the objects of a map.

  Args:
    layers: uint16 [h, w] or [h, w, l]; an id is in one layer only.
    count: the highest possible id.

  Returns:
    int32 [count, 4] tight boxes x0, y0, x1, y1 (x1, y1 exclusive) and int64 [count] pixels, of id i
    at index i - 1; zeros if it has no pixel.

  Raises:
    UserError: an id above `count`.
  """
  boxes, areas = np.zeros((count, 4), np.int32), np.zeros(count + 1, np.int64)
  for layer in np.moveaxis(np.atleast_3d(layers), -1, 0):
    pixels = np.bincount(layer.ravel(), minlength=count + 1)
    if len(pixels) > count + 1:
      raise UserError(f'a map of instances holds the id {len(pixels) - 1} of {count} objects')
    areas += pixels
    for index, box in enumerate(scipy.ndimage.find_objects(layer)):
      if box:
        rows, columns = box
        boxes[index] = columns.start, rows.start, columns.stop, rows.stop
  return boxes, areas[1:]


def _parts(layers: np.ndarray, boxes: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
  """Returns the pixels of objects in their boxes, bool [h, w] each; `ids` start at 0."""
  parts = []
  for i in ids:
    x0, y0, x1, y1 = boxes[i]
    parts.append((layers[y0:y1, x0:x1] == i + 1).any(axis=2))
  return parts


def _soft(part: np.ndarray) -> np.ndarray:
  """Resizes to 56 x 56 cells of coverage, uint8 0..255: bilinear, averaging when shrinking."""
  rows, columns = (_weights(length) for length in part.shape)
  return np.rint(255 * (rows @ part.astype(np.float32) @ columns.T)).astype(np.uint8)


def _weights(length: int) -> np.ndarray:
  """Returns the weight of each of `length` pixels in each cell, float32 [56, length]; zero-padded."""
  points = (np.arange(CELLS) + 0.5) * length / CELLS - 0.5
  spread = max(1.0, length / CELLS)
  distance = np.abs(points[:, None] - np.arange(length)) / spread
  return (np.maximum(0, 1 - distance) / spread).astype(np.float32)


def _turned(mask: np.ndarray, place: np.ndarray) -> np.ndarray:
  """Flips and transposes the cells of a mask as `place` does."""
  (a, b, _), (c, d, _) = place
  swapped = abs(b) > abs(a)
  mask = mask.T if swapped else mask
  x, y = (b, c) if swapped else (a, d)
  return mask[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def _layered(instances: np.ndarray, most: int) -> np.ndarray:
  """Returns uint16 [h, w, 1] for a flat map, and at most `most` layers of a layered one."""
  if instances.ndim == 2:
    return instances[..., None]
  if instances.shape[2] <= most:
    return instances
  kept = instances[..., :most].copy()
  for layer in range(most, instances.shape[2]):
    further = instances[..., layer]
    np.copyto(kept[..., -1], further, where=further > 0)
  return kept


def _name(example: Example) -> str:
  return str(example.get('file_name', 'an image'))
