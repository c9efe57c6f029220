"""PyTorch's side in a process of its own: one side's threads and memory must not slow the other's.

Timed in one process, a training step here took 1.4 times the CPU time that it takes alone.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg.types import Batch, UserError


class TorchProcess:
  """`torch_side.Network` behind a pipe; the process sleeps between two calls.

  Args:
    config: complete (jaxseg.config.load).
    batch: uint8 images [b,h,w,c] and labels [b,h,w].

  Raises:
    UserError: no PyTorch, or the config asks for what is not written in PyTorch.
  """

  def __init__(self, config: ConfigDict, batch: Batch):
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    arguments = (theirs, configs.to_json(config), batch)
    self._process = context.Process(target=_serve, args=arguments, daemon=True)
    self._process.start()
    theirs.close()
    self._receive()

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
    self._pipe.send(name)
    return self._receive()

  def _receive(self) -> Any:
    try:
      result = self._pipe.recv()
    except EOFError:
      raise UserError(
        "PyTorch's process ended, for want of memory perhaps: a smaller --batch"
      ) from None
    if isinstance(result, UserError):
      raise result
    return result


def _serve(pipe: Any, config: str, batch: Batch) -> None:
  from jaxseg.benchmark import torch_side

  try:
    network = torch_side.Network(configs.from_json(config), batch)
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
