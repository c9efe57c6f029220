"""The training loop: step, log, evaluate, save, and stop at a signal or a non-finite loss.

On SIGTERM, SIGHUP or Ctrl-C `Signals` only sets a flag. A single host finishes the current step and any
evaluation or save due after it, saves the state, waits until it is on disk, and `run` returns. The
process ends with status 0; after Ctrl-C with 130, once the report is written. Several hosts must stop
after the same step: each votes in its next batch (`hosts.vote`), the step sums the votes, and all read
the sum one step later, at most two steps after the signal. Before the loop, while data are read and
parts are built, a signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxseg.console import detach_terminal, duration
from jaxseg.data.source import file_name
from jaxseg.train.build import Experiment
from jaxseg.train.devices import hosts
from jaxseg.train.journal import Journal, NoJournal
from jaxseg.train.times import Profile, Times


class Loop:
  """Runs the steps of an experiment.

  Args:
    experiment: says when to log, evaluate and save.
    journal: of this host.
    times: records how long each part of the loop takes.
    profile: traces some of the steps.
    evaluate: maps variables to the scores on the evaluation split.
    schedule: step -> learning rate.
    source: the training split, for file names in messages.
    population_pass: maps variables to the BatchNorm statistics of the training set (train.population),
      which replace the running averages in evaluation and checkpoints; None: keep the averages.
    best: the best score so far, and the number of evaluations since.

  Attributes:
    interrupted: whether Ctrl-C ended it.
    preempted: whether it was stopped in any other way than by Ctrl-C on this host: there is no time left
      for figures.
  """

  interrupted = preempted = False

  def __init__(
    self,
    experiment: Experiment,
    journal: Journal | NoJournal,
    times: Times,
    profile: Profile,
    evaluate: Callable[[Any], dict[str, Any]],
    schedule: Callable[[int], Any],
    source: Any,
    population_pass: Callable[[Any], Any] | None = None,
    best: tuple[float, int] = (0.0, 0),
  ):
    self._experiment, self._journal, self._evaluate = experiment, journal, evaluate
    self._times, self._profile = times, profile
    self._schedule, self._source, self._population_pass = schedule, source, population_pass
    self._headline, (self._best, self._since_best) = experiment.task.headline, best
    self._summary: dict[str, Any] = {}
    self._window = list(journal.window)  # metrics of the steps since the last line of the log
    self._skipped = 0.0  # non-finite steps since the start of the run
    self._stop_votes = 0.0  # above 0 if any host was asked to stop
    self._unchecked: tuple[int, dict[str, Any], np.ndarray] | None = None

  def run(self, train_step, wrapper, state, batches, key, start: int, last: int) -> dict[str, Any]:
    """Runs the steps start + 1 to last.

    Args:
      train_step: the wrapped step(state, batch, key) -> (state, metrics).
      wrapper: places batches.
      state: of step `start`, placed on the devices; its memory is donated to the first step.
      batches: from step `start` on, see jaxseg.data.loader.train_batches.
      key: for dropout; each step folds in its number.
      start: steps already done.
      last: step to stop after, unless a signal comes first.

    Returns:
      The last evaluation's scores, {} where there was none.

    Raises:
      UserError: a loss that is not finite, or labels outside the classes, naming step and files.
    """
    log, num_steps = self._experiment.log, self._experiment.settings.num_steps
    clock, step = _Clock(batches), start
    with Signals() as signals, self._times.part('steps'):
      while step < last and not self._is_out_of_patience():
        step += 1
        with self._profile.step(step):
          with self._times.part('waiting_for_data'):
            batch = dict(next(batches))
          index = batch.pop('index')
          if hosts.count() > 1:
            batch = hosts.vote(batch, signals.caught is not None)
          state, metrics = train_step(state, wrapper.place_batch(batch), key)
        if line := self._profile.end(step, metrics):
          self._journal.say(line)
        self._check_last_step()  # one step late, so that the device never waits for the host
        self._unchecked = (step, metrics, index)
        clock.steps += 1
        if step % log.every == 0 or step == num_steps:
          self._check_last_step()
          self._log(step, last, clock)
        self._evaluate_and_save_if_due(step, last, state, clock)
        if self._stop_votes or (signals.caught and hosts.count() == 1):
          self._check_last_step()
          # With the running averages: there is no time for a population pass.
          self._journal.save(step, state, None, self._window)
          self.preempted = signals.caught != 'SIGINT'
          break
      self._journal.wait()  # a second signal must not end the process before the save is on disk
    self.interrupted = signals.caught == 'SIGINT'
    if self._is_out_of_patience():
      self._journal.say(
        f'finished at step {step} of {num_steps}: no better {_display_name(self._headline)} than {self._best:.4f} in '
        f'{self._since_best} evaluations (config.eval.patience)'
      )
    elif step < num_steps:
      self._journal.say(f'stopped and saved at step {step}; the same command resumes from there')
    return self._summary

  def _is_out_of_patience(self) -> bool:
    return 0 < self._experiment.eval.patience <= self._since_best

  def _check_last_step(self) -> None:
    """Waits for the last step's metrics; raises on invalid labels or a non-finite loss."""
    if not self._unchecked:
      return
    (step, metrics, index), self._unchecked = self._unchecked, None
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self._stop_votes += values.pop(hosts.STOP, 0.0)
    # Without apply_if_finite there are no counts, and a single non-finite step is too many.
    self._skipped, in_a_row = values.pop('skipped', 0.0), int(values.pop('skipped_in_a_row', 1))
    if values['invalid']:
      raise hosts.SharedError(
        f'step {step}: {int(values["invalid"])} labels are outside the '
        f'{self._experiment.settings.num_classes} classes, in one of {self._file_names(hosts.gather(index))}'
      )
    if values['finite']:
      self._window.append(values)
      return
    allowed = self._experiment.optim.apply_if_finite
    numbers = f'loss {values["loss"]:g}, gradient norm {values["grad_norm"]:g}, on the images'
    numbers = f'{numbers} {self._file_names(hosts.gather(index))}'
    if in_a_row <= allowed:
      self._journal.say(
        f'warning: step {step} is skipped ({in_a_row} in a row, at most {allowed}): {numbers}'
      )
      return
    self._journal.wait()
    raise hosts.SharedError(
      f'step {step}: {numbers}; the last good checkpoint is kept: lower config.optim.learning_rate, '
      'set config.optim.clip_norm or config.optim.apply_if_finite in a new run, or look at these images'
    )

  def _file_names(self, index: np.ndarray) -> str:
    return ', '.join(file_name(self._source, int(i)) for i in index)

  def _log(self, step: int, last: int, clock: _Clock) -> None:
    seconds, waiting, steps = clock.lap()
    if not self._window:  # every step was skipped
      return
    settings = self._experiment.settings
    mean = {k: float(np.mean([m[k] for m in self._window])) for k in self._window[0]}
    self._window = []
    rate = steps * settings.batch_size / seconds
    lr = float(
      self._schedule(step - 1 - int(self._skipped))
    )  # skipped steps do not advance the schedule
    scalars = {f'train/{k}': v for k, v in mean.items() if k not in ('finite', 'invalid')}
    scalars['train/learning_rate'] = lr
    if self._experiment.optim.apply_if_finite:
      scalars['train/skipped'] = self._skipped
    times = {'time/images_per_second': rate, 'time/waiting_for_data': waiting}
    self._journal.write(step, scalars | times)
    parts = [
      f'step {step}/{settings.num_steps}',
      f'loss {mean["loss"]:.4g}',
      f'lr {lr:.3g}',
      f'{rate:.3g} img/s',
      f'waiting for data {waiting:.0%}',
    ]
    if self._summary:
      name = _display_name(self._headline)
      parts.append(f'{name} {self._summary[self._headline]:.3f} (best {self._best:.3f})')
    parts.append(f'ETA {duration((last - step) * seconds / steps)}')
    self._journal.show(' . '.join(parts))

  def _evaluate_and_save_if_due(self, step: int, last: int, state: Any, clock: _Clock) -> None:
    """Evaluates, saves and calls the hooks where this step is due for it."""
    experiment = self._experiment
    at_evaluation = step % experiment.eval.every == 0 or step == experiment.settings.num_steps
    if not (at_evaluation or step % experiment.log.checkpoint_every == 0 or step == last):
      return
    self._check_last_step()
    with clock.paused():
      if self._population_pass:
        with self._times.part('evaluation'):
          statistics = self._population_pass(jax.device_get(state.variables))
        state = state.replace(batch_stats=statistics)
      if not at_evaluation:
        self._journal.save(step, state, None, self._window)
        return
      variables = jax.device_get(state.variables)
      with self._times.part('evaluation'):
        self._score(step, variables)
      self._journal.save(step, state, self._summary, self._window)
      self._journal.on_evaluation(step, variables, self._summary)

  def _score(self, step: int, variables: Any) -> None:
    self._summary = self._evaluate(variables)
    score = self._summary[self._headline]
    self._since_best = 0 if score > self._best else self._since_best + 1
    self._best = max(self._best, score)
    scalars = {k: v for k, v in self._summary.items() if isinstance(v, float)}
    self._journal.write(step, {f'eval/{k}': v for k, v in scalars.items()})
    numbers = ' . '.join(f'{k.replace("_", " ")} {v:.4f}' for k, v in scalars.items())
    split = self._experiment.settings.eval_split
    self._journal.say(f'evaluated {split} at step {step}: {numbers}')


