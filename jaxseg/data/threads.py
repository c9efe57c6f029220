"""Work done in threads, in order, a few items ahead of whoever consumes it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jaxseg.data import watch


def started(
  function: Callable,
  items: Iterable[Any],
  *,
  name: Callable[[Any], str] | None = None,
  num_threads: int = 2,
  ahead: int = 2,
  timeout: float | None = None,
) -> Iterator[tuple[Any, Future]]:
  """Yields (item, future of function(item)) in the order of the items, each future being done.

  Args:
    function: reads, in a thread; what it raises comes out of the future.
    items: read as slowly as they are consumed.
    name: see watch.Progress.
    num_threads: that run it.
    ahead: how many items are begun before they are asked for; memory holds as many results.
    timeout: seconds without any item finished that are too many, 0 = none; default: watch.patience.

  Raises:
    StuckError: no item was finished for so long; the threads that are stuck stay behind.
  """
  timeout = watch.patience.get() if timeout is None else timeout
  progress = watch.Progress(name)

  def make(item: Any) -> Any:
    with progress.making(item):
      return function(item)

  def oldest() -> tuple[Any, Future]:
    item, future = waiting.popleft()
    progress.wait(future.exception, timeout)
    return item, future

  pool, waiting = ThreadPoolExecutor(num_threads), deque()
  try:
    for item in items:
      waiting.append((item, pool.submit(make, item)))
      if len(waiting) > ahead:
        yield oldest()
    while waiting:
      yield oldest()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # what is being read may never end


def results(function: Callable, items: Iterable[Any], **options: Any) -> Iterator[Any]:
  """Yields function(item) in the order of the items, or raises what it raises; see `started`.

  Many threads, far ahead unless `options` say otherwise: for results that are small.
  """
  threads = min(8, os.cpu_count() or 1)
  options = {'num_threads': threads, 'ahead': 4 * threads} | options
  return (future.result() for _, future in started(function, items, **options))


def examples(
  source: Any, indices: Iterable[int], *, timeout: float | None = None
) -> Iterator[dict]:
  """Yields source[i] for each index, by whose file a stuck one is named; see `started`."""
  name = getattr(source, 'file_name', None)
  options = dict(name=name, num_threads=2, ahead=2, timeout=timeout)
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
