"""One file per paper; the class is always `Model`, found by its file's name.

`config.model` sets its fields, except three that `train.build` sets: `num_classes`, channels of the
logits; `norm`, which makes batch norm layers (with the step wrapper's axis name); `dtype`, the compute
type: parameters are float32. CONTRIBUTING has the contract. `launch/fidelity.py` measures the methods
`crop`, `scale` and `join` of a model.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from jaxseg.config import parts
from jaxseg.config.fields import check_fields, checked, within
from jaxseg.types import SizeRule, UserError


def load(name: str) -> type:
  """Returns the class `Model` of jaxseg/models/{name}.py, or of any module by its dotted path.

  Raises:
    UserError: no such model; the message lists them all.
  """
  return parts.load('models', name).Model


def channels(**options: Any) -> Any:
  """Returns a field for a number of channels."""
  return within(1, 1 << 14, **options)


def dropout(**options: Any) -> Any:
  """Returns a field for a dropout rate."""
  return checked(lambda rate: 0 <= rate < 1, 'a share from 0, below 1', **options)


def stages(least: int, most: int, **options: Any) -> Any:
  """Returns a field for the number of blocks in each of `least` to `most` stages."""
  allowed = f'{least} to {most} numbers, each between 1 and 100'
  holds = lambda sizes: least <= len(sizes) <= most and all(1 <= n <= 100 for n in sizes)  # noqa: E731
  return checked(holds, allowed, **options)


def check_options(model: nn.Module) -> None:
  """Raises UserError for a field outside its range or the choices of its Literal type."""
  check_fields(model, 'config.model')
  for name, hint in typing.get_type_hints(type(model)).items():
    if typing.Literal in map(typing.get_origin, (hint, *typing.get_args(hint))):
      parts.coerced(getattr(model, name), hint, name)


def check_size(model: str, rule: SizeRule, image_shape: Sequence[int]) -> None:
  """Refuses an image [b,h,w,c] whose height or width the network cannot take.

  Symbolic dimensions (`jax.export`) pass: the exporter makes them follow the rule.

  Raises:
    UserError: names the allowed sizes and the nearest of them.
  """
  for side, size in zip(('height', 'width'), image_shape[1:3], strict=True):
    if isinstance(size, int) and not rule.allows(size):
      allowed = f'{rule.multiple} n' + (f' + {rule.offset}' if rule.offset else '')
      raise UserError(
        f'{model} cannot take an image of {side} {size}: sizes are {allowed}, at least '
        f'{rule.minimum}; pad, crop or resize to {rule.nearest(size)}'
      )
