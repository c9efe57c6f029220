"""Objects as masks: an instance map per image, or a file per object.

Instance maps are masks/NAME.png beside images/NAME.png (8 or 16 bits, PNG or TIFF), 0 being background.
A file per object is the layout of the 2018 Data Science Bowl, NAME/images/NAME.png and
NAME/masks/*.png, anything but 0 being the object; an empty masks/ is an image without objects.

All objects are of one class, unless given by one of:
  objects.csv   columns image, id, class (image without suffix; for files, id is the mask's name)
  divisor       ids are class * divisor + number, as in Cityscapes with 1000
  classes.txt   for files whose names begin with their class, as cat_1.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import scipy

from jaxseg.data import class_places, classlist, layouts, mask_files, outlines, raw_files, records
from jaxseg.data.annotations import Annotated, AnnotatedFolder, Annotation
from jaxseg.data.formats import pictures, splits
from jaxseg.data.outlines import CroppedMask
from jaxseg.data.pages import SUFFIXES, UNREAD
from jaxseg.data.pairing import UNDIVIDED, list_files
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

_TABLE = 'objects.csv'
_COLUMNS = ('image', 'id', 'class')
_LAST = (255, 65535)  # the largest numbers of 8 and 16 bits, which often mean void
_ONE_CLASS = ('background', 'object')

Classes = Mapping[tuple[str, str], str]  # (image, id) -> class


def find_files(root: Path, *, threshold: int | None = None) -> AnnotatedFolder | None:
  """Returns the layout of a folder with a file per object, None if it is none.

  Args:
    root: see above.
    threshold: values from it on are the object; None: all but 0, of which there must be only one.
  """
  parts: dict[str, list] = {}
  divided, unread, several = splits.folders(root), [], 0
  for split, folder in [(UNDIVIDED, root), *divided, *_stages(root)]:
    for one in sorted({*folder.iterdir()} - {path for _, path in divided}):
      images = pictures.listed(one / 'images')
      if (one / 'masks').is_dir():
        several += len(images) > 1
        unread += pictures.listed(one / 'images', UNREAD) + pictures.listed(one / 'masks', UNREAD)
      if len(images) == 1 and (one / 'masks').is_dir():
        masks = tuple(pictures.listed(one / 'masks'))
        raw = records.Raw(images[0], one / 'masks', images[0].name, extra=masks)
        parts.setdefault(split, []).append(raw)
  if sum(map(len, parts.values())) <= several:  # then these are folders of maps, or of nothing
    return None
  if unread:
    raise UserError(f'{unread[0]} would be left out: save it as one of {", ".join(SUFFIXES)}')
  names, classes = _classes(root)
  files = [path for raws in parts.values() for raw in raws for path in raw.extra]
  named = names != _ONE_CLASS and any(_starts(path, names) for path in files)
  read = partial(read_files, names=names, classes=classes, threshold=threshold, named=named)
  return AnnotatedFolder(
    'a mask file for each object',
    parts,
    names,
    read,
    notes=_skipped(root, parts),
    key=sorted(classes.items()),
  )


def _skipped(root: Path, parts: splits.Parts) -> tuple[str, ...]:
  """Returns a line about the folders with pictures of no example. Raises UserError for those of one."""
  read = {path for raws in parts.values() for raw in raws for path in (raw.image, *raw.extra)}
  left = [root / p for p in list_files(root) if p.lower().endswith(SUFFIXES)]
  inner = [path.parent for path in left if path not in read]
  masks = {raw.label for raws in parts.values() for raw in raws}
  if deep := next((folder for folder in inner if masks.intersection(folder.parents)), None):
    raise UserError(f'{deep} holds masks that would be left out: put them into masks/ itself')
  inner = [p.parent if p.name in ('images', 'masks') and p.parent != root else p for p in inner]
  if not (names := list(dict.fromkeys(str(p.relative_to(root)) for p in inner))):
    return ()
  return (
    f'{root}: {len(names)} folders lack images/ with one image, or masks/, and are left out: {abbreviate(names, 3)}',
  )


def _stages(root: Path) -> list[tuple[str, Path]]:
  """Returns the Data Science Bowl's own folder, whose name is not a split's."""
  return [(UNDIVIDED, root / 'stage1_train')] if (root / 'stage1_train').is_dir() else []


def find_ids(
  root: Path, *, divisor: int | None = None, void: int | None = None
) -> AnnotatedFolder | None:
  """Returns the layout of a folder with an instance map per image, None if it is none.

  Args:
    root: with images and masks, in any layout of data/layouts.py.
    divisor: see above.
    void: the id of regions to ignore; -1: there is none.
  """
  try:
    layout = layouts.find(root, objects=True)
  except UserError:
    return None
  pairs = layout.pairs(root)
  if alone := [*pairs.without_mask, *pairs.without_image]:
    raise UserError(f'{root / alone[0]} has no mask, or no image, of its name: add or remove one')
  parts = {s: [records.Raw(p.image, p.mask, p.name) for p in of] for s, of in pairs.splits.items()}
  names, classes = _classes(root)
  if divisor is not None and names == _ONE_CLASS:
    raise UserError(f'{root}: divisor={divisor} needs classes.txt, whose line k names class k')
  read = partial(read_ids, names=names, classes=classes, divisor=divisor, void=void)
  notes = (f'{root}: left out are {pairs.left_out()}',) if pairs.left_out() else ()
  words, key = 'a map of numbered objects for each image', sorted(classes.items())
  return AnnotatedFolder(words, parts, names, read, notes=notes, key=key)


def _classes(root: Path) -> tuple[tuple[str, ...], Classes]:
  """Returns the class names, and the classes of single objects if there is an objects.csv."""
  names, table = _ONE_CLASS, root / _TABLE
  if listed := class_places.find(root):
    names = classlist.read_file(root / listed).names
  if not table.is_file():
    return names, {}
  rows = raw_files.read_table(table)
  if not rows or not all(row.get(column) for row in rows for column in _COLUMNS):
    raise UserError(f'{table} needs the columns {", ".join(_COLUMNS)} in every row')
  of_object: dict[tuple[str, str], str] = {}
  for row in rows:
    image = row['image'][: -len(suffix)] if (suffix := _suffix(row['image'])) else row['image']
    key, name = (Path(image).name, row['id']), row['class']
    if of_object.setdefault(key, name) != name:
      raise UserError(f'{table} has two classes for object {key[1]} of image {key[0]}: remove one')
  found = sorted(set(of_object.values()))
  if names == _ONE_CLASS:
    names = ('background', *found)
  if unknown := set(found) - set(names[1:]):
    raise UserError(f'{table}: {abbreviate(sorted(unknown))} are not in {listed}')
  return names, of_object


def _suffix(name: str) -> str:
  return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), '')


def read_ids(
  raw: records.Raw,
  *,
  names: Sequence[str],
  classes: Classes,
  divisor: int | None = None,
  void: int | None = None,
) -> Annotated:
  """Reads the objects of a map; see find_ids."""
  ids = mask_files.read_ids(raw.label)
  numbers = np.unique(ids)
  _check(numbers, ids.dtype, raw.label, divisor, void)
  objects, order = [], np.searchsorted(numbers, ids) + 1
  for number, window in zip(numbers.tolist(), scipy.ndimage.find_objects(order), strict=True):
    if number == 0:
      continue
    rows, columns = window
    piece = CroppedMask(rows.start, columns.start, ids[window] == number)
    name = f'object {number}'
    if number == void:
      objects.append(Annotation(name, 1, piece, crowd=True))
    elif divisor is None or number >= divisor:  # Cityscapes's ids below it are stuff
      kind = _kind(raw, str(number), names, classes, None if divisor is None else number // divisor)
      objects.append(Annotation(name, kind, piece))
  return Annotated(objects, ids.shape)


def _check(
  numbers: np.ndarray, dtype: np.dtype, path: Path, divisor: int | None, void: int | None
) -> None:
  found = numbers[numbers != 0]
  if len(found) and found[0] < 0:
    raise UserError(f'{path} holds the number {found[0]}: objects are numbered from 1')
  alone = len(found) > 1 and found[-1] in _LAST and found[-2] != found[-1] - 1
  # 255 of 16 bits may be one of many that are seen here and there; not so beside 1, 2, 3.
  alone = alone and (found[-1] == np.iinfo(dtype).max or found[-2] == len(found) - 1)
  if alone and void is None and divisor is None:
    raise UserError(
      f'{path} holds the number {found[-1]} beside numbers up to {found[-2]}: add '
      f'--config.data.options.void={found[-1]} if it is a region to ignore, or void=-1 if it is an object'
    )


def _kind(
  raw: records.Raw,
  key: str,
  names: Sequence[str],
  classes: Classes,
  kind_by_name: int | None = None,
) -> int:
  """Returns an object's class: from objects.csv, else `kind_by_name`, else the only one."""
  if classes:
    name = classes.get((Path(raw.file_name).stem, key))
    if name is None:
      raise UserError(
        f'{raw.label}: {_TABLE} has no row for image {Path(raw.file_name).stem}, id {key}'
      )
    return list(names).index(name)
  if kind_by_name is None and len(names) > 2:
    raise UserError(
      f'{raw.label}: nothing says which of {len(names) - 1} classes object {key} is of: write '
      f'{_TABLE} with the columns {", ".join(_COLUMNS)}, or set options.divisor'
    )
  kind = 1 if kind_by_name is None else kind_by_name
  if not 1 <= kind < len(names):
    raise UserError(
      f'{raw.label}: object {key} is of class {kind}; 1 to {len(names) - 1} are named'
    )
  return kind


