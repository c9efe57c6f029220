"""Assigns folders, files and images to splits, by the words of data/pairing.py."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from jaxseg.data import records, split_lists
from jaxseg.data.pairing import SPLIT_WORDS, UNDIVIDED
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

_PARTS = 5  # of which one is held out if there is no 'val'

Parts = Mapping[str, Sequence[records.Raw]]
T = TypeVar('T')


def split_of(name: str) -> str:
  """Returns the split in a name, such as instances_train2017, TestDataset or valid; else UNDIVIDED."""
  words = _words(name)
  return next((split for word, split in SPLIT_WORDS.items() if word in words), UNDIVIDED)


def _words(name: str) -> list[str]:
  """Returns the words of a name in lower case, without what does not tell: [train] of TrainDataset2."""
  words = re.split(r'[^a-z]+', re.sub('(?<=[a-z])(?=[A-Z])', ' ', name).lower())
  return [rest for word in words if (rest := re.sub('((data)?set|data)$', '', word))]


def folders(root: Path) -> list[tuple[str, Path]]:
  """Returns the folders of `root` that are named after splits, of which one may have several."""
  inner = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ()
  return [(split, path) for path in inner if (split := split_of_folder(path.name))]


def split_of_folder(name: str) -> str:
  """Returns the split that a folder is named after, as train, Train2017, valset; else UNDIVIDED."""
  words = _words(name)
  return SPLIT_WORDS.get(words[0], UNDIVIDED) if len(words) == 1 else UNDIVIDED


def by_lists(root: Path, parts: Parts) -> tuple[Parts, list[str]]:
  """Divides UNDIVIDED by lists of splits or by the images' folders, if there are any.

  Returns:
    The parts, and the lists; if 'train' is listed, unlisted images are dropped.
  """
  if parts.keys() != {UNDIVIDED}:
    split_of = {os.path.relpath(raw.image, root): s for s, raws in parts.items() for raw in raws}
    split_lists.tell_of_others(root, split_of)
    return parts, []
  of_image = {os.path.relpath(raw.image, root): [raw] for raw in parts[UNDIVIDED]}
  divided, lists = by_names(root, of_image, _split_of_parents)
  divided.pop(UNDIVIDED, None)
  return divided or parts, lists


def by_names(
  root: Path, of_image: Mapping[str, Sequence[T]], split_in: Callable[[str], str]
) -> tuple[dict[str, list[T]], list[str]]:
  """Divides the items of images by lists of splits or, if there are none, by words in the images' paths.

  Args:
    root: of the data.
    of_image: the items of each image, by its path below `root`.
    split_in: returns the split that a path names, UNDIVIDED for none.

  Returns:
    The items of each split, {} if nothing divides them; of unlisted images, under UNDIVIDED if 'train'
    is listed, else under 'train'. And the lists.
  """
  split_of_image, lists = split_lists.find(root, list(of_image))
  if not lists:
    split_of_image = {path: split_in(path) for path in of_image}
    named = set(split_of_image.values())
    if UNDIVIDED in named or 'train' not in named or len(named) == 1:
      return {}, []
  rest = UNDIVIDED if 'train' in split_of_image.values() else 'train'
  divided: dict[str, list[T]] = {}
  for path, items in of_image.items():
    divided.setdefault(split_of_image.get(path, rest), []).extend(items)
  return divided, lists


def _split_of_parents(path: str) -> str:
  named = set(map(split_of_folder, PurePosixPath(path).parts[:-1])) - {UNDIVIDED}
  return named.pop() if len(named) == 1 else UNDIVIDED


def divide(parts: Parts, folds: int = 0, fold: int = 0) -> dict[str, list[records.Raw]]:
  """Returns splits with 'train' and 'val', dividing by a hash of the names if needed.

  Args:
    parts: the data's splits; UNDIVIDED is undivided.
    folds: divides all but 'test' into this many parts, of which number `fold` is 'val'; 0: keeps the
      splits, with a fifth held out if there is no 'val'.
    fold: from 0.
  """
  check_fold('objects', folds, fold)
  pooled = [s for s in (UNDIVIDED, 'train', 'val') if s in parts and (folds or 'val' not in parts)]
  splits = {split: list(raws) for split, raws in parts.items() if split not in pooled}
  if UNDIVIDED in splits:
    splits['train'] = [*splits.get('train', ()), *splits.pop(UNDIVIDED)]
  pool = [raw for split in pooled for raw in parts[split]]
  if len(pool) < folds:
    raise UserError(f'objects: {len(pool)} images are too few for {folds} folds')
  if pool:
    names = [(raw.file_name, raw.image, 0) for raw in pool]
    splits['train'], splits['val'] = hold_out(pool, names, folds, fold)
  return splits


def leave_out(parts: Parts, names: Sequence[str]) -> dict[str, list[records.Raw]]:
  """Returns splits without the images of these names, or paths where several have one name.

  Raises:
    UserError: for names of no image or of several.
  """
  everything = {(raw.image, raw.file_name): raw for raws in parts.values() for raw in raws}
  left, unknown = set(), []
  for name in names:
    found = [
      key
      for key, raw in everything.items()
      if raw.file_name == name or '/' in name and f'/{raw.image.as_posix()}'.endswith(f'/{name}')
    ]
    if len(found) > 1:
      raise UserError(
        f'config.data.options.without names {name}, as are {found[0][0]} and {found[1][0]}: write as much of its '
        'path as tells which'
      )
    left.update(found)
    unknown += [] if found else [name]
  if unknown:
    shown = list(dict.fromkeys(raw.file_name for raw in everything.values()))
    raise UserError(
      f'config.data.options.without names {abbreviate(unknown)}, but images have names such as '
      f'{abbreviate(shown, 2)}: correct or remove what names none'
    )
  return {
    s: [raw for raw in of if (raw.image, raw.file_name) not in left] for s, of in parts.items()
  }


def check_fold(dataset: str, folds: int, fold: int) -> None:
  """Raises UserError if a dataset has no such fold, or only one."""
  if not (folds == fold == 0 or (2 <= folds and 0 <= fold < folds)):
    raise UserError(
      f'{dataset}: got folds {folds} and fold {fold}; two or more, the first is fold 0'
    )


def hold_out(
  pool: Sequence[T], names: Sequence[tuple[str, Path, int]], folds: int, fold: int
) -> tuple[list[T], list[T]]:
  """Returns the items to train on and those held out, both in the pool's order.

  Selected by a hash of the names, so that adding images moves few others between the splits.

  Args:
    pool: items; of a single one nothing is held out.
    names: of each item; with image and page to distinguish equal names.
    folds: parts, of which number `fold` is held out; 0: five, or one per item if fewer.
    fold: from 0.
  """

  def key(i: int) -> tuple[bytes, str, int]:
    name, image, page = names[i]
    stem = PurePosixPath(name).with_suffix('')
    return hashlib.sha256(os.fsencode(stem)).digest(), str(image), page

  ranked, count = sorted(range(len(pool)), key=key), folds or max(min(_PARTS, len(pool)), 2)
  chosen = set(ranked[fold * len(pool) // count : (fold + 1) * len(pool) // count])
  rest = [item for i, item in enumerate(pool) if i not in chosen]
  return rest, [item for i, item in enumerate(pool) if i in chosen]
