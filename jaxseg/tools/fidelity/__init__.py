"""Compares a network with its paper, layer by layer, for `launch/fidelity.py`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from jaxseg.console import say
from jaxseg.pretrained import matches
from jaxseg.tools.examples import make_batch
from jaxseg.tools.fidelity.papers import FIELDS, Layer, Paper, paper_of
from jaxseg.tools.fidelity.trace import trace
from jaxseg.train.build import Experiment
from jaxseg.train.build import experiment as build
from jaxseg.train.optim import multiplier_of

_HEADS = ('layer', 'kernel', 'stride', 'padding', 'output', 'params', 'initial', 'lr', 'decay', '')
_SILENT = '-'  # not stated by the paper
_UNSEEN = (
  'not seen here: data and augmentation, the loss, optimiser, rate, schedule and steps, and how it is scored; '
  "the first lines of the config say what differs from the paper's"
)


@dataclasses.dataclass(frozen=True)
class LayerPair:
  """A layer as implemented and as published; None if one side lacks it."""

  ours: Layer | None
  paper: Layer | None

  @property
  def name(self) -> str:
    return (self.ours or self.paper).name

  @property
  def differences(self) -> tuple[str, ...]:
    """Names of differing fields; fields that the paper does not state never differ."""
    if self.ours is None or self.paper is None:
      return ('not in the paper',) if self.paper is None else ('missing',)
    return tuple(f for f in FIELDS if not _same(getattr(self.ours, f), getattr(self.paper, f)))


def report(config: Mapping[str, Any]) -> int:
  """Prints the comparison of a config's network with its paper.

  Returns:
    0 if everything is equal, 2 otherwise.

  Raises:
    UserError: there is no published table for this network.
  """
  experiment = build(config)
  paper, pairs = compare(experiment)
  say(f'{paper.title} ({paper.source}), input {"x".join(map(str, paper.input_shape[1:]))}')
  say(*_lines(pairs), _UNSEEN)
  loaded = sum('loaded' in pair.ours.initial for pair in pairs if pair.ours)
  if loaded and not experiment.settings.init_from:
    say(
      f"note: config.init_from is empty; the {loaded} layers with 'loaded' are random until it is given"
    )
  different = [pair for pair in pairs if pair.differences]
  if not different:
    total = sum(pair.ours.parameters for pair in pairs)
    say(f'{paper.title}: {len(pairs)} layers, {total:,} parameters: all equal')
    return 0
  named = ', '.join(f'{p.name} ({", ".join(p.differences)})' for p in different[:4])
  more = f' and {len(different) - 4} more' if len(different) > 4 else ''
  say(f'{paper.title}: {len(different)} of {len(pairs)} layers differ: {named}{more}')
  return 2


def compare(experiment: Experiment) -> tuple[Paper, list[LayerPair]]:
  """Returns the paper, and pairs of both sides' layers in order.

  Raises:
    UserError: there is no published table for this network.
  """
  paper = paper_of(experiment.config['model'])
  ours, theirs = _traced(experiment, paper.input_shape), paper.layers(experiment.task.num_outputs)
  names = [[layer.name for layer in side] for side in (ours, theirs)]
  pairs = []
  for kind, i, j, k, m in difflib.SequenceMatcher(None, *names, autojunk=False).get_opcodes():
    if kind == 'equal':
      pairs += [LayerPair(a, b) for a, b in zip(ours[i:j], theirs[k:m], strict=True)]
    else:
      pairs += [LayerPair(layer, None) for layer in ours[i:j]]
      pairs += [LayerPair(None, layer) for layer in theirs[k:m]]
  return paper, pairs


def _traced(experiment: Experiment, input_shape: tuple[int, int, int, int]) -> list[Layer]:
  """Traces the network with its recipe; sizes that it cannot take are rounded up.

  A parameter counts as loaded if the config starts from other weights (`init_from`, or an `init.new`
  that lists what they lack) and does not list it as new.
  """
  model, new = experiment.model(), experiment.init.new
  count, height, width, _ = input_shape
  rule = model.size_rule
  shape = (count, rule.at_least(height), rule.at_least(width), experiment.channels)
  is_loaded = bool(experiment.settings.init_from or new)
  return trace(
    model,
    shape,
    inputs=experiment.task.model_inputs(make_batch(experiment, shape)),
    multiplier=lambda name, which: multiplier_of(name, experiment.optim.multipliers, which),
    is_loaded=lambda name: is_loaded and not matches(f'params/{name}', new),
  )


def _same(ours: Any, paper: Any) -> bool:
  if paper == _SILENT or ours == paper:
    return True
  if not isinstance(ours, str):
    return False
  left, right = ours.split(', '), paper.split(', ')
  return len(left) == len(right) and all(
    b in (a, _SILENT) for a, b in zip(left, right, strict=True)
  )


def _lines(pairs: list[LayerPair]) -> list[str]:
  """Two lines per layer, ours and the paper's, in columns."""
  table = [[*_HEADS, '', '']]
  for pair in pairs:
    marks = ('=', '') if not pair.differences else ('DIFFERENT', ', '.join(pair.differences))
    for who, layer, mark in (('ours', pair.ours, marks[0]), ('paper', pair.paper, marks[1])):
      cells = [_cell(getattr(layer, field)) if layer else '' for field in FIELDS[1:]]
      table.append([pair.name if who == 'ours' else '', *cells, who, mark])
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return [
    '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for line in table
  ]


def _cell(value: Any) -> str:
  return f'{value:,}' if isinstance(value, int) and value else str(value or '')
