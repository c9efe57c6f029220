"""The progress of long passes over files, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from jaxseg.console import overwrite, say

T = TypeVar('T')


def with_progress(title: str, items: Iterable[T], total: int) -> Iterator[T]:
  """Yields the items and reports progress: a live line on a terminal, else one every ten seconds."""
  live = sys.stderr.isatty()
  interval, shown = 0.1 if live else 10.0, time.monotonic()
  try:
    for done, item in enumerate(items, start=1):
      yield item
      if time.monotonic() - shown > interval:
        shown, line = time.monotonic(), f'{title}: {done} of {total}'
        overwrite(line) if live else say(line, error=True)
  finally:
    if live:
      overwrite()
