"""Finds the dataset and options that read a user's own folder; the config records them explicitly."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxseg.config.parts import arguments, load, parameters
from jaxseg.data import (
  class_places,
  image_files,
  layouts,
  mask_set,
  pairing,
  threads,
)
from jaxseg.data.archives import data_root
from jaxseg.data.division import Division, are_stacks, in_pages
from jaxseg.data.formats.masks import find_files
from jaxseg.data.pages import read_header
from jaxseg.data.pairing import UNDIVIDED, Layout, Pairs
from jaxseg.data.problems import BadFiles, MissingSplit, abbreviate
from jaxseg.data.records import Raw
from jaxseg.datasets import folder, objects
from jaxseg.prepare import data_warnings
from jaxseg.prepare.data_warnings import of_copies
from jaxseg.prepare.objects import are_classes, are_numbers
from jaxseg.prepare.recipe import OBJECTS
from jaxseg.types import VOID, UserError

_NOTES = ('.txt', '.csv', '.yaml', '.yml', '.md', '.py', '.ipynb')
_NAMED = {'classes', 'class_list', 'colors'}  # options that name the classes
_FIFTH = 5  # one in five images is held out if the folder has no 'val'


@dataclasses.dataclass(frozen=True)
class Request:
  """Where the data are and how to use them: the flags of `plan`.

  Attributes:
    folder: of all the data; '' is the folder of `listed`, or the common parent of both patterns.
    images, masks: patterns of data/pairing.py, or folders.
    listed: a CSV file of pairs.
    model: a network of prepare/recipe.py; '' chooses one by the data.
    folds: number of cross-validation folds; 0: none.
    options: further ones of the dataset.
  """

  folder: str = ''
  images: str = ''
  masks: str = ''
  listed: str = ''
  model: str = ''
  folds: int = 0
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if bool(self.images) != bool(self.masks):
      raise UserError('--images and --masks belong together: give both, or neither')
    if self.listed and self.images:
      raise UserError('--list names the pairs already: leave out --images and --masks')
    if not (self.folder or self.images or self.listed):
      raise UserError('plan needs --folder=DIR, --list=FILE.csv, or --images and --masks')
    if self.folds and not 2 <= self.folds <= 100:
      raise UserError(f'--folds={self.folds}: from 2 to 100 are allowed')


@dataclasses.dataclass(frozen=True)
class OwnData:
  """A folder as read by a dataset.

  Attributes:
    root: the config's data_dir.
    dataset: its name.
    options: of its `source`, as in the config.
    words: one-line summary.
    counts: examples per split.
    pixels: channels and dtype of the images.
    warnings: warnings about likely mistakes.
    tells_objects: whether to train instance segmentation by default.
  """

  root: Path
  dataset: str
  options: dict[str, Any]
  words: str
  counts: dict[str, int]
  pixels: dict[str, Any]
  warnings: tuple[str, ...] = ()
  tells_objects: bool = False

  def source(self, split: str, **more: Any) -> Any:
    """Returns a split."""
    module = load('datasets', self.dataset)
    options = arguments(
      module.source, self.pixels | self.options | more, 'config.data.options', ('split',)
    )
    return module.source(split, data_dir=self.root, **options)

  def usable(self, split: str) -> tuple[Any, tuple[str, ...]]:
    """Returns a split without its unusable files, and a line about each of those.

    Raises:
      BadFiles: none of them can be used.
    """
    try:
      return self.source(split), ()
    except BadFiles as error:
      bad = [raw for raw in error.items if isinstance(raw, Raw)]
      names = tuple(r.file_name if type(r.extra) is int else r.image.as_posix() for r in bad)
      can_do_without = 'without' in parameters(load('datasets', self.dataset).source)
      if not names or len(names) >= self.counts[split] or not can_do_without:
        raise
      names += tuple(self.options.get('without', ()))
      return self.source(split, without=names), error.problems


def find(request: Request) -> OwnData:
  """Finds the data that `request` describes.

  Raises:
    UserError: no such folder, or nothing readable in it.
  """
  root, layout = _place(request)
  if request.model == OBJECTS or (not layout.options() and find_files(root)):
    return _objects(root, request)
  try:
    found = layout if layout.options() else layouts.find(root)
  except UserError as error:
    return _objects(root, request, error)
  pairs = Division(found).pairs(root)
  masks = [pair.mask for of_split in pairs.splits.values() for pair in of_split]
  alone = max(len(pairs.without_mask), len(pairs.without_image), 2)
  if not layout.options() and len(masks) < alone and _has_outlines(root):
    return _objects(root, request)  # some annotated images happen to look like pairs
  told = request.model or layout.options() or _NAMED & request.options.keys()
  if not (told or class_places.find(root, masks)) and are_numbers(masks):
    return _objects(root, request)
  return _pairs(root, found, pairs, request)


def _has_outlines(root: Path) -> bool:
  """Whether a folder has files of a polygon annotation tool."""
  for name in objects.OUTLINED:
    try:
      objects.layout_of(root, name)
    except objects.NoObjects:
      continue
    except UserError:  # reading it reports what is wrong
      pass
    return True
  return False


def _place(request: Request) -> tuple[Path, Layout]:
  """Returns the folder, and the given parts of its layout relative to it."""
  given = [os.path.abspath(p) for p in (request.listed, request.images, request.masks) if p]
  if request.folder:
    root = data_root(request.folder).absolute()
    given = [os.path.join(root, p) for p in (request.images, request.masks) if p] or given
  else:
    root = Path(os.path.commonpath([_fixed(path) for path in given]))
    root = root.parent if root.is_file() else root
  relative = [os.path.relpath(path, root) for path in given]
  if request.listed:
    return root, Layout(listed=relative[0])
  if outside := next((p for p in relative if p.startswith('..')), None):
    raise UserError(f'{outside} lies outside of {root}: give --folder=DIR that holds everything')
  return root, Layout(*(_pattern(root, path) for path in relative))


def _fixed(path: str) -> str:
  """Returns the folders of a pattern before its first wildcard."""
  return os.path.join(
    *itertools.takewhile(lambda part: not set(part) & set('*?[{'), Path(path).parts)
  )


def _pattern(root: Path, path: str) -> str:
  return f'{path.rstrip("/")}/**/*' if (root / path).is_dir() else path


def _pairs(root: Path, layout: Layout, pairs: Pairs, request: Request) -> OwnData:
  options: dict[str, Any] = layout.options()
  where = layout.listed or f"images '{layout.images}' with masks '{layout.masks}'"
  if not any(pairs.splits.values()):
    alone = f'; left out: {pairs.left_out()}' if pairs.left_out() else ''
    raise UserError(f'{root}: {where} give no pair of image and mask{alone}')
  if pairs.without_mask or pairs.without_image:
    options['unpaired'] = 'leave_out'
  data_warnings.refuse_shifted(root, pairs)
  if pages := are_stacks(pairs, sure='pages' in request.options):
    options['pages'], pairs = True, in_pages(pairs)
  total = sum(len(found) for split, found in pairs.splits.items() if split != 'test')
  if request.folds:
    options |= {'folds': request.folds}
  elif 'val' not in pairs.splits and UNDIVIDED not in pairs.splits:
    options |= {'folds': max(min(_FIFTH, total), 2)}
  splits = Division(layout, 'leave_out', options.get('folds', 0), pages=pages).splits(root)
  raws = [raw for of_split in splits.values() for raw in of_split]
  options |= _classes(root, raws, request.options) | request.options
  counts = {split: len(found) for split, found in splits.items()}
  if not counts.get('train'):
    there = ', '.join(counts) or 'none'
    raise MissingSplit(f"{root} has no split 'train'; splits found: {there}")
  out = f'; left out: {pairs.left_out()}' if pairs.left_out() else ''
  where += ', whose pages are images' * pages
  words = f'{where}{_division(pairs, options)}{out}'
  pixels = _pixels(list(dict.fromkeys(raw.image for raw in raws)))
  notes = (
    *data_warnings.of_masks(root, raws, options),
    *data_warnings.of_unread(root, raws),
    *data_warnings.of_copies(splits, lambda raw: (raw.image, raw.label)),
  )
  return OwnData(root, 'folder', options, words, counts, pixels, notes)


def _classes(root: Path, raws: Sequence[Raw], given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the options for classes that the folder's files do not determine."""
  choice = mask_set.Choice(
    *(given.get(field.name) for field in dataclasses.fields(mask_set.Choice))
  )
  named = {key: given[key] for key in _NAMED if key in given}
  masks = [raw.label for raw in raws]
  listed = folder.listed_classes(root, **named, masks=masks)
  known = folder.known_classes(masks, raws, listed, choice)
  options: dict[str, Any] = {}
  if listed is None:
    options['classes'] = known.names
    if known.colors:
      options['classes'] = tuple('void' if k == VOID else known.names[k] for _, k in known.colors)
      options['colors'] = tuple(color for color, _ in known.colors)
  if (255, 1) in known.ids and choice.binary is None:
    options['binary'] = True
  if known.by == 'alpha':
    options['read_by'] = 'alpha'
  return options


