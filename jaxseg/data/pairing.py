"""Pairs images with masks by two patterns or a list, and reports files without a partner.

    {split}/images/**/*        {split}/masks/**/*_segmentation

Patterns are relative to the data folder. `{split}` matches a word of SPLIT_WORDS, `**/` any subfolders,
`*`, `?` and `[...]` parts of a name: what they match is the example's name, and an image and a mask of
the same name are a pair. Without a suffix such as `.png`, any of SUFFIXES matches. A file that matches
both patterns is a mask. Folders are matched ignoring case, and all names by their normalised Unicode.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from jaxseg import files
from jaxseg.data import raw_files
from jaxseg.data.pages import SUFFIXES, UNREAD
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

SPLIT_WORDS = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
  'eval': 'val',
  'evaluation': 'val',
  'test': 'test',
  'testing': 'test',
}
UNDIVIDED = ''  # the split of undivided examples
WORDS = '|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))
_PIECES = re.compile(r'(\{split\}|\*\*/|\*|\?|\[[^\]/]+\])')
_COLUMNS = {  # of a list; optionally ending in one of _ENDINGS
  'image': ('image', 'images', 'img', 'imgs', 'file', 'filename', 'input', 'photo'),
  'mask': ('mask', 'masks', 'label', 'labels', 'annotation', 'segmentation', 'gt', 'target'),
  'split': ('split', 'subset', 'set'),
}
_ENDINGS = re.compile(r'[ _-]?(names?|paths?|files?|filenames?)$')


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image and its mask; `name` is the image's path without the folders common to all.

  If they are stacks, `page` is the index of their page, from 0.
  """

  name: str
  image: Path
  mask: Path
  page: int | None = None


@dataclasses.dataclass(frozen=True)
class Pairs:
  """The pairs of a folder.

  Attributes:
    splits: from 'train', 'val' or 'test', or UNDIVIDED alone, to pairs sorted by name.
    without_mask, without_image: relative paths of files without a partner.
    others: image files that are neither images nor masks of the layout.
    lists: what assigned the splits: files in the folder, or a description.
    unlisted: images not in those lists.
  """

  splits: dict[str, list[Pair]]
  without_mask: Sequence[str] = ()
  without_image: Sequence[str] = ()
  others: Sequence[str] = ()
  lists: Sequence[str] = ()
  unlisted: Sequence[str] = ()

  def left_out(self) -> str:
    """Describes the files in no pair, '' if there are none."""
    kinds = (
      ('images without a mask', self.without_mask),
      ('masks without an image', self.without_image),
      ('other files', self.others),
      ('images in no list', self.unlisted),
    )
    return ', '.join(f'{len(p)} {kind} ({abbreviate(p, 3)})' for kind, p in kinds if p)


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a folder's files are paired: by two patterns, or a list."""

  images: str = ''
  masks: str = ''
  listed: str = ''

  def pairs(self, root: Path) -> Pairs:
    """Returns the pairs of a folder.

    Raises:
      UserError: files that cannot be listed, two files of one name, or an invalid list.
    """
    if self.listed:
      return read_list(root / self.listed)
    return match(root, self.images, self.masks)

  def options(self) -> dict[str, str]:
    """Returns the non-empty fields as options of the folder dataset."""
    return {key: value for key, value in dataclasses.asdict(self).items() if value}


def list_files(root: Path) -> list[str]:
  """Returns the paths of all files below a folder, relative to it."""
  try:
    return files.walk(root)
  except OSError as error:
    raise UserError(f'cannot read {error.filename or root}: {error.strerror or error}') from None


@functools.cache
def expression(pattern: str) -> re.Pattern[str]:
  """Converts a pattern to a regular expression for relative paths; its groups form the name."""
  stem, text, seen = re.sub(r'\.\*$', '', pattern), '', False
  for piece in _PIECES.split(stem):
    if piece == '{split}':
      text += '(?P=split)' if seen else f'(?P<split>{WORDS})'
      seen = True
    elif piece == '**/':
      text += '((?:[^/]+/)*)'
    elif piece in ('*', '?'):
      text += '([^/]*)' if piece == '*' else '([^/])'
    elif _PIECES.fullmatch(piece):
      text += re.escape(piece[1]) if len(piece) == 3 else f'({_class(piece[1:-1])})'
    else:
      text += re.escape(piece)
  if PurePosixPath(stem).suffix.lower() not in (*SUFFIXES, *UNREAD):
    text += f'(?:{"|".join(map(re.escape, SUFFIXES))})'
  try:
    return re.compile(text, re.IGNORECASE)
  except re.error as error:
    raise UserError(f'{pattern!r} is no pattern of files: {error}') from None


