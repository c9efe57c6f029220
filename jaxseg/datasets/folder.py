"""A folder of your own: images and masks in one of many layouts, and a list of classes.

DIR/{train,val,test}/{images,masks} with the same names is the plain one; data/layouts.py says which others
are found, and `images` and `masks`, or `listed`, name any. Without 'val', a fifth of what is not 'test',
chosen by a hash of the names, is held out. Masks are single-channel images of class ids (8-bit grey,
palette, 1-bit or 16-bit; 255 is void) or, where the list gives colours, of those colours. The list is
DIR/classes.txt, or what tools call it; data/class_files.py has its forms.

Masks that hold only 0 and 255 are the trap of this format: with 255 void they would train nothing.
So with two classes (or none listed) 255 becomes class 1 when no mask of any split holds another
value; with more classes such masks are refused. The option `binary` overrides the guess.
"""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from jaxseg.data import cache, class_files, classlist, image_files, layouts, mask_files, records
from jaxseg.data.archives import data_root
from jaxseg.data.pairing import WHOLE, Layout, Pair, Pairs
from jaxseg.data.problems import (
  BadFiles,
  MissingSplit,
  check_split,
  read_all,
  some,
  tell,
)
from jaxseg.data.source import Facts, Source
from jaxseg.types import UserError

SPLITS = ('train', 'val', 'test')
NUM_CLASSES = None  # the folder's own, see source(...).num_classes
CLASS_NAMES = ()
PALETTE = ()

Unpaired = Literal['refuse', 'leave_out']
_MANY = 32  # inferred class counts above it must not be mostly unused


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
  without: tuple[str, ...] = (),
  classes: int | tuple[str, ...] | None = None,
  class_list: str = '',
  binary: bool | None = None,
  channels: int = 3,
  dtype: str = 'uint8',
  num_classes: int | None = None,
) -> Source:
  """Returns a split of the user's folder.

  Args:
    split: 'train', 'val' or 'test'; a folder may lack those that are never asked for.
    data_dir: the folder itself.
    images, masks, listed, unpaired, folds, fold: see Division.
    without: names of images that are left out.
    classes: names, or their number; default the list, else the highest id of all masks + 1
      (said on standard error).
    class_list: a list of classes in the folder; '' is the first of class_files.NAMES that is there.
    binary: True makes 255 class 1, False makes it void; None decides as the module's text says.
    channels: of the images, the config's; grey ones are repeated for 3, and RGB made grey for 1.
    dtype: their type, the config's: one of data.image_files.TYPES.
    num_classes: how many there should be (the config's); where nothing lists them, larger ids are
      mistakes of their masks rather than classes. None: all ids of the masks are classes.

  Raises:
    UserError: no layout, an image's mask or a mask's image missing, two files of one name, an empty
      split, a damaged file, sizes that differ, or a label outside of the classes.
  """
  check_split('folder', split, SPLITS)
  root = data_root(data_dir)
  raws, paths = Division(Layout(images, masks, listed), unpaired, folds, fold).of(root, split)
  raws = [raw for raw in raws if raw.file_name not in without]
  given = listed_classes(root, classes, class_list)
  options = dict(binary=binary, num_classes=num_classes, cache_dir=cache_dir)
  known = resolve_classes(root, paths, given, **options)
  if num_classes is not None and given is None and not binary:
    _check_ids(raws, known, scan_ids(paths, cache_dir))
  return records.open_source(
    Facts('folder', known.names, known.palette, channels, dtype=dtype),
    split,
    raws,
    read,
    cache_dir,
    options={'classes': known, 'channels': channels, 'dtype': dtype},
  )


def read(
  raw: records.Raw, *, classes: classlist.ClassList, channels: int, dtype: str
) -> records.Example:
  """Reads an image and its mask; for the options see source."""
  image = image_files.encode_image(raw.image, channels=channels, dtype=dtype)
  return records.Example(image, classlist.read_label(raw.label, classes))


