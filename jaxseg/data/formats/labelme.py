"""labelme's JSON: NAME.json beside NAME.jpg (or in a folder of its own) with a list of shapes.

If no names match, the files' `imagePath` identifies the image.

Shapes are polygons, rectangles, circles and masks; those with the same label and group_id are one
object. The label __ignore__ marks a region to ignore, _background_ is no object; both cut what is drawn
before them, as in the masks that labelme exports.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.data import class_files, mask_files, outlines, records
from jaxseg.data.annotations import Annotated, AnnotatedFolder, Annotation
from jaxseg.data.formats import pictures, splits
from jaxseg.data.outlines import CroppedMask
from jaxseg.data.pairing import UNDIVIDED
from jaxseg.data.problems import abbreviate, read_all
from jaxseg.types import UserError

IGNORED, NOTHING = '__ignore__', '_background_'
_LISTS = ('labels.txt', 'classes.txt')
_CORNERS = 64  # of the polygon that approximates a circle


def find(root: Path) -> AnnotatedFolder | None:
  """Returns the layout of a folder with such files, None if there are none."""
  parts, left_out = {}, []
  for split, folder in [(UNDIVIDED, root), *splits.folders(root)]:
    pairs, without = _pairs(folder)
    if pairs:
      parts.setdefault(split, []).extend(pairs)
      left_out += without
  everything = [raw for pairs in parts.values() for raw in pairs]
  if not everything:
    return None
  names = ('background', *_names(root, everything))
  note = (
    f'{root}: {len(left_out)} images have no JSON and are left out: {abbreviate(left_out, 3)}; save one '
    'without shapes for images that show no object'
  )
  words = f"labelme's JSON ({len(everything)} files)"
  notes = (note,) if left_out else ()
  return AnnotatedFolder(words, parts, names, partial(read, names=names), notes=notes)


def _pairs(folder: Path) -> tuple[list[records.Raw], list[str]]:
  """Returns the annotated images of a folder or its images/, and the names of the others."""
  _check_places(folder)
  for images in (folder, folder / 'images', folder / 'imgs'):
    listed = pictures.listed(images)
    for place in _places(folder, images) if listed else ():
      by_stem = {file.stem: file for file in pictures.listed(place, ('.json',))}
      _check_twins(images, by_stem, listed)
      if by_stem and not by_stem.keys() & {image.stem for image in listed}:
        by_stem = _by_image(by_stem.values())
      pairs = [records.Raw(i, by_stem[i.stem], i.name) for i in listed if i.stem in by_stem]
      if pairs and is_labelme(files.read_json(pairs[0].label)):
        lonely = sorted(by_stem.keys() - {image.stem for image in listed})
        if lonely:
          raise UserError(
            f'{by_stem[lonely[0]]} has no image of its name in {images}: restore it, or '
            'remove the file'
          )
        return pairs, [i.name for i in listed if i.stem not in by_stem]
  return [], []


def _check_places(folder: Path) -> None:
  """Rejects a folder with annotated images in two places, of which the first alone would be read."""
  found: list[Path] = []
  for images in (folder, folder / 'images', folder / 'imgs'):
    stems = {image.stem for image in pictures.listed(images)}
    for place in _places(folder, images) if stems else ():
      named = [file for file in pictures.listed(place, ('.json',)) if file.stem in stems]
      if named and is_labelme(files.read_json(named[0])):
        found.append(named[0])
  if len(found) > 1:
    raise UserError(
      f"{found[0]} and {found[1]} are labelme's in two places: put all into one folder"
    )


def _places(folder: Path, images: Path) -> tuple[Path, ...]:
  """Returns where the JSON of a folder of images may lie."""
  return images, *(folder / name for name in ('annotations', 'labels', 'json', 'jsons'))


def _check_twins(folder: Path, by_stem: Mapping[str, Path], listed: Sequence[Path]) -> None:
  """Rejects several images with the same annotation file."""
  counts = Counter(image.stem for image in listed if image.stem in by_stem)
  if twins := [image.name for image in listed if counts[image.stem] > 1]:
    raise UserError(f'{folder} has several images for one JSON: {abbreviate(twins, 3)}; remove one')


def _by_image(files_: Iterable[Path]) -> dict[str, Path]:
  """Returns labelme's files by the stem of their `imagePath`."""
  found: dict[str, Path] = {}
  for file in files_:
    content = files.read_json(file)
    name = content.get('imagePath') if isinstance(content, dict) and 'shapes' in content else None
    if isinstance(name, str):
      stem = PurePosixPath(name.replace('\\', '/')).stem
      if (other := found.setdefault(stem, file)) != file:
        raise UserError(f'{other} and {file.name} are both of {name} (imagePath): keep one')
  return found


