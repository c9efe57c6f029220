"""A folder of your own: images and masks in one of many layouts, and a list of classes.

DIR/{train,val,test}/{images,masks} with the same names is the plain one; data/layouts.py says which others
are found, and `images` and `masks`, or `listed`, name any. Without splits, a fifth of the images, chosen by
a hash of their names, is 'val'. Masks are images of class ids (8-bit grey, palette, 1-bit or 16-bit; 255
is void) or, where the list of classes gives colours, of those. The list is DIR/classes.txt, or what tools
call it; data/class_files.py has its forms. How masks are read is decided for all of them together, in
data/mask_set.py: masks of 0 and 255, for one, are two classes, for with 255 void they would train nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxseg.data import class_files, classlist, image_files, mask_files, mask_set, pages, records
from jaxseg.data.archives import data_root
from jaxseg.data.classlist import ClassList
from jaxseg.data.division import Division, Unpaired
from jaxseg.data.pairing import Layout
from jaxseg.data.problems import BadFiles, check_split, some
from jaxseg.data.source import Facts, Source
from jaxseg.types import UserError

SPLITS = ('train', 'val', 'test')
NUM_CLASSES = None  # the folder's own, see source(...).num_classes
CLASS_NAMES = ()
PALETTE = ()

Exif = Literal['upright', 'stored']


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  images: str = '',
  masks: str = '',
  listed: str = '',
  unpaired: Unpaired = 'refuse',
  folds: int = 0,
  fold: int = 0,
  pages: bool = False,
  without: tuple[str, ...] = (),
  classes: int | tuple[str, ...] | None = None,
  colors: tuple[tuple[int, int, int], ...] = (),
  class_list: str = '',
  binary: bool | None = None,
  threshold: int | None = None,
  read_by: mask_set.By | None = None,
  white_is_zero: mask_set.Seen | None = None,
  exif: Exif | None = None,
  channels: int = 3,
  dtype: str = 'uint8',
  num_classes: int | None = None,
) -> Source:
  """Returns a split of the user's folder.

  Args:
    split: 'train', 'val' or 'test'; a folder may lack those that are never asked for.
    data_dir: the folder itself.
    images, masks, listed, unpaired, folds, fold, pages: see data.division.Division.
    without: names of images that are left out.
    classes, colors, class_list: see `listed_classes`; without any, what the masks hold.
    binary, threshold, read_by, white_is_zero: see data.mask_set.Choice.
    exif: where image and mask carry different tags that turn them: 'stored', their pixels lie alike in the
      files; 'upright', viewers show them alike; None: sizes tell.
    channels: of the images, the config's; grey ones are repeated for 3, and RGB made grey for 1.
    dtype: their type, the config's: one of data.image_files.TYPES.
    num_classes: how many there should be (the config's); where nothing lists them, larger ids are
      mistakes of their masks rather than classes. None: all ids of the masks are classes.

  Raises:
    UserError: no layout, an image's mask or a mask's image missing, two files of one name, an empty
      split, a damaged file, sizes that differ, or a label outside of the classes.
  """
  check_split('folder', split, SPLITS)
  root, choice = data_root(data_dir), mask_set.Choice(binary, threshold, read_by, white_is_zero)
  division = Division(Layout(images, masks, listed), unpaired, folds, fold, pages)
  raws, paths = division.of(root, split)
  raws = [raw for raw in raws if raw.file_name not in without]
  given = listed_classes(root, classes, class_list, colors)
  known = known_classes(paths, raws, given, choice, num_classes=num_classes, cache_dir=cache_dir)
  return records.open_source(
    Facts('folder', known.names, known.palette, channels, dtype=dtype),
    split,
    raws,
    read,
    cache_dir,
    options={'classes': known, 'exif': exif, 'channels': channels, 'dtype': dtype},
  )


def read(
  raw: records.Raw, *, classes: ClassList, exif: Exif | None, channels: int, dtype: str
) -> records.Example:
  """Reads an image and its mask; for the options see source."""
  image = image_files.encode_image(raw.image, channels=channels, dtype=dtype, number=raw.extra)
  mask = mask_files.read(raw.label, raw.extra)
  mask = mask.turned(_orientation(raw, mask, exif))
  return records.Example(image, classlist.label_of(mask, classes))


def _orientation(raw: records.Raw, mask: mask_files.Mask, exif: Exif | None) -> int:
  """Returns EXIF's orientation that a mask is turned by: its own, or its image's."""
  image = pages.read_header(raw.image)
  if image.orientation == mask.orientation:
    return mask.orientation
  stored, upright = (
    mask.size[:: -1 if o > 4 else 1] for o in (image.orientation, mask.orientation)
  )
  fits = {'stored': stored == image.upright_size, 'upright': upright == image.upright_size}
  if all(fits.values()) and exif is None:
    raise UserError(
      f'{raw.image} has the EXIF orientation {image.orientation}, {raw.label} has {mask.orientation}: add '
      '--config.data.options.exif=upright if viewers show both alike, or exif=stored if the pixels in '
      'the files lie alike'
    )
  return image.orientation if fits['stored'] and exif != 'upright' else mask.orientation


def listed_classes(
  root: Path,
  classes: int | tuple[str, ...] | None = None,
  class_list: str = '',
  colors: tuple[tuple[int, int, int], ...] = (),
) -> ClassList | None:
  """Returns the classes that are given or that a folder lists, None where nothing does.

  Args:
    root: the folder.
    classes: their names, or their number.
    class_list: a file in the folder; '' is the first of class_files.NAMES that is there.
    colors: of the classes, in the masks.
  """
  if isinstance(classes, int):
    classes = tuple(f'class {i}' for i in range(classes))
  if colors and len(colors) != len(classes or ()):
    raise UserError(
      f'folder: got {len(colors)} colors for {len(classes or ())} classes; give one each'
    )
  if classes is not None:
    return classlist.from_colors(classes, colors) if colors else classlist.from_names(classes)
  name = class_list or class_files.find(root)
  return classlist.read_file(root / name) if name else None


def known_classes(
  paths: Sequence[Path],
  raws: Sequence[records.Raw],
  given: ClassList | None,
  choice: mask_set.Choice,
  *,
  num_classes: int | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> ClassList:
  """Returns the classes and how masks are read.

  Args:
    paths: the masks of all splits, which decide.
    raws: the examples of one, whose ids are checked.
    given: the classes, where something lists them.
    choice: the user's, of how masks are read.
    num_classes: the config's.
    cache_dir: that remembers what masks hold.

  Raises:
    UserError: see mask_set.decide; ids that neither the masks' list nor the config's number has.
  """
  pages = any(raw.extra is not None for raw in raws)
  try:
    facts = mask_set.look(paths, cache_dir, pages=pages)
  except BadFiles as error:  # whoever builds the records tells of these, and of all that is wrong
    good = [path for path in paths if path not in error.items]
    if not good:
      raise
    facts = mask_set.look(good, cache_dir, pages=pages)
  known = mask_set.decide(facts, given, choice, num_classes)
  if num_classes is not None and given is None and known.by == 'ids' and not choice.threshold:
    _check_ids(known, {raw.label: facts[raw.label].ids for raw in raws if raw.label in facts})
  return known


def _check_ids(known: ClassList, ids: Mapping[Path, Sequence[int]]) -> None:
  """Refuses masks with ids beyond the classes, which nothing but the config has counted."""
  allowed, highest = dict(known.ids), max(set().union(*ids.values()) - {255}, default=0)
  remedy = f', or, if it is right, add --config.num_classes={highest + 1}' if highest < 255 else ''
  wrong = {path: [i for i in held if i not in allowed] for path, held in ids.items()}
  problems = [
    f"{path}: label ids {some(values)} are not among the config's {len(known.names)} classes, "
    f'{mask_files.describe_ids(allowed)}: correct the mask{remedy}'
    for path, values in wrong.items()
    if values
  ]
  if problems:
    raise BadFiles(problems)
