"""Finds a folder's list of classes, and rejects lists that contradict each other.

Tools write a list into each folder that they export, so a site's, a split's or an example's own list tells
what its masks hold: such lists must agree with the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from jaxseg.data import class_files
from jaxseg.data.class_files import Entry
from jaxseg.data.problems import warn_once
from jaxseg.types import UserError

NAMES = (  # candidates in a folder, in order of preference
  'classes.txt',
  'labelmap.txt',
  'class_dict.csv',
  'classes.csv',
  'classes.json',
  'labels.txt',
  'label_colors.txt',
  'class_names.txt',
  'label_names.txt',
  'names.txt',
  'codes.txt',
  '_classes.csv',
)
_GROUND = ('background', 'bg', 'unlabeled', 'unlabelled')  # the first class, which some lists omit
_UNNUMBERED = '__ignore__'


def find(root: Path, masks: Iterable[Path] = ()) -> str:
  """Returns the relative path of a folder's list of classes, in upper or lower case; '' for none.

  Args:
    root: its lists come first, then Roboflow's of its splits.
    masks: whose folders below `root`, and the folders above these, may have lists, too.

  Raises:
    UserError: several lists that contradict each other.
  """
  parents = {mask.parent for mask in masks}
  near = {folder for one in parents for folder in (one, *one.parents) if root in folder.parents}
  of_splits = [p / '_classes.csv' for p in sorted(root.iterdir()) if p.is_dir()]
  inner = [path for folder in sorted(near) for path in _lists(folder)]
  found = list(
    dict.fromkeys([*_lists(root), *(path for path in of_splits if path.is_file()), *inner])
  )
  check_agree(found)
  if found and (colored := _colored_instead(found)):
    warn_once(
      [
        f'{found[0]} numbers the classes; the colours in {colored.name} are not read: give it by '
        f'--config.data.options.class_list={colored.relative_to(root)} if masks hold these'
      ]
    )
  return found[0].relative_to(root).as_posix() if found else ''


def _colored_instead(paths: Sequence[Path]) -> Path | None:
  """Returns the first list with colours, if the first list, which is taken, has none."""
  for path in paths if len(paths) > 1 else ():
    try:
      if any(entry.color is not None for entry in class_files.read(path)):
        return None if path == paths[0] else path
    except UserError:  # it may list something else
      continue
  return None


def _lists(folder: Path) -> Iterator[Path]:
  """Yields the lists in a folder, by preference."""
  named: dict[str, list[Path]] = {}
  for path in sorted(path for path in folder.iterdir() if path.name.lower() in NAMES):
    named.setdefault(path.name.lower(), []).append(path)
  for name in NAMES:
    places = named.get(name, [])
    if len(places) > 1:
      raise UserError(f'{places[0]} and {places[1].name} both list classes: keep one')
    yield from (place for place in places if place.is_file())


def check_agree(paths: Sequence[Path]) -> None:
  """Rejects lists that name or number classes otherwise than the first, or than one of the same file name."""
  known: dict[tuple[Entry, ...], Path] = {}
  for path in paths if len(paths) > 1 else ():
    try:
      entries = tuple(class_files.read(path))
    except UserError:  # it may list something else; the first is reported when it is used
      continue
    for others, other in known.items():
      alike = path.name == other.name
      if (alike or other == paths[0]) and (wrong := _contradiction(others, entries, alike=alike)):
        raise UserError(
          f'{other} and {path} disagree on the class {wrong!r}: make lists and masks alike, or name the list '
          'that is right for all masks by --config.data.options.class_list'
        )
    known.setdefault(entries, path)


def _contradiction(first: Sequence[Entry], second: Sequence[Entry], *, alike: bool) -> str:
  """Returns a class of the first list that the second has otherwise, '' if there is none.

  Lists without a common name list different things, unless they are of one kind (`alike`).
  """
  names = [{_folded(entry.name) for entry in entries} for entries in (first, second)]
  if not (alike or names[0] & names[1]):
    return ''
  grounds = [_GROUND[0] in of for of in names]
  mine, theirs = (
    list(_numbered(entries, first=int(any(grounds) and not ground)))
    for entries, ground in zip((first, second), grounds, strict=True)
  )
  by_name, by_key = {(_folded(n), of): k for n, of, k in theirs}, {k: n for n, _, k in theirs}
  for name, of, key in mine:
    same = _folded(by_key.get(key, name)) == _folded(name)
    if not same or by_name.get((_folded(name), of), key) != key:
      return name
  return ''


def _folded(name: str) -> str:
  """Returns a name to compare: in small letters, and one for all that mean the background."""
  folded = name.casefold()
  return _GROUND[0] if folded.strip('_') in _GROUND else folded


def _numbered(entries: Sequence[Entry], first: int) -> Iterator[tuple[str, str, Hashable]]:
  """Yields each class's name with its colour and with its number, which defaults to its place."""
  entries = [entry for entry in entries if entry.name != _UNNUMBERED]
  for place, entry in enumerate(entries, start=first):
    if entry.color is not None:
      yield entry.name, 'color', ('color', entry.color)
    if entry.id is not None or entry.color is None:
      yield entry.name, 'id', ('id', place if entry.id is None else entry.id)