def is_labelme(content: Any) -> bool:
  """Whether JSON has labelme's keys."""
  return isinstance(content, dict) and 'shapes' in content


def _names(root: Path, raws: Sequence[records.Raw]) -> list[str]:
  """Returns the listed classes, or all labels sorted."""
  for file in (root / name for name in _LISTS):
    if file.is_file():
      listed = [entry.name for entry in class_files.read(file)]
      names = [n for n in listed if n not in (IGNORED, NOTHING) and n.lower() != 'background']
      if len(set(names)) != len(names):
        raise UserError(f'{file}: the names of the classes must differ')
      return names
  labels = read_all(
    lambda raw: _labels(raw.label), raws, lambda raw: str(raw.label), 'reading JSON'
  )
  names = sorted(set().union(*labels) - {IGNORED, NOTHING})
  if not names:
    raise UserError(f'{root}: no JSON file has a shape with a label: there is nothing to learn')
  return names


def _labels(file: Path) -> set[str]:
  return {_label(shape, number, file) for number, shape in _shapes(files.read_json(file), file)}


def _shapes(content: Any, file: Path) -> list[tuple[int, Mapping[str, Any]]]:
  shapes = content.get('shapes') if isinstance(content, dict) else None
  if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
    raise UserError(f"{file}: 'shapes' must be a list of labelme's shapes; restore the file")
  return list(enumerate(shapes, start=1))


def _label(shape: Mapping[str, Any], number: int, file: Path) -> str:
  label = shape.get('label')
  if not isinstance(label, str) or not label.strip():
    raise UserError(
      f"{file}, shape {number}: its 'label' is {label!r}; the name of a class is needed"
    )
  return label.strip()


def read(raw: records.Raw, names: tuple[str, ...]) -> Annotated:
  """Reads the objects of an image."""
  content = files.read_json(raw.label)
  shapes = _shapes(content, raw.label)
  _check_image(content.get('imagePath'), raw)
  sides = [content.get(key) for key in ('imageHeight', 'imageWidth')]
  if not all(side is None or (type(side) is int and side > 0) for side in sides):
    raise UserError(f'{raw.label}: its imageHeight and imageWidth are {sides}: pixels are needed')
  size = None if None in sides else tuple(sides)
  numbers = {name: i for i, name in enumerate(names) if i} | {IGNORED: 1}
  groups: dict[Any, tuple[str, str, list]] = {}
  for number, shape in shapes:
    label = _label(shape, number, raw.label)
    if label not in (*numbers, NOTHING):
      raise UserError(
        f'{raw.label}, shape {number}: {label!r} is none of the classes {abbreviate(names[1:])}'
      )
    try:
      outline = _outline(shape, size)
      if label in (IGNORED, NOTHING):
        _cut([parts for *_, parts in groups.values()], outline, size)
        gone = [key for key, (*_, parts) in groups.items() if not parts]
        if gone and label == NOTHING:
          raise UserError(f'{NOTHING} covers all of {groups[gone[0]][0]}: remove one of them')
        groups = {key: group for key, group in groups.items() if key not in gone}
    except UserError as error:
      raise UserError(f'{raw.label}, shape {number}: {error}') from None
    if label == NOTHING:
      continue
    group = shape.get('group_id')
    key = number if group is None or not isinstance(group, (int, str)) else (label, group)
    groups.setdefault(key, (f'shape {number}', label, []))[2].append(outline)
  objects = [
    Annotation(name, numbers[label], parts, crowd=label == IGNORED)
    for name, label, parts in groups.values()
  ]
  return Annotated(objects, size)


