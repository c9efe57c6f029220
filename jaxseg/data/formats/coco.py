"""COCO's JSON: a split's images, categories and annotations in one file.

Redundant keys may be missing: `iscrowd` defaults to 0, `area` and `bbox` to the outline's. Names, order
and ids of the classes are the file's.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.data import records
from jaxseg.data.annotations import Annotated, AnnotatedFolder, Annotation
from jaxseg.data.formats import pictures, splits
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

CROWDS = ('regions', 'objects')
_MANY = 0.1  # fraction of all annotations; of COCO's own 1 in 85 is a crowd
_MOST_FILES = 8  # in a folder of COCO's; other formats have a file per image
_BACKGROUND = 'background'


class ManyCrowds(UserError):
  """Too many objects are marked as crowds for this to be intended."""


@dataclasses.dataclass(frozen=True)
class Content:
  """A file's content, with its parts matched.

  Attributes:
    file: its path.
    images: dicts with 'id' and 'file_name', sorted by id.
    categories: id -> name, in the file's order.
    objects_of: an image's id -> its annotations.
    notes: messages about oddities.
  """

  file: Path
  images: Sequence[Mapping[str, Any]]
  categories: Mapping[Any, str]
  objects_of: Mapping[Any, Sequence[Mapping[str, Any]]]
  notes: tuple[str, ...]


def find(root: Path, *, crowds: str | None = None) -> AnnotatedFolder | None:
  """Returns the layout of a folder with such files, None if there are none."""
  found = _files(root)
  if not found:
    return None
  contents = [load(file) for file in found]
  names, ids = classes(contents)
  parts: dict[str, list] = {}
  for content in [c for c in contents if c.images] or contents:  # an empty split is none
    folder, cut = _folder_of(content, root)
    split = splits.split_of(content.file.stem) or splits.split_of(content.file.parent.name)
    parts.setdefault(split, []).extend(raws(content, folder, root, cut))
  shown = ', '.join(str(file.relative_to(root)) for file in found)
  notes = tuple(line for c in contents for line in (*c.notes, check_crowds(c, crowds)) if line)
  notes += pictures.left_out([raw for part in parts.values() for raw in part])
  read_it = partial(read, classes=class_numbers(ids), crowds=crowds)
  return AnnotatedFolder(f"COCO's JSON ({shown})", parts, names, read_it, ids, notes)


def _files(root: Path) -> list[Path]:
  """Returns the JSON files of COCO's format below a folder."""
  inner = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))
  below = [root, *inner]
  places = [*below, *(folder / 'annotations' for folder in below)]
  found: list[Path] = []
  for folder in dict.fromkeys(places):
    listed = pictures.listed(folder, ('.json',))
    if len(listed) <= _MOST_FILES:
      named = [file for file in listed if file.stem.startswith('instances')]
      found += [file for file in named or listed if _is_coco(file)]
  return found


def _is_coco(file: Path) -> bool:
  """Whether it has COCO's keys; also True if its name says so, for `load` to report.

  A damaged file counts if it mentions these keys or is named after a split; others may be of anything.
  """
  if file.stem.startswith('instances'):
    return True
  try:
    return has_objects(files.read_json(file))
  except UserError:
    text = files.read_bytes(file).replace(b'\0', b'')  # also in UTF-16
    return splits.split_of(file.stem) != '' or b'"images"' in text or b'"annotations"' in text


def has_objects(content: Any) -> bool:
  """Whether JSON has COCO's keys, and not captions."""
  if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
    return False
  listed = content['annotations']
  first = listed[0] if isinstance(listed, list) and listed else {}
  return not isinstance(first, dict) or 'caption' not in first


