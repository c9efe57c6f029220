"""CVAT's XML ("CVAT for images"): one annotations.xml with all images, their polygons and masks.

Boxes and ellipses become polygons; shapes with the same label and group_id are one object.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from jaxseg import files
from jaxseg.data import outlines, raw_files, records
from jaxseg.data.annotations import Annotated, AnnotatedFolder, Annotation
from jaxseg.data.formats import pictures, splits
from jaxseg.data.outlines import CroppedMask
from jaxseg.data.pairing import UNDIVIDED
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

_SHAPES = ('polygon', 'mask', 'box', 'ellipse')
_CORNERS = 64  # of the polygon that approximates an ellipse

Tree = ElementTree.Element


def find(root: Path) -> AnnotatedFolder | None:
  """Returns the layout of a folder with such files, None if there are none."""
  places = [(UNDIVIDED, root), *splits.folders(root)]
  listed = [(s, f) for s, p in places for f in pictures.listed(p, ('.xml',))]
  listed += [('', f) for f in pictures.listed(root / 'annotations', ('.xml',))]
  parsed = [(split, file, tree) for split, file in listed if (tree := _parse(file)) is not None]
  if not parsed:
    return None
  parts: dict[str, list] = {}
  labels: dict[str, None] = {}
  for split, file, tree in parsed:
    labels |= dict.fromkeys(_labels(tree))
    for image in tree.iter('image'):
      subset = splits.split_of(image.get('subset', '')) or split
      parts.setdefault(subset, []).append(_raw(image, file, root))
  if not labels:
    raise UserError(f'{parsed[0][1]} names no label: there is nothing to learn')
  names = ('background', *(name for name in labels if name.lower() != 'background'))
  words = f"CVAT's XML ({', '.join(str(file.relative_to(root)) for _, file, _ in parsed)})"
  notes = pictures.left_out([raw for part in parts.values() for raw in part])
  return AnnotatedFolder(words, parts, names, partial(read, names=names), notes=notes)


def _parse(file: Path) -> Tree | None:
  """Returns CVAT's tree, None if a file is another XML."""
  text = raw_files.read_text(file)
  if '<!DOCTYPE' in text or '<!ENTITY' in text:
    raise UserError(f'{file} declares a document type, which CVAT does not: restore the file')
  try:
    tree = ElementTree.fromstring(text)
  except ElementTree.ParseError as error:
    raise UserError(f'{file} is no valid XML: {error}') from None
  if tree.tag == 'annotations' and tree.find('track') is not None:
    raise UserError(f"{file} is CVAT's for videos: export it as 'CVAT for images'")
  return tree if tree.tag == 'annotations' and tree.find('image') is not None else None


def names_in(file: Path) -> set[str]:
  """Returns the names of an XML file's images, without folders; of none if it is not CVAT's."""
  tree = _parse(file)
  images = () if tree is None else tree.iter('image')
  return {(image.get('name') or '').replace('\\', '/').rpartition('/')[2] for image in images}


def _labels(tree: Tree) -> list[str]:
  """Returns the task's listed labels, else those of its shapes, in order."""
  listed = [name.text.strip() for name in tree.iterfind('./meta//labels/label/name') if name.text]
  used = [s.get('label', '') for kind in _SHAPES for s in tree.iter(kind)]
  return listed or sorted(set(used))


def _raw(image: Tree, file: Path, root: Path) -> records.Raw:
  name = (image.get('name') or '').replace('\\', '/')
  if not name:
    raise UserError(f'{file}: an image has no name')
  subset = image.get('subset', '')
  bases = (
    file.parent,
    file.parent / 'images',
    root,
    root / 'images',
    file.parent.parent / 'images',
  )
  places = [p for base in bases for p in (base / name, base / subset / name)]
  place = pictures.place_of([places[0].name], [place.parent for place in places], file)
  path = place / places[0].name if place else None
  if path is None:
    raise UserError(
      f'{file} lists {name}, which lies in none of {abbreviate(sorted({str(p.parent) for p in places}), 4)}'
    )
  return records.Raw(files.within(root, path), file, name, extra=image)


