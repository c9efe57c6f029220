"""JSON from outside: standard JSON alone, no NaN and no infinity, and one line where it is not."""

import json
import re
from pathlib import Path
from typing import Any

from jaxseg.data import image_files
from jaxseg.types import UserError

# Numbers that may be beyond a float's range; the usual text has none, and then C reads all numbers.
_HUGE = re.compile(r'[eE]\+?0*[1-9]\d{2}|\d{300}')


def read(path: Path) -> Any:
  """Reads a JSON file in UTF-8. Raises UserError, naming the file."""
  text = image_files.read_text(path)
  try:
    return loads(text)
  except ValueError as error:
    raise UserError(f'{path} is no valid JSON ({error}): restore or correct it') from None


def loads(text: str) -> Any:
  """Returns what a text says. Raises ValueError: no JSON, a number that is not finite, too deep."""
  options = {'parse_float': _finite} if _HUGE.search(text) else {}
  try:
    return json.loads(text, parse_constant=_refused, **options)
  except RecursionError:
    raise ValueError('lists in lists without end') from None


def _refused(word: str) -> float:
  raise ValueError(f'{word} is no number of JSON')


def _finite(text: str) -> float:
  value = float(text)
  if abs(value) == float('inf'):
    raise ValueError(f'{text[:20]} is beyond all numbers')
  return value
