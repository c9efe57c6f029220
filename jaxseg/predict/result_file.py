"""The result file of an evaluation, eval/<split>.json or eval/<split>_<mode>.json, and its plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.draw.plots import save_confusion
from jaxseg.metrics import score as scores
from jaxseg.predict.inputs import writing
from jaxseg.types import LARGEST, UserError

_TOLERANCE = 1e-4  # between scores of two evaluations of one checkpoint
_IDENTITY = ('split', 'step', 'images', 'mode')
_LONGEST = 150  # characters of the name
_HUGE = 1e300  # larger numbers cannot be plotted


def path_of(workdir: Path, split: str, mode: str) -> Path:
  """Returns the path of an evaluation: eval/val.json, or with a mode eval/val_flip_tiles-512x512.json."""
  words = [part.replace(' of ', ' ').replace(' ', '-') for part in mode.split(', ') if part]
  name = '_'.join([split, *words]).replace('/', '-')[:_LONGEST]
  return workdir / 'eval' / f'{name}.json'


def read(file: Path) -> dict[str, Any]:
  """Reads and validates an evaluation: scores, 'split', 'step' and more.

  Raises:
    FileNotFoundError: no such file.
    UserError: it was not written by `write`, or is damaged.
  """
  result = files.read_json(file)
  if not isinstance(result, dict):
    raise UserError(f'{file} is no evaluation: remove it, and evaluate again')
  result = {'split': file.stem, **result}
  valid = {name: _kind(name)(value) for name, value in {'step': None, **result}.items()}
  if not all(valid.values()):
    wrong = min(name for name in valid if not valid[name])
    raise UserError(f'{file} is damaged ({wrong!r}): remove it, and evaluate again')
  return result


def read_all(workdir: Path) -> dict[str, dict[str, Any]]:
  """Returns every evaluation of a run by the stem of its file; see `read`."""
  return {file.stem: read(file) for file in sorted((workdir / 'eval').glob('*.json'))}


def _is_plain(value: Any) -> bool:
  """Whether a value holds only text and finite numbers, at any depth."""
  if isinstance(value, (dict, list)):
    return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
  return value is None or isinstance(value, (str, bool, int)) or math.isfinite(value)


def _is_word(value: Any) -> bool:
  return isinstance(value, str)


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value <= LARGEST


def _is_matrix(value: Any) -> bool:
  """Whether a value is a square matrix of counts."""
  if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
    return False
  cells = [cell for row in value for cell in row]
  square = all(len(row) == len(value) for row in value)
  return square and all(type(cell) is int and 0 <= cell < 1 << 62 for cell in cells)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and abs(value) < _HUGE


def _is_breakdown(value: Any) -> bool:
  """Whether a value is {row: {column: number or None}}."""
  if not isinstance(value, dict) or not all(isinstance(row, dict) for row in value.values()):
    return False
  cells = (cell for row in value.values() for cell in row.values())
  return all(cell is None or _is_number(cell) for cell in cells)


def _is_curve(*names: str) -> Callable[[Any], bool]:
  """Returns a check for {name: [numbers]} with these names and non-empty lists of equal length."""

  def check(value: Any) -> bool:
    lists = [value.get(name) for name in names] if isinstance(value, dict) else [None]
    if not all(isinstance(numbers, list) and numbers for numbers in lists):
      return False
    return len({*map(len, lists)}) == 1 and all(_is_number(n) for numbers in lists for n in numbers)

  return check


_KINDS = {
  'split': _is_word,
  'mode': _is_word,
  'data': _is_word,
  'step': _is_count,
  'images': _is_count,
  'confusion': _is_matrix,
  'reliability': _is_curve('confidence', 'accuracy', 'share'),
  'risk_coverage': _is_curve('coverage', 'risk'),
}


def _kind(name: str) -> Callable[[Any], bool]:
  """Returns the check for the values of a key; see metrics.score."""
  return _is_breakdown if name.startswith(scores.BY) else _KINDS.get(name, _is_plain)


def write(result: dict[str, Any], file: Path, class_names: Sequence[str]) -> dict[str, Any]:
  """Writes the file and, for a confusion matrix, <name>_confusion.png.

  Returns:
    The contents of the file: the result, and other scores already there for the same step and mode.
  """
  result = result | _earlier_scores(file, result)
  picture = file.with_name(f'{file.stem}_confusion.png')
  with writing(file):
    files.own_folder(file.parent)
    files.write_text(file, json.dumps(_without_nan(result), indent=2) + '\n')
    title = ', '.join(filter(None, (result['split'], result['mode'])))
    if 'confusion' in result:
      with files.new_file(picture) as part:
        save_confusion(part, np.array(result['confusion']), class_names, title=title)
  return result


def _without_nan(value: Any) -> Any:
  """Returns a value with None for nan, which is no JSON: scores where nothing is labelled."""
  if isinstance(value, dict):
    return {key: _without_nan(item) for key, item in value.items()}
  return None if isinstance(value, float) and math.isnan(value) else value


def _earlier_scores(file: Path, result: dict[str, Any]) -> dict[str, Any]:
  """Returns other scores of an earlier evaluation that agrees in all scores that both have."""
  try:
    before = read(file)
    theirs, ours = scores.numbers(before), scores.numbers(result)
    both = np.array([(theirs[k], ours[k]) for k in ours if k in theirs], float)  # None is nan
    same = all(before[key] == result[key] for key in _IDENTITY) and len(both)
    same = same and np.allclose(*both.T, rtol=0, atol=_TOLERANCE, equal_nan=True)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or truncated
    return {}
  return {k: v for k, v in before.items() if k not in (*result, 'paper')} if same else {}
