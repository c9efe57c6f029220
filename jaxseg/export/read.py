"""Reads and validates an untrusted export, from which another is to be made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import files, pretrained
from jaxseg.export.folder import FORMAT, read_card
from jaxseg.predict.options import HOTTEST
from jaxseg.train import build, machine
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes, checked_classes, checked_config
from jaxseg.types import UserError

MOST_PIXELS = 1 << 24  # of the fixed size that a card may ask for


@dataclasses.dataclass(frozen=True)
class ExportInputs:
  """The inputs of an export's programs.

  Attributes:
    experiment, variables, classes: of the network.
    temperature: of its probabilities.
    onnx: whether it has ONNX models.
    size: (height, width) of the programs with a fixed size.
    kept: the card's entries that only the run could provide.
  """

  experiment: Experiment
  variables: Mapping[str, Any]
  classes: Classes
  temperature: float
  onnx: bool
  size: tuple[int, int]
  kept: Mapping[str, Any]


def read_export(folder: str | Path, size: tuple[int, int] | None) -> ExportInputs:
  """Reads an export as data: imports no code that it names (see train.machine) and checks every number.

  Args:
    folder: of an export.
    size: overrides the card's; None: the card's.

  Raises:
    UserError: it is not an export, has another format, is damaged, or names code.
  """
  card, place = read_card(folder), files.to_path(folder)
  if 'config' not in card or card['format'] != FORMAT:
    raise UserError(f'{folder} is of another format ({card["format"]}): export the run again')
  try:
    config = checked_config(card['config'])
    classes = checked_classes(_saved_classes(card['classes']))
    if len(classes.names) != config['num_classes']:
      raise ValueError(f'{len(classes.names)} classes, {config["num_classes"]} in its config')
    temperature = _temperature(card.get('temperature', 1.0))
    onnx = any(entry['runtime'] == 'onnx' for entry in card['programs'])
    size = size or _size([entry['shape'] for entry in card['programs']])
    kept = {'trained': {'step': int(card['trained']['step']), **card['trained']}}
    weights, kept['metrics'] = place / Path(card['weights']).name, dict(card['metrics'])
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
    reason = f'{type(e).__name__} {e}' if isinstance(e, (KeyError, TypeError)) else e
    raise UserError(
      f'{place / "card.json"} is not as it was written ({reason}): export again'
    ) from e
  experiment = build.experiment(machine.apply(folder, config))
  shapes = experiment.variable_shapes
  try:
    tensors = pretrained.open_weights(weights, shapes).tensors
    variables, _ = pretrained.load_into(shapes, tensors)
  except UserError as e:  # its advice applies to config.init_from
    raise UserError(
      f"{weights} does not hold the card's network, each value finite: export the run again"
    ) from e
  return ExportInputs(experiment, variables, classes, temperature, onnx, size, kept)


def _saved_classes(entries: Any) -> dict[str, Any]:
  """Returns a card's classes in the format of a run's."""
  names, colours = [e['name'] for e in entries], [e['color'] for e in entries]
  return {'names': names, 'palette': colours, 'ids': [e['id'] for e in entries if 'id' in e]}


def _temperature(value: Any) -> float:
  if type(value) not in (int, float) or not 0 < value <= HOTTEST:
    raise ValueError(f'temperature {value!r}: above 0, at most {HOTTEST:g}')
  return float(value)


def _size(shapes: Any) -> tuple[int, int]:
  """Returns (height, width) of the first program with a fixed size."""
  for shape in shapes:
    if all(type(n) is int for n in shape):
      _, height, width, _ = shape
      if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError(f'a program for {height} x {width} pixels; at most {MOST_PIXELS:,}')
      return height, width
  raise ValueError('no program has a fixed size')