def read_files(
  raw: records.Raw,
  *,
  names: Sequence[str],
  classes: Classes,
  threshold: int | None = None,
  named: bool = False,
) -> Annotated:
  """Reads the objects of an image, one per file; see find_files. `named`: files begin with their class."""
  objects, size = [], None
  for path in raw.extra:
    mask = _object(path, threshold)
    size = size or mask.shape
    if mask.shape != size:
      raise UserError(f'{path} is not of the size of {raw.extra[0]}: masks must have one size')
    starts = _starts(path, names)
    if named and not (starts or classes):
      raise UserError(
        f'{path} begins with none of the classes {abbreviate(names[1:])}, as others do'
      )
    kind_by_name = names.index(max(starts, key=len)) if starts and not classes else None
    kind = _kind(raw, path.stem, names, classes, kind_by_name)
    objects.append(Annotation(path.name, kind, outlines.tight(mask)))
  if len(objects) > 1 and all(2 * one.outline.mask.sum() > np.prod(size) for one in objects):
    raise UserError(
      f'{raw.label}: each of {len(objects)} objects covers more than half of the image, as in inverted '
      'masks: save them with 0 where the object is not'
    )
  return Annotated(objects, size)


def _starts(path: Path, names: Sequence[str]) -> list[str]:
  """Returns the classes with which a file's name begins."""
  return [name for name in names[1:] if path.stem == name or path.stem.startswith(f'{name}_')]


def _object(path: Path, threshold: int | None) -> np.ndarray:
  """Reads one object's mask, bool [h, w]; from alpha, if only alpha varies."""
  mask = mask_files.read(path).upright()
  flat = mask.alpha is not None and mask.ids is not None and np.ptp(mask.ids) == 0
  values = mask.alpha if flat else mask.numbers()
  found = mask_files.unique_ids(values)
  if threshold is None and len(set(found) - {0}) > 1:
    raise UserError(
      f'{path} holds {len(found)} values from {found[0]} to {found[-1]}, and one object has one: '
      '--config.data.options.threshold=128 takes values from 128 on, threshold=1 all but 0'
    )
  return values >= (threshold or 1)
