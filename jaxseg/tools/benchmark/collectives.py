"""What devices send each other in a compiled program, read from its text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = ('all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter', 'collective-permute')
_LINE = re.compile(rf'= (.+?) ({"|".join(_KINDS)})(-start)?\(')
_SHAPE = re.compile(r'\b(pred|[a-z]+\d+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One array that one operation exchanges, as a device sees it.

  Attributes:
    kind: 'all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter' or 'collective-permute'.
    dtype: XLA's name, as in 'f32'.
    shape: of the result; 'all-gather' shows the whole.
  """

  kind: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    bits = 8 if self.dtype == 'pred' else int(re.sub(r'\D', '', self.dtype))
    return math.prod(self.shape) * bits // 8


def collectives(text: str) -> list[Collective]:
  """Reads `compiled.as_text()`; what is inside a loop is listed once."""
  return list(_found(text))


def _found(text: str) -> Iterator[Collective]:
  for line in text.splitlines():
    match = _LINE.search(line)
    if not match:
      continue
    shapes = _SHAPE.findall(match.group(1))
    if match.group(3) and match.group(2) != 'all-reduce':
      shapes = shapes[1:2]  # an asynchronous start also returns its operand
    for dtype, sizes in shapes:
      yield Collective(match.group(2), dtype, tuple(int(n) for n in sizes.split(',') if n))


def total_bytes(found: list[Collective], kind: str) -> int:
  """Returns the bytes of one kind's results on one device."""
  return sum(one.bytes for one in found if one.kind == kind)
