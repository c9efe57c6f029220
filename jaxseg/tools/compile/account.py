"""What the TPU's compiler says that a program costs, read from the program's text.

Most instructions carry the compiler's estimate in cycles. Where one has none (copies, windows, exchanges),
the bytes that it reads and writes in the chip's memory over the memory's rate are the least that it takes.
The body of a loop is counted once, and copies that run beside the computation are not: compare programs,
not seconds.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from jaxseg.tools.slices import Chip

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$')
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([\d,]*)([^}]*)\})?')
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.\-]+)')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
_WRAPPER = re.compile(r'\w+\(|[()]')  # jit(...), jvp(...), transpose(...) around a name
# What JAX puts between a layer and its primitive: branches, loops, the methods of the network.
_BETWEEN = re.compile(
  r'(Model(\.\w+)*|cond|branch_\d+_fun|while|body|closed_call|remat\w*|checkpoint|shard_map)$'
)
# Instructions that name, group or wait, and move nothing themselves.
_FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional')
_FREE += ('call', 'after-all', 'partition-id', 'replica-id', 'iota', 'opt-barrier')


@dataclasses.dataclass(frozen=True)
class Operation:
  """An instruction of a compiled program.

  Attributes:
    kind: XLA's name of it, such as 'fusion' or 'select-and-scatter'.
    layer: where the network's code made it, such as 'down_0/conv_0 conv_general_dilated'; with a
      trailing ', backward' for its gradient.
    cycles: the compiler's estimate; None where it has none.
    bytes: that it reads and writes in the chip's memory, as they lie there (padded to tiles).
  """

  kind: str
  layer: str
  cycles: int | None
  bytes: int

  def estimate(self, chip: Chip) -> float:
    """Cycles: the compiler's, else the least for its bytes."""
    return self.bytes / chip.bandwidth * chip.clock if self.cycles is None else self.cycles


def operations(text: str) -> list[Operation]:
  """Reads `compiled.as_text()`: the instructions that run, those of loops and branches once."""
  inner = set(
    _CALLED.findall(text)
  )  # bodies of fusions and reductions: their callers have the cost
  result: list[Operation] = []
  for name, lines in _computations(text):
    if name not in inner:
      result += _read(lines)
  return result


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
  name, lines = '', []
  for line in text.splitlines():
    begin = _COMPUTATION.match(line)
    if begin:
      name, lines = begin.group(2), []
    elif line.startswith('}'):
      yield name, lines
    else:
      lines.append(line)


def _read(lines: list[str]) -> Iterator[Operation]:
  sizes: dict[str, int] = {}
  for line in lines:
    match = _INSTRUCTION.match(line)
    if not match:
      continue
    name, types, kind, rest = match.groups()
    sizes[name] = sum(map(_memory_bytes, _ARRAY.finditer(types)))
    if kind in _FREE or kind.endswith(('-start', '-done')):  # they run beside the others
      continue
    operands = re.findall(r'%([\w.\-]+)', rest.split(')', 1)[0])
    cycles = _CYCLES.search(line)
    yield Operation(
      kind,
      _layer(line),
      int(cycles.group(1)) if cycles else None,
      sizes[name] + sum(sizes.get(operand, 0) for operand in operands),
    )


def _memory_bytes(array: re.Match) -> int:
  """Bytes of an array, padded to its tiles; 0 where it lies in the core's own memory, S(1) and up."""
  dtype, sizes, order, layout = array.groups()
  bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype).group())
  shape = [int(n) for n in sizes.split(',') if n]
  if re.search(r'S\([1-9]', layout or ''):
    return 0
  tile = re.search(r'T\(([\d,]+)\)', layout or '')
  if tile and order:
    minor = [int(n) for n in order.split(',')]
    for axis, side in zip(minor, reversed(tile.group(1).split(',')), strict=False):
      shape[axis] = -(-shape[axis] // int(side)) * int(side)
  return math.prod(shape) * bits // 8


def _layer(line: str) -> str:
  """Returns the path of modules and the primitive, without JAX's own wrappers."""
  name = _NAME.search(line)
  if not name:
    return 'layout'
  path, backward = name.group(1), 'transpose(' in name.group(1)
  parts = _WRAPPER.sub('', path).split('/')[1:]  # the first is the whole program's name
  parts = [part for part in parts if part and not _BETWEEN.match(part)] or ['layout']
  return ' '.join(['/'.join(parts[:-1]), parts[-1]]).strip() + (', backward' if backward else '')
