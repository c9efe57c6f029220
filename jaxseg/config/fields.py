"""Dataclasses whose fields say what they may be; what cannot work is refused in one line.

A range stands where the value is received. Those who build from a config (`config.parts.arguments`)
hold values against it before anything is made; the dataclasses themselves do so for everyone else.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from jaxseg.types import LARGEST, UserError


def checked(holds: Callable[[Any], bool], allowed: str, **options: Any) -> Any:
  """Returns a dataclass's field of which `check_fields` requires something, unless it is None.

  Args:
    holds: of its value.
    allowed: what it may be, in words.
    **options: of dataclasses.field, such as default.
  """
  return dataclasses.field(metadata={'holds': holds, 'allowed': allowed}, **options)


def within(least: float, most: float, *, some: bool = False, **options: Any) -> Any:
  """Returns a field for a number from `least` to `most`, or for several of them; never NaN.

  Args:
    least, most: what each may be.
    some: whether several must be one at least.
    **options: of dataclasses.field.
  """
  limits = f'between {least:g} and {most:g}' if most < LARGEST else f'at least {least:g}'
  limits += f', at most {most}' * (most >= LARGEST)

  def holds(value: Any) -> bool:
    several = value if isinstance(value, (tuple, list)) else (value,)
    return all(least <= number <= most for number in several) and bool(several or not some)

  must = 'one or more numbers, each' if some else 'must be'
  return checked(holds, f'{must} {limits}', **options)


def words(*allowed: str, **options: Any) -> Any:
  """Returns a field for words, each one of those that are allowed."""
  return checked(lambda v: set(v) <= set(allowed), f'some of {", ".join(allowed)}', **options)


def patterns(**options: Any) -> Any:
  """Returns a field for regular expressions."""
  allowed = 'each must be a regular expression, as in score_.*'
  return checked(lambda v: all(map(is_pattern, v)), allowed, **options)


def is_pattern(text: Any) -> bool:
  """Returns whether a value is a regular expression."""
  try:
    re.compile(text)
  except (re.error, TypeError, RecursionError, OverflowError):
    return False
  return isinstance(text, str)


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
  """Returns whether a value is a finite number, and within these."""
  real = isinstance(value, (int, float)) and not isinstance(value, bool)
  return real and math.isfinite(value) and least <= value <= most


def check_fields(record: Any, where: str) -> None:
  """Raises UserError 'where.field=value: what it may be' for the first field that is not so."""
  for field in dataclasses.fields(record):
    check_value(field, getattr(record, field.name), where)


def check_value(field: dataclasses.Field, value: Any, where: str) -> None:
  """The same for one field."""
  if 'holds' in field.metadata and value is not None and not field.metadata['holds'](value):
    raise UserError(f'{where}.{field.name}={value!r}: {field.metadata["allowed"]}')
