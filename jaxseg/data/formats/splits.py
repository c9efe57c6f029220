"""Which split a folder, a file or an image belongs to, by the words that people use."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxseg.data import records

SPLITS = ('train', 'val', 'test')
_WORDS = {
  'train': ('train', 'training'),
  'val': ('val', 'valid', 'validation', 'dev'),
  'test': ('test', 'testing'),
}
WHOLE = ''  # what is not divided


def split_of(name: str) -> str:
  """Returns the split that a name tells of, as instances_train2017 and valid do; else WHOLE."""
  words = re.split(r'[^a-z]+', name.lower())
  return next((split for split in SPLITS if set(words) & set(_WORDS[split])), WHOLE)


def folders(root: Path) -> dict[str, Path]:
  """Returns the folders of `root` that are named after splits."""
  found = {}
  for path in sorted(p for p in root.iterdir() if p.is_dir()):
    name = re.sub(r'\d+$', '', path.name.lower())
    for split in SPLITS:
      if name in _WORDS[split]:
        found.setdefault(split, path)
  return found


def divide(parts: Mapping[str, Sequence[records.Raw]]) -> dict[str, list[records.Raw]]:
  """Returns splits with at least 'train' and 'val'; a fifth of what trains is held out where none is.

  What is not divided is for training. Which images are held out follows from their names alone.
  """
  splits = {split: list(parts[split]) for split in SPLITS if parts.get(split)}
  if whole := parts.get(WHOLE):
    splits['train'] = [*splits.get('train', ()), *whole]
  if 'val' not in splits and len(splits.get('train', ())) > 1:
    pairs = splits['train']
    held_out = set(sorted(range(len(pairs)), key=lambda i: _hash(pairs[i]))[: len(pairs) // 5 or 1])
    splits['val'] = [pairs[i] for i in sorted(held_out)]
    splits['train'] = [pair for i, pair in enumerate(pairs) if i not in held_out]
  return splits


def _hash(raw: records.Raw) -> bytes:
  """Adding images moves few of the others from one split to the other."""
  return hashlib.sha256(os.fsencode(Path(raw.file_name).stem)).digest()
