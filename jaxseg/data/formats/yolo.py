"""YOLO's polygons: labels/NAME.txt beside images/NAME.jpg, 'class x y x y ...' per object.

x and y are fractions of the image's width and height, 0 to 1. data.yaml (or classes.txt, obj.names) names
the classes. An image without a label file has no objects, as in YOLO. Darknet's NAME.txt is in the same
folder as NAME.jpg.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from jaxseg import files
from jaxseg.data import class_files, raw_files, records
from jaxseg.data.annotations import Annotated, AnnotatedFolder, Annotation
from jaxseg.data.formats import pictures, splits
from jaxseg.data.pairing import SPLIT_WORDS, SUFFIXES, UNDIVIDED
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

_LISTS, _YAML = ('classes.txt', 'obj.names'), ('data', 'dataset')
_NEAR = 0.005  # fraction of a side within which coordinates are equal
_PIXELS = 1.1  # larger coordinates are in pixels, not fractions


def find(root: Path) -> AnnotatedFolder | None:
  """Returns the layout of a folder with images/ and labels/, or both side by side, None if it is none."""
  folders = _image_folders(root)
  try:
    settings = _settings(root)
  except UserError:
    if folders:
      raise
    return None  # it may have another format
  inner = settings.get('path')
  if not folders and isinstance(inner, str) and (root / inner).is_dir():
    folders = _image_folders(files.within(root, root / inner))
  folders = folders or _side_by_side(root)
  if not folders:
    return None
  if 'kpt_shape' in settings:
    raise UserError(
      f'{root}: its YAML announces keypoints (kpt_shape), which are no outlines: export polygons'
    )
  parts: dict[str, list[records.Raw]] = {}
  for split, images, labels in folders:
    parts.setdefault(split, []).extend(_pairs(images, labels))
  everything = [raw for pairs in parts.values() for raw in pairs]
  without = [raw.file_name for raw in everything if not raw.extra]
  if len(without) == len(everything):
    raise UserError(f'{root}: none of {len(everything)} images has a label file in labels/')
  note = (
    f'{root}: {len(without)} images have no label file, so no objects: {abbreviate(without, 3)}'
  )
  names = ('background', *_names(root, settings, [labels for *_, labels in folders]))
  words = f'polygons of YOLO ({", ".join(f.parent.name + "/" + f.name for _, f, _ in folders)})'
  notes = (*((note,) if without else ()), *_otherwise(root, settings, folders))
  return AnnotatedFolder(words, parts, names, partial(read, names=names), notes=notes)


Folders = list[tuple[str, Path, Path]]  # (split, folder of images, folder of labels)


def _image_folders(root: Path) -> Folders:
  """Returns the folders of images with a folder of labels."""
  found, inner = [], _child(root, 'images')
  if inner.is_dir():
    found = splits.folders(inner) or [(UNDIVIDED, inner)]
  for split, folder in splits.folders(root):
    images = _child(folder, 'images')
    found.append((split, images if images.is_dir() else folder))
  listed = [(split, folder, _labels_of(root, folder)) for split, folder in found]
  return [one for one in listed if _has_labels(one[-1])]


def _side_by_side(root: Path) -> Folders:
  """Returns the folders with images and labels side by side, as in darknet."""
  stems: dict[Path, tuple[set[str], set[str]]] = {}
  for path in map(root.joinpath, files.walk(root)):
    if path.suffix == '.txt' or path.suffix.lower() in SUFFIXES:
      stems.setdefault(path.parent, (set(), set()))[path.suffix == '.txt'].add(path.stem)
  both = {folder: sorted(images & texts) for folder, (images, texts) in stems.items()}
  found = [f for f, names in both.items() if any(is_label(f / f'{n}.txt') for n in names[:1])]
  named = found if len(found) > 1 else ()
  return [(splits.split_of(f.name) if f in named and f != root else UNDIVIDED, f, f) for f in found]


def is_label(file: Path, least: int = 0) -> bool:
  """Whether a text file begins with numbers, or is empty (an image without objects) if `least` is 0."""
  try:
    first = [word for _, words in _lines(file)[:1] for word in words]
  except UserError:
    return False
  return len(first) >= least and all(re.fullmatch(r'[-+.\deE]+', word) for word in first)


def _labels_of(root: Path, images: Path) -> Path:
  """Returns the folder of labels: the last 'images' in the path below `root` becomes 'labels'."""
  parts = images.relative_to(root).parts
  places = [i for i, part in enumerate(parts) if part.lower() == 'images']
  if not places:
    labels = _child(images, 'labels')
    return labels if labels.is_dir() else images
  return _child(root.joinpath(*parts[: places[-1]]), 'labels').joinpath(*parts[places[-1] + 1 :])


def _child(folder: Path, name: str) -> Path:
  """Returns the subfolder of this name, ignoring case. Raises UserError if there are two."""
  inner = sorted(folder.iterdir()) if folder.is_dir() else ()
  found = [path for path in inner if path.name.lower() == name]
  if len(found) > 1:
    raise UserError(f'{found[0]} and {found[1].name} differ in capitals alone: keep one')
  return found[0] if found else folder / name


def _has_labels(folder: Path) -> bool:
  names = set(_LISTS)
  return folder.is_dir() and any(
    p.suffix == '.txt' and p.name not in names for p in folder.iterdir()
  )


def _pairs(folder: Path, labels: Path) -> list[records.Raw]:
  raws = []
  for image in pictures.listed(folder):
    file = labels / f'{image.stem}.txt'
    has = file.is_file()
    raws.append(records.Raw(image, file if has else image, image.name, extra=has))
  stems = Counter(raw.image.stem for raw in raws)
  if twins := [raw.image.name for raw in raws if stems[raw.image.stem] > 1]:
    raise UserError(
      f'{folder} has several images of one name: {abbreviate(twins, 3)}; rename or remove one'
    )
  known = stems.keys() | {Path(name).stem for name in _LISTS}
  alone = [p for p in pictures.listed(labels, ('.txt',)) if p.stem not in known]
  lonely = [p.name for p in alone if p.stem.lower() not in SPLIT_WORDS and is_label(p)]
  if lonely:
    raise UserError(
      f'{labels} has {len(lonely)} label files without an image of their name: {abbreviate(lonely, 3)}; '
      'restore the images or remove them'
    )
  return raws


def _settings(folder: Path) -> dict[str, Any]:
  """Returns the content of a folder's data.yaml, or of another YAML with names; {} if there is none."""
  listed = [*pictures.listed(folder, ('.yaml', '.yml'))]
  listed.sort(key=lambda file: file.stem not in _YAML)
  found = []
  for file in listed:
    try:
      found.append((file, raw_files.read_yaml(file)))
    except UserError:
      if file.stem in _YAML or len(listed) == 1:
        raise  # others may be of anything
  found = [(file, settings) for file, settings in found if isinstance(settings, dict)]
  found.sort(key=lambda one: 'names' not in one[1])
  for file, settings in found[1:]:
    if 'names' in settings and settings['names'] != found[0][1]['names']:
      raise UserError(f'{found[0][0]} and {file.name} name different classes: keep one')
  return found[0][1] if found else {}


