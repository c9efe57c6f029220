"""Annotated images: the common form of all annotation formats, and the example built from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data import image_files, outlines, records
from jaxseg.data.formats import pictures
from jaxseg.data.geometry import Size
from jaxseg.data.outlines import CroppedMask
from jaxseg.types import VOID, UserError

_SLACK, _FACTOR = 16, 4  # pixels and factor by which a stated area may differ from the outline's
EXIF = ('upright', 'stored')  # outlines were drawn with the EXIF orientation applied, or not


@dataclasses.dataclass(frozen=True)
class Annotation:
  """One annotated object; its numbers are not validated yet.

  Attributes:
    name: for messages, such as 'annotation 7'.
    kind: its class, 1..c-1.
    outline: see outlines.
    crowd: a region of objects that were not separated, or to be ignored.
    area: in pixels, as stated by the annotations; None: the outline's.
    box: x0, y0, x1, y1 likewise.
  """

  name: str
  kind: int
  outline: Any
  crowd: bool = False
  area: Any = None
  box: Any = None


@dataclasses.dataclass(frozen=True)
class Annotated:
  """An image's annotations.

  Attributes:
    objects: in the image.
    size: (h, w) of the annotated image, None if not stated.
    in_shares: whether the polygons' x and y are fractions of width and height.
  """

  objects: Sequence[Annotation]
  size: Size | None = None
  in_shares: bool = False

  def in_pixels(self, size: Size) -> Sequence[Annotation]:
    """Returns the objects with outlines in pixels, for an image of this size."""
    if not self.in_shares:
      return self.objects
    sides = size[::-1]
    return [
      dataclasses.replace(
        one, outline=[[v * sides[i % 2] for i, v in enumerate(part)] for part in one.outline]
      )
      for one in self.objects
    ]


@dataclasses.dataclass(frozen=True)
class AnnotatedFolder:
  """A folder of annotations in one format.

  Attributes:
    words: a description for messages.
    splits: images by split: 'train', 'val', 'test', and UNDIVIDED for those assigned to none.
    names: class names, background first.
    read: reads a Raw's annotations; depends only on its files, the names and the format.
    category_ids: the data's own class ids, () if they are indices of `names`.
    notes: messages about oddities and how they were read.
    key: what else `read` depends on, from other files.
  """

  words: str
  splits: Mapping[str, Sequence[records.Raw]]
  names: tuple[str, ...]
  read: Callable[[records.Raw], Annotated]
  category_ids: tuple[int, ...] = ()
  notes: tuple[str, ...] = ()
  key: Any = None


def example(
  raw: records.Raw,
  *,
  read: Callable[[records.Raw], Annotated],
  exif: str | None = None,
  channels: int = 3,
  dtype: str = 'uint8',
  key: Any = None,
) -> records.Example:
  """Reads an image and its objects: instances in layers, the tables of source.OBJECTS, the label.

  The label is the class of the smallest object at each pixel, void where there is only a crowd.

  Args:
    raw: the files.
    read: reads its annotations.
    exif: one of EXIF, if the annotated size leaves the orientation ambiguous; None: UserError then.
    channels, dtype: of the image.
    key: what else the result of `read` depends on; only part of the cache key.
  """
  del key
  annotated = read(raw)
  image = image_files.encode_image(raw.image, channels=channels, dtype=dtype)
  size, orientation = _frame(raw.image, annotated.size, exif)
  pieces, boxes, areas = [], [], []
  for one in annotated.in_pixels(size):
    try:
      piece = _pixels(one, size)
      box, area = _box(one, piece, size), _area(one, piece)
      _compare(one, piece, box, area, size)
    except UserError as error:
      raise UserError(f'{raw.label}, {one.name} of {raw.file_name}: {error}') from None
    pieces.append(outlines.turn(piece, orientation, size))
    boxes.append(outlines.turn_box(box, orientation, size))
    areas.append(area)
  upright = image.height, image.width
  classes = np.array([one.kind for one in annotated.objects], np.uint8)
  crowd = np.array([one.crowd for one in annotated.objects], bool)
  tables = {
    'instance_classes': classes,
    'crowd': crowd,
    'area': np.array(areas, np.float32),
    'instance_boxes': np.array(boxes, np.float32).reshape(-1, 4),
  }
  try:
    layers = outlines.layers(pieces, upright)
  except UserError as error:
    raise UserError(f'{raw.label}: {error}') from None
  label = paint(pieces, classes, crowd, upright)
  return records.Example(image, label, instances=layers, objects=tables)


def _frame(path: Path, annotated: Size | None, exif: str | None) -> tuple[Size, int]:
  """Returns the size that outlines refer to, and the EXIF orientation to apply to them; 1: none."""
  stored, orientation = pictures.stored_size(path)
  upright = stored[::-1] if orientation > 4 else stored
  if annotated not in (None, stored, upright):
    raise UserError(
      f'{path} is {stored[1]} x {stored[0]} pixels, but its annotations are of {annotated[1]} x {annotated[0]}: '
      'outlines and image must have one size; restore the image, or scale the annotations'
    )
  if orientation == 1:
    return stored, 1
  if annotated is None or stored == upright:
    if exif is None:
      raise UserError(
        f'{path} is turned by its EXIF orientation {orientation}, and its annotations do not tell '
        'whether they were drawn on the turned image: add --config.data.options.exif=upright if so '
        '(most tools show images so), or exif=stored'
      )
    return (upright, 1) if exif == 'upright' else (stored, orientation)
  return (upright, 1) if annotated == upright else (stored, orientation)


def _pixels(one: Annotation, size: Size) -> CroppedMask:
  piece = outlines.rasterise(one.outline, size)
  if not piece.mask.size and one.area is None:
    return outlines.nearest_pixel(one.outline, size)
  return piece


def _area(one: Annotation, piece: CroppedMask) -> float:
  if one.area is None:
    return float(np.count_nonzero(piece.mask))
  [area] = outlines.numbers([one.area], 'its area')
  if area < 0:
    raise UserError(f'its area is {area:g}, below 0')
  return float(area)


def _box(one: Annotation, piece: CroppedMask, size: Size) -> Sequence[float]:
  if one.box is None:
    return piece.box
  box = outlines.numbers(one.box, 'its box')
  if len(box) != 4 or (box[2:] < box[:2]).any():
    raise UserError(f'its box is {box.tolist()}: x, y, width and height, none below 0, are needed')
  outlines.check_inside(box[0::2], box[1::2], size)
  height, width = size
  return np.clip(box, 0, (width, height, width, height))


def _compare(
  one: Annotation, piece: CroppedMask, box: Sequence[float], area: float, size: Size
) -> None:
  """Rejects a box or an area that clearly contradicts the outline, such as in other units or order.

  If the pixels disagree, the corners may agree: an outline thinner than a pixel hardly fills any.
  """
  if one.crowd or not piece.mask.size:
    return
  pixels, most = int(np.count_nonzero(piece.mask)), 2 + max(piece.mask.shape) / 8
  right_area, right_box = _agrees(area, pixels), _distance(box, piece.box) <= most
  if not (right_area and right_box) and not isinstance(one.outline, (dict, CroppedMask)):
    corners, covered = outlines.extent(one.outline, size)
    right_area, right_box = right_area or _agrees(area, covered), _distance(box, corners) <= most
  if not right_area:
    raise UserError(
      f"its area is {area:g}, its outline has {pixels} pixels: correct 'area', or leave it out"
    )
  if not right_box:
    x0, y0, x1, y1 = piece.box
    raise UserError(
      f"its bbox (x, y, width, height) should be about {[x0, y0, x1 - x0, y1 - y0]}, as its outline's: "
      "correct 'bbox', or leave it out"
    )


def _agrees(area: float, pixels: float) -> bool:
  return (pixels - _SLACK) / _FACTOR <= area <= _FACTOR * (pixels + _SLACK)


def _distance(box: Sequence[float], other: Sequence[float]) -> float:
  return max(abs(a - b) for a, b in zip(box, other, strict=True))


def paint(
  pieces: Sequence[CroppedMask], classes: np.ndarray, crowd: np.ndarray, size: Size
) -> np.ndarray:
  """Returns the class of each pixel's smallest object, uint8 [h, w]; crowds are void, beneath all others."""
  label = np.zeros(size, np.uint8)
  pixels = [np.count_nonzero(piece.mask) for piece in pieces]
  for i in sorted(range(len(pieces)), key=lambda i: (not crowd[i], -pixels[i])):
    label[pieces[i].window][pieces[i].mask] = VOID if crowd[i] else classes[i]
  return label
