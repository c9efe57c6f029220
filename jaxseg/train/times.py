"""Splits the wall time of a run into parts, and traces some of its steps."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxseg import files
from jaxseg.console import duration
from jaxseg.types import UserError

PARTS = ('compile', 'steps', 'waiting_for_data', 'evaluation', 'saving', 'figures')
_COMPILING = '/jax/core/compile/'  # prefix of JAX's events for tracing, lowering and compiling


class Times:
  """Splits wall time into PARTS; the rest, such as reading labels before training, is 'other'.

  While it is open, every second of the thread that opened it counts once, for the innermost open part;
  but the time that JAX spends on tracing and compiling always counts as 'compile'.
  """

  def __enter__(self) -> Times:
    self._begin = self._charged_until = time.perf_counter()
    self._seconds, self._open = dict.fromkeys(PARTS, 0.0), ['other']
    self._programs: list[tuple[float, float]] = []  # (begin, seconds), none inside another
    self._thread = threading.get_ident()
    jax.monitoring.register_event_duration_secs_listener(self._compiled)
    return self

  def __exit__(self, *_) -> None:
    jax.monitoring.unregister_event_duration_listener(self._compiled)

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Counts the time spent inside as this part."""
    self._charge_open_part()
    self._open.append(name)
    try:
      yield
    finally:
      self._charge_open_part()
      self._open.pop()

  def seconds(self) -> dict[str, float]:
    """Returns 'wall', the seconds since the start, and PARTS and 'other', which add up to it."""
    now = self._charge_open_part()
    parts = {name: round(self._seconds[name], 3) for name in PARTS}
    wall = round(now - self._begin, 3)
    return {'wall': wall, **parts, 'other': round(wall - sum(parts.values()), 3)}

  def _charge_open_part(self) -> float:
    now = time.perf_counter()
    self._add(self._open[-1], now - self._charged_until)
    self._charged_until = now
    return now

  def _add(self, name: str, seconds: float) -> None:
    self._seconds[name] = self._seconds.get(name, 0.0) + seconds

  def _compiled(self, event: str, seconds: float, **_: Any) -> None:
    """Moves an event that has just ended to 'compile', less nested events, which are there already."""
    if not event.startswith(_COMPILING) or threading.get_ident() != self._thread:
      return
    begin, new = self._charge_open_part() - seconds, seconds
    while self._programs and self._programs[-1][0] >= begin:
      new -= self._programs.pop()[1]
    self._programs.append((begin, seconds))
    self._add('compile', new)
    self._add(self._open[-1], -new)


def total(sessions: Iterable[Mapping[str, Any]]) -> dict[str, float]:
  """Sums the seconds of a run's starts in run.json; {} if none has any."""
  known = [session['seconds'] for session in sessions if session.get('seconds')]
  names = ('wall', *PARTS, 'other') if known else ()
  return {name: sum(seconds.get(name, 0.0) for seconds in known) for name in names}


def describe(seconds: Mapping[str, float], starts: int) -> str:
  """Says where the time went, the largest part first."""
  wall = seconds['wall'] or 1.0
  parts = sorted(((v / wall, k) for k, v in seconds.items() if k != 'wall'), reverse=True)
  shares = ', '.join(f'{name.replace("_", " ")} {share:.0%}' for share, name in parts)
  return f'{duration(seconds["wall"])}{f" in {starts} starts" if starts > 1 else ""}: {shares}'


class Profile:
  """Writes a trace of some steps for XProf (`xprof --logdir=FOLDER`).

  Args:
    steps: (first, last), counted from 1; None: no trace.
    folder: gets plugins/profile/TIME/HOST.xplane.pb.
    todo: the steps that this start will run.

  Raises:
    UserError: steps outside `todo`, or a folder in a bucket.
  """

  def __init__(
    self, steps: tuple[int, int] | None = None, folder: Path = Path(), todo: range = range(0)
  ):
    self._first, self._last = steps or (0, 0)
    self._folder, self._begun = folder, False
    if steps and not (todo and todo[0] <= self._first <= self._last <= todo[-1]):
      ahead = f'steps {todo[0]} to {todo[-1]} are' if todo else 'no step is'
      raise UserError(
        f'--profile={self._first}:{self._last}: {ahead} still to do; give the first and the last to trace'
      )
    if steps and files.is_remote(folder):
      raise UserError(f'--profile writes to a local disk only, not to {folder}')

  def __enter__(self) -> Profile:
    return self

  def __exit__(self, *_) -> None:
    if self._begun:
      jax.profiler.stop_trace()

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Wraps a step, including the wait for its data."""
    if not self._first <= number <= self._last:
      yield
      return
    if not self._begun:
      jax.profiler.start_trace(str(self._folder))
      self._begun = True
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      yield

  def end(self, number: int, result: Any) -> str:
    """After the last traced step, waits for its result and ends the trace; returns a line for the user."""
    if number != self._last or not self._begun:
      return ''
    jax.block_until_ready(result)
    jax.profiler.stop_trace()
    self._begun = False
    return f'profile   steps {self._first} to {self._last}: {self._folder}'
