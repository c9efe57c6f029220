"""Fitted temperatures of runs, stored in temperature.json of the first of them.

The file has an entry for each mode (averaging, tiling and ensemble), because calibration depends on it:
{mode: {temperature, steps, started, split, images, pixels, ece, nll, ece_after, nll_after}}.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import console, files
from jaxseg.metrics import confidence
from jaxseg.metrics.temperature import Score, tempered
from jaxseg.predict.inputs import writing
from jaxseg.predict.options import Options
from jaxseg.predict.runs import Run, mode_of, open_runs
from jaxseg.train.run_folder import load_run
from jaxseg.types import UserError

_PLAIN = 'plain'


def resolved(options: Options, runs: Sequence[Run], steps: Sequence[int]) -> Options:
  """Returns the options, a temperature of 0 replaced by the fitted one.

  Args:
    options: of the prediction.
    runs: that predict together.
    steps: of their checkpoints.

  Raises:
    UserError: none was fitted for these runs, steps and options.
  """
  if options.temperature:
    return options
  key = _key(runs, options)
  entry = _read(runs).get(key)
  if entry and entry.get('started', _started(runs)) != _started(runs):
    raise UserError(
      f'{file_of(runs)}: the temperature was fitted for other runs of these names ({key}): fit it again, with '
      f'{console.command("evaluate")} --fit_temperature'
    )
  if entry is None or list(entry['steps']) != list(steps):
    fitted_at = f'was fitted at step {_listed(entry["steps"])}' if entry else 'was fitted'
    raise UserError(
      f'{runs[0].path}: {"a" if entry else "no"} temperature {fitted_at}, wanted is step {_listed(steps)}, '
      f'{key}: {console.command("evaluate")} --fit_temperature with the same --workdir, --step and options'
    )
  return dataclasses.replace(options, temperature=entry['temperature'])


def fitted(workdir: str | Path, step: int) -> float:
  """Returns the fitted temperature of a run's plain prediction at a step. Raises UserError without one."""
  return resolved(Options(temperature=0), open_runs(workdir), [step]).temperature


def fit_and_save(
  score: Score,
  runs: Sequence[Run],
  steps: Sequence[int],
  options: Options,
  facts: Mapping[str, Any],
) -> dict[str, Any]:
  """Fits the temperature, writes it to the file and returns the entry.

  Args:
    score: accumulated over the images at temperature 1.
    runs, steps, options: see `resolved`.
    facts: further fields of the entry.

  Raises:
    UserError: no valid pixel, or a file that cannot be written.
  """
  value = score.compute()['temperature']
  if value is None:
    raise UserError('no pixel is labelled: a temperature cannot be fitted')
  probabilities, labels = score.sample()
  before, after = (_calibration(tempered(probabilities, t), labels) for t in (1, value))
  entry = {
    'temperature': value,
    'steps': list(steps),
    'started': _started(runs),
    **facts,
    'pixels': len(labels),
    **before,
    **{f'{name}_after': number for name, number in after.items()},
  }
  file = file_of(runs)
  entries = _read(runs) | {_key(runs, options): entry}
  with writing(file):
    files.write_text(file, json.dumps(entries, indent=2) + '\n')
  return entry


def _calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Returns expected calibration error and negative log-likelihood of probabilities [n, k], labels [n]."""
  score = confidence.Score(())
  mask = probabilities.argmax(axis=-1).astype(np.uint8)
  score.add({'label': labels}, {'mask': mask, 'probabilities': probabilities})
  result = score.compute()
  return {name: result[name] for name in ('ece', 'nll')}


def file_of(runs: Sequence[Run]) -> Path:
  """Returns the file that holds the temperatures of runs."""
  return runs[0].path / 'temperature.json'


def _read(runs: Sequence[Run]) -> dict[str, Any]:
  """Returns the valid entries, {} without the file."""
  try:
    entries = files.read_json(file_of(runs))
    return {key: entry for key, entry in entries.items() if _is_valid(entry)}
  except (OSError, UserError, AttributeError):  # missing or truncated
    return {}


def _is_valid(entry: Any) -> bool:
  try:
    value, steps = entry['temperature'], entry['steps']
    return (
      type(value) is float and 0 < value < math.inf and all(type(step) is int for step in steps)
    )
  except (TypeError, LookupError):
    return False


def _started(runs: Sequence[Run]) -> list[str | None]:
  """Returns when each run was started, which distinguishes runs of one name."""
  return [load_run(run.path).get('started') for run in runs]


def _key(runs: Sequence[Run], options: Options) -> str:
  options = dataclasses.replace(options, temperature=1.0, min_area=1)
  return mode_of(runs, options.beside(runs[0].experiment.eval.scales)) or _PLAIN


def _listed(steps: Sequence[int]) -> str:
  return ', '.join(map(str, steps))
