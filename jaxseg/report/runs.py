"""The summary of a run, read from its workdir without the data."""

import dataclasses
import functools
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.metrics.score import published
from jaxseg.predict import result_file
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.run_folder import Classes, load_classes, load_run
from jaxseg.train.state import parameter_count
from jaxseg.train.times import total
from jaxseg.train.writer import best_score, read_log
from jaxseg.types import UserError

_SLOWEST = 1e-6  # images per second; ignores lower, implausible rates


@dataclasses.dataclass(frozen=True)
class RunSummary:
  """One run.

  Attributes:
    path: the workdir.
    experiment: of the run.
    classes: names and colours.
    records: intact lines of metrics.jsonl.
    damaged: number of its damaged lines.
    provenance: run.json, {} without it.
    evaluations: name -> eval/<name>.json; the name is the split, followed by the mode if any.
  """

  path: Path
  experiment: Experiment
  classes: Classes
  records: list[dict[str, float]]
  damaged: int
  provenance: Mapping[str, Any]
  evaluations: Mapping[str, dict[str, Any]]

  @property
  def name(self) -> str:
    return Path(os.path.normpath(files.absolute(self.path))).name

  @property
  def settings(self) -> Any:
    return self.experiment.settings

  @property
  def published(self) -> dict[str, float]:
    """The paper's scores by name."""
    return published(self.settings.paper)

  @property
  def score(self) -> str:
    """Name of the headline score."""
    return self.experiment.task.headline

  @property
  def last_step(self) -> int:
    return int(self.records[-1]['step']) if self.records else 0

  @property
  def is_finished(self) -> bool:
    """Whether training is complete: all steps done, or out of patience."""
    patience = self.experiment.eval.patience
    impatient = patience and best_score(self.records, self.score)[1] >= patience
    return bool(self.last_step >= self.settings.num_steps or impatient)

  @property
  def best(self) -> dict[str, float]:
    """The evaluation with the highest score during training, {} if there was none."""
    key = f'eval/{self.score}'
    record = max((r for r in self.records if key in r), key=lambda r: r[key], default={})
    return {k.removeprefix('eval/'): v for k, v in record.items()}

  @property
  def headline(self) -> dict[str, Any]:
    """The evaluation that represents the run, on images that it did not train on.

    By preference: on the paper's split, the evaluation split, another split in plain mode, in another
    mode; then the best during training; then any other.
    """
    split, trained = self.settings.eval_split, self.experiment.data.train_split
    alone = {k: r for k, r in self.evaluations.items() if 'runs' not in r}  # no ensembles
    held_out = [name for name, result in alone.items() if result['split'] != trained]
    plain = [name for name in held_out if self.evaluations[name]['split'] == name]
    for name in ((self.settings.paper or {}).get('split'), split, *plain, *held_out):
      if name in self.evaluations:
        return {'origin': f'eval/{name}.json', **self.evaluations[name]}
    if self.best:
      return {'split': split, 'origin': 'while training', **self.best}
    return next(({'origin': f'eval/{name}.json', **result} for name, result in alone.items()), {})

  @functools.cached_property
  def parameters(self) -> int:
    """Number of parameters."""
    return parameter_count(self.experiment.variable_shapes['params'])

  @property
  def seconds(self) -> float:
    """Time of the training steps, without evaluations and saves."""
    total, before = 0.0, 0.0
    for record in self.records:
      if (rate := record.get('time/images_per_second', 0.0)) > _SLOWEST:
        total += (record['step'] - before) * self.settings.batch_size / rate
        before = record['step']
    return total

  @property
  def times(self) -> dict[str, float]:
    """Seconds of wall time over all starts and of its parts, see train.times; {} for older runs."""
    return total(self.provenance.get('sessions', ()))

  @property
  def environment(self) -> list[tuple[str, Any]]:
    """Where and when it was trained, as (term, value); some are empty for older runs."""
    run = self.provenance
    git, starts = run.get('git') or '', len(run.get('sessions', ()))
    return [
      ('started', run.get('started')),
      ('starts', starts if starts > 1 else None),
      ('devices', run.get('hardware')),
      ('system', run.get('system')),
      ('versions', ', '.join(f'{k} {v}' for k, v in run.get('versions', {}).items())),
      ('git revision', f'{git[:-1]}, with uncommitted changes' if git.endswith('+') else git),
      ('folder', self.path),
      ('log', f'{self.damaged} damaged lines are left out' if self.damaged else None),
    ]

  def median(self, key: str) -> float | None:
    """Returns the median of a value in metrics.jsonl, None if it has none."""
    values = [record[key] for record in self.records if key in record]
    return statistics.median(values) if values else None


def collect(workdir: Path) -> RunSummary:
  """Reads a run.

  Raises:
    UserError: the folder holds no run.
  """
  experiment = load_experiment(workdir)
  results, classes = result_file.read_all(workdir), load_classes(workdir)
  for name, result in results.items():
    if len(result.get('confusion', classes.names)) != len(classes.names):
      raise UserError(
        f'{workdir}/eval/{name}.json is of other classes: remove it, and evaluate again'
      )
  records, damaged = read_log(workdir)
  return RunSummary(
    path=workdir,
    experiment=experiment,
    classes=classes,
    records=records,
    damaged=damaged,
    provenance=load_run(workdir),
    evaluations={k: r for k, r in results.items() if experiment.task.headline in r},
  )