def _otherwise(root: Path, settings: dict[str, Any], folders: Folders) -> list[str]:
  """Returns a line about each folder that data.yaml gives to other splits than its name, which counts.

  And about lists of images, of which only those called train.txt, val.txt and test.txt are read.
  """
  said: dict[tuple[str, ...], list[str]] = {}
  for key in ('train', 'val', 'test'):
    listed = settings.get(key)
    for path in listed if isinstance(listed, list) else [listed]:
      said.setdefault(PurePosixPath(str(path)).parts[-2:], []).append(key)
  lists = [
    f"{root}: data.yaml's {', '.join(keys)} is the list {parts[-1]}, which is not read: call it {keys[0]}.txt"
    for parts, keys in said.items()
    if parts
    and parts[-1].endswith('.txt')
    and not splits.split_of_folder(PurePosixPath(parts[-1]).stem)
  ]
  return lists + [
    f"{root}: data.yaml's {', '.join(keys)} is {folder}, which counts as {split} by its name"
    for split, folder, _ in folders
    if split and (keys := said.get(folder.parts[-2:])) and split not in keys
  ]


def _names(root: Path, settings: dict[str, Any], labels: Sequence[Path]) -> tuple[str, ...]:
  near = [folder for one in labels for folder in (one, *one.parents) if root in folder.parents]
  near = list(dict.fromkeys((root / 'data', root / 'labels', *near)))
  told = [(folder, _settings(folder)) for folder in near]
  told = [
    (at, _in_order(at, of['names'])) for at, of in [(root, settings), *told] if of.get('names')
  ]
  places = [folder / name for folder in (root, *near) for name in _LISTS]
  told += [(place, _listed_names(place)) for place in places if place.is_file()]
  if not told:
    raise UserError(
      f'{root}: nothing names the classes: put data.yaml with names, or classes.txt, there'
    )
  names = told[0][1]
  if other := next((place for place, of_list in told if of_list != names), None):
    raise UserError(
      f'{other} names other classes than data.yaml or another list in {root}: make them alike'
    )
  words = {'background', *names} if isinstance(names, list) and names else ()
  if not words or len(words) != len(names) + 1:
    raise UserError(
      f'{root}: the names of the classes must be a list of different words, none of them background: '
      f'{str(names)[:60]}'
    )
  if settings.get('nc', len(names)) != len(names):
    raise UserError(
      f"{root}: data.yaml's nc is {settings['nc']}, but {len(names)} classes are named"
    )
  return tuple(names)