def _pixels(images: Sequence[Path]) -> dict[str, Any]:
  """Returns the common channels and dtype of the images; a mix of grey and RGB counts as RGB."""

  def kind(path: Path) -> tuple[int, str] | None:
    try:
      return image_files.kind(read_header(path))
    except UserError:  # the full read reports what is wrong
      return None

  files_of = dict(zip(threads.results(kind, images, name=str), images, strict=True))
  files_of.pop(None, None)
  if {(1, 'uint8'), (3, 'uint8')} >= files_of.keys():
    channels, dtype = max(files_of, default=(3, 'uint8'))
  elif len(files_of) == 1:
    [(channels, dtype)] = files_of
  else:
    kinds = (f'{path} has {c} channels of {t}' for (c, t), path in sorted(files_of.items()))
    raise UserError(
      f'images of a set must be of one kind, but {abbreviate(list(kinds), 2)}: save all as the same'
    )
  return {'channels': channels, 'dtype': dtype}


def _division(pairs: Pairs, options: Mapping[str, Any]) -> str:
  if pairs.lists and 'val' in pairs.splits and not options.get('folds'):
    return f'; divided by {abbreviate(pairs.lists, 3)}'
  if options.get('folds') and 'val' in pairs.splits:
    return f'; train and val are put together for {options["folds"]} folds'
  if options.get('folds', 0) > _FIFTH or 'val' not in pairs.splits:
    return f'; one image in {options.get("folds", _FIFTH)} is held out as val'
  return ''


