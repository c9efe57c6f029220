"""Opens trained runs that predict together or out of fold, and compares and names them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.data.source import file_name
from jaxseg.predict.options import Options
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.run_folder import Classes, load_classes
from jaxseg.types import UserError

Workdirs = str | os.PathLike | Sequence[str | os.PathLike]  # of one run or of several


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained workdir, without its weights."""

  path: Path
  experiment: Experiment
  classes: Classes

  @property
  def task(self) -> str:
    return self.experiment.settings.task


def open_runs(workdirs: Workdirs) -> list[Run]:
  """Opens runs that will predict together.

  Raises:
    UserError: no run, a run given twice, a network of other classes than its run names, or runs that differ in
      task, classes, channels or dtype.
  """
  alone = isinstance(workdirs, (str, os.PathLike)) or not isinstance(workdirs, Iterable)
  several = [workdirs] if alone else list(workdirs)
  if not several:
    raise UserError('no run is given: name the workdir of a training, or several')
  paths = [files.to_path(workdir) for workdir in several]
  if len({files.absolute(path) for path in paths}) < len(paths):
    raise UserError('a folder is given twice: give each run once')
  runs = [Run(path, load_experiment(path), load_classes(path)) for path in paths]
  for run in runs:
    if len(run.classes.names) != run.experiment.settings.num_classes:
      raise UserError(
        f'{run.path}: classes.json names {len(run.classes.names)} classes, and the network has '
        f'{run.experiment.settings.num_classes}: restore the file'
      )
  for run in runs[1:]:
    for what, value_of in (
      ('the task', lambda r: r.task),
      ('the classes', lambda r: ', '.join(r.classes.names)),
      ('channels', lambda r: r.experiment.channels),
      ('pixels of', lambda r: r.experiment.data.dtype),
    ):
      if value_of(run) != value_of(runs[0]):
        raise UserError(
          f'{run.path} has {what} {value_of(run)}, {runs[0].path} has {value_of(runs[0])}: only runs of one task '
          'and the same classes, channels and pixels predict together'
        )
  return runs


def check_same_images(runs: Sequence[Run], sources: Sequence[Any], split: str) -> None:
  """Refuses splits that differ, or are read differently.

  An ensemble would be scored on images that some of its runs trained on, or never see so.

  Raises:
    UserError: names two runs.
  """
  for run, source in zip(runs[1:], sources[1:], strict=True):
    for key in ('image_size', 'percentiles'):
      here, first = (getattr(r.experiment.data, key) for r in (run, runs[0]))
      if here != first:
        raise UserError(
          f'{run.path} has data.{key}={here}, {runs[0].path} has {first}: runs are scored together on images that '
          'all read alike'
        )
    if _images_of(run, source) != _images_of(runs[0], sources[0]):
      raise UserError(
        f'{run.path} and {runs[0].path} have different images in {split}, so one may have trained on '
        'what the other holds out: take a --split that all have, or --out_of_fold'
      )


def check_folds(runs: Sequence[Run], sources: Sequence[Any]) -> None:
  """Refuses runs that hold out the same image, and warns of folds that none holds out.

  Raises:
    UserError: names the first such image.
  """
  held_by: dict[str, Path] = {}
  for run, source in zip(runs, sources, strict=True):
    for name in _names(source):
      if name in held_by:
        raise UserError(
          f'{held_by[name]} and {run.path} both hold out {name}: name one run of each fold'
        )
      held_by[name] = run.path
  options = [run.experiment.data.options for run in runs]
  folds = max(int(of_run.get('folds', 0)) for of_run in options)
  if missing := sorted({*range(folds)} - {int(of_run.get('fold', 0)) for of_run in options}):
    warn_once(
      [f'no run holds out fold {abbreviate(missing)} of {folds}: its images are not scored']
    )


def _images_of(run: Run, source: Any) -> Any:
  """Returns a key that is equal for splits of the same images."""
  data = run.experiment.data
  if hasattr(source, 'identity'):
    return data.name, list(getattr(source, 'digests', ()) or _names(source))
  return data.name, data.options, len(source)


def _names(source: Any) -> Iterator[str]:
  return (file_name(source, i) for i in range(len(source)))


def mode_of(runs: Sequence[Run], options: Options) -> str:
  """Describes the ensemble and options; '' for one plain pass of a single run."""
  names = unique_names([run.path for run in runs])[1:]
  return ', '.join(filter(None, [f'with {", ".join(names)}' if names else '', options.describe()]))


def unique_names(paths: Sequence[Path]) -> list[str]:
  """Returns the folders' names, or if these are ambiguous their paths below the common parent."""
  names = [path.name for path in paths]
  if len(set(names)) == len(names):
    return names
  common = os.path.commonpath(paths)
  return [os.path.relpath(path, common) for path in paths]