@dataclasses.dataclass(frozen=True)
class Division:
  """How a folder's pairs are found and divided.

  Attributes:
    layout: patterns of data/pairing.py for images and masks, or `listed`, a CSV file of pairs in the folder with the
      columns image, mask and perhaps split; an empty one is found from the names.
    unpaired: 'leave_out' goes on without images that have no mask, and says so.
    folds: divides what is not 'test' into so many parts, of which number `fold` is 'val'; 0: as the
      folder says, and where it says nothing a fifth is 'val'.
    fold: from 0.
  """

  layout: Layout = Layout()
  unpaired: Unpaired = 'refuse'
  folds: int = 0
  fold: int = 0

  def __post_init__(self):
    folds, fold = self.folds, self.fold
    if not (folds == fold == 0 or (2 <= folds and 0 <= fold < folds)):
      raise UserError(
        f'folder: got folds {folds} and fold {fold}; two or more, the first is fold 0'
      )

  def of(self, root: Path, split: str) -> tuple[list[records.Raw], list[Path]]:
    """Returns the examples of a split, and the masks of all splits; raises as `splits` does."""
    splits = self.splits(root)
    if split not in splits:
      there = ', '.join(splits) or 'none'
      remedy = '; config.data.options.folds=5 holds a fifth of it out' if split == 'val' else ''
      raise MissingSplit(f"{root} has no split '{split}'; splits found: {there}{remedy}")
    return splits[split], [raw.label for of_split in splits.values() for raw in of_split]

  def splits(self, root: Path) -> dict[str, list[records.Raw]]:
    """Returns the examples of each split that there is.

    Raises:
      UserError: no layout is found, files without a partner, or too few to be divided.
    """
    pairs = self.pairs(root)
    if self.unpaired == 'refuse':
      _refuse_unpaired(root, pairs)
    elif pairs.left_out():
      tell([f'{root}: left out are {pairs.left_out()}'])
    return {s: _raws(root, found) for s, found in self._divided(root, pairs.splits).items()}

  def pairs(self, root: Path) -> Pairs:
    layout = self.layout if self.layout.options() else layouts.find(root)
    return layout.pairs(root)

  def _divided(self, root: Path, splits: Mapping[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Holds out one of the folds, or a fifth of what is not divided."""
    pooled = [s for s in (WHOLE, 'train', 'val') if s in splits and (self.folds or s == WHOLE)]
    pool = sorted((pair for split in pooled for pair in splits[split]), key=_name_hash)
    if not pool:
      return dict(splits)
    if len(pool) < max(2, self.folds):
      raise UserError(
        f'{root} holds {len(pool)} pairs of image and mask: at least {max(2, self.folds)} are needed, '
        'for one part of them is held out'
      )
    parts = self.folds or min(5, len(pool))
    first, last = (fold * len(pool) // parts for fold in (self.fold, self.fold + 1))
    held_out, rest = pool[first:last], pool[:first] + pool[last:]
    return {k: v for k, v in splits.items() if k not in pooled} | {'train': rest, 'val': held_out}


def _refuse_unpaired(root: Path, pairs: Pairs) -> None:
  remedy = 'add or remove one, or leave such files out with config.data.options.unpaired=leave_out'
  problems = [f'{root / path} has no mask: {remedy}' for path in pairs.without_mask]
  problems += [f'{root / path} has no image: {remedy}' for path in pairs.without_image]
  if problems:
    raise BadFiles(problems)


def _raws(root: Path, pairs: Sequence[Pair]) -> list[records.Raw]:
  """Returns the examples in the order of their names; in full where the names of two are alike."""
  names = [pair.name for pair in pairs]
  if len(set(names)) < len(names):
    names = [os.path.relpath(pair.image, root) for pair in pairs]
  raws = (records.Raw(p.image, p.mask, n) for p, n in zip(pairs, names, strict=True))
  return sorted(raws, key=lambda raw: unicodedata.normalize('NFC', _stem(raw.file_name)))


def _stem(name: str) -> str:
  return str(PurePosixPath(name).with_suffix(''))


def _name_hash(pair: Pair) -> tuple[bytes, str]:
  """Adding images moves few of the others from one split to the other."""
  return hashlib.sha256(os.fsencode(_stem(pair.name))).digest(), str(pair.image)


def resolve_classes(
  root: Path,
  paths: Sequence[Path],
  listed: classlist.ClassList | None,
  *,
  binary: bool | None = None,
  num_classes: int | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> classlist.ClassList:
  """Returns the classes of a folder: those listed, or what its masks, all of them, hold.

  Of what the masks hold, ids of `num_classes` and above are none; see source.
  """
  if listed is not None and listed.colors:
    if binary:
      raise UserError(f'{root}: binary=True needs masks of 0 and 255, but the classes have colours')
    return listed
  if listed is not None and binary is not None:
    return listed.as_binary() if binary else listed
  try:
    ids = sorted(set().union(*scan_ids(paths, cache_dir).values()))
  except BadFiles:
    if listed is not None and len(listed.names) > 2:
      return listed  # whoever reads the files tells of these, and of ids outside the list too
    raise
  two_valued = ids == [0, 255]
  if listed is None:
    listed = _inferred(root, ids, two_valued and binary is not False, num_classes)
  if two_valued and binary is None and len(listed.names) > 2:
    raise UserError(
      f'{root}: the masks hold only 0 and 255, and with {len(listed.names)} classes 255 is void: '
      'nothing would be learnt; list two classes, or save masks with the ids of all'
    )
  return listed.as_binary() if binary or (binary is None and two_valued) else listed


def listed_classes(
  root: Path, classes: int | tuple[str, ...] | None = None, class_list: str = ''
) -> classlist.ClassList | None:
  """Returns the classes that are given or that a folder lists, None where nothing does."""
  if isinstance(classes, int):
    return classlist.from_names([f'class {i}' for i in range(classes)])
  if classes is not None:
    return classlist.from_names(classes)
  name = class_list or class_files.find(root)
  return classlist.read_file(root / name) if name else None


def _inferred(
  root: Path, ids: list[int], two_valued: bool, num_classes: int | None
) -> classlist.ClassList:
  if two_valued:
    return classlist.from_names(('background', 'foreground'))
  if num_classes is not None and any(num_classes <= i != 255 for i in ids):
    return classlist.from_names([f'class {i}' for i in range(num_classes)])
  classes = [i for i in ids if i != 255]
  count = max(classes, default=-1) + 1
  remedy = "list the classes in classes.txt, or give the option 'classes'"
  if not 2 <= count <= 255 or (count > _MANY and len(classes) < count / 2):
    raise UserError(f'{root}: cannot tell the classes from mask ids {some(ids)}; {remedy}')
  tell([f'{root}: {count} classes, the highest mask id + 1; {remedy} to name them'])
  return classlist.from_names([f'class {i}' for i in range(count)])


def _check_ids(
  raws: Sequence[records.Raw], known: classlist.ClassList, ids: Mapping[Path, Sequence[int]]
) -> None:
  """Refuses masks with ids beyond the classes, which nothing but the config has counted."""
  allowed, highest = dict(known.ids), max(set().union(*ids.values()) - {255}, default=0)
  remedy = f', or, if it is right, add --config.num_classes={highest + 1}' if highest < 255 else ''
  wrong = {raw.label: [i for i in ids[raw.label] if i not in allowed] for raw in raws}
  problems = [
    f"{path}: label ids {some(values)} are not among the config's {len(known.names)} classes, "
    f'{mask_files.describe_ids(allowed)}: correct the mask{remedy}'
    for path, values in wrong.items()
    if values
  ]
  if problems:
    raise BadFiles(problems)


def scan_ids(
  paths: Sequence[Path], cache_dir: str | os.PathLike | None = None
) -> dict[Path, list[int]]:
  """Returns the distinct ids of every mask, by its file; remembered in the cache."""

  def ids_of(path: Path) -> list[int]:
    return mask_files.unique_ids(mask_files.read_ids(path))

  def ids_of_all() -> list[list[int]]:
    return list(read_all(ids_of, paths, str, 'reading masks'))

  memory = cache.cache_root(cache_dir) / 'folder' / f'ids-{cache.fingerprint(paths, 2)}.json'
  return dict(zip(paths, cache.remembered(memory, ids_of_all), strict=True))
