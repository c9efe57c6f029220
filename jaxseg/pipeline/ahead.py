"""Work done in threads, in order, a few items ahead of whoever consumes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def started(
  function: Callable, items: Iterable[Any], *, num_threads: int = 2, ahead: int = 2
) -> Iterator[tuple[Any, Future]]:
  """Yields (item, future of function(item)) in the order of the items.

  Args:
    function: runs in a thread; what it raises comes out of the future.
    items: read as slowly as they are consumed.
    num_threads: that run it.
    ahead: how many items are begun before they are asked for; memory holds as many results.
  """
  with ThreadPoolExecutor(num_threads) as pool:
    waiting: deque = deque()
    try:
      for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > ahead:
          yield waiting.popleft()
      while waiting:
        yield waiting.popleft()
    finally:
      for _, future in waiting:
        future.cancel()


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
