"""The file of an evaluation, eval/<split>.json or eval/<split>_<mode>.json, and its picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.draw.plots import save_confusion
from jaxseg.metrics import score as scores
from jaxseg.predict.inputs import writing

_AGREE = 1e-4  # of the scores of two evaluations of one checkpoint
_OF_THE_FILE = ('split', 'step', 'images', 'mode')
_LONGEST = 150  # characters of the name


def place(workdir: Path, split: str, mode: str) -> Path:
  """Returns where an evaluation is kept: eval/val.json, or eval/val_flip_tiles-512x512.json of a mode."""
  words = [part.replace(' of ', ' ').replace(' ', '-') for part in mode.split(', ') if part]
  name = '_'.join([split, *words]).replace('/', '-')[:_LONGEST]
  return workdir / 'eval' / f'{name}.json'


def write(result: dict[str, Any], file: Path, class_names: Sequence[str]) -> dict[str, Any]:
  """Writes the file and, where there is a confusion matrix, <name>_confusion.png.

  Returns:
    What is in the file: the result, and further scores of the same step and mode that were there.
  """
  result = result | _scored_before(file, result)
  picture = file.with_name(f'{file.stem}_confusion.png')
  with writing(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, json.dumps(result, indent=2) + '\n')
    title = ', '.join(filter(None, (result['split'], result['mode'])))
    if 'confusion' in result:
      with files.whole_file(picture) as part:
        save_confusion(part, np.array(result['confusion']), class_names, title=title)
  return result


def _scored_before(file: Path, result: dict[str, Any]) -> dict[str, Any]:
  """Returns the further scores of an earlier evaluation that agrees in all that both have."""
  try:
    before = json.loads(file.read_text(encoding='utf-8'))
    theirs, ours = scores.numbers(before), scores.numbers(result)
    both = np.array([(theirs[k], ours[k]) for k in ours if k in theirs], float)  # None is nan
    same = all(before[key] == result[key] for key in _OF_THE_FILE) and len(both)
    same = same and np.allclose(*both.T, rtol=0, atol=_AGREE, equal_nan=True)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or cut short
    return {}
  return {k: v for k, v in before.items() if k not in (*result, 'paper')} if same else {}
