"""Evaluation: every image exactly once, at its own size, whatever the batch size and the devices."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxseg import files
from jaxseg.data import threads
from jaxseg.draw.labels import save_confusion
from jaxseg.metrics.measures import (
  EXTRAS,
  SCORES,
  Confusion,
  Measure,
  asked_for,
  make_f_scores,
  published_numbers,
  single_numbers,
)
from jaxseg.predict.instance_predictor import check_options
from jaxseg.predict.predictor import Options, Predictor, load_variables
from jaxseg.train import build
from jaxseg.train.devices import hosts
from jaxseg.train.evaluator import Told, make_evaluator
from jaxseg.train.run_folder import Classes, load_config
from jaxseg.train.writer import Progress, duration
from jaxseg.types import UserError


def score_images(
  predictor: Predictor, source: Any, measures: Sequence[Measure], told: Told | None = None
) -> dict[str, Any]:
  """Scores a predictor image by image, with whatever it averages and cuts.

  Images are read ahead in threads, and the measures count behind the device in another one.

  Args:
    predictor: gives mask and probabilities.
    source: the split.
    measures: each is given every image once.
    told: called with the number of images that are done.

  Returns:
    The measures' summaries in one dict.

  Raises:
    StuckError: an image that does not come within config.data_timeout.
  """

  def count(example, mask, probabilities):
    for measure in measures:
      try:
        measure.add(example, mask, probabilities)
      except UserError as error:
        raise UserError(f'{example["file_name"]}: {error}') from None

  timeout = predictor.config.data_timeout
  reading = threads.examples(source, range(len(source)), timeout=timeout)
  with threads.Backlog(num_threads=1) as counting:
    for done, example in enumerate(reading, start=1):
      bands = list(predictor.bands(example['image']))
      mask = np.concatenate([band.mask for band in bands])
      probabilities = np.concatenate([band.probabilities for band in bands])
      counting.submit(count, example, mask, probabilities)
      if told:
        told(done)
  return {k: v for measure in measures for k, v in measure.summary().items()}


def evaluate_workdir(
  workdir: str | Path,
  *,
  split: str | None = None,
  step: str = 'best',
  options: Options | None = None,
  boundaries: bool = False,
  neurites: bool | None = None,
  precision: bool = False,
) -> dict[str, Any]:
  """Scores a run's checkpoint on a split, prints the numbers and writes eval/<split>.json.

  What `options` average or cut has a file of its own, eval/<split>_<mode>.json (see file_stem). Further
  measures of the same step and mode that are in the file already stay there.

  Several hosts share the images of a plain pass, and all need to read the workdir's config.json;
  with options or further measures the first works alone.

  Args:
    workdir: written by jaxseg.train.train.train.
    split: default: the config's eval_split.
    step: 'best' | 'latest' | a number.
    options: what is averaged and cut; None: one plain pass, in batches over all devices.
    boundaries: whether BF is measured too.
    neurites: whether the ISBI challenge's measures are taken; None: where the data are ISBI 2012's.
    precision: whether a semantic network's connected components are scored as instances too, by
      COCO's average precision; a network of instances always is.

  Returns:
    What is in the file.

  Raises:
    UserError: no run, split or step, labels outside the classes, options that do not fit the network.
  """
  begin = time.perf_counter()
  config = load_config(workdir)
  build.set_up_jax(config)
  split, options = split or config.eval_split, options or Options()
  with hosts.together() as same:
    found = _found(workdir, step) if hosts.first() else None
    source, task = build.source_from(config, split), build.task_from(config)
    same['config'], same['data'] = config.to_json_best_effort(), [split, len(source)]
  found = hosts.broadcast(found)
  flags = dict(boundaries=boundaries, neurites=neurites, precision=precision)
  counted = _count(config, source, task, found['variables'], options, flags)
  if counted is None:
    return {}
  (summary, mode), step = counted, found['step']
  result = {'split': split, 'step': step, 'images': len(source), 'mode': mode}
  stem = file_stem(split, config, options)
  result |= _numbers(summary, source.class_names)
  if config.paper:
    result['paper'] = config.paper.to_dict()
  if not hosts.first():
    return result
  file = files.place(workdir) / 'eval' / f'{stem}.json'
  result |= _measured_before(file, result)
  _write(result, file, source.class_names)
  print_scores(result, config.paper)
  print(f'written to {file} in {duration(time.perf_counter() - begin)}')
  return result


def _count(
  config, source, task, variables, options: Options, flags: dict[str, Any]
) -> tuple[dict[str, Any], str] | None:
  """Returns what was measured and how, in words; None on hosts that the others do without."""
  with Progress() if hosts.first() else hosts.Silent() as progress:
    told = _teller(progress, len(source))
    if task.headline == 'mask_ap':
      _check_for_instances(options, flags)
      return make_evaluator(config, source, task)(variables, told), ''
    extra = asked_for(config, source.class_names, **flags)
    f_scores = make_f_scores(source.class_names, config.f_scores)
    plain = _beside_config(config, options) == Options()
    if plain and len(config.eval_scales) == 1 and not extra:
      summary, mode = make_evaluator(config, source, task)(variables, told), ''
    elif hosts.first():
      classes = Classes(source.class_names, source.palette)
      predictor = Predictor(config, variables, classes, options)
      summary = score_images(predictor, source, [Confusion(task), *extra], told)
      mode = '' if plain and len(config.eval_scales) == 1 else predictor.options.describe()
    else:
      return None
  return summary | f_scores(summary['confusion']), mode


def _beside_config(config, options: Options) -> Options:
  """Returns the options but for scales that are the config's own anyway."""
  own = tuple(options.scales) == tuple(config.eval_scales)
  return dataclasses.replace(options, scales=()) if own else options


