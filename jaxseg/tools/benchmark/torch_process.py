"""PyTorch's side in a process of its own: one side's threads and memory must not slow the other's.

Timed in one process, a training step here took 1.4 times the CPU time that it takes alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg.types import Batch, UserError


class TorchProcess:
  """`torch_side.Network`, or another part, behind a pipe; the process sleeps between two calls.

  Args:
    config: complete (jaxseg.config.load).
    batch: uint8 images [b,h,w,c] and labels [b,h,w]; or what the part takes.
    part: 'network'; 'detection', torch_detection.Operations.

  Raises:
    UserError: no PyTorch, or the config asks for what is not written in PyTorch.
  """

  def __init__(self, config: ConfigDict, batch: Batch, part: str = 'network'):
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    arguments = (theirs, configs.to_json(config), batch, part)
    self._process = context.Process(target=_serve, args=arguments, daemon=True)
    self._process.start()
    theirs.close()
    self._receive()

  def program(self, name: str) -> Callable[[], float]:
    """Returns what calls the part's method of that name, and returns the CPU seconds it took."""
    return lambda: self._call(name)

  def train(self) -> float:
    """One step; returns the CPU seconds it took."""
    return self._call('train')

  def infer(self) -> float:
    """Logits of the batch; returns the CPU seconds it took."""
    return self._call('infer')

  def peak_bytes(self) -> int:
    """The GPU allocator's peak."""
    return self._call('peak_bytes')

  def _call(self, name: str) -> Any:
    with _told_of_its_end():
      self._pipe.send(name)
    return self._receive()

  def _receive(self) -> Any:
    with _told_of_its_end():
      result = self._pipe.recv()
    if isinstance(result, UserError):
      raise result
    return result


@contextlib.contextmanager
def _told_of_its_end() -> Iterator[None]:
  try:
    yield
  except (EOFError, BrokenPipeError, ConnectionResetError):
    raise UserError(
      "PyTorch's process ended, for want of memory perhaps: a smaller --batch"
    ) from None


def _serve(pipe: Any, config: str, batch: Batch, part: str) -> None:
  try:
    settings = configs.from_json(config)
    network = _maker(part, settings)(settings, batch)
  except UserError as e:
    pipe.send(e)
    return
  pipe.send(None)
  while True:
    try:
      name = pipe.recv()
    except EOFError:  # the other side is done
      return
    cpu = time.process_time()
    result = getattr(network, name)()
    pipe.send(time.process_time() - cpu if result is None else result)


def _maker(part: str, config: ConfigDict) -> Callable:
  from jaxseg.tools.benchmark import torch_side

  if part == 'network':
    return torch_side.of(config)
  torch_side.import_torch()
  from jaxseg.tools.benchmark import torch_detection

  return torch_detection.Operations
