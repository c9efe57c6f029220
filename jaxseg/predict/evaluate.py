"""Evaluation of a trained run: every image exactly once, at its own size, with all scores asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxseg import files
from jaxseg.config import parts
from jaxseg.console import duration
from jaxseg.data import threads
from jaxseg.draw.plots import save_confusion
from jaxseg.metrics import score as scores
from jaxseg.metrics.score import Result, Score
from jaxseg.predict.inputs import writing
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.predict.progress import Countdown
from jaxseg.train.build import Experiment, load_experiment, set_up_jax
from jaxseg.train.devices import hosts
from jaxseg.train.evaluator import Evaluator, make_scores
from jaxseg.train.initial import load_variables
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError

_AGREE = 1e-4  # of the scores of two evaluations of one checkpoint
_OF_THE_FILE = ('split', 'step', 'images', 'mode')


def evaluate_workdir(
  workdir: str | Path,
  *,
  split: str | None = None,
  step: str = 'best',
  options: Options | None = None,
  extra: Sequence[str] = (),
) -> dict[str, Any]:
  """Scores a run's checkpoint on a split, prints the numbers and writes eval/<split>.json.

  What `options` average or cut has a file of its own, eval/<split>_<mode>.json (see file_stem). Further
  scores of the same step and mode that are in the file already stay there.

  Several hosts share the images of a plain pass, and all need to read the workdir's config.json;
  with options the first works alone.

  Args:
    workdir: written by jaxseg.train.train.train.
    split: default: the config's eval_split.
    step: 'best' | 'latest' | a number.
    options: what is averaged and cut; None: one plain pass, in batches over all devices.
    extra: scores by their names in jaxseg.metrics, beside the task's own, those of config.eval.scores
      and those that the dataset's module asks for (SCORES).

  Returns:
    What is in the file.

  Raises:
    UserError: no run, split or step, labels outside the classes, options or scores that do not fit.
  """
  start = time.perf_counter()
  experiment, options = load_experiment(workdir), options or Options()
  set_up_jax(experiment.settings)
  split = split or experiment.settings.eval_split
  with hosts.together() as same:
    loaded = None
    if hosts.first():
      loaded = dict(zip(('variables', 'step'), load_variables(workdir, step), strict=True))
    source = experiment.source(split)
    make = _make_scores(experiment, source.class_names, extra)
    same['config'], same['data'] = experiment.config, [split, len(source)]
  loaded = hosts.broadcast(loaded)
  counted = _count(experiment, source, loaded['variables'], options, make)
  if counted is None:
    return {}
  numbers, mode = counted
  result = {'split': split, 'step': loaded['step'], 'images': len(source), 'mode': mode}
  result |= sorted(numbers.items(), key=lambda item: item[0] == 'confusion')  # the longest last
  if experiment.settings.paper:
    result['paper'] = experiment.settings.paper
  if hosts.first():
    file = files.place(workdir) / 'eval' / f'{file_stem(split, experiment, options)}.json'
    result |= _scored_before(file, result)
    _write(result, file, source.class_names)
    print_scores(result, experiment.settings.paper)
    print(f'written to {file} in {duration(time.perf_counter() - start)}')
  return result


def score_images(
  predictor: Predictor, source: Any, score: Score, show: Callable[[int], None] | None = None
) -> Result:
  """Scores a predictor image by image, with whatever it averages and cuts.

  Images are read ahead in threads, and the score counts behind the device in another one.

  Args:
    predictor: gives the predictions.
    source: the split.
    score: is given every image once.
    show: called with the number of images that are done.

  Raises:
    UserError: labels outside the classes, or data that the score cannot use, naming the file.
    StuckError: an image that does not come within config.data.timeout.
  """

  def count(example: dict, prediction: dict) -> None:
    try:
      score.add(example, prediction)
    except UserError as error:
      raise UserError(f'{example["file_name"]}: {error}') from None

  timeout = predictor.experiment.data.timeout
  reading = threads.examples(source, range(len(source)), timeout=timeout)
  with threads.Backlog(num_threads=1) as counting:
    for index, example in enumerate(reading):
      prediction = predictor.predict(example['image'], maps=score.maps)
      counting.submit(count, {**example, 'index': index}, prediction)
      if show:
        show(index + 1)
  return score.compute()


def file_stem(split: str, experiment: Experiment, options: Options) -> str:
  """Returns the name of an evaluation's file: 'val', or 'val_flip_tiles-512x512' where options say so."""
  mode = _beside_config(experiment, options).describe()
  words = [part.replace(' of ', ' ').replace(' ', '-') for part in mode.split(', ') if part]
  return '_'.join([split, *words])