def _unread(root: Path) -> str:
  """Describes files that may be images or annotations in unsupported formats; '' if there are none."""
  endings = Counter(PurePosixPath(p).suffix.lower() for p in pairing.list_files(root))
  found = [
    f'{n} {e}' for e, n in endings.most_common() if e not in (*pairing.SUFFIXES, *_NOTES, '')
  ]
  formats = ', '.join(objects.FORMATS)
  words = f'; its {abbreviate(found, 3)} files are no images that are read, and of none of the formats {formats}'
  return words if found else ''


def _objects(root: Path, request: Request, why: UserError | None = None) -> OwnData:
  """Returns a folder of annotations; if it is none, raises `why` it has no pairs."""
  options, warnings = dict(request.options), ()
  known = {k: v for k, v in options.items() if k in parameters(objects.layout_of)}
  try:
    found, layout = objects.layout_of(root, **known)
  except objects.ManyCrowds as error:
    options['crowds'] = 'objects'
    found, layout = objects.layout_of(root, **known, crowds='objects')
    warnings = (f'warning   {error}; each is taken for an object here',)
  except objects.NoObjects:
    if why is None:
      raise
    raise UserError(f'{why}{_unread(root)}') from None
  options = {'format': found} | ({'folds': request.folds} if request.folds else {}) | options
  divided = objects.divided(layout, **options)
  counts = {split: len(raws) for split, raws in divided.items()}
  if found == 'ids':
    if why and request.model not in ('', OBJECTS):
      raise why  # masks of classes are asked for
    masks = [raw.label for raws in divided.values() for raw in raws]
    if 'format' not in request.options and are_classes(masks):
      raise UserError(
        f'{masks[0]} and most other masks hold numbers that are several regions each, as those of classes '
        'are: number the objects (1, 2, ... in each mask), or choose another --model; '
        '--config.data.options.format=ids takes each number for one object'
      )
    warnings += (
      'note      masks are read as numbers of objects; as classes: --model=unet, or list the classes '
      'in classes.txt',
    )
  everything = [raw for raws in divided.values() for raw in raws]
  pixels = _pixels([raw.image for raw in everything])
  warnings += data_warnings.of_unread(root, everything)
  if found in objects.OUTLINED:
    warnings += data_warnings.of_unannotated(root, everything)
  cased = Counter(name.casefold() for name in layout.names)
  if alike := [name for name in layout.names if cased[name.casefold()] > 1]:
    warnings += (f'warning   classes that differ in capitals alone: {abbreviate(alike)}',)
  notes = (*layout.notes, *warnings, *of_copies(divided, lambda raw: (raw.image,)))
  return OwnData(root, 'objects', options, layout.words, counts, pixels, notes, tells_objects=True)
