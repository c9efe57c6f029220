"""One file a paper; the class is always `Model`, found by the name of its file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from jaxseg.types import SizeRule, UserError


def load(name: str) -> type:
  """Returns the class `Model` of jaxseg/models/{name}.py.

  Raises:
    UserError: no such model; the message lists those there are.
  """
  names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith('_'))
  if name not in names:
    raise UserError(f'no model {name!r}: choose one of {", ".join(names)}')
  return importlib.import_module(f'{__name__}.{name}').Model


def check_choice(option: str, value: Any, allowed: Sequence[Any]) -> None:
  """Raises UserError unless the option's value is among the allowed ones."""
  if value not in allowed:
    choices = ', '.join(repr(choice) for choice in allowed)
    raise UserError(f'{option}={value!r} is not known: choose one of {choices}')


def check_size(model: str, rule: SizeRule, image_shape: Sequence[int]) -> None:
  """Refuses an image [b,h,w,c] whose height or width the network cannot take.

  Symbolic dimensions (`jax.export`) pass: whoever writes them writes them by the rule.

  Raises:
    UserError: names the sizes that the network takes and the nearest ones to what was got.
  """
  for side, size in zip(('height', 'width'), image_shape[1:3], strict=True):
    if not isinstance(size, int) or rule.allows(size):
      continue
    above = rule.at_least(size)
    nearest = f'{above}'
    if above - rule.multiple >= rule.minimum:
      nearest = f'{above - rule.multiple} or {above}'
    allowed = f'{rule.multiple} n' + (f' + {rule.offset}' if rule.offset else '')
    raise UserError(
      f'{model} cannot take an image of {side} {size}: sizes are {allowed}, at least '
      f'{rule.minimum}; pad, crop or resize to {nearest}'
    )
