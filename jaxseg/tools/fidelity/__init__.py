"""A network beside its paper, layer by layer: what `launch/fidelity.py` prints."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxseg.data.objects import Instances
from jaxseg.pretrained import matches
from jaxseg.tools.fidelity.tables import PAPERS, Paper
from jaxseg.tools.fidelity.trace import FIELDS, Row, trace
from jaxseg.train import build
from jaxseg.train.optim import multiplier_of
from jaxseg.types import UserError

__all__ = ['PAPERS', 'Pair', 'Row', 'compare', 'paper_of', 'report', 'trace_config']

_HEADS = ('layer', 'kernel', 'stride', 'padding', 'output', 'params', 'initial', 'lr', 'decay', '')
_SILENT = '-'


@dataclasses.dataclass(frozen=True)
class Pair:
  """A layer as it is and as it is published; None where one side has no such layer."""

  ours: Row | None
  paper: Row | None

  @property
  def differences(self) -> tuple[str, ...]:
    """Names the fields that differ; what the paper does not say is never different."""
    if self.ours is None or self.paper is None:
      return ('not in the paper',) if self.paper is None else ('missing',)
    return tuple(f for f in FIELDS if not _same(getattr(self.ours, f), getattr(self.paper, f)))


def report(config: ConfigDict) -> int:
  """Prints the comparison of a config's network with its paper.

  Returns:
    0 where everything is equal, 2 otherwise.

  Raises:
    UserError: there is no published table for this network.
  """
  paper = paper_of(config)
  pairs = compare(config)
  print(f'{paper.title} ({paper.source}), input {"x".join(map(str, paper.input_shape[1:]))}')
  for line in _lines(pairs):
    print(line)
  loaded = sum('loaded' in pair.ours.initial for pair in pairs if pair.ours)
  if loaded and not config.init_from:
    print(
      f"note: config.init_from is empty; the {loaded} layers with 'loaded' are random until it is given"
    )
  different = [pair for pair in pairs if pair.differences]
  total = sum(pair.ours.parameters for pair in pairs if pair.ours)
  if not different:
    print(f'{paper.title}: {len(pairs)} layers, {total:,} parameters: all equal')
    return 0
  named = ', '.join(f'{_name(p)} ({", ".join(p.differences)})' for p in different[:4])
  more = f' and {len(different) - 4} more' if len(different) > 4 else ''
  print(f'{paper.title}: {len(different)} of {len(pairs)} layers differ: {named}{more}')
  return 2


def compare(config: ConfigDict) -> list[Pair]:
  """Returns the layers of a config's network paired with the paper's, in the order of both."""
  paper = paper_of(config)
  ours = trace_config(config, paper.input_shape)
  theirs = paper.rows(build.model_from(config).num_classes)
  matcher = difflib.SequenceMatcher(
    None, [row.name for row in ours], [row.name for row in theirs], autojunk=False
  )
  pairs = []
  for kind, i, j, k, m in matcher.get_opcodes():
    if kind == 'equal':
      pairs += [Pair(a, b) for a, b in zip(ours[i:j], theirs[k:m], strict=True)]
    else:
      pairs += [Pair(row, None) for row in ours[i:j]] + [Pair(None, row) for row in theirs[k:m]]
  return pairs


def trace_config(config: ConfigDict, input_shape: tuple[int, ...]) -> list[Row]:
  """Traces a config's network with its recipe; a size that it cannot take is rounded up.

  A parameter counts as loaded where the config starts from other weights (`init_from`, or the
  `init_new` that says which names these lack) and does not name it as new.
  """
  model = build.model_from(config)
  batch, height, width, _ = input_shape
  height, width = (model.size_rule.at_least(side) for side in (height, width))
  starts_elsewhere = bool(config.init_from or config.init_new)
  shape = (batch, height, width, config.channels)
  return trace(
    model,
    shape,
    inputs=_inputs(config, shape),
    multiplier=lambda name, which: multiplier_of(name, config.multipliers, which),
    is_loaded=lambda name: starts_elsewhere and not matches(f'params/{name}', config.init_new),
  )


def paper_of(config: ConfigDict) -> Paper:
  """Chooses the published network that a config is nearest to; the rest shows as differences.

  Raises:
    UserError: nobody has published such a network's layers.
  """
  model = build.model_from(config)
  name = config.model
  if name == 'fcn' and model.head == 'paper':
    name = f'fcn{model.stride}s' + ('_atonce' if model.at_once and model.stride == 8 else '')
  elif name == 'segnet':
    name += ('_basic' if model.variant == 'basic' else '') + ('_bayesian' if model.bayesian else '')
  elif name in ('pspnet', 'mask_rcnn'):
    name += model.backbone.removeprefix('resnet')
  elif name == 'unet':
    name += f'_{model.variant}'
  if name not in PAPERS:
    titles = '; '.join(paper.title for paper in PAPERS.values())
    raise UserError(f'no published table for this {config.model}; there are {titles}')
  return PAPERS[name]


def _inputs(config: ConfigDict, shape: tuple[int, ...]) -> dict[str, Any]:
  """Returns what the task tells the network in training, here of images [b,h,w,c] without objects."""
  make = Instances(config.max_instances, config.max_layers, config.min_area)
  none = {'instances': np.zeros(shape[1:3], np.uint16), 'instance_classes': np.zeros(0, np.uint8)}
  made = make(none, np.random.default_rng(0))
  batch = {name: np.stack([made[name]] * shape[0]) for name in Instances.makes}
  return build.task_from(config).model_inputs(batch)


def _same(ours: Any, paper: Any) -> bool:
  if paper == _SILENT or ours == paper:
    return True
  if not isinstance(ours, str):
    return False
  left, right = ours.split(', '), paper.split(', ')
  return len(left) == len(right) and all(
    b in (a, _SILENT) for a, b in zip(left, right, strict=True)
  )


def _name(pair: Pair) -> str:
  return (pair.ours or pair.paper).name


def _lines(pairs: list[Pair]) -> list[str]:
  """Two lines a layer, ours and the paper's, in columns."""
  table = [[*_HEADS, '', '']]
  for pair in pairs:
    marks = ('=', '') if not pair.differences else ('DIFFERENT', ', '.join(pair.differences))
    for who, row, mark in (('ours', pair.ours, marks[0]), ('paper', pair.paper, marks[1])):
      cells = [_cell(getattr(row, field)) if row else '' for field in FIELDS]
      cells[0] = _name(pair) if who == 'ours' else ''
      table.append([*cells, who, mark])
  widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
  return [
    '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for line in table
  ]


def _cell(value: Any) -> str:
  return f'{value:,}' if isinstance(value, int) and value else str(value or '')
