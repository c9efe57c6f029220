"""The loop of one run: step, log, evaluate, save, and stop where a signal or a bad loss says so."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg.report.figures import Figures
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.devices import hosts
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.interrupts import Interruptible
from jaxseg.train.population import PopulationPass
from jaxseg.train.writer import Progress, Writer, duration
from jaxseg.types import StuckError

_SHORT = {'mean_iou': 'mIoU', 'mask_ap': 'mask AP'}


class Run:
  """A loop and its records.

  Args:
    config: of the run.
    checkpoints: gets the state at the steps that the config names, and where the run is stopped.
    evaluator: maps variables to the numbers of `eval_split`.
    figures: draws after each evaluation.
    writer: gets the scalars; closed at the end.
    progress: tells the user.
    schedule: step -> learning rate.
    source: the training split, which knows the names of its files.
    population: replaces BatchNorm's statistics in what is kept, where the config wants that.
    headline: the evaluation's number that says which step is best.
    best: the highest of it in the evaluations before this start.
    window: metrics of the steps between the last line of the log and this start.
  """

  def __init__(
    self,
    config: ConfigDict,
    *,
    checkpoints: Checkpoints,
    evaluator: Evaluator,
    figures: Figures,
    writer: Writer,
    progress: Progress,
    schedule,
    source: Any,
    population: PopulationPass | None = None,
    headline: str = 'mean_iou',
    best: float = 0.0,
    window: Sequence[dict[str, float]] = (),
  ):
    self._config, self._checkpoints = config, checkpoints
    self._evaluator, self._figures, self._writer = evaluator, figures, writer
    self._progress, self._schedule, self._source = progress, schedule, source
    self._population, self._headline, self._best = population, headline, best
    self._summary: dict[str, Any] = {}
    self._window = list(window)  # metrics of the steps since the last log
    self._skipped = 0.0  # steps that were not finite, since the beginning
    self._votes = 0.0  # hosts that were asked to stop
    self._pending: tuple[int, dict[str, Any], np.ndarray] | None = None

  def loop(self, train_step, wrapper, state, batches, key, start: int, last: int) -> dict[str, Any]:
    """Runs the steps start..last-1.

    Args:
      train_step: the wrapped step(state, batch, key) -> (state, metrics).
      wrapper: places batches.
      state: of step `start`, placed; the first step takes its memory.
      batches: from step `start` on, see jaxseg.data.loader.train_batches.
      key: of dropout; the step folds its own number in.
      start: steps done before.
      last: steps done at the end, unless a signal comes first.

    Returns:
      The last evaluation's numbers, {} where there was none.

    Raises:
      UserError: a loss that is not finite, or labels outside the classes, naming step and files.
    """
    batches, clock = iter(batches), _Clock(batches)
    done = start
    with Interruptible() as interrupted:
      while done < last:
        batch = dict(next(batches))
        index = batch.pop('index')
        if hosts.count() > 1:
          batch = hosts.vote(batch, interrupted.by is not None)
        state, metrics = train_step(state, wrapper.place_batch(batch), key)
        done += 1
        self._settle()  # one step behind, so that the device never waits for the host
        self._pending = (done, metrics, index)
        clock.steps += 1
        if done % self._config.log_every == 0 or done == self._config.num_steps:
          self._settle()
          self._log(done, last, clock)
        self._keep_if_due(done, last, state, clock)
        if self._votes or (interrupted.by and hosts.count() == 1):
          self._settle()
          self._keep(done, state, evaluated=False, hurried=True)
          break
    self._checkpoints.wait()
    self._checkpoints.close()
    self._writer.close()
    if done < self._config.num_steps:
      self._progress.say(f'stopped and saved at step {done}; the same command resumes from there')
    return self._summary

  def _settle(self) -> None:
    """Waits for the step whose numbers have not been looked at yet, and checks it."""
    if self._pending:
      pending, self._pending = self._pending, None
      self._check(*pending)

  def _check(self, step: int, metrics: dict[str, Any], index: np.ndarray) -> None:
    """Stops at a loss that is not finite and at labels that are no class, naming the files."""
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self._votes += values.pop(hosts.STOP, 0.0)
    if values['invalid']:
      raise hosts.SharedError(
        f'step {step}: {int(values["invalid"])} pixels carry labels outside the '
        f'{self._config.num_classes} classes, in one of {hosts.gather(index).tolist()} of '
        f'{self._config.dataset}'
      )
    self._skipped = values.pop('skipped', 0.0)
    in_a_row = int(values.pop('skipped_in_a_row', 1))
    if not values['finite'] and in_a_row <= self._config.apply_if_finite:
      files = self._names(hosts.gather(index))
      self._progress.say(
        f'warning: step {step} is skipped ({in_a_row} in a row, at most {self._config.apply_if_finite}):'
        f' loss {values["loss"]:g}, gradient norm {values["grad_norm"]:g}, on the images {files}'
      )
      return
    if not values['finite']:
      self._checkpoints.wait()
      raise hosts.SharedError(
        f'step {step}: loss {values["loss"]:g}, gradient norm {values["grad_norm"]:g}, on the images '
        f'{self._names(hosts.gather(index))}; the last good checkpoint is kept: lower config.learning_rate, '
        'set config.clip_norm or config.apply_if_finite in a new run, or look at these images'
      )
    self._window.append(values)

  def _names(self, index: np.ndarray) -> str:
    return ', '.join(str(self._source[int(i)]['file_name']) for i in index)

  def _log(self, step: int, last: int, clock: _Clock) -> None:
    seconds, waiting, steps = clock.lap()
    if not self._window:  # every step was skipped
      return
    mean = {k: float(np.mean([m[k] for m in self._window])) for k in self._window[0]}
    self._window = []
    rate = steps * self._config.batch_size / seconds
    lr = float(self._schedule(step - 1 - int(self._skipped)))  # the optimiser's clock rests too
    scalars = {f'train/{k}': v for k, v in mean.items() if k not in ('finite', 'invalid')}
    scalars['train/learning_rate'] = lr
    if self._config.apply_if_finite:
      scalars['train/skipped'] = self._skipped
    times = {'time/images_per_second': rate, 'time/waiting_for_data': waiting}
    self._writer.write(step, scalars | times)
    parts = [
      f'step {step}/{self._config.num_steps}',
      f'loss {mean["loss"]:.4g}',
      f'lr {lr:.3g}',
      f'{rate:.3g} img/s',
      f'waiting for data {waiting:.0%}',
    ]
    if self._summary:
      name = _SHORT.get(self._headline, self._headline)
      parts.append(f'{name} {self._summary[self._headline]:.3f} (best {self._best:.3f})')
    parts.append(f'ETA {duration((last - step) * seconds / steps)}')
    self._progress.show(' . '.join(parts))

  def _keep_if_due(self, done: int, last: int, state: Any, clock: _Clock) -> None:
    config = self._config
    evaluated = done % config.eval_every == 0 or done == config.num_steps
    if evaluated or done % config.checkpoint_every == 0 or done == last:
      self._settle()
      with clock.paused():
        self._keep(done, state, evaluated=evaluated)

  def _keep(self, step: int, state: Any, *, evaluated: bool, hurried: bool = False) -> None:
    """Evaluates if it is time, saves, and draws; `hurried` where a signal wants the process gone."""
    if self._population and not hurried:
      state = state.replace(batch_stats=self._population(jax.device_get(state.variables)))
    variables = jax.device_get(state.variables) if evaluated else None
    if evaluated:
      self._evaluate(step, variables)
    self._writer.sync()
    scores = self._summary if evaluated else None
    self._checkpoints.save(step, state, scores, window=self._window)
    if evaluated:
      self._draw(step, variables)

  def _evaluate(self, step: int, variables: Any) -> None:
    self._summary = self._evaluator(variables)
    self._best = max(self._best, self._summary[self._headline])
    scalars = {k: v for k, v in self._summary.items() if isinstance(v, float)}
    self._writer.write(step, {f'eval/{k}': v for k, v in scalars.items()})
    numbers = ' . '.join(f'{k.replace("_", " ")} {v:.4f}' for k, v in scalars.items())
    self._progress.say(f'evaluated {self._config.eval_split} at step {step}: {numbers}')

  def _draw(self, step: int, variables: Any) -> None:
    """Renews the figures; a failure is told, never raised: no training ends for a picture."""
    try:
      self._figures(step, variables, self._summary)
    except StuckError:  # its thread is still there: see jaxseg.console.run
      raise
    except Exception as e:
      reason = ' '.join(str(e).split())[:160]
      self._progress.say(f'warning: no figures at step {step}: {type(e).__name__}: {reason}')


class _Clock:
  """Wall seconds since the last lap, the share of them spent waiting for data, and the steps done.

  Attributes:
    steps: since the last lap; whoever does a step adds it.
  """

  def __init__(self, batches):
    self._batches = batches
    self._time, self._waited, self.steps = time.perf_counter(), batches.waited_seconds, 0

  def lap(self) -> tuple[float, float, int]:
    now, waited = time.perf_counter(), self._batches.waited_seconds
    seconds = max(now - self._time, 1e-9)
    share = (waited - self._waited) / seconds
    steps, self.steps = self.steps, 0
    self._time, self._waited = now, waited
    return seconds, share, steps

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out what is done inside (an evaluation, a save)."""
    begin = time.perf_counter()
    yield
    self._time += time.perf_counter() - begin
