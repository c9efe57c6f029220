"""Evaluation: every image exactly once, at its own size, whatever the batch size and the devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from jaxseg import experiment
from jaxseg.inference import load_variables
from jaxseg.pipeline.loader import eval_batches
from jaxseg.train import parallel
from jaxseg.train.step import make_eval_step
from jaxseg.train.workdir import load_config
from jaxseg.types import UserError
from jaxseg.visualize import save_confusion

SCORES = ('pixel_accuracy', 'mean_accuracy', 'mean_iou', 'frequency_weighted_iou')


class Evaluator:
  """Scores variables on one split; compiled once for each padded image size.

  Args:
    config: of the run.
    source: the split.
    task: turns outputs and labels into additive metrics, and these into numbers.
  """

  def __init__(self, config: ConfigDict, source: Any, task: Any):
    self._config, self._source, self._task = config, source, task
    size = config.eval_batch_size or config.batch_size
    self._batch_size = min(size, len(source))
    self._wrapper = parallel.build(config.parallel, '', self._batch_size)
    self._model = experiment.model_from(config, self._wrapper.axis_name)
    self._preprocess = experiment.preprocessing_from(config)
    self._step = self._wrapper.wrap_eval(
      make_eval_step(self._model, task, self._preprocess, axis_name=self._wrapper.axis_name)
    )

  def __call__(self, variables: Any) -> dict[str, Any]:
    """Returns the task's numbers; 'confusion' int64 [c, c] and per-class arrays among them.

    Raises:
      UserError: labels outside the classes.
    """
    totals = None
    for batch in self.batches():
      inputs = {k: batch[k] for k in ('image', 'label')}
      metrics = self._step(variables, self._wrapper.place_batch(inputs))
      metrics = {k: np.asarray(v, np.int64) for k, v in jax.device_get(metrics).items()}
      if metrics['invalid']:
        files = [str(self._source[int(i)]['file_name']) for i in batch['index'] if i >= 0]
        raise UserError(
          f'{int(metrics["invalid"])} pixels carry labels outside the {self._config.num_classes} '
          f'classes, in one of {", ".join(files)}'
        )
      totals = metrics if totals is None else {k: totals[k] + metrics[k] for k in metrics}
    return {**self._task.summarize(totals), 'confusion': totals['confusion']}

  def batches(self):
    """Yields the padded batches; see jaxseg.pipeline.loader.eval_batches."""
    if len(self._config.eval_scales) != 1:
      raise UserError(f'config.eval_scales={self._config.eval_scales}: one scale while training')
    return eval_batches(
      self._source,
      batch_size=self._batch_size,
      size_rule=self._model.size_rule,
      scale=float(self._config.eval_scales[0]),
      fill=self._preprocess.fill,
      num_threads=self._config.num_threads,
    )


def evaluate_workdir(
  workdir: str | Path, *, split: str | None = None, step: str = 'best'
) -> dict[str, Any]:
  """Scores a run's checkpoint on a split, prints the numbers and writes eval/<split>.json.

  Args:
    workdir: written by jaxseg.train.loop.train.
    split: default: the config's eval_split.
    step: 'best' | 'latest' | a number.

  Returns:
    What is in the file.
  """
  config = load_config(workdir)
  split = split or config.eval_split
  variables, step = load_variables(workdir, step)
  source = experiment.source_from(config, split)
  summary = Evaluator(config, source, experiment.task_from(config))(variables)
  result = {
    'split': split,
    'step': step,
    'images': len(source),
    **{k: summary[k] for k in SCORES},
    'per_class_iou': by_class(source.class_names, summary['per_class_iou']),
    'per_class_accuracy': by_class(source.class_names, summary['per_class_accuracy']),
    'confusion': summary['confusion'].tolist(),
  }
  file = Path(workdir) / 'eval' / f'{split}.json'
  file.parent.mkdir(exist_ok=True)
  temporary = file.with_suffix('.tmp')
  temporary.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
  temporary.replace(file)
  save_confusion(
    file.with_name(f'{split}_confusion.png'), summary['confusion'], source.class_names, title=split
  )
  print_scores(result, config.paper)
  print(f'written to {file}')
  return result


def by_class(names: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
  """Pairs class names with values; None where a class never occurs."""
  return {n: None if np.isnan(v) else float(v) for n, v in zip(names, values, strict=True)}


def print_scores(result: dict[str, Any], paper: Any) -> None:
  """Prints the four numbers, the paper's beside them where it has them, and the table by class."""
  console = Console(width=80)
  comparable = paper and paper.get('split') == result['split']
  table = Table(title=f'{result["split"]}: {result["images"]} images, step {result["step"]}')
  table.add_column('')
  table.add_column('ours', justify='right')
  if comparable:
    table.add_column('paper', justify='right')
  for name in SCORES:
    row = [name.replace('_', ' '), f'{result[name]:.4f}']
    published = (paper or {}).get(name)
    table.add_row(*row, *([f'{published:.4f}' if published else '-'] if comparable else []))
  console.print(table)
  if comparable:
    console.print(f'paper: {paper["source"]}')
  classes = Table('class', 'IoU', 'accuracy')
  for name, iou in result['per_class_iou'].items():
    accuracy = result['per_class_accuracy'][name]
    classes.add_row(name, *('-' if v is None else f'{v:.4f}' for v in (iou, accuracy)))
  console.print(classes)
