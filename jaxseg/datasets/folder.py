"""A folder of your own: DIR/{train,val,test}/{images,masks}, matched by file name without suffix.

DIR/{images,masks} without splits will do too: a fifth of them, chosen by a hash of their names, is
'val', the rest 'train'. Images may be PNG, JPEG, TIFF or BMP, of any size and mode. Masks are
single-channel images of class ids (8-bit grey, palette, 1-bit or 16-bit; 255 is void) or, where
DIR/classes.txt gives colours, of those colours. DIR/classes.txt holds one class a line, 'name' or
'name r g b', the first being id 0.

Masks that hold only 0 and 255 are the trap of this format: with 255 void they would train nothing.
So with two classes (or none listed) 255 becomes class 1 when no mask of any split holds another
value; with more classes such masks are refused. The option `binary` overrides the guess.
"""

import functools
import hashlib
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxseg.data import cache, classlist, image_files, records
from jaxseg.data.archives import data_root
from jaxseg.data.problems import BadFiles, MissingSplit, check_choice, check_split, read_all, some
from jaxseg.data.source import Facts, Source
from jaxseg.types import UserError

SPLITS = ('train', 'val', 'test')
NUM_CLASSES = None  # the folder's own, see source(...).num_classes
CLASS_NAMES = ()
PALETTE = ()

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')
_OTHER_SUFFIXES = ('.gif', '.webp', '.jp2', '.heic', '.avif', '.ppm', '.tga', '.dcm', '.npy')
_MANY = 32  # inferred class counts above it must not be mostly unused


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  classes: int | tuple[str, ...] | None = None,
  binary: bool | None = None,
  channels: int = 3,
  white: int = 65535,
  num_classes: int | None = None,
) -> Source:
  """Returns a split of the user's folder.

  Args:
    split: 'train', 'val' or 'test'; a folder may lack those that are never asked for.
    data_dir: the folder itself.
    classes: names, or their number; default DIR/classes.txt, else the highest id of all masks + 1
      (said on standard error).
    binary: True makes 255 class 1, False makes it void; None decides as the module's text says.
    channels: 3, or 1 to make all images grey.
    white: the value of 16-bit grey images that becomes 255, such as 4095 for 12-bit cameras.
    num_classes: how many there should be (the config's); where nothing lists them, larger ids are
      mistakes of their masks rather than classes. None: all ids of the masks are classes.

  Raises:
    UserError: a folder, an image's mask or a mask's image missing, two files of one name, an empty
      split, a damaged file, sizes that differ, or a label outside of the classes.
  """
  check_split('folder', split, SPLITS)
  check_choice('folder', 'channels', channels, (1, 3))
  if not 1 <= white <= 65535:
    raise UserError(f'folder: got white {white}; 1 to 65535 are allowed')
  root = data_root(data_dir)
  raws = list_pairs(root, split)
  known = resolve_classes(
    root, classes=classes, binary=binary, num_classes=num_classes, cache_dir=cache_dir
  )
  if num_classes is not None and _listed(root, classes) is None and not binary:
    _check_ids(raws, known, scan_ids(root, cache_dir))
  return records.open_source(
    Facts('folder', known.names, known.palette, channels),
    split,
    raws,
    read,
    cache_dir,
    options={'classes': known, 'channels': channels, 'white': white},
  )


def read(
  raw: records.Raw, *, classes: classlist.ClassList, channels: int, white: int
) -> records.Example:
  """Reads an image and its mask; for the options see source."""
  image = image_files.encode_image(raw.image, channels=channels, white=white)
  return records.Example(image, classlist.read_label(raw.label, classes))


def present_splits(root: Path) -> tuple[str, ...]:
  """Returns the splits that a folder has; ('train', 'val') where it is not divided."""
  present = tuple(s for s in SPLITS if (root / s).is_dir())
  undivided = not present and (root / 'images').is_dir()
  return ('train', 'val') if undivided else present


