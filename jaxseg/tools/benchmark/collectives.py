"""Communication between devices in a compiled program, parsed from its text."""

from __future__ import annotations

import dataclasses
import math
import re

_KINDS = ('all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter', 'collective-permute')
_LINE = re.compile(rf'= (.+?) ({"|".join(_KINDS)})(-start)?\(')
_SHAPE = re.compile(r'\b(pred|[a-z]+\d+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
  """An array exchanged by an operation, as seen by a device.

  Attributes:
    kind: 'all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter' or 'collective-permute'.
    dtype: XLA's name, as in 'f32'.
    shape: of the result; for 'all-gather' that of all devices together.
  """

  kind: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    bits = 8 if self.dtype == 'pred' else int(re.sub(r'\D', '', self.dtype))
    return math.prod(self.shape) * bits // 8


def collectives(text: str) -> list[Collective]:
  """Reads `compiled.as_text()`; operations in a loop are listed once."""
  result = []
  for types, kind, start in _LINE.findall(text):
    shapes = _SHAPE.findall(types)
    if start and kind != 'all-reduce':
      shapes = shapes[1:2]  # an asynchronous start also returns its operand
    for dtype, sizes in shapes:
      result.append(Collective(kind, dtype, tuple(int(n) for n in sizes.split(',') if n)))
  return result


def total_bytes(listed: list[Collective], kind: str) -> int:
  """Returns the bytes of one kind's results on one device."""
  return sum(one.bytes for one in listed if one.kind == kind)
