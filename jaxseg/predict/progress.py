"""A progress line with rate and remaining time."""

from __future__ import annotations

import time

from jaxseg import console


class ProgressLine:
  """A line such as 'predicted 3/9 images . 1.5 img/s . ETA 4s', shown while the context is open.

  Args:
    verb: what is done to the images.
    total: number of images.
  """

  def __init__(self, verb: str, total: int):
    self._verb, self._total, self._progress = verb, total, console.Progress()
    self._start = time.perf_counter()

  def __enter__(self) -> ProgressLine:
    self._progress.__enter__()
    return self

  def __exit__(self, *error) -> None:
    self._progress.__exit__(*error)

  def __call__(self, done: float, note: str = '') -> None:
    """Updates the line, if due: the number of images done, perhaps fractional, and a `note`."""
    if not self._progress.is_due() and done < self._total:
      return
    rate = done / max(time.perf_counter() - self._start, 1e-9)
    rest = console.duration((self._total - done) / rate)
    fraction = f', {done % 1:.1%} of the next' if done % 1 else ''
    words = f'{self._verb} {int(done)}/{self._total} images{fraction}', f'{rate:.3g} img/s', note
    words = *words, f'ETA {rest}'
    self._progress.show(' . '.join(filter(None, words)))
