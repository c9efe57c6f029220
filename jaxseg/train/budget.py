"""A time budget (config.max_minutes): measures once how many steps fit into it.

A new run times a few steps and one evaluation on a copy of its initial state, and discards their results.
The number of steps computed from them is then fixed: it is written to config.json, the learning-rate
schedule uses it, all hosts share it, and a resumed run keeps it, so that it stays bit-identical.
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

# Fraction of the remaining time to plan for: leaves a margin for figures, saving and slower hours.
_USED = 0.95
_UNTIMED, _TIMED = 2, 8  # steps to run: the first compiles


def with_steps(experiment: Experiment, steps: int) -> Experiment:
  """Returns the experiment with another number of steps, and its `schedule_steps` in proportion."""
  settings, optim = experiment.settings, experiment.optim
  at = tuple(max(1, step * steps // settings.num_steps) for step in optim.schedule_steps)
  optim = dataclasses.replace(optim, schedule_steps=at)
  config = {**experiment.config, 'num_steps': steps, 'optim': dataclasses.asdict(optim)}
  settings = dataclasses.replace(settings, num_steps=steps)
  return dataclasses.replace(experiment, config=config, settings=settings, optim=optim)


def with_saved_steps(experiment: Experiment, workdir: str | Path) -> Experiment:
  """Returns the experiment with the step count of the folder's run, if that has the same budget."""
  minutes = experiment.settings.max_minutes
  try:
    saved = load_config(workdir) if minutes and has_checkpoints(workdir) else {}
  except UserError:  # reported when the folder is opened
    return experiment
  return (
    with_steps(experiment, saved['num_steps'])
    if saved.get('max_minutes') == minutes
    else experiment
  )


def steps_within(
  minutes: float, past: float, compiling: float, step: float, evaluation: float, every: int
) -> int:
  """Returns how many steps fit into the budget, at least 1.

  Args:
    minutes: the budget.
    past: seconds already used.
    compiling: seconds to compile the step again with the final schedule.
    step, evaluation: seconds of each.
    every: steps between evaluations; one more follows the last step.
  """
  left = _USED * (60 * minutes - past) - compiling - evaluation
  return max(1, math.floor(left / (step + evaluation / every)))


def measure_steps(
  experiment: Experiment,
  times: Times,
  train_step: Callable,
  wrapper: Any,
  state: Any,
  batches: Iterator[dict],
  key: Any,
  score: Callable[[Any], Any],
) -> tuple[int, str]:
  """Returns the number of steps for a new run, at most config.num_steps, and a line for the user.

  All hosts call it together and get the first host's number.

  Args:
    experiment: with the configured number of steps.
    times: of this start.
    train_step, wrapper, state, batches, key: as for Loop.run; the state is donated.
    score: evaluates variables.
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
      step_seconds = (time.perf_counter() - begin) / count
  middle = times.seconds()
  with times.part('evaluation'):
    score(jax.device_get(state.variables))
  end = times.seconds()
  evaluation = end['evaluation'] - middle['evaluation']  # without its compilation
  compiling = middle['compile'] - before
  steps = steps_within(
    settings.max_minutes, end['wall'], compiling, step_seconds, evaluation, every
  )
  steps = int(hosts.broadcast({'steps': min(steps, settings.num_steps)})['steps'])
  return steps, (
    f'budget    {steps:,} of {settings.num_steps:,} steps end within {settings.max_minutes:g} minutes: '
    f'{step_seconds:.3g} s each, {evaluation:.3g} s an evaluation'
  )
