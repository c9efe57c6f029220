"""Lists of splits: train.txt, val.txt and test.txt, whose lines name images, as in VOC and darknet.

A line is a path or a name, with or without its suffix and leading folders: its folders are the last of
the image's (those named images may be missing), or end in all of the image's. What follows a blank, as a
mask or a label, is ignored unless images have names that go on so, as `cell 1` beside `cell`. Of lists in
several folders those count that name no other images.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxseg import files
from jaxseg.data.pairing import SPLIT_WORDS, SUFFIXES, list_files
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

_BLANK = re.compile(r'\s')
_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages')  # that lines may leave out


def find(root: Path, images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """Returns the split of each listed image of a folder, and the lists; both may be empty.

  Args:
    root: the folder.
    images: their relative paths.

  Raises:
    UserError: lists of several folders that differ, or an image in two splits.
  """
  named = [path for path in map(PurePosixPath, list_files(root)) if path.suffix.lower() == '.txt']
  named = [path for path in named if path.stem.lower() in SPLIT_WORDS]
  known = _Images(images if named else ())
  groups: dict[str, dict[str, _Lines]] = {}
  for path in named:
    groups.setdefault(str(path.parent), {})[str(path)] = _lines(root / path, known)
  every = [path for named in groups.values() for path in named]
  groups = {k: named for k, named in groups.items() if any(found for found, _ in named.values())}
  whole = [g for g in groups.values() if not any(lost for _, lost in g.values())]
  chosen = whole or list(groups.values())
  found = [_splits(root, lists) for lists in chosen]
  if any(other != found[0] for other in found):
    shown = abbreviate([path for lists in chosen for path in lists])
    raise UserError(
      f'{root} has lists that divide its images differently: {shown}; keep those of one folder'
    )
  if every and not found:
    warn_once([f'{root}: {abbreviate(every)} name no image that is read here: they divide nothing'])
  for path, (named, lost) in chosen[0].items() if found else ():
    if lost:
      few, lines = abbreviate(lost, 3), len(named) + len(lost)
      warn_once(
        [f'{root / path}: {len(lost)} of {lines} lines name no image that is read here: {few}']
      )
  return (found[0], list(chosen[0])) if found else ({}, [])


def tell_of_others(root: Path, split_of: Mapping[str, str]) -> None:
  """Tells of lists that divide images, given with their splits, otherwise than their folders do, which count."""
  try:
    listed, lists = find(root, list(split_of))
  except UserError as error:
    warn_once([f'{error}; the folders divide the images'])
    return
  whole = 'train' in listed.values()  # else images may be in no list
  other = [p for p, split in split_of.items() if listed.get(p, '' if whole else split) != split]
  if lists and other:
    warn_once(
      [
        f'{root}: {abbreviate(lists)} divide {len(other)} images otherwise than the folders do, which count: '
        f'{abbreviate(other, 3)}'
      ]
    )


_Lines = tuple[list[str], list[str]]  # the images that a list names, its lines that name none


class _Images:
  """Images by the names that lines have for them."""

  def __init__(self, images: Iterable[str]):
    parts = {image: _parts(image) for image in images}
    plain = {
      i: (*(p for p in of[:-1] if p.lower() not in _FOLDERS), of[-1]) for i, of in parts.items()
    }
    self._whole = set(parts.values())
    self._tails = _tails(plain) | _tails(parts)
    stems = {of[-1] for of in parts.values()}
    self._begun = {stem[: blank.end()] for stem in stems for blank in _BLANK.finditer(stem)}

  def named(self, line: str) -> str | None:
    """Returns the image that a line names, None if it names none or several."""
    if image := self._of(line):
      return image
    for blank in reversed([*_BLANK.finditer(line)]):
      if image := self._of(line[: blank.start()]):
        return None if _parts(line[: blank.end()])[-1] in self._begun else image
    return None

  def _of(self, path: str) -> str | None:
    parts = _parts(path)
    ends = (parts[i:] for i in range(1, len(parts)))
    whole = next((end for end in ends if end in self._whole), parts)
    return self._tails.get(parts if parts in self._tails else whole)


def _tails(parts: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], str | None]:
  """Maps each trailing part of the images' paths to its image; None: ambiguous."""
  tails: dict[tuple[str, ...], str | None] = {}
  for image, of in parts.items():
    for tail in (of[i:] for i in range(len(of))):
      tails[tail] = None if tail in tails else image
  return tails


def _parts(path: str) -> tuple[str, ...]:
  """Returns a path's folders and its name, without an image's suffix."""
  name = PurePosixPath(unicodedata.normalize('NFC', path.replace('\\', '/')))
  parts = (name.with_suffix('') if name.suffix.lower() in SUFFIXES else name).parts
  return tuple(part for part in parts if part not in ('/', '..'))


def _lines(file: Path, images: _Images) -> _Lines:
  """Returns the images that a list names, and its lines that name none."""
  try:
    text = files.read_text(file)
  except (UserError, OSError) as error:
    warn_once([f'{error}; it divides nothing'])
    return [], []
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  named = [images.named(line) for line in lines]
  lost = [line for line, image in zip(lines, named, strict=True) if image is None]
  return [image for image in named if image is not None], lost


def _splits(root: Path, lists: Mapping[str, _Lines]) -> dict[str, str]:
  splits: dict[str, str] = {}
  for path, (named, _) in lists.items():
    split = SPLIT_WORDS[PurePosixPath(path).stem.lower()]
    for image in named:
      if splits.setdefault(image, split) != split:
        raise UserError(f'{root / path} lists {image}, which is in {splits[image]} too: keep one')
  return splits
