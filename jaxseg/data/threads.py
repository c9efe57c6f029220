"""Ordered, prefetched results from threads; a stuck or dead thread raises an error instead of hanging."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jaxseg.types import StuckError

_SLICE = 0.5  # seconds per wait; a suspension of the whole process counts as one
_limit = contextvars.ContextVar('limit', default=60.0)  # see `time_limit`


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Sets the default timeout of reading inside: seconds without any finished item, 0 = none."""
  before = _limit.set(seconds)
  try:
    yield
  finally:
    _limit.reset(before)


class Activity:
  """Tracks which items threads are working on, and how many are done.

  Args:
    name: returns an item's name; default: 'example 5' for 5. Only called for stuck items, and may get
      stuck itself.
  """

  def __init__(self, name: Callable[[Any], str] | None = None):
    self._name = name
    self._items: dict[int, Any] = {}  # thread -> its item
    self._done = 0

  @contextlib.contextmanager
  def track(self, item: Any) -> Iterator[None]:
    """Marks an item as in progress."""
    thread = threading.get_ident()
    self._items[thread] = item
    try:
      yield
    finally:
      del self._items[thread]
      self._done += 1

  def in_progress(self) -> str:
    """Names the items in progress, by number if their names take longer than a second."""
    items = list(self._items.copy().values())
    names: list[str] = []
    if self._name:
      asking = threading.Thread(target=lambda: names.extend(map(self._name, items)), daemon=True)
      asking.start()
      asking.join(1.0)
    if len(names) < len(items):
      names = [f'example {item}' for item in items]
    return ', '.join(sorted({str(name) for name in names})) or 'no example'

  def wait(self, future: Future, timeout: float) -> None:
    """Waits until the future is done.

    Raises:
      StuckError: no item was finished for `timeout` seconds (0: never raised).
    """
    waited, done = 0.0, self._done
    part = min(_SLICE, timeout / 2) or _SLICE
    while not timeout or waited < timeout:
      with contextlib.suppress(TimeoutError):
        future.exception(part)
        return
      waited = waited + part if self._done == done else 0.0
      done = self._done
    raise StuckError(
      f'no data for {timeout:g} s, with {self.in_progress()} under way: is the disk or network that '
      'holds it alive? config.data.timeout is how long is waited, 0 = for ever'
    )


def futures(
  function: Callable,
  items: Iterable[Any],
  *,
  name: Callable[[Any], str] | None = None,
  num_threads: int = 2,
  prefetch: int = 2,
  timeout: float | None = None,
) -> Iterator[tuple[Any, Future]]:
  """Yields (item, finished future of function(item)) in the order of the items.

  Args:
    function: runs in a thread; its errors are raised by the future's result.
    items: iterated lazily, as results are consumed.
    name: see Activity.
    num_threads: number of threads.
    prefetch: number of items started ahead, whose results are held in memory.
    timeout: seconds without any finished item, 0 = none; default: `time_limit`.

  Raises:
    StuckError: no item was finished in this time; stuck threads are abandoned.
  """
  timeout = _limit.get() if timeout is None else timeout
  activity = Activity(name)

  def make(item: Any) -> Any:
    with activity.track(item):
      return function(item)

  def oldest() -> tuple[Any, Future]:
    item, future = waiting.popleft()
    activity.wait(future, timeout)
    return item, future

  pool, waiting = ThreadPoolExecutor(num_threads), deque()
  try:
    for item in items:
      waiting.append((item, pool.submit(make, item)))
      if len(waiting) > prefetch:
        yield oldest()
    while waiting:
      yield oldest()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # a running read may never end


def results(function: Callable, items: Iterable[Any], **options: Any) -> Iterator[Any]:
  """Yields function(item) in the order of the items, or raises its error; see `futures`.

  By default with many threads and much prefetching: for small results.
  """
  threads = min(8, os.cpu_count() or 1)
  options = {'num_threads': threads, 'prefetch': 4 * threads} | options
  return (future.result() for _, future in futures(function, items, **options))


def examples(
  source: Any, indices: Iterable[int], *, timeout: float | None = None
) -> Iterator[dict]:
  """Yields source[i] for each index; errors name a stuck one's file. See `futures`."""
  name = getattr(source, 'file_name', None)
  options = dict(name=name, num_threads=2, prefetch=2, timeout=timeout)
  return results(source.__getitem__, indices, **options)


class Backlog:
  """Runs jobs in the background, at most `most` pending at a time.

  As a context manager it waits for all of them; a job's error is raised by the next `submit` or at the
  end.
  """

  def __init__(self, num_threads: int = 2, most: int = 4):
    self._pool, self._most = ThreadPoolExecutor(num_threads), most
    self._waiting: deque[Future] = deque()

  def __enter__(self) -> Backlog:
    return self

  def submit(self, function: Callable, *arguments: Any) -> None:
    """Starts function(*arguments), after waiting for the oldest job if too many are pending."""
    while len(self._waiting) >= self._most:
      self._waiting.popleft().result()
    self._waiting.append(self._pool.submit(function, *arguments))

  def __exit__(self, kind, *_) -> None:
    try:
      while self._waiting and kind is None:
        self._waiting.popleft().result()
    finally:
      self._pool.shutdown(cancel_futures=True)