def list_pairs(root: Path, split: str) -> list[records.Raw]:
  """Lists images with their masks, matched by stem, in the order of the stems."""
  present = present_splits(root)
  if split not in present:
    raise MissingSplit(
      f"no folder {root / split} for the split '{split}'; splits found in {root}: "
      f'{", ".join(present) or "none"}'
    )
  if (root / split).is_dir():
    return _pairs(root / split)
  pairs = _pairs(root)
  if len(pairs) < 2:
    raise UserError(f'{root / "images"} holds one image: at least two are needed, one for val')
  held_out = set(sorted(pairs, key=_name_hash)[: max(1, len(pairs) // 5)])
  return [pair for pair in pairs if (pair in held_out) == (split == 'val')]


def _name_hash(raw: records.Raw) -> bytes:
  """Adding images moves few of the others from one split to the other."""
  return hashlib.sha256(os.fsencode(Path(raw.file_name).stem)).digest()


def _pairs(folder: Path) -> list[records.Raw]:
  images, masks = (_by_stem(folder / kind) for kind in ('images', 'masks'))
  if not images and not masks:
    raise UserError(f'{folder / "images"} holds no image; allowed are {", ".join(_SUFFIXES)}')
  for stem in images:
    if stem not in masks:
      raise UserError(
        f'{images[stem]} has no mask {folder / "masks" / stem}.png: add or remove one'
      )
  for stem in masks:
    if stem not in images:
      raise UserError(f'{masks[stem]} has no image of the same name in {folder / "images"}')
  return [records.Raw(images[s], masks[s], images[s].name) for s in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
  by_stem: dict[str, Path] = {}
  for path in image_files.list_images(folder, _SUFFIXES + _OTHER_SUFFIXES):
    if path.suffix.lower() in _OTHER_SUFFIXES:
      raise UserError(f'{path} would be left out: save it as one of {", ".join(_SUFFIXES)}')
    stem = unicodedata.normalize('NFC', path.stem)  # macOS writes accents apart
    if stem in by_stem:
      raise UserError(f'{path} and {by_stem[stem].name} have one name: rename or remove one')
    by_stem[stem] = path
  return by_stem


def resolve_classes(
  root: Path,
  *,
  classes: int | tuple[str, ...] | None = None,
  binary: bool | None = None,
  num_classes: int | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> classlist.ClassList:
  """Returns the classes of a folder: those given, its classes.txt, or what its masks hold.

  Of what the masks hold, ids of `num_classes` and above are none; see source.
  """
  listed = _listed(root, classes)
  if listed is not None and listed.colors:
    if binary:
      raise UserError(f'{root}: binary=True needs masks of 0 and 255, but the classes have colours')
    return listed
  if listed is not None and binary is not None:
    return listed.as_binary() if binary else listed
  try:
    ids = sorted(set().union(*scan_ids(root, cache_dir).values()))
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


def _listed(root: Path, classes: int | tuple[str, ...] | None) -> classlist.ClassList | None:
  if isinstance(classes, int):
    return classlist.from_names([f'class {i}' for i in range(classes)])
  if classes is not None:
    return classlist.from_names(classes)
  path = root / 'classes.txt'
  return classlist.read_file(path) if path.is_file() else None


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
  _say_once(f'{root}: {count} classes, the highest mask id + 1; {remedy} to name them')
  return classlist.from_names([f'class {i}' for i in range(count)])


@functools.cache
def _say_once(line: str) -> None:
  """Prints a line to standard error; several splits of one folder say the same."""
  print(line, file=sys.stderr)


def _check_ids(
  raws: Sequence[records.Raw], known: classlist.ClassList, ids: Mapping[Path, Sequence[int]]
) -> None:
  """Refuses masks with ids beyond the classes, which nothing but the config has counted."""
  allowed, highest = dict(known.ids), max(set().union(*ids.values()) - {255}, default=0)
  remedy = f', or, if it is right, add --config.num_classes={highest + 1}' if highest < 255 else ''
  wrong = {raw.label: [i for i in ids[raw.label] if i not in allowed] for raw in raws}
  problems = [
    f"{path}: label ids {some(values)} are not among the config's {len(known.names)} classes, "
    f'{image_files.describe_ids(allowed)}: correct the mask{remedy}'
    for path, values in wrong.items()
    if values
  ]
  if problems:
    raise BadFiles(problems)


def scan_ids(root: Path, cache_dir: str | os.PathLike | None = None) -> dict[Path, list[int]]:
  """Returns the distinct ids of every mask of all splits, by its file; remembered in the cache."""
  paths = [raw.label for s in present_splits(root) for raw in list_pairs(root, s)]

  def ids_of(path: Path) -> list[int]:
    return image_files.unique_ids(image_files.read_mask(path))

  def ids_of_all() -> list[list[int]]:
    return list(read_all(ids_of, paths, str, 'reading masks'))

  memory = cache.cache_root(cache_dir) / 'folder' / f'ids-{cache.fingerprint(paths, 2)}.json'
  return dict(zip(paths, cache.remembered(memory, ids_of_all), strict=True))