def read(raw: records.Raw, names: tuple[str, ...]) -> Annotated:
  """Reads the objects of an image."""
  image: Tree = raw.extra
  size = tuple(
    int(_number(image, key, f'{raw.label}, image {raw.file_name}')) for key in ('height', 'width')
  )
  groups: dict[object, tuple[str, int, list]] = {}
  shapes = [shape for shape in image if shape.tag != 'tag']  # a tag applies to the whole image
  for number, shape in enumerate(shapes, start=1):
    where, label = f'{raw.label}, {shape.tag} {number} of {raw.file_name}', shape.get('label')
    if label not in names[1:]:
      raise UserError(f'{where}: its label {label!r} is none of {abbreviate(names[1:])}')
    group = shape.get('group_id')
    key = (label, group) if group not in (None, '', '0') else number
    _, _, parts = groups.setdefault(key, (f'{shape.tag} {number}', names.index(label), []))
    parts.append(_outline(shape, size, where))
  objects = [Annotation(name, kind, parts) for name, kind, parts in groups.values()]
  return Annotated(objects, size)


def _number(element: Tree, key: str, where: str) -> float:
  try:
    value = float(element.get(key, ''))
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise UserError(f'{where}: its {key} is {element.get(key)!r}; a number is needed')
  return value


def _outline(shape: Tree, size: tuple[int, int], where: str) -> list[float] | CroppedMask:
  match shape.tag:
    case 'polygon':
      pairs = [pair.split(',') for pair in shape.get('points', '').split(';')]
      try:
        return [float(word) for x, y in pairs for word in (x, y)]
      except ValueError:
        raise UserError(f"{where}: its points are no 'x,y;x,y;...'") from None
    case 'box':
      x0, y0, x1, y1 = (_number(shape, key, where) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
      return _rotated([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], shape, where)
    case 'ellipse':
      x, y, a, b = (_number(shape, key, where) for key in ('cx', 'cy', 'rx', 'ry'))
      turns = (2 * math.pi * i / _CORNERS for i in range(_CORNERS))
      return _rotated([(x + a * math.cos(t), y + b * math.sin(t)) for t in turns], shape, where)
    case 'mask':
      return _mask(shape, size, where)
  raise UserError(f'{where}: a {shape.tag} is no object with a mask: draw a polygon or a mask')


def _rotated(corners: list[tuple[float, float]], shape: Tree, where: str) -> list[float]:
  """Returns x, y, x, y ... of corners rotated about their centre, clockwise by the shape's degrees."""
  points = np.array(corners)
  if shape.get('rotation'):
    angle = math.radians(_number(shape, 'rotation', where))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = (points - middle) @ turn + middle
  return points.ravel().tolist()


def _mask(shape: Tree, size: tuple[int, int], where: str) -> CroppedMask:
  """Reads run lengths of a window of the image, row by row."""
  numbers = [_number(shape, k, where) for k in ('left', 'top', 'width', 'height')]
  left, top, width, height = map(int, numbers)
  if [left, top, width, height] != numbers:
    raise UserError(f'{where}: its left, top, width and height are no whole numbers')
  if (
    min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]
  ):
    raise UserError(
      f'{where}: its {width} x {height} pixels at {left}, {top} are not inside of its image'
    )
  words = shape.get('rle', '').split(',')
  try:
    runs = np.array([int(word) for word in words], np.int64)
  except (ValueError, OverflowError):
    raise UserError(f'{where}: its rle is no list of whole numbers') from None
  if (runs < 0).any() or (runs > width * height).any() or runs.sum() != width * height:
    raise UserError(f'{where}: its run lengths add up to {runs.sum()} of {width * height} pixels')
  mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
  return outlines.tight(mask, top, left)
