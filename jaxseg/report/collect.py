"""What a workdir tells about its run, read once and without the data."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxseg.train import build
from jaxseg.train.run_folder import Classes, load_classes, load_config, load_run
from jaxseg.train.state import parameter_count
from jaxseg.train.writer import read_records


@dataclasses.dataclass(frozen=True)
class Run:
  """One run.

  Attributes:
    path: the workdir.
    config: of the run.
    classes: names and colours.
    records: lines of metrics.jsonl.
    run: run.json; {} for runs that have none.
    evaluations: name -> eval/<name>.json; the name is the split, with the mode where there is one.
    parameters: number of them.
    score: name of the number that says how good the run is.
  """

  path: Path
  config: ConfigDict
  classes: Classes
  records: list[dict[str, float]]
  run: dict[str, Any]
  evaluations: dict[str, dict[str, Any]]
  parameters: int
  score: str = 'mean_iou'

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def last_step(self) -> int:
    return int(self.records[-1]['step']) if self.records else 0

  def curve(self, key: str) -> list[tuple[float, float]]:
    """Returns the points (step, value) of one number of metrics.jsonl."""
    return [(r['step'], r[key]) for r in self.records if key in r]

  @property
  def best(self) -> dict[str, float]:
    """The evaluation with the highest score while training, {} where there was none."""
    key = f'eval/{self.score}'
    evaluated = [r for r in self.records if key in r]
    if not evaluated:
      return {}
    record = max(evaluated, key=lambda r: r[key])
    return {k.removeprefix('eval/'): v for k, v in record.items()}

  @property
  def headline(self) -> dict[str, Any]:
    """The numbers that stand for the run: of the plain mode where there is one, on the paper's split
    where it was evaluated there, else on the evaluation split; without any evaluation the best while
    training."""
    paper, config = self.config.paper or {}, self.config
    plain = [name for name, result in self.evaluations.items() if result['split'] == name]
    for name in (paper.get('split'), config.eval_split, *plain, *self.evaluations):
      if name in self.evaluations:
        return {'origin': f'eval/{name}.json', **self.evaluations[name]}
    if not self.best:
      return {}
    return {'split': config.eval_split, 'origin': 'while training', **self.best}

  @property
  def seconds(self) -> float:
    """Time of the steps themselves, evaluations and saves left out."""
    total, before = 0.0, 0.0
    for step, rate in self.curve('time/images_per_second'):
      total += (step - before) * self.config.batch_size / rate
      before = step
    return total

  def median(self, key: str) -> float | None:
    values = [value for _, value in self.curve(key)]
    return statistics.median(values) if values else None


def collect(workdir: Path) -> Run:
  """Reads a run.

  Raises:
    UserError: the folder holds no run.
  """
  config = load_config(workdir)
  measured = build.task_from(config).headline
  evaluations = {}
  for file in sorted((workdir / 'eval').glob('*.json')):
    result = json.loads(file.read_text(encoding='utf-8'))
    if measured in result:
      evaluations[file.stem] = {'split': file.stem, **result}
  model = build.model_from(config)
  size = model.size_rule.at_least(max(64, model.size_rule.minimum))
  image = jnp.zeros((1, size, size, config.channels))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
  return Run(
    path=workdir,
    config=config,
    classes=load_classes(workdir),
    records=read_records(workdir),
    run=load_run(workdir),
    evaluations=evaluations,
    parameters=parameter_count(shapes['params']),
    score=measured,
  )
