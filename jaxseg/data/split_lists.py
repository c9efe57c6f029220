"""Lists of splits: train.txt, val.txt and test.txt, whose lines name images, as in VOC and darknet.

A line is a path or a name, with or without its suffix and leading folders; anything after a blank is
ignored. Of lists in several folders those count that name no other images.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxseg import files
from jaxseg.data.pairing import SPLIT_WORDS, SUFFIXES, list_files
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError


def find(root: Path, images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """Returns the split of each listed image of a folder, and the lists; both may be empty.

  Args:
    root: the folder.
    images: their relative paths.

  Raises:
    UserError: lists of several folders that differ, or an image in two splits.
  """
  tails = _tails(images)
  groups: dict[str, dict[str, list[str | None]]] = {}
  for path in list_files(root):
    name = PurePosixPath(path)
    if name.suffix.lower() == '.txt' and name.stem.lower() in SPLIT_WORDS:
      groups.setdefault(str(name.parent), {})[path] = _named(root / path, tails)
  every = [path for named in groups.values() for path in named]
  groups = {k: named for k, named in groups.items() if any(map(any, named.values()))}
  whole = [g for g in groups.values() if all(None not in named for named in g.values())]
  chosen = whole or list(groups.values())
  found = [_splits(root, lists) for lists in chosen]
  if any(other != found[0] for other in found):
    shown = abbreviate([path for lists in chosen for path in lists])
    raise UserError(
      f'{root} has lists that divide its images differently: {shown}; keep those of one folder'
    )
  if every and not found:
    warn_once([f'{root}: {abbreviate(every)} name no image that is read here: they divide nothing'])
  for path, named in chosen[0].items() if found else ():
    if lost := named.count(None):
      warn_once([f'{root / path}: {lost} of {len(named)} lines name no image that is read here'])
  return (found[0], list(chosen[0])) if found else ({}, [])


def _tails(images: Iterable[str]) -> dict[str, str | None]:
  """Maps each trailing part of the images' paths, without suffix, to its image; None: ambiguous."""
  tails: dict[str, str | None] = {}
  for image in images:
    for tail in _ends(image):
      tails[tail] = None if tail in tails else image
  return tails


def _ends(path: str) -> list[str]:
  """Returns a path's trailing parts, without an image's suffix, the longest first."""
  path = unicodedata.normalize('NFC', path.replace('\\', '/'))
  name = PurePosixPath(path)
  parts = (name.with_suffix('') if name.suffix.lower() in SUFFIXES else name).parts
  return ['/'.join(parts[i:]) for i in range(len(parts))]


def _named(file: Path, tails: Mapping[str, str | None]) -> list[str | None]:
  """Returns the image that each line of a list names, None if it names none."""
  try:
    text = files.read_text(file)
  except (UserError, OSError) as error:
    warn_once([f'{error}; it divides nothing'])
    return []
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  ends = ((end for word in (line, line.split()[0]) for end in _ends(word)) for line in lines)
  return [next((tails[e] for e in of_line if tails.get(e)), None) for of_line in ends]


def _splits(root: Path, lists: Mapping[str, Sequence[str | None]]) -> dict[str, str]:
  splits: dict[str, str] = {}
  for path, named in lists.items():
    split = SPLIT_WORDS[PurePosixPath(path).stem.lower()]
    for image in filter(None, named):
      if splits.setdefault(image, split) != split:
        raise UserError(f'{root / path} lists {image}, which is in {splits[image]} too: keep one')
  return splits