def load(file: Path) -> Content:
  """Reads a file and matches its parts. Raises UserError if they are invalid."""
  try:
    content = files.read_json(file)
  except FileNotFoundError:
    raise UserError(f'missing file: {file}') from None
  images, listed, categories = (
    _rows(content, k, file) for k in ('images', 'annotations', 'categories')
  )
  for image in images:
    if not isinstance(image.get('file_name'), str) or not _is_id(image.get('id')):
      raise UserError(f"{file}: an image has no 'file_name' or no 'id': {str(image)[:60]}")
  by_id = _unique(images, 'images', file)
  known = {}
  for category in _unique(categories, 'categories', file).values():
    name = category.get('name', f'category {category["id"]}')
    if isinstance(name, bool) or not isinstance(name, (str, int)):
      raise UserError(f'{file}: a category is named {str(name)[:60]}: give it a word')
    known[category['id']] = str(name)
  notes, objects_of = [], {key: [] for key in by_id}
  orphans, matched = [], 0
  as_text = {_as_text(key): key for key in by_id}
  for number, one in enumerate(listed):
    key = one.get('image_id')
    if not _is_id(key):
      raise UserError(f"{file}: {_name(one, number)} has no 'image_id': it belongs to no image")
    if key not in objects_of and _as_text(key) in as_text:
      key, matched = as_text[_as_text(key)], matched + 1
    one['_number'] = number
    objects_of.get(key, orphans).append(one)
  if matched:
    notes.append(
      f'{matched} annotations name their image by text where its id is a number, or the '
      'other way round: matched'
    )
  if orphans:
    first = orphans[0]
    notes.append(
      f'{len(orphans)} annotations are of images that are not listed, and left out: the '
      f'first is {_name(first, 0)} of image {first["image_id"]!r}'
    )
  ids = Counter(one['id'] for one in listed if _is_id(one.get('id')))
  if twice := [key for key, count in ids.items() if count > 1]:
    notes.append(
      f'{len(twice)} annotation ids stand for several objects, all of them read: {abbreviate(twice, 3)}'
    )
  order = sorted(by_id, key=lambda key: (isinstance(key, str), key))
  notes = tuple(f'{file}: {note}' for note in notes)
  return Content(file, [by_id[key] for key in order], known, objects_of, notes)


def _rows(content: Any, key: str, file: Path) -> list[dict]:
  rows = (
    content.get(key, [] if key == 'categories' else None) if isinstance(content, dict) else None
  )
  if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
    raise UserError(
      f"cannot read {file} as COCO's annotations: {key!r} must be a list of objects; restore it"
    )
  return rows


def _is_id(key: Any) -> bool:
  """Whether it is a valid id; spreadsheets write integers as 1.0."""
  if isinstance(key, float):
    return key.is_integer()
  return isinstance(key, (int, str)) and not isinstance(key, bool)


def _as_text(key: Any) -> str:
  return str(int(key) if isinstance(key, float) else key)


def _unique(rows: Sequence[dict], what: str, file: Path) -> dict[Any, dict]:
  by_id: dict[Any, dict] = {}
  texts: set[str] = set()
  for row in rows:
    key = row.get('id')
    if not _is_id(key):
      raise UserError(f"{file}: one of its {what} has the 'id' {key!r}; a number is needed")
    text = _as_text(key)
    if text in texts:
      raise UserError(f'{file}: two of its {what} have the id {key!r}: number them anew')
    texts.add(text)
    by_id[key] = row
  return by_id


def _name(annotation: Mapping[str, Any], number: int) -> str:
  return f'annotation {annotation.get("id", f"no. {number + 1}")}'


def classes(contents: Sequence[Content]) -> tuple[tuple[str, ...], tuple]:
  """Returns names, background first, and their ids; all files of a dataset must agree."""
  first = contents[0]
  for other in contents[1:]:
    if dict(other.categories) != dict(first.categories):
      raise UserError(
        f'{first.file} and {other.file} list different categories: give both the same list'
      )
  used = {one.get('category_id') for c in contents for o in c.objects_of.values() for one in o}
  listed = {
    key: name
    for key, name in first.categories.items()
    if name.lower() != _BACKGROUND or key in used
  }
  names = (_BACKGROUND, *listed.values())
  if len(set(names)) != len(names):
    raise UserError(
      f'{first.file}: the names of categories must differ, and from background: {abbreviate(names[1:])}'
    )
  if not 2 <= len(names) < 255:
    raise UserError(f'{first.file}: {len(names) - 1} categories; 1 to 253 are allowed')
  return names, (0, *listed)


def class_numbers(ids: Sequence[Any]) -> dict[Any, int]:
  """Maps category ids (the background's first) to classes; an id may be a number or its text."""
  numbers = {key: i for i, key in enumerate(ids) if i}
  return {_as_text(key): i for key, i in numbers.items()}


def check_crowds(content: Content, crowds: str | None) -> str:
  """Returns a line about crowds if `crowds` is not given. Raises ManyCrowds if there are many."""
  flags = [one.get('iscrowd') in (1, True) for many in content.objects_of.values() for one in many]
  counts = f'{sum(flags)} of {len(flags)} annotations are crowds (iscrowd 1)'
  told = f'{content.file}: {counts}, which are never trained on'
  if crowds is None and sum(flags) > _MANY * len(flags):
    raise ManyCrowds(
      f'{told}. Some tools mark single objects so when they are drawn with a brush: add '
      '--config.data.options.crowds=objects if each is one object, or crowds=regions if not'
    )
  return told if crowds is None and any(flags) else ''