def _in_order(folder: Path, names: Any) -> Any:
  """Returns YAML's names as a list of words, by their numbers; what is no list stays."""
  if not isinstance(names, (dict, list)):
    return names
  each = names.values() if isinstance(names, dict) else names
  if strange := [name for name in each if type(name) not in (str, int)]:
    raise UserError(
      f'{folder}: YAML reads one of the names as {strange[0]!r}: put it between quotation marks'
    )
  if isinstance(names, dict):
    by_number = {int(k) if str(k).isdecimal() else k: name for k, name in names.items()}
    if set(by_number) != set(range(len(names))):
      raise UserError(
        f"{folder}: data.yaml's names are numbered {abbreviate([*by_number])}; 0, 1, 2 ... is needed"
      )
    names = [by_number[i] for i in range(len(names))]
  return list(map(str, names))


def _listed_names(file: Path) -> list[str]:
  """Returns a list's names by their numbers, which default to the lines'."""
  entries = class_files.read(file)
  numbers = [i if entry.id is None else entry.id for i, entry in enumerate(entries)]
  if sorted(numbers) != [*range(len(entries))]:
    raise UserError(
      f'{file}: the classes are numbered {abbreviate(numbers)}; 0, 1, 2 ... is needed'
    )
  return [entry.name for _, entry in sorted(zip(numbers, entries, strict=True))]


def read(raw: records.Raw, names: tuple[str, ...]) -> Annotated:
  """Reads the objects of an image."""
  if not raw.extra:
    return Annotated(())
  lines = _lines(raw.label)
  if not lines:
    return Annotated(())
  objects = []
  for number, words in lines:
    where = f'{raw.label}, line {number}'
    try:
      kind, *shares = map(float, words)
    except ValueError:
      kind, shares = math.nan, []
    if not all(map(math.isfinite, (kind, *shares))):
      raise UserError(f'{where}: {" ".join(words)[:40]!r} are not numbers')
    if kind != int(kind) or not 0 <= kind < len(names) - 1:
      raise UserError(f'{where}: class {words[0]} is none of the {len(names) - 1} that are named')
    if len(shares) < 6:
      raise UserError(f'{where}: {len(shares)} numbers are a box, no outline: export polygons')
    if len(shares) % 2 or not max(map(abs, shares)) <= _PIXELS:
      raise UserError(
        f'{where}: x and y of each corner are needed, as shares of the image from 0 to 1; got '
        f'{len(shares)} numbers up to {max(shares):g}'
      )
    if len(shares) > 9 and _begins_with_box(shares):
      raise UserError(
        f'{where}: its first four numbers are the box of the others: leave the box out, x y x y ... is needed'
      )
    objects.append(Annotation(f'line {number}', int(kind) + 1, [shares]))
  return Annotated(objects, in_shares=True)


def _begins_with_box(shares: Sequence[float]) -> bool:
  """Whether the first numbers are a box's centre, width and height, followed by the polygon in it."""
  x, y, width, height, *corners = shares
  box = min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
  announced = x - width / 2, y - height / 2, x + width / 2, y + height / 2
  return all(abs(a - b) < _NEAR for a, b in zip(box, announced, strict=True))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
  """Returns the words of non-blank lines, with line numbers from 1; the file may be empty."""
  if not path.stat().st_size:
    return []
  lines = enumerate(raw_files.read_text(path).splitlines(), start=1)
  return [(number, re.split(r'[\s,]+', line.strip())) for number, line in lines if line.strip()]
