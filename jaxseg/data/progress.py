"""How far a long pass over files is, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')

_ERASE = '\r\x1b[K'


def counted(title: str, items: Iterable[T], total: int) -> Iterator[T]:
  """Yields the items and tells how many are done: a live line on a terminal, else one in ten seconds."""
  live = sys.stderr.isatty()
  interval, shown = 0.1 if live else 10.0, time.monotonic()
  try:
    for done, item in enumerate(items, start=1):
      yield item
      if time.monotonic() - shown > interval:
        shown, line = time.monotonic(), f'{title}: {done} of {total}'
        print(f'{_ERASE}{line}' if live else f'{line}\n', end='', file=sys.stderr, flush=True)
  finally:
    if live:
      print(_ERASE, end='', file=sys.stderr, flush=True)
