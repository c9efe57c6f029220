"""A time budget (config.max_minutes): how many steps end in time, found out once, by trying.

A new run does some steps and one evaluation on a copy of its first state, and drops what comes of them but
the times. The number of steps that follows is the run's from then on: it stands in config.json, rates
go by it, every host has it, and whoever resumes the run goes on with it, bit for bit.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxseg.train.build import Experiment
from jaxseg.train.devices import hosts
from jaxseg.train.run_folder import has_checkpoints, load_config
from jaxseg.train.times import Times
from jaxseg.types import UserError

# Of the time that is left: figures and saving want some, and machines have slower hours.
_USED = 0.95
_UNTIMED, _TIMED = 2, 8  # steps that are tried: the first compiles


def of_steps(experiment: Experiment, steps: int) -> Experiment:
  """Returns the experiment with another number of steps, and its `schedule_steps` at the same shares."""
  settings, optim = experiment.settings, experiment.optim
  at = tuple(max(1, step * steps // settings.num_steps) for step in optim.schedule_steps)
  optim = dataclasses.replace(optim, schedule_steps=at)
  config = {**experiment.config, 'num_steps': steps, 'optim': dataclasses.asdict(optim)}
  settings = dataclasses.replace(settings, num_steps=steps)
  return dataclasses.replace(experiment, config=config, settings=settings, optim=optim)


def kept(experiment: Experiment, workdir: str | Path) -> Experiment:
  """Returns the experiment as the run in a folder has it, where there is one with this budget."""
  minutes = experiment.settings.max_minutes
  try:
    saved = load_config(workdir) if minutes and has_checkpoints(workdir) else {}
  except UserError:  # told by whoever opens the folder
    return experiment
  return (
    of_steps(experiment, saved['num_steps']) if saved.get('max_minutes') == minutes else experiment
  )


def fitting(
  minutes: float, past: float, compiling: float, step: float, evaluation: float, every: int
) -> int:
  """Returns how many steps end in time, 1 at least.

  Args:
    minutes: of the budget.
    past: seconds since it began.
    compiling: seconds until the step with its own rates is compiled.
    step, evaluation: seconds of each.
    every: steps between two evaluations; another is at the end.
  """
  left = _USED * (60 * minutes - past) - compiling - evaluation
  return max(1, math.floor(left / (step + evaluation / every)))


def rehearse(
  experiment: Experiment,
  times: Times,
  train_step: Callable,
  wrapper: Any,
  state: Any,
  batches: Iterator[dict],
  key: Any,
  score: Callable[[Any], Any],
) -> tuple[int, str]:
  """Returns the number of steps of a run that begins, at most config.num_steps, and that in words.

  All hosts do it together and get the first's number.

  Args:
    experiment: as it was given.
    times: since the beginning.
    train_step, wrapper, state, batches, key: as for Loop.run; the state is used up.
    score: maps variables to the numbers of an evaluation.
  """
  settings, every = experiment.settings, experiment.eval.every
  before = times.seconds()['compile']
  with times.part('steps'):
    for count in (_UNTIMED, _TIMED):
      begin = time.perf_counter()
      for _ in range(count):
        batch = {name: value for name, value in next(batches).items() if name != 'index'}
        batch = hosts.vote(batch, False) if hosts.count() > 1 else batch
        state, metrics = train_step(state, wrapper.place_batch(batch), key)
      jax.block_until_ready(metrics)
      step = (time.perf_counter() - begin) / count
  middle = times.seconds()
  with times.part('evaluation'):
    score(jax.device_get(state.variables))
  end = times.seconds()
  evaluation = end['evaluation'] - middle['evaluation']  # it is compiled now
  compiling = middle['compile'] - before
  found = fitting(settings.max_minutes, end['wall'], compiling, step, evaluation, every)
  found = int(hosts.broadcast({'steps': min(found, settings.num_steps)})['steps'])
  return found, (
    f'budget    {found:,} of {settings.num_steps:,} steps end within {settings.max_minutes:g} minutes: '
    f'{step:.3g} s each, {evaluation:.3g} s an evaluation'
  )
