"""A config's program compiled for a slice: what it needs and costs by the compiler's account, in lines."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxseg.tools.benchmark import ours
from jaxseg.tools.benchmark.collectives import collectives
from jaxseg.tools.compile import account, topology
from jaxseg.tools.slices import Slice, slice_of
from jaxseg.train.build import Experiment
from jaxseg.train.devices.compiled import compile_with
from jaxseg.types import UserError

_DEAREST = 10
_TOTAL = re.compile(r'^Memory Space: default.*\nTotal bytes: (\d+)', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Result:
  """One program on one slice; counts are of one chip.

  Attributes:
    batch: images over all chips.
    needed_bytes: arguments, results and what lies in between, at once.
    flops: counted on the program before optimisation.
    cycles: by the compiler's estimates, operations without one by their bytes; see account. None: it was
      stopped before it makes any.
    unestimated_cycles: those counted by bytes.
    layers: cycles of the dearest layers, largest first.
    exchanged: bytes by kind of collective.
    num_steps: of the whole training; None in the other modes.
  """

  slice: str
  mode: str
  batch: int
  chips: int
  size: tuple[int, int]
  needed_bytes: int
  flops: float
  cycles: float | None
  unestimated_cycles: float | None
  layers: dict[str, float]
  exchanged: dict[str, int]
  compile_seconds: float
  num_steps: int | None

  @property
  def seconds(self) -> float | None:
    return None if self.cycles is None else self.cycles / slice_of(self.slice).chip.clock

  @property
  def hours(self) -> float | None:
    """Of all training steps; evaluation, compilation and waiting for data come on top."""
    unknown = self.num_steps is None or self.seconds is None
    return None if unknown else self.num_steps * self.seconds / 3600

  @property
  def share_of_peak(self) -> float | None:
    return self.seconds and self.flops / self.seconds / slice_of(self.slice).chip.flops

  @property
  def fits(self) -> bool:
    return self.needed_bytes <= slice_of(self.slice).chip.memory


def as_json(result: Result) -> dict[str, Any]:
  """Returns the attributes, with seconds, hours, share_of_peak and 'estimated': everything but bytes and FLOPs."""
  derived = {name: getattr(result, name) for name in ('seconds', 'hours', 'share_of_peak')}
  return {**dataclasses.asdict(result), **derived, 'estimated': True}


class Compiled(NamedTuple):
  """What is known of a program, and its text."""

  result: Result
  text: str


class OutOfMemory(Exception):
  """The program needs more memory than a chip has."""


@dataclasses.dataclass(frozen=True)
class Lowered:
  """A program that is traced and not compiled yet.

  Attributes:
    title: what it is, for messages.
    workload: whose program.
    lowered: of JAX.
    rented: the slice.
    taken: the slice that its busy chips are.
    mode: 'train', 'eval' or 'predict'.
    flops: of all chips, where they are known; None: they are counted.
  """

  title: str
  workload: ours.Workload
  lowered: jax.stages.Lowered
  rented: Slice
  taken: Slice
  mode: str
  flops: float | None = None

  @property
  def digest(self) -> str:
    """Of the text and options that the compiler gets: configs whose programs are the same have the same."""
    text = self.lowered.as_text() + str(self._options or '')
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @property
  def _options(self) -> Mapping[str, Any]:
    plain = self.mode == 'predict' or self.rented.hosts > 1  # as these are run
    return {} if plain else self.workload.wrapper.options

  @property
  def num_steps(self) -> int | None:
    return self.workload.experiment.settings.num_steps if self.mode == 'train' else None

  def compile(self) -> Compiled:
    """Compiles for the slice, with the options that it is run with.

    Raises:
      OutOfMemory: the program does not fit a chip.
      UserError: the compiler refuses it for a part of the slice.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
      text = self.compile_into(Path(folder)).as_text()
      needed = needed_bytes(Path(folder))
    return self.explained(text, needed, time.perf_counter() - begin)

  def compile_into(self, folder: Path) -> jax.stages.Compiled:
    """Does so, and makes the compiler write what it knows to files in a folder."""
    try:
      return compile_with(self.lowered, self._options, {'xla_dump_to': str(folder)})
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error) and 'out of memory' not in str(error):
        self._check_whole()
        raise
      used = re.search(r'\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)', str(error))
      needs = f'{used.group(1)} of the {used.group(2)} there are' if used else 'too much memory'
      raise OutOfMemory(f'{self.title} needs {needs} on a chip') from None

  def _check_whole(self) -> None:
    busy, chips = len(self.workload.wrapper.devices), self.taken.chips
    if busy < chips:
      raise UserError(
        f'{self.title} the compiler refuses {busy} of {chips} chips: take a --batch that keeps all busy'
      ) from None

  def explained(self, text: str, needed_bytes: int, compile_seconds: float) -> Compiled:
    """Returns what is known of the program that was made of this one."""
    layers: dict[str, float] = collections.Counter()
    unestimated = 0.0
    for operation in account.operations(text):
      cycles = operation.estimate(self.rented.chip)
      layers[operation.layer] += cycles
      unestimated += cycles if operation.cycles is None else 0
    exchanged: dict[str, int] = collections.Counter()
    for one in collectives(text):
      exchanged[one.kind] += one.bytes
    (batch, *size, _), busy = self.workload.shape, len(self.workload.wrapper.devices)
    flops = self.flops or ours.flops(
      self.workload.experiment, tuple(size), train=self.mode == 'train'
    )
    result = Result(
      self.rented.name,
      self.mode,
      batch,
      busy,
      tuple(size),
      needed_bytes,
      flops / busy,
      sum(layers.values()),
      unestimated,
      dict(sorted(layers.items(), key=lambda item: -item[1])[:_DEAREST]),
      dict(exchanged),
      compile_seconds,
      self.num_steps,
    )
    return Compiled(result, text)


