"""The layers of the papers and their reference releases, written down by hand in tables/.

Nothing there is computed from the models: sizes, counts, crops and multipliers are those of the
publications. A table is named after its model, and its Jinja conditions may use the model's options
(config.model); it is empty if no such network has been published. It starts with the title, the source
and the image shape for which the source gives its numbers. A line is

    name | kernel | stride | padding | output | parameters | what follows | initial values | rate | decay

in the terms of `Layer`. The last three columns of '*' are the defaults of every convolution below it,
those of '* norm' of every batch norm; 'conv1, bn1' are a convolution and the batch norm after it, before
'what follows'. C is the number of classes ('65C': 64 weights and a bias per class), K the same without
the background; '-' is not stated by the source, and therefore not compared.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from jaxseg.types import UserError

_FOLDER = Path(__file__).with_name('tables')
_HEADER = re.compile(r'title: (.+)\s+source: (.+)\s+images: (\d+) x (\d+) x (\d+) x (\d+)\n')


@dataclasses.dataclass
class Layer:
  """A row of the comparison.

  Attributes:
    name: the parameters' path, or the operand: 'pool3', 'unpool3', 'upscore8 crop'.
    kernel: '3x3', '3x3 dilated 2', or the kind of other layers: 'dense', 'dropout 0.5', 'crop at 19',
      'batch norm 1e-09', and 'batch norm 1e-05, frozen' if training keeps the loaded statistics.
    stride: '2', or '' if there is none.
    padding: pixels on every side; 'ceil' or 'floor' for pooling.
    output: 'HxWxC'; 'NxC' for a dense layer.
    parameters: number of trained values.
    initial: of weights and bias, 'normal 2/in, 0'; see `describe_initializer`.
    rate: learning-rate multipliers of weights and bias, '1, 2'.
    decay: weight-decay multipliers, '1, 0'.
    after: 'relu' if one follows.
  """

  name: str
  kernel: str = ''
  stride: str = ''
  padding: str = ''
  output: str = ''
  parameters: int = 0
  initial: str = ''
  rate: str = ''
  decay: str = ''
  after: str = ''


FIELDS = tuple(field.name for field in dataclasses.fields(Layer))


@dataclasses.dataclass(frozen=True)
class Paper:
  """A published network.

  Attributes:
    title: of the network.
    source: reference of the facts.
    input_shape: [b, h, w, c] for which the source gives its numbers.
    table: lines as above.
  """

  title: str
  source: str
  input_shape: tuple[int, int, int, int]
  table: str

  def layers(self, num_classes: int) -> list[Layer]:
    times = {'C': num_classes, 'K': num_classes - 1}
    number = lambda m: str(int(m[1] or 1) * times[m[2]])  # noqa: E731
    shared, layers = {}, []
    for line in filter(None, map(str.strip, self.table.splitlines())):
      cells = [cell.strip() for cell in line.split('|')]
      cells += [''] * (10 - len(cells))
      if cells[0].startswith('*'):
        shared[cells[0]] = cells
        continue
      cells[4:6] = (re.sub(r'(\d*)([CK])', number, cell) for cell in cells[4:6])
      layers.extend(_layers(cells, shared))
    return layers


def _layers(cells: list[str], shared: Mapping[str, list[str]]) -> Iterator[Layer]:
  """Yields a line's layer, and the batch norm after it."""
  names, kernel, stride, padding, output, count, after, *values = cells
  name, *norms = names.split(', ')
  if count:
    values = [value or usual for value, usual in zip(values, shared['*'][7:], strict=True)]
  elif values[0]:  # a fixed filter
    values[1:] = '0', '0'
  follows = '' if norms else after
  yield Layer(name, kernel, stride, padding, output, int(count or 0), *values, after=follows)
  for norm in norms:
    usual, parameters = shared['* norm'], 2 * int(output.rpartition('x')[2])  # scale and shift
    yield Layer(norm, usual[1], '', '', output, parameters, *usual[7:], after=after)


def paper_of(options: Mapping[str, Any]) -> Paper:
  """Returns the published network closest to a model; the rest shows up as differences.

  Args:
    options: name and all options of a model.

  Raises:
    UserError: no such network's layers have been published.
  """
  name, known = options['name'], sorted(path.stem for path in _FOLDER.glob('*.txt'))
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER), undefined=jinja2.StrictUndefined, trim_blocks=True
  )
  text = environment.get_template(f'{name}.txt').render(options) if name in known else ''
  header = _HEADER.search(text)
  if not header:
    raise UserError(
      f'no published table for this {name}; there are those of {", ".join(known)}, with the options '
      'of their papers'
    )
  title, source, *shape = header.groups()
  return Paper(title, source, tuple(map(int, shape)), text[header.end() :])