def _beside_config(experiment: Experiment, options: Options) -> Options:
  """Returns the options but for scales that are the config's own anyway."""
  own = tuple(options.scales) == tuple(experiment.eval.scales)
  return dataclasses.replace(options, scales=()) if own else options


def _make_scores(
  experiment: Experiment, class_names: Sequence[str], extra: Sequence[str]
) -> Callable[[], Score]:
  """Returns what makes new scores. Raises UserError where one needs maps that the task has not."""
  dataset = parts.load('datasets', experiment.data.name)
  names = (*extra, *getattr(dataset, 'SCORES', ()))
  make = functools.partial(make_scores, experiment, class_names, *names)
  make()  # refuses scores that do not fit, before anything is predicted
  return make


def _count(
  experiment: Experiment,
  source: Any,
  variables: dict[str, Any],
  options: Options,
  make: Callable[[], Score],
) -> tuple[Result, str] | None:
  """Returns the scores and the mode, in words; None on hosts that the others do without."""
  plain = _beside_config(experiment, options) == Options() and len(experiment.eval.scales) == 1
  if not (plain or hosts.first()):
    return None
  counting = Countdown('evaluated', len(source)) if hosts.first() else contextlib.nullcontext()
  with counting as show:
    if plain:
      return Evaluator(experiment, source, make)(variables, show), ''
    predictor = Predictor(
      experiment, variables, Classes(source.class_names, source.palette), options
    )
    return score_images(predictor, source, make(), show), predictor.options.describe()


def _scored_before(file: Path, result: dict[str, Any]) -> dict[str, Any]:
  """Returns the further scores of an earlier evaluation that agrees in all that both have."""
  try:
    before = json.loads(file.read_text(encoding='utf-8'))
    theirs, ours = scores.numbers(before), scores.numbers(result)
    both = np.array([(theirs[k], ours[k]) for k in ours if k in theirs], float)  # None is nan
    same = all(before[key] == result[key] for key in _OF_THE_FILE) and len(both)
    same = same and np.allclose(*both.T, rtol=0, atol=_AGREE, equal_nan=True)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or cut short
    return {}
  return {k: v for k, v in before.items() if k not in (*result, 'paper')} if same else {}


def _write(result: dict[str, Any], file: Path, class_names: Sequence[str]) -> None:
  """Writes the file and, where there is a confusion matrix, <name>_confusion.png."""
  picture = file.with_name(f'{file.stem}_confusion.png')
  with writing(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, json.dumps(result, indent=2) + '\n')
    title = ', '.join(filter(None, (result['split'], result['mode'])))
    if 'confusion' in result:
      with files.whole_file(picture) as part:
        save_confusion(part, np.array(result['confusion']), class_names, title=title)


def print_scores(result: dict[str, Any], paper: dict[str, Any] | None) -> None:
  """Prints all numbers, the paper's beside them where it has them, and the table by class."""
  console = Console(width=80, markup=False, emoji=False)
  numbers, published = scores.numbers(result), scores.published(paper)
  published = {name: value for name, value in published.items() if name in numbers}
  title = f'{result["split"]}: {result["images"]} images, step {result["step"]}'
  console.print(', '.join(filter(None, (title, result['mode']))), soft_wrap=True, highlight=False)
  table = Table()
  table.add_column('')
  table.add_column('ours', justify='right')
  if published:
    other = paper.get('split', result['split'])
    table.add_column('paper' + f', {other}' * (other != result['split']), justify='right')
  for name, value in numbers.items():
    beside = [_text(published.get(name))] if published else []
    table.add_row(name.replace('_', ' '), _text(value), *beside)
  console.print(table)
  if published:
    console.print(f'paper: {paper["source"]}')
  columns = scores.columns(result)
  if columns:
    console.print(_by_class(columns))


def _by_class(columns: dict[str, dict[str, float | None]]) -> Table:
  table = Table('class', *(name.replace('_', ' ') for name in columns))
  for name in next(iter(columns.values())):  # of all classes; AP has none of the background
    table.add_row(name, *(_text(column.get(name)) for column in columns.values()))
  return table


def _text(value: float | None) -> str:
  return '-' if value is None else f'{value:.4f}'
