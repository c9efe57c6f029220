"""Evaluates trained runs: every image exactly once, at its original size, with all requested scores."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxseg.config import parts
from jaxseg.console import duration, say
from jaxseg.data import threads
from jaxseg.metrics import score as scores
from jaxseg.metrics import temperature as temperatures
from jaxseg.metrics.score import Result, Score
from jaxseg.predict import result_file, temperature
from jaxseg.predict.base import BasePredictor
from jaxseg.predict.ensemble import join
from jaxseg.predict.grouping import Grouping
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import needs_tiles
from jaxseg.predict.progress import ProgressLine
from jaxseg.predict.runs import Run, Workdirs, check_folds, check_same_images, mode_of, open_runs
from jaxseg.predict.show import print_scores
from jaxseg.train import machine, run_data
from jaxseg.train.build import Experiment, set_up_jax
from jaxseg.train.devices import hosts
from jaxseg.train.evaluator import Evaluator, make_scores
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError


@dataclasses.dataclass(frozen=True)
class _Job:
  """Runs that predict a split together.

  Attributes:
    runs, variables, steps: of each member.
    options: of the prediction, with the resolved temperature.
    split, source: the data.
    make: returns empty scores.
  """

  runs: Sequence[Run]
  variables: Sequence[Any]
  steps: Sequence[int]
  options: Options
  split: str
  source: Any
  make: Callable[[], Score]

  @property
  def is_plain(self) -> bool:
    """Whether it is a plain pass, to be shared by all devices and hosts."""
    scales = self.runs[0].experiment.eval.scales
    return len(self.runs) == len(scales) == 1 and self.options.beside(scales) == Options()

  @property
  def mode(self) -> str:
    """Describes ensemble and options; '' for a plain pass."""
    scales = self.options.scales or self.runs[0].experiment.eval.scales
    mode = mode_of(self.runs, dataclasses.replace(self.options, scales=scales))
    return '' if self.is_plain else mode

  @property
  def facts(self) -> dict[str, Any]:
    names = {'runs': [str(run.path) for run in self.runs]} if len(self.runs) > 1 else {}
    data = run_data.identity(self.source)
    names |= {'data': data} if data else {}
    images = len(self.source)
    return {
      'split': self.split,
      'step': self.steps[0],
      'images': images,
      'mode': self.mode,
      **names,
    }


def evaluate_workdir(
  workdirs: Workdirs,
  *,
  split: str | None = None,
  step: str = 'best',
  options: Options | None = None,
  extra: Sequence[str] = (),
  groups: str | None = None,
  out_of_fold: bool = False,
) -> dict[str, Any]:
  """Scores a checkpoint of a run or an ensemble, prints the scores and writes eval/<split>.json.

  Each combination of options and ensemble has its own file in the (first) run's eval/, see result_file.
  Other scores already in the file, of the same step and mode, are kept.

  Several hosts share the images of a plain pass, and each must be able to read the workdir's
  config.json; with options or an ensemble only the first host works.

  Args:
    workdirs: written by jaxseg.train.train.train.
    split: default: the config's eval_split.
    step: 'best' | 'latest' | a number.
    options: averaging and tiling; None: one plain pass, in batches over all devices.
    extra: scores by their names in jaxseg.metrics, beside the task's, those of config.eval.scores and
      the dataset module's SCORES.
    groups: also the task's score for each group of images, see grouping.
    out_of_fold: scores the whole set, each image by the run of the fold that held it out. The scores
      are over all images together; by_fold has those of each run.

  Returns:
    The contents of the file; {} on hosts that take no part.

  Raises:
    UserError: no run, split or step, labels outside the classes, options or scores that do not fit,
      runs that cannot predict together or hold out different images; out of fold, a single run, or an
      image that two of them hold out.
  """
  start, runs = time.perf_counter(), open_runs(workdirs)
  open_job = functools.partial(_open, split=split, step=step, options=options)
  make = functools.partial(_make_scores, extra, groups)
  if out_of_fold:
    return _out_of_fold(runs, open_job, make, start)
  job = open_job(runs, make=make)
  score = _score(job)
  if score is None:
    return {}
  return _publish(job, {**job.facts, **_confusion_last(score.compute())}, start)


def _out_of_fold(
  runs: Sequence[Run], open_job: Callable[..., _Job], make: Callable[..., Any], start: float
) -> dict[str, Any]:
  """Scores each image by the run of the fold that held it out; see evaluate_workdir."""
  if len(runs) < 2:
    raise UserError('out of fold: name the run of every fold, as in --workdir=RUN0,RUN1,RUN2')

  def make_alike(_: Experiment, source: Any) -> Callable[[], Score]:
    return make(runs[0].experiment, source)  # equal scores, to be merged

  jobs = [open_job([run], make=make_alike) for run in runs]
  with hosts.together():
    check_folds(runs, [job.source for job in jobs])
  total, rows = jobs[0].make(), {}
  for run, job in zip(runs, jobs, strict=True):
    score = _score(job)
    if score is None:
      return {}
    facts_of_fold = {'images': len(job.source), 'step': job.steps[0]}
    rows[str(run.path)] = facts_of_fold | scores.numbers(score.compute())
    total.merge(score)
  prefix = f'out-of-fold, {mode_of(runs, Options())}'
  facts = {key: value for key, value in jobs[0].facts.items() if key != 'data'} | {
    'images': sum(len(job.source) for job in jobs),
    'mode': ', '.join(filter(None, [prefix, jobs[0].mode])),
    'runs': [str(run.path) for run in runs],
  }
  result = {**facts, 'by_fold': rows, **_confusion_last(total.compute())}
  return _publish(jobs[0], result, start, prefix)


def fit_temperature(
  workdirs: Workdirs,
  *,
  split: str | None = None,
  step: str = 'best',
  options: Options | None = None,
) -> dict[str, Any]:
  """Fits and stores the temperature of a run or an ensemble, see predict.temperature.

  Args:
    workdirs, step, options: see evaluate_workdir.
    split: default: the config's eval_split; not the training split.

  Returns:
    The stored entry; {} on hosts that take no part.

  Raises:
    UserError: a task without pixel probabilities, a temperature among the options, or the training
      split, on which every network is overconfident.
  """
  start, runs, options = time.perf_counter(), open_runs(workdirs), options or Options()
  if options.temperature != 1:
    raise UserError('--fit_temperature looks for what --temperature gives: leave one of them out')
  split = split or runs[0].experiment.settings.eval_split
  if trained := [run for run in runs if run.experiment.data.train_split == split]:
    raise UserError(
      f'{trained[0].path} was trained on {split}: fit the temperature on another split'
    )

  def make(experiment: Experiment, source: Any) -> Callable[[], Score]:
    if not experiment.task.maps:
      raise UserError(
        f'config.task={experiment.settings.task} predicts no probability of pixels that a '
        'temperature could change: leave out --fit_temperature'
      )
    return functools.partial(temperatures.Score, source.class_names)

  job = _open(runs, split, step, options, make)
  score = _score(job)
  if score is None or not hosts.is_first():
    return {}
  facts = {key: value for key, value in job.facts.items() if key in ('split', 'images')}
  entry = temperature.fit_and_save(score, runs, job.steps, options, facts)
  changes = (
    f'{name.upper()} {entry[name]:.4f} to {entry[f"{name}_after"]:.4f}' for name in ('ece', 'nll')
  )
  say(f'temperature {entry["temperature"]:.4g} on {job.split}: {", ".join(changes)}')
  say(f'written to {temperature.file_of(runs)} in {duration(time.perf_counter() - start)}')
  return entry


def score_images(
  predictor: BasePredictor, source: Any, score: Score, show: Callable[[int], None] | None = None
) -> Score:
  """Scores a predictor image by image, with any averaging and tiling.

  Threads read images ahead, and another updates the score while the device works.

  Args:
    predictor: of the images.
    source: the split.
    score: to which every image is added.
    show: called with the number of images done.

  Raises:
    UserError: labels outside the classes, or data that the score cannot use, naming the file.
    StuckError: reading an image took longer than config.data.timeout.
  """
  timeout = predictor.experiment.data.timeout
  reading = threads.examples(source, range(len(source)), timeout=timeout)
  with threads.Backlog(num_threads=1) as scoring:
    for index, example in enumerate(reading):
      prediction = predictor.predict(example['image'], maps=score.maps)
      scoring.submit(scores.add, score, {**example, 'index': index}, prediction)
      if show:
        show(index + 1)
  return score


def _open(
  runs: Sequence[Run],
  split: str | None,
  step: str,
  options: Options | None,
  make: Callable[[Experiment, Any], Callable[[], Score]],
) -> _Job:
  """Opens the data and restores the variables, which only the first host reads."""
  experiment, options = runs[0].experiment, options or Options()
  set_up_jax(experiment.settings)
  split, loaded = split or experiment.settings.eval_split, {}
  with hosts.together() as agreed:
    if hosts.is_first():
      restored = [load_variables(run.path, step, run.experiment) for run in runs]
      steps = [number for _, number in restored]
      options = temperature.resolved(options, runs, steps)
      loaded = {str(i): variables for i, (variables, _) in enumerate(restored)}
      loaded = {'variables': loaded, 'steps': steps, 'temperature': options.temperature}
    sources = [run.experiment.source(split, run.classes.names) for run in runs]
    check_same_images(runs, sources, split)
    changes = [
      run_data.check_held_out(run.path, source, run.experiment.data.train_split)
      for run, source in zip(runs, sources, strict=True)
    ]
    make_score = make(experiment, sources[0])
    agreed['config'], agreed['data'] = machine.shared(experiment.config), [split, len(sources[0])]
  for run, change in zip(runs, changes, strict=True):
    if change and hosts.is_first():
      say(f'note: {split} is not as when {run.path} was trained: {change}')
  loaded = hosts.broadcast(loaded)
  return _Job(
    runs=runs,
    variables=[loaded['variables'][str(i)] for i in range(len(runs))],
    steps=[int(number) for number in loaded['steps']],
    options=dataclasses.replace(options, temperature=loaded['temperature']),
    split=split,
    source=sources[0],
    make=make_score,
  )


def _make_scores(
  extra: Sequence[str], groups: str | None, experiment: Experiment, source: Any
) -> Callable[[], Score]:
  """Returns a factory of empty scores. Raises UserError if one needs maps that the task lacks."""
  dataset = parts.load('datasets', experiment.data.name)
  names = (*extra, *getattr(dataset, 'SCORES', ()))
  make = functools.partial(make_scores, experiment, source.class_names, *names)
  make()  # rejects unsuitable scores before anything is predicted
  if groups is None:
    return make
  task_scorer = functools.partial(
    experiment.task.scorer, source.class_names, **experiment.eval.score
  )
  grouping = Grouping.of(groups, experiment)
  return lambda: scores.Scores([make(), scores.Groups(grouping.title, grouping, task_scorer)])


def _score(job: _Job) -> Score | None:
  """Returns the scores of all images; None on hosts that take no part."""
  plain = job.is_plain and not _needs_tiles(job)
  if not (plain or hosts.is_first()):
    return None
  progress = (
    ProgressLine('evaluated', len(job.source)) if hosts.is_first() else contextlib.nullcontext()
  )
  with progress as show:
    if plain:
      evaluator = Evaluator(job.runs[0].experiment, job.source, job.make)
      return evaluator.score(job.variables[0], show)
    predictor = join(job.runs, job.variables, job.options)
    return score_images(predictor, job.source, job.make(), show)


def _needs_tiles(job: _Job) -> bool:
  """Whether prediction would tile some image; evaluation must do the same."""
  experiment, size = job.runs[0].experiment, getattr(job.source, 'size', None)
  if size is None:
    return False
  frame, sizes = experiment.frame(experiment.model()), {size(i) for i in range(len(job.source))}
  return any(needs_tiles(experiment.task, job.options, image_size, frame) for image_size in sizes)


def _confusion_last(numbers: Result) -> Result:
  return dict(sorted(numbers.items(), key=lambda item: item[0] == 'confusion'))


def _publish(job: _Job, result: dict[str, Any], start: float, prefix: str = '') -> dict[str, Any]:
  """Writes and prints a result, on the first host; returns the contents of the file.

  Args:
    job: its options and first run determine the file.
    result: for the file.
    start: by time.perf_counter.
    prefix: of the mode in the file's name.
  """
  experiment = job.runs[0].experiment
  if experiment.settings.paper:
    result['paper'] = experiment.settings.paper
  if hosts.is_first():
    options = job.options.beside(experiment.eval.scales)
    mode = ', '.join(filter(None, [prefix, mode_of(job.runs, options)]))
    file = result_file.path_of(job.runs[0].path, job.split, mode)
    result = result_file.write(result, file, job.source.class_names)
    print_scores(result, experiment.settings.paper)
    say(f'written to {file} in {duration(time.perf_counter() - start)}')
  return result