def raws(content: Content, folder: Path, root: Path, cut: str = '') -> list[records.Raw]:
  """Lists the images, by id; `extra` is an image's entry, then its annotations.

  Args:
    content: of a file.
    folder: the images' names are relative to it, after the prefix `cut` is removed.
    root: the data folder.
    cut: see `_folder_of`.

  Raises:
    UserError: an image's path is outside `root`.
  """
  names = [name.removeprefix(cut) for name in _file_names(content)]
  return [
    records.Raw(
      files.within(root, folder / name),
      content.file,
      name,
      extra=(image, *content.objects_of[image['id']]),
    )
    for name, image in zip(names, content.images, strict=True)
  ]


def _file_names(content: Content) -> list[str]:
  return [image['file_name'].replace('\\', '/') for image in content.images]


def _folder_of(content: Content, root: Path) -> tuple[Path, str]:
  """Returns the folder of a file's images, and the prefix to remove from their names.

  Absolute names, and those that begin with '..', are from another machine: the folders common to all
  of them are removed.
  """
  file, split = content.file, splits.split_of(content.file.stem)
  near = [file.parent, file.parent.parent, root]
  near = list(dict.fromkeys(base for base in near if base.is_relative_to(root)))
  near += [base / name for base in near for name in ('images', 'data')]
  inner = [folder for base in near for s, folder in splits.folders(base) if s == split]
  places = [*inner, *near, *(place / 'default' for place in near)]  # CVAT's unnamed subset
  names = _file_names(content)
  cuts = ['', _shared_folder(names)]
  for cut in dict.fromkeys(cuts):
    wanted = [name.removeprefix(cut) for name in names[:3]]
    for group in (inner, places):  # a split's own folder comes first
      if place := pictures.place_of(wanted, group, file):
        return place, cut
  looked = abbreviate(list(dict.fromkeys(str(place) for place in places if place.is_dir())), 4)
  shown = abbreviate(names[:3], 3) or 'no image'
  raise UserError(f'{file} lists {shown}, which lie in none of {looked}: put the images there')


def _shared_folder(names: Sequence[str]) -> str:
  """Returns the common folders of all names, if each is absolute or begins with '..'; else ''."""
  if not all(re.match(r'/|[A-Za-z]:/|\.\./', name) for name in names):
    return ''
  shared = os.path.commonprefix([name.rpartition('/')[0] + '/' for name in names])
  return shared[: shared.rfind('/') + 1]


def read(raw: records.Raw, *, classes: Mapping[Any, int], crowds: str | None = None) -> Annotated:
  """Reads an image's annotations; with `crowds` 'objects' each crowd is a single object."""
  image, *listed = raw.extra
  sides = [image.get(key) for key in ('height', 'width')]
  for side in sides:
    if side is not None and (not isinstance(side, int) or isinstance(side, bool) or side < 1):
      raise UserError(
        f'{raw.label}: image {raw.file_name} has the size {sides[1]!r} x {sides[0]!r}: whole numbers '
        'of pixels are needed'
      )
  objects = tuple(_annotation(one, raw, classes, crowds) for one in listed)
  return Annotated(objects, None if None in sides else tuple(sides))


def _annotation(
  one: Mapping[str, Any], raw: records.Raw, classes: Mapping[Any, int], crowds: str | None
) -> Annotation:
  name = _name(one, one['_number'])
  where, category = f'{raw.label}, {name} of {raw.file_name}', one.get('category_id')
  if not _is_id(category) or _as_text(category) not in classes:
    raise UserError(f'{where}: category {category!r} is none of the {len(classes)} listed')
  outline, box, crowd = one.get('segmentation'), one.get('bbox'), one.get('iscrowd', 0)
  if crowd not in (0, 1):
    raise UserError(f'{where}: its iscrowd is {crowd!r}; 0 and 1 are allowed')
  if not outline:
    raise UserError(f"{where}: it has no 'segmentation': a box alone is no object with a mask")
  return Annotation(
    name,
    classes[_as_text(category)],
    outline,
    crowd=bool(crowd) and crowds != 'objects',
    area=one.get('area'),
    box=None if box is None else _corners(box, where),
  )


def _corners(box: Any, where: str) -> list[float]:
  try:
    x, y, width, height = box
    return [x, y, x + width, y + height]
  except (TypeError, ValueError):
    raise UserError(
      f'{where}: its bbox is {str(box)[:40]}: x, y, width and height are needed'
    ) from None