def _class(inner: str) -> str:
  """Converts the inside of [...] of a pattern to a regular expression's."""
  negated, inner = inner.startswith('!'), inner.removeprefix('!')
  for sign in '\\[^':
    inner = inner.replace(sign, f'\\{sign}')
  return f'[{"^" * negated}{inner}]'


@dataclasses.dataclass(frozen=True)
class _File:
  """A file that matches a pattern: its split, the key of its pair, and its path."""

  word: str
  key: tuple[str, ...]
  path: str
  name: str

  @property
  def split(self) -> str:
    return SPLIT_WORDS.get(self.word, UNDIVIDED)


def match_path(pattern: str, path: str) -> _File | None:
  """Matches a relative path with a pattern; None if it does not match."""
  found = expression(pattern).fullmatch(path)
  if not found:
    return None
  parts = list(found.groups())
  word = (found.groupdict().get('split') or '').lower()
  if word:
    del parts[found.re.groupindex['split'] - 1]
  folders = ''.join(part for part in parts if part.endswith('/'))
  key = tuple(unicodedata.normalize('NFC', part).rstrip('/') for part in parts if part)
  return _File(word, key, path, folders + PurePosixPath(path).name)


def match(root: Path, images: str, masks: str) -> Pairs:
  """Returns the pairs that two patterns match; see the module's docstring.

  Raises:
    UserError: an unreadable folder, a broken link, or two files of one name.
  """
  found: tuple[list[_File], list[_File]] = [], []
  others = []
  for path in list_files(root):
    suffix = PurePosixPath(path).suffix.lower()
    as_png = str(PurePosixPath(path).with_suffix('.png')) if suffix in UNREAD else ''
    if as_png and (match_path(images, as_png) or match_path(masks, as_png)):
      raise UserError(f'{root / path} would be left out: save it as one of {", ".join(SUFFIXES)}')
    if file := match_path(masks, path):
      found[1].append(file)
    elif file := match_path(images, path):
      found[0].append(file)
    elif suffix in SUFFIXES or as_png:
      others.append(path)
  _check_words(root, {file.word for kind in found for file in kind})
  image_of, mask_of = (_by_key(root, kind) for kind in found)
  splits: dict[str, list[Pair]] = {}
  for key in sorted(image_of.keys() & mask_of.keys()):
    image, mask = image_of[key], mask_of[key]
    splits.setdefault(key[0], []).append(Pair(image.name, root / image.path, root / mask.path))
  alone = (
    [of[key].path for key in sorted(of.keys() - partners.keys())]
    for of, partners in ((image_of, mask_of), (mask_of, image_of))
  )
  return Pairs(splits, *alone, others)


def _check_words(root: Path, words: Iterable[str]) -> None:
  several: dict[str, list[str]] = {}
  for word in sorted(filter(None, words)):
    several.setdefault(SPLIT_WORDS[word], []).append(word)
  for split, names in several.items():
    if len(names) > 1:
      raise UserError(f"{root} has {' and '.join(names)} for the split '{split}': keep one")


def _by_key(root: Path, found: Iterable[_File]) -> dict[tuple[str, ...], _File]:
  by_key: dict[tuple[str, ...], _File] = {}
  for file in found:
    key = (file.split, *file.key)
    if key in by_key:
      twin = PurePosixPath(by_key[key].path).name
      raise UserError(f'{root / file.path} and {twin} have one name: rename or remove one')
    if not files.is_remote(root) and not (root / file.path).exists():
      raise UserError(f'{root / file.path} is a link that leads nowhere: repair or remove it')
    by_key[key] = file
  return by_key