def needed_bytes(folder: Path) -> int | None:
  """Returns a chip's memory by the compiler's report in a folder of its files; None: there is none yet.

  `memory_analysis` of older libtpu (0.0.42) leaves out what lies in between arguments and results.
  """
  for path in folder.glob('*memory-usage-report.txt'):
    if total := _TOTAL.search(path.read_text()):
      return int(total.group(1))
  return None


def lowered(
  experiment: Experiment,
  rented: Slice,
  mode: str,
  size: tuple[int, int],
  *,
  stock_layers: bool = False,
  flops: float | None = None,
) -> Lowered:
  """Traces a config's program for the slice: mode 'train', 'eval' or 'predict'; flops as in Lowered."""
  taken = _taken(experiment, rented)
  chips = topology.devices(taken)
  workload = ours.Workload(experiment, size, stock_layers=stock_layers, devices=chips)
  if mode == 'train':
    program = workload.lower_train()
  else:
    program = workload.lower_infer(workload.predict_step(maps=mode == 'predict'))
  title = _title(experiment, rented, mode, size)
  return Lowered(title, workload, program, rented, taken, mode, flops)


def _taken(experiment: Experiment, rented: Slice) -> Slice:
  """Returns what the batch keeps busy: for a part of a larger slice the compiler refuses some programs."""
  settings = experiment.settings
  busy = rented.busy(settings.batch_size // settings.accumulate)
  return rented if settings.mesh or busy is None else rented.part(busy)


def _title(experiment: Experiment, rented: Slice, mode: str, size: tuple[int, int]) -> str:
  batch = experiment.settings.batch_size
  return f'{experiment.name}, {mode} of {batch} x {size[0]}x{size[1]} on {rented.name}:'


def report(result: Result, price_per_chip_hour: float | None = None) -> Iterator[str]:
  """Yields what is known of a program, in lines; every figure of time says that it is an estimate."""
  chip = slice_of(result.slice).chip
  yield (
    f'{result.mode}: {result.batch} x {result.size[0]}x{result.size[1]} on {result.chips} of the '
    f'chips of {result.slice} (compiled in {result.compile_seconds:.0f} s)'
  )
  verdict = 'fits' if result.fits else 'does not fit'
  yield f'memory    {result.needed_bytes / 2**30:.2f} of {chip.memory >> 30} GiB a chip: {verdict}'
  if result.cycles is not None:
    yield (
      f"time      {result.seconds * 1e3:.2f} ms, {result.cycles / 1e6:.2f} M cycles (the compiler's "
      f'estimate; {result.unestimated_cycles / result.cycles:.0%} of it bounded by bytes)'
    )
  share = (
    f', {result.share_of_peak:.1%} of its peak in bfloat16 (estimated)' if result.cycles else ''
  )
  yield f'work      {result.flops / 1e9:.1f} GFLOP a chip{share}'
  if result.hours is not None:
    yield _training(result, price_per_chip_hour)
  sent = ', '.join(f'{kind} {n / 2**20:.2f} MiB' for kind, n in sorted(result.exchanged.items()))
  yield f'exchanged {sent or "nothing"}'
  if result.layers:
    yield 'dearest layers, in M cycles (estimated):'
  for layer, cycles in result.layers.items():
    yield f'  {cycles / 1e6:8.2f}  {cycles / result.cycles:4.0%}  {layer}'


def _training(result: Result, price_per_chip_hour: float | None) -> str:
  cost = ''
  if price_per_chip_hour is not None:
    chip_hours = result.hours * slice_of(result.slice).chips
    cost = f', {price_per_chip_hour * chip_hours:,.2f} for all chips'
  return f'training  {result.num_steps:,} steps: {in_hours(result.hours)} hours (estimated){cost}'


def in_hours(hours: float) -> str:
  """Returns two digits, or whole hours from ten on."""
  return f'{hours:.2g}' if hours < 10 else f'{hours:,.0f}'
