"""Which files a run has seen: data.json in its folder, compared where it is resumed, and between hosts.

A step's number says which examples it takes, by their places: with two files exchanged, or one gone, the
same command would go on with others, and nothing else would tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.data.problems import some
from jaxseg.types import UserError

_FILE = 'data.json'
_SHOWN = 3  # names in a message

Digests = dict[str, dict[str, str]]  # split -> file name -> digest of its files, in order


def digests(*sources: Any) -> Digests:
  """Returns what is known of the files of each source; generated data have none."""
  held = {source.split: dict(getattr(source, 'digests', ())) for source in sources}
  return {split: of_split for split, of_split in held.items() if of_split}


def summary(held: Digests) -> str:
  """Returns 16 hex digits that are the same only for the same files in the same order."""
  return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]


def write(folder: Path, held: Digests) -> None:
  """Keeps them in a run folder, beside those of splits that another start has read."""
  if held:
    files.write_text(folder / _FILE, json.dumps(_read(folder) | held, indent=0) + '\n')


def check(folder: Path, held: Digests) -> None:
  """Raises UserError where the files differ from those that the run began with."""
  before = _read(folder)
  told = [
    f'{split}: {difference}'
    for split, now in held.items()
    if split in before and (difference := _difference(before[split], now))
  ]
  if told:
    raise UserError(
      f'--workdir={folder}: the data are not those that this run began with ({"; ".join(told)}): restore '
      'them, use another --workdir, or go on with --config.data.changed=True'
    )


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
  """Returns in words how the files of a split differ, '' where they do not."""
  kinds = {
    'other files or labels': [name for name in now if before.get(name, now[name]) != now[name]],
    'new': [name for name in now if name not in before],
    'gone': [name for name in before if name not in now],
  }
  words = [f'{len(n)} {kind} ({some(n, _SHOWN)})' for kind, n in kinds.items() if n]
  if not words and list(before) != list(now):
    return 'another order'
  return ', '.join(words)


def _read(folder: Path) -> Digests:
  """Returns what is kept, {} of runs that kept nothing or something else."""
  try:
    kept = files.read_json(folder / _FILE)
  except (OSError, UserError):
    return {}
  return kept if isinstance(kept, dict) and all(isinstance(v, dict) for v in kept.values()) else {}