def _display_name(score: str) -> str:
  return score.replace('_', ' ').replace('mean iou', 'mIoU').replace(' ap', ' AP')


class Signals:
  """While open, Ctrl-C, SIGTERM and SIGHUP only set `caught`, so that a run stops between two steps.
  An ignored SIGHUP (nohup) stays ignored.

  Attributes:
    caught: name of the first signal, None until then.
  """

  def __enter__(self) -> Signals:
    self.caught: str | None = None
    self._handlers = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
        continue
      with contextlib.suppress(
        ValueError
      ):  # not the main thread: signals are the caller's business
        self._handlers[number] = signal.signal(number, self._catch)
    return self

  def _catch(self, number, frame) -> None:
    self.caught = self.caught or signal.Signals(number).name  # the first decides the exit
    if number == signal.SIGHUP:
      detach_terminal()

  def __exit__(self, *_) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by C code


class _Clock:
  """Wall seconds since the last lap, the share of them spent waiting for data, and the steps done.

  Attributes:
    steps: since the last lap; incremented by the caller.
  """

  def __init__(self, batches):
    self._batches = batches
    self._time, self._waited, self.steps = time.perf_counter(), batches.waited_seconds, 0

  def lap(self) -> tuple[float, float, int]:
    now, waited = time.perf_counter(), self._batches.waited_seconds
    seconds = max(now - self._time, 1e-9)
    waiting = (waited - self._waited) / seconds
    steps, self.steps = self.steps, 0
    self._time, self._waited = now, waited
    return seconds, waiting, steps

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time spent inside (an evaluation, a save)."""
    begin = time.perf_counter()
    yield
    self._time += time.perf_counter() - begin
