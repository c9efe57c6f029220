"""Likely mistakes in masks, if no file lists the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.data import mask_files, mask_set
from jaxseg.data.problems import BadFiles
from jaxseg.data.records import Raw
from jaxseg.datasets import folder

_SHOWN = 6  # ids in a warning


def of_masks(root: Path, raws: Sequence[Raw], options: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns warnings about suspicious mask ids, if no file lists the classes."""
  if folder.listed_classes(root, class_list=options.get('class_list', '')) is not None:
    return ()
  if options.keys() & {'read_by', 'threshold'}:
    return ()
  try:
    facts = mask_set.look([raw.label for raw in raws], pages=bool(options.get('pages')))
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


def _lonely_colors(facts: Mapping[Path, mask_files.Facts]) -> tuple[str, ...]:
  """Returns a warning if most colours occur in a single mask, which suggests one colour per object."""
  counts = Counter(color for held in facts.values() for color in held.colors)
  once = [color for color, number in counts.items() if number == 1]
  if len(facts) < 3 or 2 * len(once) <= len(counts):
    return ()
  return (
    f'warning   {len(once)} of {len(counts)} colours are in one mask only: if each is an object, save its '
    'number instead (16-bit PNG or TIFF) and plan again',
  )
