"""A part of the benchmark in a separate process, so that threads and memory are not shared.

In one process with ours, PyTorch's training step took 1.4 times the CPU time that it takes alone.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxseg.types import UserError


class Process:
  """A proxy of an object in another process, which is idle between calls.

  Args:
    maker: 'module.name' of its factory, in this package.
    arguments: of the factory.

  Raises:
    UserError: raised by the factory or a method, or the process died.
  """

  def __init__(self, maker: str, *arguments: Any):
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, maker, arguments), daemon=True)
    self._process.start()
    theirs.close()
    self._receive()

  def __enter__(self) -> Process:
    return self

  def __exit__(self, *_) -> None:
    self._pipe.close()
    self._process.join()

  def call(self, name: str) -> Any:
    """Calls a method; returns its result, or its CPU seconds if that is None."""
    with _explained():
      self._pipe.send(name)
    return self._receive()

  def program(self, name: str) -> Callable[[], Any]:
    """Returns a function that calls the method of that name."""
    return lambda: self.call(name)

  def _receive(self) -> Any:
    with _explained():
      result = self._pipe.recv()
    if isinstance(result, UserError):
      raise result
    return result


@contextlib.contextmanager
def _explained() -> Iterator[None]:
  try:
    yield
  except (EOFError, BrokenPipeError, ConnectionResetError):
    raise UserError(
      'the process of the other side ended, for want of memory perhaps: a smaller --batch'
    ) from None


def _serve(pipe: Any, maker: str, arguments: tuple[Any, ...]) -> None:
  module, _, name = maker.partition('.')
  try:
    module = importlib.import_module(f'{__package__}.{module}')
    served = getattr(module, name)(*arguments)
    pipe.send(None)
    while True:
      method = getattr(served, pipe.recv())
      cpu = time.process_time()
      result = method()
      pipe.send(time.process_time() - cpu if result is None else result)
  except UserError as e:
    pipe.send(e)
  except EOFError:  # the other side has finished
    pass