def _cut(drawn: Sequence[list], outline: list[float] | CroppedMask, size: tuple | None) -> None:
  """Takes a shape that is no object out of the parts drawn before it: labelme paints one upon the other."""
  if not drawn:
    return
  if size is None:
    raise UserError('what it covers is told by imageHeight and imageWidth alone, which are missing')
  hole = outlines.rasterise(outline, size)
  for parts in drawn:
    for part in tuple(parts):
      try:
        piece = outlines.rasterise(part, size)
      except UserError:  # it is reported under its own name
        continue
      rest = outlines.without(piece, hole)
      if np.count_nonzero(rest.mask) < np.count_nonzero(piece.mask):
        place = next(i for i, one in enumerate(parts) if one is part)
        parts[place : place + 1] = [rest] if rest.mask.size else []


def _check_image(path: Any, raw: records.Raw) -> None:
  """Rejects a file whose `imagePath` is another existing image than the one of its own name."""
  if not isinstance(path, str) or not path or path == raw.image.name:
    return
  other = raw.image.with_name(PurePosixPath(path.replace('\\', '/')).name or '.')
  if other.name != raw.image.name and other.is_file():
    raise UserError(
      f'{raw.label} has the name of {raw.image.name}, but its imagePath is {other.name}, which is there '
      'too: correct one of them'
    )


def _outline(shape: Mapping[str, Any], size: tuple | None) -> list[float] | CroppedMask:
  kind, listed = shape.get('shape_type', 'polygon'), shape.get('points')
  if not isinstance(listed, list) or not all(isinstance(p, list) and len(p) == 2 for p in listed):
    raise UserError("its 'points' must be pairs of x and y")
  points = outlines.numbers([value for point in listed for value in point], "its 'points'").tolist()
  match kind, len(listed):
    case 'polygon' | None, count if count > 2:
      return points
    case (('rectangle' | 'rotation'), 4):  # written by X-AnyLabeling
      return points
    case 'rectangle', 2:
      x0, y0, x1, y1 = points
      return [x0, y0, x1, y0, x1, y1, x0, y1]
    case 'circle', 2:
      x, y, u, v = points
      radius, step = math.hypot(u - x, v - y), 2 * math.pi / _CORNERS
      turns = (step * i for i in range(_CORNERS))
      return [c for t in turns for c in (x + radius * math.cos(t), y + radius * math.sin(t))]
    case 'mask', 2:
      return _mask(shape.get('mask'), points, size)
  raise UserError(
    f'a {kind} of {len(listed)} points is no object with a mask: draw a polygon of three points or '
    'more, a rectangle, a circle or a mask'
  )


def _mask(text: Any, points: list[float], size: tuple | None) -> CroppedMask:
  """Reads a shape's mask image, whose upper left corner is at its first point."""
  try:
    data = base64.b64decode(text, validate=True)
  except (TypeError, ValueError, binascii.Error):
    raise UserError("its 'mask' is no picture in base 64") from None
  picture = Path('its mask')
  mask = mask_files.read_ids(picture, data=data) > 0
  left, top = round(points[0]), round(points[1])
  height, width = mask.shape
  if size is None or min(left, top) < 0 or top + height > size[0] or left + width > size[1]:
    raise UserError(f'its mask of {width} x {height} at {left}, {top} is not inside of its image')
  return outlines.tight(mask, top, left)