def read_list(path: Path) -> Pairs:
  """Reads the pairs of a CSV file: columns image, mask and optionally split, relative to the file.

  Separated by comma, semicolon or tab; the first line may name the columns, in any order.

  Raises:
    UserError: an invalid line, which it names.
  """
  rows, separator = _read_rows(path)
  columns = _columns(rows, path) if rows else None
  splits: dict[str, list[Pair]] = {}
  seen: set[str] = set()
  for number, row in enumerate(rows, start=1):
    if not any(row) or (number == 1 and columns):
      continue
    where, places = f'{path}, line {number}', columns or (0, 1, 2 if len(row) > 2 else None)
    cells = ['' if p is None or p >= len(row) else row[p] for p in places]
    if columns and len(row) > len(rows[0]):
      raise UserError(f'{where} has more cells than the first line: {separator.join(row)!r}')
    if not (cells[0] and cells[1]):
      raise UserError(f"{where}: expected 'image{separator}mask', got {separator.join(row)!r}")
    split = SPLIT_WORDS.get(cells[2].lower())
    if split is None and places[2] is not None:
      raise UserError(f'{where}: split {cells[2]!r}: use one of {", ".join(SPLIT_WORDS)}')
    cells[:2] = (_with_slashes(path.parent, cell) for cell in cells[:2])
    image, mask = (_own_path(path.parent, cell) for cell in cells[:2])
    if image in seen:
      raise UserError(f'{where}: {cells[0]} is listed a second time')
    if image == mask:
      raise UserError(f'{where}: {cells[0]} is image and mask at once')
    seen.add(image)
    pair = Pair(cells[0], *(path.parent / cell for cell in cells[:2]))
    splits.setdefault(split or UNDIVIDED, []).append(pair)
  masks = Counter(str(pair.mask) for found in splits.values() for pair in found)
  if shared := [f'{mask} ({count})' for mask, count in masks.items() if count > 1]:
    warn_once([f'{path}: masks of several images: {abbreviate(shared, 3)}'])
  return Pairs(splits)


def _own_path(folder: Path, cell: str) -> str:
  """Returns one path for all ways to name a file: relative, absolute, through links."""
  return os.path.normpath(cell) if files.is_remote(folder) else os.path.realpath(folder / cell)


def _are_pictures(column: Iterable[str]) -> bool:
  return any(PurePosixPath(cell).suffix.lower() in SUFFIXES for cell in column)


def _with_slashes(folder: Path, cell: str) -> str:
  """Replaces Windows' \\ in a path by /, as other systems take it for a letter."""
  if '\\' not in cell or not files.is_remote(folder) and (folder / cell).exists():
    return cell
  return cell.replace('\\', '/')


def read_column(path: Path, name: str) -> dict[str, str]:
  """Returns another column of a list by image, such as its site.

  Raises:
    UserError: no such column; the message names the existing ones.
  """
  rows, _ = _read_rows(path)
  header = rows[0] if rows else []
  places = _columns(rows, path) if header else None
  if not places or name not in header:
    there = ', '.join(header) if places else 'none, for its first line names no columns'
    raise UserError(f'{path} has no column {name!r}: it has {there}')
  column = header.index(name)
  names = (_with_slashes(path.parent, row[places[0]]) if row else '' for row in rows[1:])
  return {
    n: r[column] if column < len(r) else '' for n, r in zip(names, rows[1:], strict=True) if n
  }


def _read_rows(path: Path) -> tuple[list[list[str]], str]:
  """Returns the rows of a list, and their separator."""
  lines = raw_files.read_text(path).splitlines()
  separator = max(',;\t', key=lines[0].count) if lines else ','
  if '\0' in ''.join(lines):
    raise UserError(f'{path} holds NUL, which is in no name of a file: save it as text')
  return raw_files.cells_of(lines, separator, path), separator


def _columns(rows: Sequence[Sequence[str]], path: Path) -> tuple[int, int, int | None] | None:
  """Returns the indices of image, mask and split, None if the first line names no columns.

  Of several candidates the first in _COLUMNS wins.

  Raises:
    UserError: several columns of masks, or splits under another name.
  """
  header = rows[0]
  cells = [_ENDINGS.sub('', cell.lower()) or cell.lower() for cell in header]
  found = [next((name for name in names if name in cells), None) for names in _COLUMNS.values()]
  if None in found[:2]:
    return None
  columns = {
    name: column
    for name, *column in itertools.zip_longest(cells, *filter(any, rows[1:]), fillvalue='')
  }
  both = [name for name in _COLUMNS['mask'] if name in cells and _are_pictures(columns[name])]
  if len(both) > 1:
    raise UserError(f'{path} has masks in several columns: {", ".join(both)}; keep one')
  told = [name for name in cells if {*map(str.lower, columns[name])} <= SPLIT_WORDS.keys()]
  if told and found[2] is None and len(rows) > 1:
    raise UserError(f"{path}: its column {told[0]!r} holds splits: name it 'split', or take it out")
  if twice := next((name for name in found if cells.count(name) > 1), None):
    raise UserError(f'{path} has several columns for {twice}: {", ".join(header)}; keep one')
  return tuple(None if name is None else cells.index(name) for name in found)
