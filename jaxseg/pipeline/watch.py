"""Waiting for the threads that make batches: one that is stuck or dead is an error, never a hang."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from jaxseg.types import StuckError, UserError

_SLICE = 0.5  # seconds waited at once; time in which the whole process is stopped counts as one


class Progress:
  """Which examples are being made, and how many are done; any number of threads may tell it."""

  def __init__(self, source: Any = None):
    self._source = source
    self._open: dict[int, int] = {}  # thread -> the example that it makes
    self.done = 0

  @contextlib.contextmanager
  def making(self, index: int) -> Iterator[None]:
    """Wraps whatever reads and changes one example."""
    thread = threading.get_ident()
    self._open[thread] = index
    try:
      yield
    finally:
      del self._open[thread]
      self.done += 1

  def under_way(self) -> str:
    """Names the examples that are being made, by their files where these can be told at once."""
    indices = sorted(set(self._open.copy().values()))
    names: list[str] = []
    ask = getattr(self._source, 'file_name', None)
    if ask:  # it may have to read, and be stuck as well
      asking = threading.Thread(target=lambda: names.extend(map(ask, indices)), daemon=True)
      asking.start()
      asking.join(1.0)
    if len(names) < len(indices):
      names = [f'example {index}' for index in indices]
    return ', '.join(map(str, names)) or 'no example'


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
    item, error = self._wait()
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

  def _wait(self) -> tuple[Any, BaseException | None]:
    waited, done = 0.0, self._progress.done
    part = min(_SLICE, self._timeout / 2)
    while waited < self._timeout:
      with contextlib.suppress(queue.Empty):
        return self._made.get(timeout=part)
      waited = waited + part if self._progress.done == done else 0.0
      done = self._progress.done
    raise StuckError(
      f'no data for {self._timeout:g} s, with {self._progress.under_way()} under way: is the disk or '
      'network that holds it alive? config.data_timeout is how long is waited, 0 = for ever'
    )


def _pump(iterator: Iterator, wanted: queue.SimpleQueue, made: queue.SimpleQueue) -> None:
  """Knows nothing of the Watched, so that this thread ends when that is dropped."""
  while wanted.get():
    try:
      made.put((next(iterator), None))
    except BaseException as error:
      made.put((None, error))
  if hasattr(iterator, 'close'):
    iterator.close()
