"""A program's memory without its machine code, in a process that ends when the compiler has laid out the buffers.

To make machine code is nine tenths of the compiler's work or more, and only then does it estimate cycles. What
it knows before, it writes to files when it is asked to: the program with its layouts, and the memory's use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jaxseg import config as configs
from jaxseg.tools.compile import topology
from jaxseg.tools.compile.program import Compiled, Lowered, OutOfMemory, lowered, needed_bytes
from jaxseg.tools.slices import Slice
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.types import UserError


@contextlib.contextmanager
def traced(
  experiment: Experiment,
  rented: Slice,
  mode: str,
  size: tuple[int, int],
  *,
  memory_only: bool = False,
  **options: Any,
) -> Iterator[Lowered | Unfinished]:
  """program.lowered, or with `memory_only` what is compiled no further than the layout of its buffers."""
  if not memory_only:
    yield lowered(experiment, rented, mode, size, **options)
    return
  program = Unfinished((configs.plain(experiment.config), rented, mode, size), options)
  try:
    yield program
  finally:
    program.close()


class Died(UserError):
  """The process ended without an answer, which says nothing of the program."""


class Unfinished:
  """As program.Lowered, in a process of its own that does not compile it to the end.

  Attributes:
    digest, taken, num_steps: as there.
  """

  def __init__(self, target: tuple, options: Mapping[str, Any]):
    processes = multiprocessing.get_context('spawn')
    self._folder = tempfile.TemporaryDirectory()
    self._answers, there = processes.Pipe()
    self._process = processes.Process(
      target=_serve, args=(there, Path(self._folder.name), target, options), daemon=True
    )
    self._process.start()
    there.close()
    try:
      self.digest, self.taken, self.num_steps = self._answer()
    except BaseException:
      self.close()
      raise

  def compile(self) -> Compiled:
    """Compiles until the buffers are laid out; the result has no cycles.

    Raises:
      OutOfMemory, UserError: as program.Lowered.compile.
    """
    return self._answer('compile')

  def close(self) -> None:
    """Ends the process, whatever it is at."""
    self._process.kill()
    self._process.join()
    self._folder.cleanup()

  def _answer(self, question: str = '') -> Any:
    try:
      if question:
        self._answers.send(question)
      answer = self._answers.recv()
    except (EOFError, ConnectionError):
      raise Died('the compiler ended without an answer; what it said stands above') from None
    if isinstance(answer, Exception):
      raise answer
    return answer


def _serve(answers: Connection, folder: Path, target: tuple, options: Mapping[str, Any]) -> None:
  """What the process does: answers about the traced program and, when asked, about the compiled one."""
  config, *target = target
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends this process
  try:
    topology.prepare()
    program = lowered(build.experiment(config), *target, **options)
    answers.send((program.digest, program.taken, program.num_steps))
    answers.recv()
    answers.send(_laid_out(program, folder))
  except (UserError, OutOfMemory) as error:
    answers.send(error)


def _laid_out(program: Lowered, folder: Path) -> Compiled:
  ended: list[Exception | None] = []

  def compile_to_the_end():
    try:
      program.compile_into(folder)
      ended.append(None)
    except Exception as error:  # raised where it is waited for
      ended.append(error)

  begin = time.perf_counter()
  threading.Thread(target=compile_to_the_end, daemon=True).start()
  while True:
    last = bool(ended)  # before looking: then whatever will be there is there
    needed, text = needed_bytes(folder), _program(folder)
    if needed and text:
      break
    if last:
      raise ended[0] or UserError('this libtpu does not write what it knows of memory (XLA_FLAGS?)')
    time.sleep(0.1)
  found = program.explained(text, needed, time.perf_counter() - begin)
  no_time = dict(cycles=None, unestimated_cycles=None, layers={})
  return Compiled(dataclasses.replace(found.result, **no_time), text)


def _program(folder: Path) -> str:
  """Returns the program with its layouts; '' while it is not written to its last brace."""
  for path in folder.glob('*after_optimizations_after_buffer_assignment.txt'):
    text = path.read_text()
    _, entry, rest = text.rpartition('ENTRY ')  # the last of its functions
    return text if entry and rest.rstrip().endswith('\n}') else ''
  return ''
