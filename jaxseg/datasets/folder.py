"""A folder of your own: images and masks in one of many layouts, and a list of classes.

The standard one is DIR/{train,val,test}/{images,masks} with the same names; data/layouts.py infers many
others, and `images` and `masks`, or `listed`, specify any. Without splits, a fifth of the images, chosen by
a hash of their names, is 'val'. Masks contain class ids (8-bit grey, palette, 1-bit or 16-bit; 255 is
void) or, if the list of classes gives them, colours. The list is DIR/classes.txt or a name that tools use,
in any form of data/class_files.py. How masks are read is decided for all of them together, in
data/mask_set.py: masks of 0 and 255, for example, are two classes, as with 255 void they would train nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxseg.data import class_places, classlist, image_files, mask_files, mask_set, pages, records
from jaxseg.data.archives import data_root
from jaxseg.data.classlist import ClassList
from jaxseg.data.division import Division, Unpaired
from jaxseg.data.pairing import Layout
from jaxseg.data.problems import BadFiles, abbreviate, check_split
from jaxseg.data.source import DatasetInfo, Source
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
    split: 'train', 'val' or 'test'; unused ones may be missing.
    data_dir: the folder itself.
    images, masks, listed, unpaired, folds, fold, pages: see data.division.Division.
    without: names of images to leave out.
    classes, colors, class_list: see `listed_classes`; without any, inferred from the masks.
    binary, threshold, read_by, white_is_zero: see data.mask_set.Choice.
    exif: if image and mask have different EXIF orientations: 'stored', they match as stored; 'upright',
      they match as shown by viewers; None: inferred from the sizes.
    channels: of the images (the config's); grey is repeated for 3, RGB converted to grey for 1.
    dtype: of the images (the config's): one of data.image_files.TYPES.
    num_classes: the expected number (the config's); if classes are not listed, larger ids are errors of
      the masks. None: all ids of the masks are classes.

  Raises:
    UserError: no layout, an image's mask or a mask's image missing, two files of one name, an empty
      split, a damaged file, different sizes, or a label outside the classes.
  """
  check_split('folder', split, SPLITS)
  root, choice = data_root(data_dir), mask_set.Choice(binary, threshold, read_by, white_is_zero)
  division = Division(Layout(images, masks, listed), unpaired, folds, fold, pages)
  raws, paths = division.of(root, split, without)
  given = listed_classes(root, classes, class_list, colors, paths)
  known = known_classes(paths, raws, given, choice, num_classes=num_classes, cache_dir=cache_dir)
  return records.open_source(
    DatasetInfo('folder', known.names, known.palette, channels, (), dtype, known.own_ids),
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
  """Returns the EXIF orientation to apply to a mask: its own, or its image's."""
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
  masks: Sequence[Path] = (),
) -> ClassList | None:
  """Returns the given classes or those that a folder lists, else None.

  Args:
    root: the folder.
    classes: their names, or their number.
    class_list: a file in the folder; '': see class_places.find.
    colors: of the classes, in the masks.
    masks: of all splits, whose folders may list classes, too.
  """
  if isinstance(classes, int):
    classes = tuple(f'class {i}' for i in range(classes))
  if colors and len(colors) != len(classes or ()):
    raise UserError(
      f'folder: got {len(colors)} colors for {len(classes or ())} classes; give one each'
    )
  if classes is not None:
    return classlist.from_colors(classes, colors) if colors else classlist.from_names(classes)
  name = class_list or class_places.find(root, masks)
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
    paths: the masks of all splits, from which the reading is inferred.
    raws: the examples of one split, whose ids are checked.
    given: the classes, if listed.
    choice: the user's, of how masks are read.
    num_classes: the config's.
    cache_dir: for the facts of masks.

  Raises:
    UserError: see mask_set.choose_reading; ids outside the classes.
  """
  pages = any(raw.extra is not None for raw in raws)
  try:
    facts = mask_set.inspect(paths, cache_dir, pages=pages)
  except BadFiles as error:  # building the records reports these, with all other errors
    good = [path for path in paths if path not in error.items]
    if not good:
      raise
    facts = mask_set.inspect(good, cache_dir, pages=pages)
  known = mask_set.choose_reading(facts, given, choice, num_classes)
  if num_classes is not None and given is None and known.by == 'ids' and not choice.threshold:
    _check_ids(known, {raw.label: facts[raw.label].ids for raw in raws if raw.label in facts})
  return known


def _check_ids(known: ClassList, ids: Mapping[Path, Sequence[int]]) -> None:
  """Rejects masks with ids beyond the config's number of classes."""
  allowed, highest = dict(known.ids), max(set().union(*ids.values()) - {255}, default=0)
  remedy = f', or, if it is right, add --config.num_classes={highest + 1}' if highest < 255 else ''
  wrong = {path: [i for i in held if i not in allowed] for path, held in ids.items()}
  problems = [
    f"{path}: label ids {abbreviate(values)} are not among the config's {len(known.names)} classes, "
    f'{mask_files.describe_ids(allowed)}: correct the mask{remedy}'
    for path, values in wrong.items()
    if values
  ]
  if problems:
    raise BadFiles(problems)
