"""Loads one run, or an ensemble whose probabilities are averaged (arXiv:1612.01474), as a predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxseg.config import parts
from jaxseg.data.geometry import Size
from jaxseg.predict import temperature
from jaxseg.predict.averages import Band
from jaxseg.predict.base import BasePredictor
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.predict.runs import Run, Workdirs, open_runs
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError


class Ensemble(BasePredictor):
  """Averages the probabilities of several predictors, then applies its temperature.

  Args:
    members: at least one, all of the same task, classes and channels. The first sets the options.

  Raises:
    UserError: their task predicts no probability maps.
  """

  def __init__(self, members: Sequence[BasePredictor]):
    first = members[0]
    self.experiment, self.classes, self.options = first.experiment, first.classes, first.options
    if not self.experiment.task.maps:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts no maps that could be averaged over '
        'runs: give one --workdir'
      )
    self._members = tuple(member.replace(temperature=1.0) for member in members)

  @property
  def entries(self) -> frozenset[str]:
    return frozenset({'mask'})

  def canvas(self, height: int, width: int) -> tuple:
    return tuple(member.canvas(height, width) for member in self._members)

  def comes_in_bands(self, size: Size) -> bool:
    return True

  def replace(self, **options: Any) -> Ensemble:
    for_members = {'temperature': self.options.temperature, **options}
    return Ensemble([member.replace(**for_members) for member in self._members])

  def _bands(self, image: np.ndarray) -> Iterator[Band]:
    streams = [member.bands(image) for member in self._members]
    if len(streams) == 1:  # its mask may come from logits, which have fewer ties
      yield from streams[0]
      return
    count, num_classes, top = np.float32(len(streams)), self.experiment.task.num_classes, 0
    for maps in _same_rows(streams):
      yield Band.of_maps(top, sum(maps) / count, num_classes)
      top += len(maps[0])


def _same_rows(streams: Sequence[Iterator[Band]]) -> Iterator[list[np.ndarray]]:
  """Yields every stream's maps of the same rows, although their bands may differ."""
  waiting = [next(stream).maps for stream in streams]
  while True:
    rows = min(map(len, waiting))
    yield [maps[:rows] for maps in waiting]
    for i, stream in enumerate(streams):
      waiting[i] = waiting[i][rows:]
      if not len(waiting[i]):
        band = next(stream, None)
        if band is None:
          return
        waiting[i] = band.maps


def load(workdirs: Workdirs, step: str = 'best', **options: Any) -> BasePredictor:
  """Returns the predictor of a trained workdir, or of an ensemble of several.

  Args:
    workdirs: written by training.
    step: 'best' (by the task's headline score) | 'latest' | a number; of each.
    **options: fields of Options, as in `load(workdir, scales=(0.5, 1), flip=True)`.

  Raises:
    UserError: no run or step, runs that differ in task or classes, or options that are unknown or
      do not fit the network.
  """
  return load_runs(open_runs(workdirs), step, **options)


def load_runs(runs: Sequence[Run], step: str = 'best', **options: Any) -> BasePredictor:
  """Returns the predictor of runs that are already open; see load."""
  settings = Options(**parts.arguments(Options, options, 'prediction'))
  loaded = [load_variables(run.path, step, run.experiment) for run in runs]
  settings = temperature.resolved(settings, runs, [number for _, number in loaded])
  return join(runs, [variables for variables, _ in loaded], settings)


def join(runs: Sequence[Run], variables: Sequence[Any], options: Options) -> BasePredictor:
  """Returns the predictor of runs and their variables, an Ensemble only if there are several."""
  members = [
    Predictor(run.experiment, values, run.classes, options)
    for run, values in zip(runs, variables, strict=True)
  ]
  return members[0] if len(members) == 1 else Ensemble(members)
