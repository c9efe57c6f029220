"""Instances of your own, in any of the formats that annotation tools write.

In data_dir itself, whose format is detected and reported in one line, unless `format` specifies it:

  coco     JSON with images, annotations and categories, anywhere (data/formats/coco.py)
  yolo     images/ and labels/*.txt with polygons, or side by side, data.yaml (data/formats/yolo.py)
  labelme  NAME.json beside each image (data/formats/labelme.py)
  cvat     annotations.xml, "CVAT for images" (data/formats/cvat.py)
  files    NAME/images/*.png and NAME/masks/*.png, a file per object (data/formats/masks.py)
  ids      images/ and masks/ with instance maps, 8 or 16 bits (the same)

See these modules' docstrings. Splits are folders or files named train, val (valid, ...) and test;
without a 'val' a fifth of the training images is held out, chosen by a hash of their names. All images
are kept, even without objects. The label is the class of the smallest object at each pixel, so that the
same data can train both tasks, instance and semantic segmentation (config.task).
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxseg.data import annotations, archives, classlist, records
from jaxseg.data.annotations import AnnotatedFolder
from jaxseg.data.formats import coco, cvat, labelme, masks, pictures, splits, yolo
from jaxseg.data.pages import UNREAD
from jaxseg.data.pairing import UNDIVIDED
from jaxseg.data.problems import MissingSplit, abbreviate, check_choice, check_split, warn_once
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import LARGEST, UserError

SPLITS = ('train', 'val', 'test')
NUM_CLASSES = None  # the folder's own, see source(...).num_classes
CLASS_NAMES = ()
PALETTE = ()

_FORMATS: dict[str, Callable[..., AnnotatedFolder | None]] = {
  'coco': coco.find,
  'cvat': cvat.find,
  'labelme': labelme.find,
  'yolo': yolo.find,
  'files': masks.find_files,
  'ids': masks.find_ids,
}
FORMATS = tuple(_FORMATS)
OUTLINED = ('coco', 'cvat', 'labelme', 'yolo')  # formats with coordinates, not masks
ManyCrowds = coco.ManyCrowds


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  format: str | None = None,
  crowds: str | None = None,
  exif: str | None = None,
  divisor: int | None = None,
  void: int | None = None,
  threshold: int | None = None,
  folds: int = 0,
  fold: int = 0,
  without: tuple[str, ...] = (),
  channels: int = 3,
  dtype: str = 'uint8',
  num_classes: int | None = None,
) -> Source:
  """Returns a split of the user's folder.

  Args:
    split: 'train', 'val' or 'test'; the last may be missing.
    data_dir: the folder itself.
    format: one of FORMATS; None: the first that matches.
    crowds: for COCO's files, see datasets.coco.
    exif: whether outlines of images with an EXIF orientation were drawn 'upright' or as 'stored'; None:
      inferred from their annotated size.
    divisor, void: for instance maps; threshold: for a file per object; see formats.masks.
    folds, fold: see formats.splits.divide.
    without: names of images to leave out.
    channels, dtype: of the images (the config's); see datasets.folder.
    num_classes: the config's; unused, as the folder defines it.

  Raises:
    UserError: a folder without annotations, or an unusable image, object or number.
  """
  del num_classes
  check_split('objects', split, SPLITS)
  check_choice('objects', 'exif', exif, (None, *annotations.EXIF))
  root = archives.data_root(data_dir)
  options = {'crowds': crowds, 'divisor': divisor, 'void': void, 'threshold': threshold}
  found, layout = layout_of(root, format, **options)
  warn_once([f'{root}: {layout.words}', *layout.notes])
  division = divided(layout, folds=folds, fold=fold, without=without)
  if not division.get(split):
    raise MissingSplit(f"{root} has no split '{split}'; there are {', '.join(division)}")
  return records.open_source(
    _facts(layout, channels, dtype),
    split,
    division[split],
    functools.partial(annotations.example, read=layout.read),
    cache_dir,
    options={
      'exif': exif,
      'channels': channels,
      'dtype': dtype,
      'key': [found, options, layout.key],
    },
  )


def _facts(layout: AnnotatedFolder, channels: int, dtype: str) -> DatasetInfo:
  palette, entries = classlist.voc_palette(len(layout.names)), ('instances', 'objects')
  ids = layout.category_ids
  return DatasetInfo('objects', layout.names, palette, channels, entries, dtype, category_ids=ids)


class NoObjects(UserError):
  """A folder without annotations of any format."""


def divided(
  layout: AnnotatedFolder, *, folds: int = 0, fold: int = 0, without: Sequence[str] = (), **_: Any
) -> dict[str, list[records.Raw]]:
  """Returns the images of each split; for the options see source."""
  return splits.leave_out(splits.divide(layout.splits, folds, fold), without)


def _check_once(layout: AnnotatedFolder) -> None:
  """Rejects an image that a split lists twice: each entry would lack the other's objects."""
  for raws in layout.splits.values():
    counts = Counter(raw.image for raw in raws)
    if twice := [raw for raw in raws if counts[raw.image] > 1]:
      raise UserError(
        f'{twice[0].label} lists {twice[0].file_name} {counts[twice[0].image]} times: give the image one '
        'entry with all its objects'
      )


def _divided(root: Path, layout: AnnotatedFolder) -> AnnotatedFolder:
  """Divides a layout without splits by the images' folders, or by lists such as train.txt."""
  parts, lists = splits.by_lists(root, layout.splits)
  left = sum(map(len, layout.splits.values())) - sum(map(len, parts.values()))
  notes = [f'{root}: {left} images are in no list of splits and left out'] if left else []
  if len(parts) > 1 and (joined := [raw.file_name for raw in parts.get(UNDIVIDED, ())]):
    notes.append(
      f'{root}: {len(joined)} images are in no file or folder named after a split, as others are, and count '
      f'as train: {abbreviate(joined, 3)}'
    )
  counts = Counter(raw.image for raws in parts.values() for raw in raws)
  inner = dict.fromkeys(path.parent for path in counts)
  if unread := [file.name for folder in inner for file in pictures.listed(folder, UNREAD)]:
    notes.append(
      f'{root}: {len(unread)} files of other formats are left out: {abbreviate(unread, 3)}'
    )
  if shared := [path.name for path, count in counts.items() if count > 1]:
    notes.append(
      f'{root}: {len(shared)} images are in two splits, such as {shared[0]}: what is held out must not train'
    )
  words = layout.words + (f', divided by {abbreviate(lists, 3)}' if lists else '')
  return dataclasses.replace(layout, words=words, splits=parts, notes=(*layout.notes, *notes))


def layout_of(
  root: Path,
  format: str | None = None,
  crowds: str | None = None,
  divisor: int | None = None,
  void: int | None = None,
  threshold: int | None = None,
) -> tuple[str, AnnotatedFolder]:
  """Returns the format of a folder and its layout; for the options see source.

  Raises:
    NoObjects: it has none of the formats.
    UserError: an option does not apply to its format, or it cannot be read.
  """
  check_choice('objects', 'format', format, (None, *FORMATS))
  check_choice('objects', 'crowds', crowds, (None, *coco.CROWDS))
  for name, value, least in (
    ('divisor', divisor, 2),
    ('void', void, -1),
    ('threshold', threshold, 1),
  ):
    if value is not None and not least <= value <= LARGEST:
      raise UserError(f'objects: got {name} {value}; {least} to {LARGEST} are allowed')
  takes = {'coco': ('crowds',), 'ids': ('divisor', 'void'), 'files': ('threshold',)}
  options = {'crowds': crowds, 'divisor': divisor, 'void': void, 'threshold': threshold}
  given = {name: value for name, value in options.items() if value is not None}
  for name in (format,) if format else FORMATS:
    own = {key: value for key, value in given.items() if key in takes.get(name, ())}
    if (layout := _FORMATS[name](root, **own)) is None:
      continue
    if unused := given.keys() - own.keys():
      raise UserError(f'{root} is of the format {name}, which takes no {", ".join(unused)}')
    _check_once(layout)
    return name, _divided(root, layout)
  kinds = f'the format {format}' if format else f'any of the formats {", ".join(FORMATS)}'
  raise NoObjects(
    f'{root} has no annotated objects of {kinds}; jaxseg/datasets/objects.py shows how they lie'
  )
