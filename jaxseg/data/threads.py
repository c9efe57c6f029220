"""Work in threads: results in order, some of them ahead; a stuck or dead thread is an error, no hang."""

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

_SLICE = 0.5  # seconds waited at once; time in which the whole process is stopped counts as one
_limit = contextvars.ContextVar('limit', default=60.0)  # see `time_limit`


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Sets the timeout of what is read inside: seconds without any item finished, 0 = for ever."""
  before = _limit.set(seconds)
  try:
    yield
  finally:
    _limit.reset(before)


class Activity:
  """Which items threads are making, and how many are done.

  Args:
    name: what an item is called; default: 'example 5' of 5. It is asked for stuck items only, and
      may be stuck as well.
  """

  def __init__(self, name: Callable[[Any], str] | None = None):
    self._name = name
    self._items: dict[int, Any] = {}  # thread -> the item that it makes
    self._done = 0

  @contextlib.contextmanager
  def making(self, item: Any) -> Iterator[None]:
    """Wraps whatever reads and changes one item."""
    thread = threading.get_ident()
    self._items[thread] = item
    try:
      yield
    finally:
      del self._items[thread]
      self._done += 1

  def under_way(self) -> str:
    """Names the items that are being made, by number where their names do not come at once."""
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
    """Returns once the future is done.

    Raises:
      StuckError: no item was finished for `timeout` seconds (0: they are never too many).
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
      f'no data for {timeout:g} s, with {self.under_way()} under way: is the disk or network that '
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
  """Yields (item, future of function(item)) in the order of the items, each future being done.

  Args:
    function: reads, in a thread; what it raises comes out of the future.
    items: read as slowly as they are consumed.
    name: see Activity.
    num_threads: that run it.
    prefetch: how many items are begun before they are asked for; memory holds as many results.
    timeout: seconds without any item finished that are too many, 0 = none; default: `time_limit`.

  Raises:
    StuckError: no item was finished for so long; the threads that are stuck stay behind.
  """
  timeout = _limit.get() if timeout is None else timeout
  activity = Activity(name)

  def make(item: Any) -> Any:
    with activity.making(item):
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
    pool.shutdown(wait=False, cancel_futures=True)  # what is being read may never end


def results(function: Callable, items: Iterable[Any], **options: Any) -> Iterator[Any]:
  """Yields function(item) in the order of the items, or raises what it raises; see `futures`.

  Many threads, far ahead unless `options` say otherwise: for results that are small.
  """
  threads = min(8, os.cpu_count() or 1)
  options = {'num_threads': threads, 'prefetch': 4 * threads} | options
  return (future.result() for _, future in futures(function, items, **options))


def examples(
  source: Any, indices: Iterable[int], *, timeout: float | None = None
) -> Iterator[dict]:
  """Yields source[i] for each index, by whose file a stuck one is named; see `futures`."""
  name = getattr(source, 'file_name', None)
  options = dict(name=name, num_threads=2, prefetch=2, timeout=timeout)
  return results(source.__getitem__, indices, **options)


class Backlog:
  """Jobs that end in the background, at most `most` of them at a time.

  As a context, it waits for all of them; what one raises is raised by the next `submit` or at the
  end.
  """

  def __init__(self, num_threads: int = 2, most: int = 4):
    self._pool, self._most = ThreadPoolExecutor(num_threads), most
    self._waiting: deque[Future] = deque()

  def __enter__(self) -> Backlog:
    return self

  def submit(self, function: Callable, *arguments: Any) -> None:
    """Starts function(*arguments); waits for the oldest job first where there are too many."""
    while len(self._waiting) >= self._most:
      self._waiting.popleft().result()
    self._waiting.append(self._pool.submit(function, *arguments))

  def __exit__(self, kind, *_) -> None:
    try:
      while self._waiting and kind is None:
        self._waiting.popleft().result()
    finally:
      self._pool.shutdown(cancel_futures=True)