def file_stem(split: str, config, options: Options) -> str:
  """Returns the name of an evaluation's file: 'val', or 'val_flip_tiles-512x512' where options say so."""
  mode = _beside_config(config, options).describe()
  words = [part.replace(' of ', ' ').replace(' ', '-') for part in mode.split(', ') if part]
  return '_'.join([split, *words])


def _check_for_instances(options: Options, flags: dict[str, Any]) -> None:
  """Averages and measures of pixels mean nothing for instances."""
  check_options(options)
  if flags['boundaries'] or flags['neurites']:
    raise UserError(
      'a network of instances is scored by average precision alone: leave out --bf and --neurites'
    )


def _numbers(summary: dict[str, Any], class_names: tuple[str, ...]) -> dict[str, Any]:
  """Returns what goes into the file, in its order."""
  extras = {k: summary[k] for k in EXTRAS if k in summary}
  if 'confusion' not in summary:
    return extras
  per_class = ('per_class_iou', 'per_class_accuracy')
  return {
    **{k: summary[k] for k in SCORES},
    **{k: by_class(class_names, summary[k]) for k in per_class},
    **extras,
    'confusion': summary['confusion'].tolist(),
  }


def _found(workdir: str | Path, step: str) -> dict[str, Any]:
  variables, step = load_variables(workdir, step)
  return {'variables': variables, 'step': step}


def _teller(progress: Progress, total: int) -> Told:
  """Returns what shows the number of images done: often on a terminal, seldom elsewhere."""
  begin = shown = time.perf_counter()
  interval = 0.25 if sys.stdout.isatty() else 10.0

  def told(done: int) -> None:
    nonlocal shown
    now = time.perf_counter()
    if now - shown >= interval:
      shown = now
      rest = duration((total - done) * (now - begin) / max(done, 1))
      progress.show(f'evaluated {done}/{total} images . ETA {rest}')

  return told


def _measured_before(file: Path, result: dict[str, Any]) -> dict[str, Any]:
  """Returns the further measures of an earlier evaluation that agrees in all that both have."""
  try:
    before = json.loads(file.read_text(encoding='utf-8'))
    same = all(before[k] == result[k] for k in ('split', 'step', 'images', 'mode'))
    same = same and abs(before['pixel_accuracy'] - result['pixel_accuracy']) < 1e-4
  except (OSError, ValueError, KeyError, TypeError):  # none, or not one of pixels
    return {}
  return {k: before[k] for k in EXTRAS if k in before and k not in result} if same else {}


def _write(result: dict[str, Any], file: Path, class_names: tuple[str, ...]) -> None:
  """Writes the file and, of pixels, <its name>_confusion.png, in one move each."""
  picture = file.with_name(f'{file.stem}_confusion.png')
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, json.dumps(result, indent=2) + '\n')
    title = ', '.join(filter(None, (result['split'], result['mode'])))
    if 'confusion' in result:
      with files.whole_file(picture) as part:
        save_confusion(part, np.array(result['confusion']), class_names, title=title)
  except OSError as error:
    raise UserError(
      f'cannot write {error.filename or file.parent}: {error.strerror or error}'
    ) from error


def by_class(names: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
  """Pairs class names with values; None where a class never occurs."""
  return {n: None if np.isnan(v) else float(v) for n, v in zip(names, values, strict=True)}


def print_scores(result: dict[str, Any], paper: Any) -> None:
  """Prints all numbers, the paper's beside them where it has them, and the table by class."""
  console = Console(width=80, markup=False, emoji=False)
  scores, published = single_numbers(result), published_numbers(paper)
  published = {name: value for name, value in published.items() if name in scores}
  title = f'{result["split"]}: {result["images"]} images, step {result["step"]}'
  console.print(', '.join(filter(None, (title, result['mode']))), soft_wrap=True, highlight=False)
  table = Table()
  table.add_column('')
  table.add_column('ours', justify='right')
  if published:
    other = paper.get('split', result['split'])
    table.add_column('paper' + f', {other}' * (other != result['split']), justify='right')
  for name, value in scores.items():
    beside = [f'{published[name]:.4f}' if name in published else '-'] if published else []
    table.add_row(name.replace('_', ' '), _number(value), *beside)
  console.print(table)
  if published:
    console.print(f'paper: {paper["source"]}')
  columns = {
    'IoU': 'per_class_iou',
    'accuracy': 'per_class_accuracy',
    'BF': 'per_class_boundary_f1',
    'AP': 'per_class_ap',
  }
  columns = {name: result[key] for name, key in columns.items() if key in result}
  classes = Table('class', *columns)
  for name in next(iter(columns.values())):  # of all classes; AP has none of the background
    values = (column.get(name) for column in columns.values())
    classes.add_row(name, *map(_number, values))
  console.print(classes)


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.4f}'
