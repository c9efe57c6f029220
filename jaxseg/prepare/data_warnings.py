"""Likely mistakes in masks, if no file lists the classes, and in splits."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxseg.data import fingerprint, mask_files, mask_set
from jaxseg.data.formats import further
from jaxseg.data.pairing import SUFFIXES, Pair, Pairs, list_files
from jaxseg.data.problems import BadFiles, abbreviate
from jaxseg.data.records import Raw
from jaxseg.datasets import folder
from jaxseg.types import UserError

_SHOWN = 6  # ids in a warning


def of_masks(root: Path, raws: Sequence[Raw], options: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns warnings about suspicious mask ids, if no file lists the classes."""
  masks, name = [raw.label for raw in raws], options.get('class_list', '')
  if folder.listed_classes(root, class_list=name, masks=masks) is not None:
    return ()
  if options.keys() & {'read_by', 'threshold'}:
    return ()
  try:
    facts = mask_set.inspect(masks, pages=bool(options.get('pages')))
  except BadFiles:  # reported elsewhere
    return ()
  if 'colors' in options:
    return _lonely_colors(facts)
  ids_of = {path: held.ids for path, held in facts.items()}
  counts = Counter(i for ids in ids_of.values() for i in ids)
  if options.get('binary') or counts.keys() <= {0, 255}:
    return ()
  classes = sorted(counts.keys() - {255})
  absent = [str(k) for k in range(classes[-1]) if k not in counts]
  files_of = {i: file for file, ids in ids_of.items() for i in ids}
  once = [f'{k} ({files_of[k]})' for k in classes if counts[k] == 1 < len(facts)]
  return tuple(
    f'warning   {what}: {", ".join(ids[:_SHOWN])}{", ..." * (len(ids) > _SHOWN)}; correct slips and '
    'plan again'
    for what, ids in (('ids in no mask, below others', absent), ('ids in one mask only', once))
    if ids
  )


def of_unread(root: Path, raws: Sequence[Raw]) -> tuple[str, ...]:
  """Returns a warning about annotation files of images that are read by other files alone."""
  found = further.find(root, raws)
  return (
    (
      f'warning   {abbreviate(found, 3)}: further annotations of images that are read, which are not; what only '
      'these show is background: join them with those that are read, or move them away',
    )
    if found
    else ()
  )


def of_unannotated(root: Path, raws: Sequence[Raw]) -> tuple[str, ...]:
  """Returns a warning about folders of images of which none is read."""
  read = {os.path.relpath(raw.image.parent, root) for raw in raws}
  parents = {
    str(PurePosixPath(path).parent) for path in list_files(root) if path.lower().endswith(SUFFIXES)
  }
  if not (left := sorted(parents - read)):
    return ()
  return (
    f'warning   no image is read of {abbreviate(left, 3)}: no annotation was found for any of them',
  )


def of_copies(
  splits: Mapping[str, Sequence[Raw]], files_of: Callable[[Raw], Sequence[Path]]
) -> tuple[str, ...]:
  """Returns a warning about examples of one split that are copies of another's.

  Args:
    splits: the examples of each.
    files_of: the files that make an example; `check` compares the pixels of all images.
  """
  seen: dict[tuple[Any, ...], tuple[str, Raw]] = {}
  twice = []
  try:
    for split, raws in splits.items():
      digests = iter(fingerprint.contents([path for raw in raws for path in files_of(raw)]))
      for raw in raws:
        page = raw.extra if type(raw.extra) is int else None  # of a stack
        key = (*itertools.islice(digests, len(files_of(raw))), page)
        other, first = seen.setdefault(key, (split, raw))
        if other != split and first.image != raw.image:
          twice.append(f'{other}/{first.file_name} = {split}/{raw.file_name}')
  except BadFiles:  # reported elsewhere
    return ()
  lines = f'warning   {len(twice)} images are in two splits: {abbreviate(twice, 3)}; what is held out must not train'
  return (lines,) if twice else ()


def _lonely_colors(facts: Mapping[Path, mask_files.MaskSummary]) -> tuple[str, ...]:
  """Returns a warning if most colours occur in a single mask, which suggests one colour per object."""
  counts = Counter(color for held in facts.values() for color in held.colors)
  once = [color for color, number in counts.items() if number == 1]
  if len(facts) < 3 or 2 * len(once) <= len(counts):
    return ()
  return (
    f'warning   {len(once)} of {len(counts)} colours are in one mask only: if each is an object, save its '
    'number instead (16-bit PNG or TIFF) and plan again',
  )


def refuse_shifted(root: Path, pairs: Pairs) -> None:
  """Rejects masks that are numbered as the images are, but from another number: pairs may be of two scenes."""
  found = [pair for of_split in pairs.splits.values() for pair in of_split]
  _refuse_matlab(root, found)
  images, masks = (
    {int(number[-1]) for path in paths if (number := re.findall(r'\d+', PurePosixPath(path).stem))}
    for paths in (
      [*(pair.image for pair in found), *pairs.without_mask],
      [*(pair.mask for pair in found), *pairs.without_image],
    )
  )
  alone, count = (
    [*pairs.without_mask[:1], *pairs.without_image[:1]],
    len(found) + len(pairs.without_mask),
  )
  if len(alone) == 2 and len(images) == len(masks) == count > 2:
    first = min(images), min(masks)
    if first[0] != first[1] and masks == {i - first[0] + first[1] for i in images}:
      raise UserError(
        f'{root}: images are numbered from {first[0]} and masks from {first[1]}, so pairs of one number may be of '
        f'two scenes: pair them by --list=FILE.csv or rename them, or, if the numbers agree, take out {alone[0]}, '
        f'{alone[1]} and the like'
      )


def _refuse_matlab(root: Path, found: Sequence[Pair]) -> None:
  """Rejects masks of MATLAB's labelers, which number them in the order of the images' names as texts."""
  numbers = [re.fullmatch(r'Label_(\d+)', pair.mask.stem) for pair in found]
  if not all(numbers):
    return
  ordered = sorted(zip(found, numbers, strict=True), key=lambda one: str(one[0].image))
  for (first, a), (second, b) in itertools.pairwise(ordered):
    if int(a[1]) > int(b[1]):
      raise UserError(
        f'{root}: MATLAB numbers masks such as {first.mask.name} in the order of its images, in which '
        f'{first.image.name} comes before {second.image.name}: pair them by --list=FILE.csv, as gTruth does'
      )
