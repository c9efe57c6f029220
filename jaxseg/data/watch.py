"""Waiting for the threads that read: one that is stuck or dead is an error, never a hang."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from jaxseg.types import StuckError, UserError

_SLICE = 0.5  # seconds waited at once; time in which the whole process is stopped counts as one
patience = contextvars.ContextVar('patience', default=60.0)  # see `patient`


@contextlib.contextmanager
def patient(seconds: float) -> Iterator[None]:
  """Sets the patience of what is read inside: seconds without any item finished, 0 = for ever."""
  before = patience.set(seconds)
  try:
    yield
  finally:
    patience.reset(before)


class Progress:
  """Which items are being made, and how many are done; any number of threads may tell it.

  Args:
    name: what an item is called; default: 'example 5' of 5. It is asked for stuck items only, and may
      be stuck as well.
  """

  def __init__(self, name: Callable[[Any], str] | None = None):
    self._name = name
    self._open: dict[int, Any] = {}  # thread -> the item that it makes
    self.done = 0

  @contextlib.contextmanager
  def making(self, item: Any) -> Iterator[None]:
    """Wraps whatever reads and changes one item."""
    thread = threading.get_ident()
    self._open[thread] = item
    try:
      yield
    finally:
      del self._open[thread]
      self.done += 1

  def under_way(self) -> str:
    """Names the items that are being made, by their own names where these can be told at once."""
    items = list(self._open.copy().values())
    names: list[str] = []
    if self._name:
      asking = threading.Thread(target=lambda: names.extend(map(self._name, items)), daemon=True)
      asking.start()
      asking.join(1.0)
    if len(names) < len(items):
      names = [f'example {item}' for item in items]
    return ', '.join(sorted({str(name) for name in names})) or 'no example'

  def wait(self, attempt: Callable[[float], Any], timeout: float) -> Any:
    """Returns attempt(seconds), which raises TimeoutError or queue.Empty where that was too short.

    Raises:
      StuckError: no item was finished for `timeout` seconds (0: they are never too many).
    """
    waited, done = 0.0, self.done
    part = min(_SLICE, timeout / 2) or _SLICE
    while not timeout or waited < timeout:
      with contextlib.suppress(TimeoutError, queue.Empty):
        return attempt(part)
      waited = waited + part if self.done == done else 0.0
      done = self.done
    raise StuckError(
      f'no data for {timeout:g} s, with {self.under_way()} under way: is the disk or network that '
      'holds it alive? config.data_timeout is how long is waited, 0 = for ever'
    )


class Prefetched:
  """An iterator over batches that are made in the background, and how long it was waited for.

  Attributes:
    waited_seconds: time that `next` has spent waiting for batches since the start.
  """

  def __init__(self, iterator: Iterator):
    self._iterator = iterator
    self.waited_seconds = 0.0

  def __iter__(self) -> Prefetched:
    return self

  def __next__(self) -> dict:
    begin = time.perf_counter()
    try:
      return next(self._iterator)
    except Exception as error:  # the end (StopIteration) or a failure: either way it is over
      self.close()
      # Grain adds a remark of its own to whatever passes through it.
      error.__notes__ = [n for n in getattr(error, '__notes__', ()) if 'Grain' not in n]
      raise
    finally:
      self.waited_seconds += time.perf_counter() - begin

  def close(self) -> None:
    """Drops what is not yet made and lets the threads end; `next` finds the end from then on."""
    self._iterator, iterator = iter(()), self._iterator
    if hasattr(iterator, 'close'):
      iterator.close()


class Watched:
  """An iterator whose next item is made in a thread of its own and waited for with patience.

  Args:
    iterator: used by that thread alone, one item ahead.
    progress: told by whoever makes the examples.
    timeout: seconds without any example finished after which `next` gives up.

  `next` raises what the iterator raises; StuckError where nothing is finished any more; UserError
  where a worker wanted to end the process or was ended.
  """

  def __init__(self, iterator: Iterator, progress: Progress, timeout: float):
    self._progress, self._timeout = progress, timeout
    self._wanted: queue.SimpleQueue = queue.SimpleQueue()
    self._made: queue.SimpleQueue = queue.SimpleQueue()
    pump = (iterator, self._wanted, self._made)
    threading.Thread(target=_pump, args=pump, daemon=True, name='batches').start()
    self._end = weakref.finalize(self, self._wanted.put, False)
    self._wanted.put(True)

  def __iter__(self) -> Watched:
    return self

  def __next__(self) -> Any:
    item, error = self._progress.wait(lambda part: self._made.get(timeout=part), self._timeout)
    if error is None:
      self._wanted.put(True)
      return item
    if isinstance(error, Exception):
      raise error
    raise UserError(
      f'a thread that makes batches ended with {type(error).__name__}: {error}, with '
      f'{self._progress.under_way()} under way: a dataset must not end the process'
    ) from error

  def close(self) -> None:
    """Lets the thread end, after the item that it is making."""
    self._end()


def _pump(iterator: Iterator, wanted: queue.SimpleQueue, made: queue.SimpleQueue) -> None:
  """Knows nothing of the Watched, so that this thread ends when that is dropped."""
  while wanted.get():
    try:
      made.put((next(iterator), None))
    except BaseException as error:
      made.put((None, error))
  if hasattr(iterator, 'close'):
    iterator.close()
