"""What the papers and their reference releases say, layer by layer, written out by hand; a paper a file.

Nothing here is computed from the models: sizes, counts, crops and multipliers are those of the
publications. A line of a table is

    name | kernel | stride | padding | output | parameters | what follows | initial values | rate | decay

with the words of `Layer`. 'conv1, bn1' are a convolution and the batch norm after it, before what
follows. C is the number of classes ('65C': 64 weights and a bias a class), K the same without the
background; '-' is what the source does not say, so that it is compared with nothing. Initial values
and multipliers that many layers share stand beside their part of the table.

A module has the name of its model, and `paper(model)`, which returns the publication that a model's
options are nearest to, None where nobody has published such a network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from jaxseg.config import parts
from jaxseg.tools.fidelity.layer import Layer
from jaxseg.types import UserError


@dataclasses.dataclass(frozen=True)
class Part:
  """Layers one after the other, and what is alike in them unless a line says otherwise.

  Attributes:
    table: lines as above.
    initial, rate, decay: of convolutions, weights and bias.
    norm: of batch norms: kernel column, initial, rate and decay of scale and shift.
  """

  table: str
  initial: str
  rate: str
  decay: str
  norm: tuple[str, str, str, str] = ('', '', '', '')

  def layers(self, num_classes: int) -> Iterator[Layer]:
    for line in filter(None, self.table.splitlines()):
      cells = [cell.strip() for cell in line.split('|')]
      names, kernel, stride, padding, output, count, after, *own = cells + [''] * (10 - len(cells))
      name, *norm = names.split(', ')
      layer = Layer(name, kernel, stride, padding, _counted(output, num_classes))
      layer.parameters = int(_counted(count, num_classes) or 0)
      if layer.parameters:
        shared = self.initial, self.rate, self.decay
        values = [mine or usual for mine, usual in zip(own, shared, strict=True)]
      else:  # where it has initial values, a filter that is fixed
        values = [own[0], '0', '0'] if own[0] else own
      layer.initial, layer.rate, layer.decay = values
      layer.after = '' if norm else after
      yield layer
      for norm_name in norm:
        yield self._norm(norm_name, layer.output, after)

  def _norm(self, name: str, output: str, after: str) -> Layer:
    kernel, initial, rate, decay = self.norm
    count = 2 * int(output.rpartition('x')[2])  # scale and shift
    return Layer(name, kernel, '', '', output, count, initial, rate, decay, after)


@dataclasses.dataclass(frozen=True)
class Paper:
  """A published network.

  Attributes:
    title: of the network.
    source: where the facts are from.
    size: (images, height, width) that the source gives its numbers for.
    parts: its layers.
  """

  title: str
  source: str
  size: tuple[int, int, int]
  parts: tuple[Part, ...]

  def layers(self, num_classes: int) -> list[Layer]:
    return [layer for part in self.parts for layer in part.layers(num_classes)]


def paper_of(name: str, model: Any) -> Paper:
  """Returns the published network that a model is nearest to; the rest shows as differences.

  Args:
    name: of its module in jaxseg.models.
    model: with its options.

  Raises:
    UserError: nobody has published such a network's layers.
  """
  known = parts.names('tools.fidelity.papers')
  paper = parts.load('tools.fidelity.papers', name).paper(model) if name in known else None
  if paper is None:
    raise UserError(
      f'no published table for this {name}; there are those of {", ".join(known)}, with the options '
      'of their papers'
    )
  return paper


def without(table: str, word: str) -> str:
  """Returns a table without the lines that hold a word."""
  return '\n'.join(line for line in table.splitlines() if word not in line) + '\n'


def _counted(text: str, num_classes: int) -> str:
  """Puts numbers for 'C' and 'K': '65C' is 65 times the classes."""
  times = {'C': num_classes, 'K': num_classes - 1}
  return re.sub(r'(\d*)([CK])', lambda m: str(int(m[1] or 1) * times[m[2]]), text)
