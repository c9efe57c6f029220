"""The journal of a run: log, checkpoints and hooks, on the first host only."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxseg.console import Progress
from jaxseg.train.build import Experiment
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.run_folder import Classes, record_times
from jaxseg.train.times import Times, describe, total
from jaxseg.train.writer import Writer
from jaxseg.types import StuckError


@dataclasses.dataclass(frozen=True)
class RunView:
  """What hooks see of a run.

  Attributes:
    experiment: the trained one.
    folder: of the run.
    source: the evaluation split.
    classes: of the data.
    writer: its `picture(step, name, array)` adds a picture to TensorBoard.
    progress: its `say(line)` prints a line.
  """

  experiment: Experiment
  folder: Path
  source: Any
  classes: Classes
  writer: Writer
  progress: Progress

  def say(self, line: str) -> None:
    self.progress.say(line)


class Hook(Protocol):
  """Shows a run, for example in figures or a report; called on the first host only.

  An optional `remedy` says what to do when the hook failed.
  """

  def on_evaluation(self, run: RunView, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Called after each evaluation, once its checkpoint is saved."""

  def on_end(self, run: RunView) -> None:
    """Called once everything is written."""


class Journal:
  """Log, checkpoints and hooks of the first host.

  Args:
    run: passed to the hooks.
    checkpoints: save the state.
    times: of this start, written at every save.
    hooks: called in order; their errors become warnings and do not stop training.
    step: of the initial state.
  """

  def __init__(
    self,
    run: RunView,
    checkpoints: Checkpoints,
    times: Times,
    hooks: Iterable[Hook] = (),
    step: int = 0,
  ):
    self._run, self._checkpoints, self._hooks = run, checkpoints, tuple(hooks)
    self._times, self._steps = times, (step, step)
    self.window = checkpoints.window(step) if step else []

  def say(self, line: str) -> None:
    """Prints a permanent line."""
    self._run.progress.say(line)

  def show(self, line: str) -> None:
    """Updates the live line."""
    self._run.progress.show(line)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    self._run.writer.write(step, scalars)

  def save(
    self,
    step: int,
    state: Any,
    scores: dict[str, Any] | None,
    window: Sequence[dict[str, float]],
  ) -> None:
    """Saves a checkpoint, after flushing the log; see Checkpoints.save."""
    with self._times.part('saving'):
      self._run.writer.sync()
      self._checkpoints.save(step, state, scores, window=window)
    self._steps = self._steps[0], step
    self._record()

  def on_evaluation(self, step: int, variables: Any, summary: dict[str, Any]) -> None:
    with self._times.part('figures'):
      for hook in self._hooks:
        self._call(
          hook, f'at step {step}', lambda h: h.on_evaluation(self._run, step, variables, summary)
        )

  def wait(self) -> None:
    """Waits until every checkpoint is on disk."""
    with self._times.part('saving'):
      self._checkpoints.wait()

  def on_end(self, *, show: bool = True) -> None:
    """Closes log and checkpoints, calls the hooks if `show`, and prints where the time went."""
    with self._times.part('saving'):
      self._checkpoints.wait()
      self._checkpoints.close()
      self._run.writer.close()
    self._record()
    with self._times.part('figures'):
      for hook in self._hooks if show else ():
        self._call(hook, 'at the end', lambda h: h.on_end(self._run))
    sessions = self._record()
    self.say(f'time      {describe(total(sessions), len(sessions))}')

  def _record(self) -> list[dict[str, Any]]:
    return record_times(self._run.folder, self._times.seconds(), self._steps)

  def _call(self, hook: Hook, when: str, call: Callable[[Hook], None]) -> None:
    try:
      call(hook)
    except StuckError:  # its thread is still running: see jaxseg.console.run
      raise
    except Exception as e:
      name, reason = type(hook).__name__.lower(), ' '.join(str(e).split())[:160]
      remedy = getattr(hook, 'remedy', '')
      self.say(f'warning: no {name} {when}: {type(e).__name__}: {reason}{remedy and f"; {remedy}"}')


class NoJournal:
  """The journal of all other hosts: writes and prints nothing."""

  window: Sequence[dict[str, float]] = ()

  def say(self, line: str) -> None:
    pass

  def show(self, line: str) -> None:
    pass

  def write(self, step: int, scalars: dict[str, float]) -> None:
    pass

  def save(self, step: int, state: Any, scores: Any, window: Any) -> None:
    pass

  def on_evaluation(self, step: int, variables: Any, summary: dict[str, Any]) -> None:
    pass

  def wait(self) -> None:
    pass

  def on_end(self, *, show: bool = True) -> None:
    pass
