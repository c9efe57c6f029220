"""Ctrl-C and SIGTERM as a flag, so that a run stops between two steps and not inside one."""

from __future__ import annotations

import signal


class Interruptible:
  """While it is open, Ctrl-C and SIGTERM only set `by`, to the signal's name; None until then."""

  def __enter__(self) -> Interruptible:
    self.by: str | None = None
    self._previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
      try:
        self._previous[number] = signal.signal(number, self._note)
      except ValueError:  # not the main thread: whoever runs us has its own way to stop
        pass
    return self

  def _note(self, number, frame) -> None:
    self.by = signal.Signals(number).name

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not Python's
