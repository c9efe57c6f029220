"""TPU slices for rent, and their chips' specifications."""

import dataclasses

from jaxseg.train.devices.parallel import largest_divisor
from jaxseg.types import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of TPU chip, as specified by its maker.

  Attributes:
    flops: FLOP/s in bfloat16.
    memory: bytes.
    bandwidth: of the memory, bytes/s.
    clock: cycles/s; flops / clock is the matrix units' work per cycle.
    hosts_chips: chips per host in a multi-host slice.
  """

  flops: float
  memory: int
  bandwidth: float
  clock: float
  hosts_chips: int = 4


CHIPS = {
  'v4': Chip(275e12, 32 << 30, 1228e9, 1.05e9),
  'v5e': Chip(197e12, 16 << 30, 819e9, 1.5e9),
  'v5p': Chip(459e12, 95 << 30, 2765e9, 1.75e9),
  'v6e': Chip(918e12, 32 << 30, 1640e9, 1.75e9),
}

_SHAPES = {  # of the chips in a slice: v4 and v5p are a 3D mesh, v5e and v6e a 2D one
  'v4': {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4'},
  'v5e': {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'},
}
_SHAPES |= {'v5p': _SHAPES['v4'], 'v6e': _SHAPES['v5e']}
_CORES = {'v4': 2, 'v5p': 2}  # a name such as v4-8 counts cores


@dataclasses.dataclass(frozen=True)
class Slice:
  """A slice for rent: its name, the kind and number of its chips, and the number of its hosts."""

  name: str
  kind: str
  chips: int
  hosts: int

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def shape(self) -> str:
    """The chips' topology, such as '2x4'."""
    return _SHAPES[self.kind][self.chips]

  def busy(self, batch_size: int) -> int | None:
    """Returns how many chips a batch keeps busy; None if it does not divide over the hosts."""
    if batch_size % self.hosts:
      return None
    return self.hosts * largest_divisor(batch_size // self.hosts, self.chips // self.hosts)

  def part(self, chips: int) -> 'Slice':
    """Returns a slice of `chips` chips of this kind, or this one if there is none."""
    name = f'{self.kind}-{chips * _CORES.get(self.kind, 1)}'
    return slice_of(name) if self.hosts == 1 and chips in _SHAPES[self.kind] else self


def slice_of(name: str) -> Slice:
  """Returns the slice named, for example, 'v5e-8' or 'v4-8' (eight cores, which are four chips).

  Raises:
    UserError: no such kind of chip, or no slice of that many.
  """
  kind, _, number = name.partition('-')
  known = [f'{k}-{n * _CORES.get(k, 1)}' for k, shapes in _SHAPES.items() for n in shapes]
  if name not in known:
    raise UserError(f'--topology={name}: choose one of {", ".join(known)}')
  chips = int(number) // _CORES.get(kind, 1)
  one_host = 8 if kind in ('v5e', 'v6e') else 4  # most chips of a single host
  return Slice(name, kind, chips, 1 if chips <= one_host else chips // CHIPS[kind].hosts_chips)
