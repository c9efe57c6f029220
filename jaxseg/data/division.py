"""Divides a folder's pairs into splits: the folder's own, folds, or with a fifth held out."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from jaxseg.data import layouts, records
from jaxseg.data.formats.splits import by_names, check_fold, hold_out, leave_out, split_of
from jaxseg.data.pages import are_channels, read_header
from jaxseg.data.pairing import UNDIVIDED, Layout, Pair, Pairs
from jaxseg.data.problems import BadFiles, MissingSplit, warn_once
from jaxseg.data.split_lists import tell_of_others
from jaxseg.types import UserError

_FURTHER = re.compile(r'(.+)[ _\-.]\(?\d+\)?')  # a name and a number
_CHANNELS = 6  # more pages are a stack, even if a program that knows no other axis calls them so
Unpaired = Literal['refuse', 'leave_out']


@dataclasses.dataclass(frozen=True)
class Division:
  """How to find and divide a folder's pairs.

  Attributes:
    layout: patterns of data/pairing.py for images and masks, or `listed`, a CSV file in the folder
      with columns image, mask and optionally split; an empty one is inferred from the names.
    unpaired: 'leave_out' skips files without a partner, with a message.
    folds: divides all but 'test' into this many parts, of which number `fold` is 'val'; 0: the
      folder's own splits, or if it has none, a fifth is 'val'.
    fold: from 0.
    pages: whether images and masks are TIFF stacks, with an example per page.
  """

  layout: Layout = Layout()
  unpaired: Unpaired = 'refuse'
  folds: int = 0
  fold: int = 0
  pages: bool = False

  def __post_init__(self):
    check_fold('folder', self.folds, self.fold)

  def of(
    self, root: Path, split: str, without: Sequence[str] = ()
  ) -> tuple[list[records.Raw], list[Path]]:
    """Returns the examples of a split, but for names to leave out, and the masks of all splits.

    Raises:
      UserError: as `splits`; names of no image.
    """
    divided = self.splits(root)
    if split not in divided:
      there = ', '.join(divided) or 'none'
      remedy = '; config.data.options.folds=5 holds a fifth of it out' if split == 'val' else ''
      raise MissingSplit(f"{root} has no split '{split}'; splits found: {there}{remedy}")
    raws = leave_out(divided, without)[split]
    return raws, [raw.label for of_split in divided.values() for raw in of_split]

  def splits(self, root: Path) -> dict[str, list[records.Raw]]:
    """Returns the examples of each split that exists.

    Raises:
      UserError: no layout was found, files have no partner, or are too few to divide.
    """
    pairs = self.pairs(root)
    if self.unpaired == 'refuse':
      _refuse_unpaired(root, pairs)
    elif pairs.left_out():
      _refuse_further(root, pairs)
      warn_once([f'{root}: left out are {pairs.left_out()}'])
    return {s: _raws(root, found) for s, found in self._divided(root, pairs.splits).items()}

  def pairs(self, root: Path) -> Pairs:
    """Returns the pairs, divided by the folder's patterns or its lists of splits."""
    layout = self.layout if self.layout.options() else layouts.find(root)
    pairs = layout.pairs(root)
    pairs = in_pages(pairs) if self.pages else pairs
    if pairs.splits.keys() == {UNDIVIDED} and not layout.listed:
      return _as_listed(root, pairs)
    if not layout.listed:
      of_splits = ((split, pair) for split, found in pairs.splits.items() for pair in found)
      tell_of_others(root, {os.path.relpath(pair.image, root): split for split, pair in of_splits})
    return pairs

  def _divided(self, root: Path, splits: Mapping[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Holds out one of the folds, or a fifth of the undivided pairs."""
    pooled = [
      s for s in (UNDIVIDED, 'train', 'val') if s in splits and (self.folds or s == UNDIVIDED)
    ]
    pool = [pair for split in pooled for pair in splits[split]]
    if not pool:
      return dict(splits)
    if len(pool) < max(2, self.folds):
      raise UserError(
        f'{root} holds {len(pool)} pairs of image and mask: at least {max(2, self.folds)} are needed, '
        'for one part of them is held out'
      )
    train, val = hold_out(pool, [*map(_names, pool)], self.folds, self.fold)
    return {k: v for k, v in splits.items() if k not in pooled} | {'train': train, 'val': val}


def are_stacks(pairs: Pairs, *, sure: bool) -> bool:
  """Whether the first image and its mask are multi-page TIFF; all others must be then too.

  Raises:
    UserError: a few pages are channels by the file's own metadata, and the user is not `sure`.
  """
  first = next(pair for found in pairs.splits.values() for pair in found)
  try:
    counts = [read_header(path).pages for path in (first.image, first.mask)]
    doubtful = not sure and 1 < counts[0] <= _CHANNELS and are_channels(first.image)
  except UserError:  # the full read reports what is wrong
    return False
  if min(counts) > 1 and doubtful:
    raise UserError(
      f'{first.image}: its {counts[0]} pages are channels by its own metadata: save them as the bands of one page, '
      'or, if each is an image, add --config.data.options.pages=True'
    )
  return min(counts) > 1


def in_pages(pairs: Pairs) -> Pairs:
  """Returns a pair for each page of the stacks, such as train_007.tif of train.tif."""

  def split_up(pair: Pair) -> list[Pair]:
    counts = [read_header(path).pages for path in (pair.image, pair.mask)]
    if counts[0] != counts[1]:
      raise UserError(
        f'{pair.image} has {counts[0]} pages and {pair.mask} {counts[1]}: they must agree'
      )
    name = PurePosixPath(pair.name)
    numbered = (str(name.with_stem(f'{name.stem}_{i:03d}')) for i in range(counts[0]))
    return [dataclasses.replace(pair, name=n, page=i) for i, n in enumerate(numbered)]

  splits = {s: [page for p in found for page in split_up(p)] for s, found in pairs.splits.items()}
  return dataclasses.replace(pairs, splits=splits)


def _as_listed(root: Path, pairs: Pairs) -> Pairs:
  """Divides by lists such as train.txt, or file names such as train-volume.tif and val-volume.tif.

  Unlisted images are left out if there is a list of 'train', else they are 'train'.
  """
  of_image: dict[str, list[Pair]] = {}
  for pair in pairs.splits[UNDIVIDED]:
    of_image.setdefault(os.path.relpath(pair.image, root), []).append(pair)
  divided, lists = by_names(root, of_image, lambda path: split_of(PurePosixPath(path).stem))
  if not divided:
    return pairs
  lists = lists or ['the names of files']
  unlisted = [pair.name for pair in divided.pop(UNDIVIDED, ())]
  return dataclasses.replace(pairs, splits=divided, lists=lists, unlisted=unlisted)


def _refuse_unpaired(root: Path, pairs: Pairs) -> None:
  remedy = 'add or remove one, or leave such files out with config.data.options.unpaired=leave_out'
  problems = [f'{root / path} has no mask: {remedy}' for path in pairs.without_mask]
  problems += [f'{root / path} has no image: {remedy}' for path in pairs.without_image]
  if problems:
    raise BadFiles(problems)


def _refuse_further(root: Path, pairs: Pairs) -> None:
  """Rejects unpaired files whose name is a further mask's: a_mask_1.png beside a_mask.png."""
  image_of = {p.mask.with_suffix(''): p.image for found in pairs.splits.values() for p in found}
  for path in (*pairs.without_mask, *pairs.without_image, *pairs.others):
    found = _FURTHER.fullmatch(PurePosixPath(path).stem)
    if found and (image := image_of.get((root / path).with_name(found[1]))):
      raise UserError(
        f'{root / path} looks like a further mask of {image}, which has one: join both in one file, or, '
        'if it is none, move it away'
      )


def _raws(root: Path, pairs: Sequence[Pair]) -> list[records.Raw]:
  """Returns the examples sorted by name, with the full path where names repeat."""
  names = [pair.name for pair in pairs]
  if len(set(names)) < len(names):
    names = [str(Path(os.path.relpath(p.image, root)).with_name(Path(p.name).name)) for p in pairs]
  raws = (records.Raw(p.image, p.mask, n, p.page) for p, n in zip(pairs, names, strict=True))
  return sorted(raws, key=lambda raw: unicodedata.normalize('NFC', _stem(raw.file_name)))


def _stem(name: str) -> str:
  return str(PurePosixPath(name).with_suffix(''))


def _names(pair: Pair) -> tuple[str, Path, int]:
  """Returns the names that hold_out hashes; pages of a stack stay together."""
  return pair.name if pair.page is None else pair.image.name, pair.image, pair.page or 0
