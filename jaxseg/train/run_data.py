"""Digests of a run's data files in data.json, compared when it is resumed, and between hosts.

A step selects its examples by index: if two files were swapped, or one removed, a resumed run would
silently train on other examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.console import say
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError

_FILE = 'data.json'
_SHOWN = 3  # names in a message

Digests = dict[str, dict[str, str]]  # split -> file name -> digest of its files, in order


def digests(*sources: Any) -> Digests:
  """Returns the digests of each source's files; generated data have none."""
  current = {source.split: dict(getattr(source, 'digests', ())) for source in sources}
  return {split: of_split for split, of_split in current.items() if of_split}


def summary(current: Digests) -> str:
  """Returns 16 hex digits that identify the files and their order."""
  return hashlib.sha256(json.dumps(current).encode()).hexdigest()[:16]


def write(folder: Path, current: Digests) -> None:
  """Writes them to a run folder, beside those of other splits from earlier starts."""
  if current:
    files.write_text(folder / _FILE, json.dumps((_read(folder) or {}) | current, indent=0) + '\n')


def identity(source: Any) -> str:
  """Returns 16 hex digits that identify a source's files and labels; '' for generated data."""
  current = digests(source)
  return summary(current) if current else ''


def of_split(folder: Path, split: str) -> str:
  """Returns the `identity` of the files that a run's split had at its latest start, '' if unknown."""
  found = (_read(folder) or {}).get(split)
  return summary({split: found}) if found else ''


def check_held_out(folder: Path, source: Any, trained: str) -> str:
  """Returns how a split differs from that of the run, '' if it does not or nothing is known.

  Args:
    folder: the run's.
    source: a split as it is now.
    trained: the split that the run trains on.

  Raises:
    UserError: it has images that the run trained on, as when others were added and a part is held out by names.
  """
  before, now = _known(folder), dict(getattr(source, 'digests', ()))
  if source.split == trained or source.split not in before:
    return ''
  known, was = {*before.get(trained, {}).values()}, before[source.split]
  if leaked := [name for name in now if now[name] in known and was.get(name) != now[name]]:
    raise UserError(
      f'{folder} trained on {len(leaked)} images that {source.split} has now ({abbreviate(leaked, _SHOWN)}): the files '
      'have changed since; restore them, or evaluate another --split'
    )
  return _difference(was, now)


def check(folder: Path, current: Digests) -> None:
  """Raises UserError if the files differ from those that the run began with."""
  before = _known(folder)
  problems = [
    f'{split}: {difference}'
    for split, now in current.items()
    if split in before and (difference := _difference(before[split], now))
  ]
  if problems:
    raise UserError(
      f'--workdir={folder}: the data are not those that this run began with ({"; ".join(problems)}): restore '
      'them, use another --workdir, or go on with --config.data.changed=True'
    )


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
  """Describes how the files of a split differ, '' if they do not."""
  kinds = {
    'other files or labels': [name for name in now if before.get(name, now[name]) != now[name]],
    'new': [name for name in now if name not in before],
    'gone': [name for name in before if name not in now],
  }
  words = [f'{len(n)} {kind} ({abbreviate(n, _SHOWN)})' for kind, n in kinds.items() if n]
  if not words and list(before) != list(now):
    return 'another order'
  return ', '.join(words)


def _known(folder: Path) -> Digests:
  """Returns the saved digests; says so where there are some that cannot be read."""
  if (saved := _read(folder)) is None:
    say(
      f'warning: {folder / _FILE} cannot be read: the files are not compared with those that the run began with'
    )
  return saved or {}


def _read(folder: Path) -> Digests | None:
  """Returns the saved digests, {} if there are none, None if they are damaged."""
  try:
    saved = files.read_json(folder / _FILE)
    texts = [text for split in saved.values() for text in split.values()]
  except FileNotFoundError:
    return {}
  except (OSError, UserError, AttributeError):
    return None
  return saved if all(isinstance(text, str) for text in texts) else None
