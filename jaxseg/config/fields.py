"""Dataclasses whose fields say what they may be; what cannot work is refused in one line."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxseg.types import UserError

LARGEST = 2**31 - 1  # of a number that counts: an int32 on the devices


def checked(holds: Callable[[Any], bool], allowed: str, **options: Any) -> Any:
  """Returns a dataclass's field of which `check_fields` requires something, unless it is None.

  Args:
    holds: of its value.
    allowed: what it may be, in words.
    **options: of dataclasses.field, such as default.
  """
  return dataclasses.field(metadata={'holds': holds, 'allowed': allowed}, **options)


def within(least: float, most: float = math.inf, **options: Any) -> Any:
  """Returns a field for a number from `least` to `most`; never infinity or NaN."""
  limits = f'between {least:g} and {most:g}'
  if most >= LARGEST:
    limits = f'at least {least:g}' + (f', at most {most}' if most < math.inf else '')
  return checked(lambda v: least <= v <= most and v < math.inf, f'must be {limits}', **options)


def check_fields(record: Any, where: str) -> None:
  """Raises UserError 'where.field=value: what it may be' for the first field that is not so."""
  for field in dataclasses.fields(record):
    value = getattr(record, field.name)
    if field.metadata and value is not None and not field.metadata['holds'](value):
      raise UserError(f'{where}.{field.name}={value!r}: {field.metadata["allowed"]}')
