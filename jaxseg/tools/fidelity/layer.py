"""A layer of a network, as traced or as published, with all fields as printed."""

from __future__ import annotations

import dataclasses


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
