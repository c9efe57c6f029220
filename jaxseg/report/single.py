"""The page of one run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg import config as configs
from jaxseg.draw import plots
from jaxseg.metrics.score import breakdowns, columns
from jaxseg.report import render
from jaxseg.report.images import Images
from jaxseg.report.runs import RunSummary
from jaxseg.train import build

_MATRIX_CLASSES = 40  # a larger matrix is not legible: lists only the largest confusions
_CONFUSIONS = 8


def page(run: RunSummary, images: Images | None) -> str:
  """Returns the page, without pictures if `images` is None."""
  results, differing = results_of(run), changed(run)
  charts = {
    'Training loss': 'train/loss*',
    f'Scores on {run.settings.eval_split}': 'eval/*',
    'Learning rate': 'train/learning_rate',
    'Images per second': 'time/images_per_second',
  }
  best = (f'eval/{run.score}', run.best['step']) if run.best else None
  return render.render(
    'run.html',
    run=run,
    images=images,
    model={k.removeprefix('model.'): v for k, v in differing.items() if k.startswith('model.')},
    results=results,
    names=render.score_names([run.score], results.values()),
    curves=render.curves({run.name: run.records}, charts, best),
    classes=classes(run, images),
    confidence=confidence(run.headline),
    breakdowns=breakdowns_of(run),
    legend=run.experiment.task.legend(run.classes),
    changed=differing,
    everything=json.dumps(run.experiment.config, indent=2, sort_keys=True),
  )


def results_of(run: RunSummary) -> dict[str, dict[str, Any]]:
  """Returns every evaluation, the best one during training, and the paper's scores, by title."""
  results = {
    ', '.join(filter(None, (result['split'], result.get('mode')))): result
    for result in run.evaluations.values()
  }
  if run.best:
    results[f'{run.settings.eval_split}, best in training'] = run.best
  if run.published:
    results[', '.join(filter(None, ('paper', run.settings.paper.get('split'))))] = run.published
  return results


def confidence(result: Mapping[str, Any]) -> dict[str, str]:
  """Returns an evaluation's calibration plots by title, {} without the data."""
  draws = {'reliability': plots.save_reliability, 'risk_coverage': plots.save_risk_coverage}
  available = {name: draw for name, draw in draws.items() if result.get(name)}
  return {render.title(name): render.plot(draw, result[name]) for name, draw in available.items()}


def breakdowns_of(run: RunSummary) -> dict[str, dict[str, dict[str, float | None]]]:
  """Returns the breakdowns of every evaluation: title -> {row: numbers}."""
  return {
    f'By {name} ({render.described(result)})': rows
    for result in run.evaluations.values()
    for name, rows in breakdowns(result).items()
  }


def classes(run: RunSummary, images: Images | None) -> dict[str, Any]:
  """Returns per-class results of an evaluation, or else of the scored images; {} without either."""
  result, names = run.headline, run.classes.names
  if columns(result):
    origin = f'{render.described(result)}, {result["origin"]}'
  elif images and images.result:
    result, counted = images.result, f'{len(images.scores)} of {images.total} images'
    origin = f'{images.split}, {counted}, step {images.step:,}'
  else:
    return {}
  by_score = columns(result)
  known = {name for column in by_score.values() for name in column}
  colors = {n: c for n, c in zip(names, run.classes.palette, strict=True) if n in known}
  shown = {'origin': origin, 'columns': by_score, 'colors': colors}
  matrix = np.array(result.get('confusion', np.zeros((0, 0))))
  shares = matrix.sum(axis=1) / max(matrix.sum(), 1)
  drawable = 0 < len(matrix) <= _MATRIX_CLASSES
  return {
    **shown,
    'shares': dict(zip(names, shares, strict=False)),
    'confusions': confusions(matrix, names),
    'matrix': render.plot(plots.save_confusion, matrix, names) if drawable else '',
  }


def confusions(matrix: np.ndarray, names: Sequence[str]) -> list[tuple[str, float, float]]:
  """Returns the most frequent confusions, with their fractions of all errors and of the true class;
  none for two classes, where the matrix suffices."""
  if len(matrix) < 3:
    return []
  wrong = matrix * ~np.eye(len(matrix), dtype=bool)
  largest = np.argsort(wrong, axis=None)[::-1][:_CONFUSIONS]
  pairs = zip(*np.unravel_index(largest, wrong.shape), strict=True)
  return [
    (f'{names[i]} → {names[j]}', wrong[i, j] / wrong.sum(), wrong[i, j] / matrix[i].sum())
    for i, j in pairs
    if wrong[i, j]
  ]


def changed(run: RunSummary) -> dict[str, Any]:
  """Returns the config's values that differ from the defaults, as {'group.key': value}."""
  named = {'task': run.settings.task, 'model': {'name': run.experiment.config['model']['name']}}
  usual = configs.flattened(build.experiment({**configs.plain(configs.base()), **named}).config)
  values = configs.flattened(run.experiment.config)
  return {key: value for key, value in values.items() if key not in usual or usual[key] != value}
