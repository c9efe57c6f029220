"""Dataclass fields with allowed ranges; invalid values are refused in one line.

A range is declared where the value is used. When building from a config, `config.parts.arguments` checks
values before anything is created; otherwise the dataclasses do so themselves.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from jaxseg.types import LARGEST, UserError


def checked(holds: Callable[[Any], bool], allowed: str, **options: Any) -> Any:
  """Returns a dataclass field with a condition for `check_fields`, which None always passes.

  Args:
    holds: the condition on its value.
    allowed: the allowed values, in words.
    **options: of dataclasses.field, such as default.
  """
  return dataclasses.field(metadata={'holds': holds, 'allowed': allowed}, **options)


def within(least: float, most: float, *, some: bool = False, **options: Any) -> Any:
  """Returns a field for a number from `least` to `most`, or a sequence of them; never NaN.

  Args:
    least, most: inclusive range of each.
    some: whether a sequence must not be empty.
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
  """Returns a field for strings, each one of `allowed`."""
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
  """Returns whether a value is a finite number from `least` to `most`."""
  real = isinstance(value, (int, float)) and not isinstance(value, bool)
  return real and math.isfinite(value) and least <= value <= most


def check_fields(record: Any, where: str) -> None:
  """Raises UserError 'where.field=value: allowed values' for the first invalid field."""
  for field in dataclasses.fields(record):
    check_value(field, getattr(record, field.name), where)


def check_value(field: dataclasses.Field, value: Any, where: str) -> None:
  """The same for one field."""
  if 'holds' in field.metadata and value is not None and not field.metadata['holds'](value):
    raise UserError(f'{where}.{field.name}={value!r}: {field.metadata["allowed"]}')
