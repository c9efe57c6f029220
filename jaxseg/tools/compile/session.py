"""What launch/compile.py does: compiles a config's programs for a slice, says what they need and cost."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxseg import config, files
from jaxseg.report.tables import baselines
from jaxseg.tools.benchmark import ours
from jaxseg.tools.benchmark.collectives import collectives
from jaxseg.tools.compile import account, topology
from jaxseg.tools.compile import layers as each_layer
from jaxseg.tools.slices import Slice, slice_of
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

MODES = ('train', 'eval', 'predict')
_DEAREST = 10


@dataclasses.dataclass(frozen=True)
class Result:
  """One program on one slice; counts are of one chip.

  Attributes:
    batch: images over all chips.
    needed_bytes: arguments, results and what lies in between, at once.
    flops: counted on the program before optimisation.
    cycles: by the compiler's estimates, operations without one by their bytes; see account.
    unestimated_cycles: the share of these.
    layers: cycles of the dearest layers, largest first.
    exchanged: bytes by kind of collective.
  """

  slice: str
  mode: str
  batch: int
  chips: int
  size: tuple[int, int]
  needed_bytes: int
  flops: float
  cycles: float
  unestimated_cycles: float
  layers: dict[str, float]
  exchanged: dict[str, int]
  compile_seconds: float

  @property
  def seconds(self) -> float:
    return self.cycles / slice_of(self.slice).chip.clock

  @property
  def share_of_peak(self) -> float:
    return self.flops / self.seconds / slice_of(self.slice).chip.flops

  @property
  def fits(self) -> bool:
    return self.needed_bytes <= slice_of(self.slice).chip.memory


def run(
  spec: str | None,
  overrides: Sequence[str] = (),
  *,
  every_baseline: bool = False,
  slices: Sequence[str],
  modes: Sequence[str] = ('train',),
  batch: int | None = None,
  size: tuple[int, int] | None = None,
  layers: str = 'ours',
  program_file: str | None = None,
  json_file: str | None = None,
) -> None:
  """Compiles one program and prints what the compiler says of it, or a table of many.

  Args:
    spec: of jaxseg.config.load, with `overrides`.
    every_baseline: a table of the configs' baselines in place of `spec`.
    slices: names such as 'v5e-8'.
    modes: of MODES: the training step, or what evaluation or prediction runs.
    batch: images over all chips; default: the config's.
    size: (height, width) of the images; default: the training's.
    layers: 'ours', or 'stock': Flax's and lax's in place of ours; 'each': a table of every layer
      beside its namesake, in place of `spec`, of `batch` (8) images in bfloat16.
    program_file: where to write the compiled program, XLA's text.
    json_file: where to write the figures; a table goes on with what is missing there.

  Raises:
    UserError: options that do not go together; or the program does not fit, with what does.
  """
  _check('mode', modes, MODES)
  _check('layers', [layers], ('ours', 'stock', 'each'))
  if [bool(spec), every_baseline, layers == 'each'].count(True) != 1:
    raise UserError('give --config=FILE, or --all for every baseline, or --layers=each')
  rented = [slice_of(name) for name in slices]
  topology.prepare()
  if layers == 'each':
    rows = each_layer.table(rented[0], batch or 8, jnp.bfloat16)
    if json_file:
      _write_json(json_file, rows)
    return
  if every_baseline:
    table(rented, modes, overrides, json_file, size)
    return
  if len(rented) != 1 or len(modes) != 1:
    raise UserError('several of --topology or --mode are for --all only')
  experiment = build.experiment(config.load(spec, overrides))
  size = size or training_size(experiment)
  experiment = ours.changed(experiment, batch_size=batch or experiment.settings.batch_size)
  target = (rented[0], modes[0], size)
  try:
    program = compiled(experiment, *target, stock_layers=layers == 'stock')
  except OutOfMemory as error:
    raise UserError(f'{error}; {_what_fits(experiment, *target)}') from None
  for line in report(program.result):
    print(line)
  if program_file:
    files.write_text(files.place(program_file), program.text)
  if json_file:
    _write_json(json_file, as_json(program.result))


def _check(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
  for word in words:
    if word not in known:
      raise UserError(f'--{flag}={word}: choose of {", ".join(known)}')


def _write_json(json_file: str, figures: Any) -> None:
  files.write_text(files.place(json_file), json.dumps(figures, indent=2) + '\n')


def as_json(result: Result) -> dict[str, Any]:
  """Returns the attributes, with seconds, share_of_peak and 'estimated': everything but bytes and FLOPs."""
  derived = {'seconds': result.seconds, 'share_of_peak': result.share_of_peak}
  return {**dataclasses.asdict(result), **derived, 'estimated': True}


class Compiled(NamedTuple):
  """What is known of a program, and its text."""

  result: Result
  text: str


class OutOfMemory(Exception):
  """The program needs more memory than a chip has."""


def training_size(experiment: Experiment) -> tuple[int, int]:
  """Returns (height, width) of a training image.

  Raises:
    UserError: neither the config nor the data at hand say it.
  """
  config = experiment.config
  steps = dict(config['augment'])
  sizes = (steps.get('crop', {}).get('size'), steps.get('pad', {}).get('size'))
  known = next((size for size in (*sizes, config['data'].get('image_size')) if size), None)
  if known:
    return tuple(known)
  try:
    return tuple(experiment.source(experiment.data.train_split)[0]['image'].shape[:2])
  except UserError as error:
    raise UserError(f'give --crop=HEIGHT,WIDTH, for the images are not at hand: {error}') from None


def compiled(
  experiment: Experiment,
  rented: Slice,
  mode: str,
  size: tuple[int, int],
  *,
  stock_layers: bool = False,
) -> Compiled:
  """Compiles for the slice.

  Raises:
    OutOfMemory: the program does not fit a chip.
  """
  chips = topology.devices(rented)
  workload = ours.Workload(experiment, size, stock_layers=stock_layers, devices=chips)
  begin = time.perf_counter()
  if mode == 'train':
    lowered = workload.lower_train()
  else:
    lowered = workload.lower_infer(workload.predict_step(maps=mode == 'predict'))
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error) and 'out of memory' not in str(error):
      raise
    used = re.search(r'\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)', str(error))
    needs = f'{used.group(1)} of the {used.group(2)} there are' if used else 'too much memory'
    raise OutOfMemory(f'{_title(experiment, rented, mode, size)} needs {needs} on a chip') from None
  seconds, text, memory = time.perf_counter() - begin, program.as_text(), program.memory_analysis()
  needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
  layers: dict[str, float] = collections.Counter()
  unestimated = 0.0
  for operation in account.operations(text):
    cycles = operation.estimate(rented.chip)
    layers[operation.layer] += cycles
    unestimated += cycles if operation.cycles is None else 0
  exchanged: dict[str, int] = collections.Counter()
  for one in collectives(text):
    exchanged[one.kind] += one.bytes
  busy = len(workload.wrapper.devices)
  result = Result(
    rented.name,
    mode,
    workload.shape[0],
    busy,
    tuple(size),
    needed,
    ours.flops(experiment, size, train=mode == 'train') / busy,
    sum(layers.values()),
    unestimated,
    dict(sorted(layers.items(), key=lambda item: -item[1])[:_DEAREST]),
    dict(exchanged),
    seconds,
  )
  return Compiled(result, text)


def report(result: Result) -> Iterator[str]:
  """Yields what is known of a program, in lines; every figure of time says that it is an estimate."""
  chip = slice_of(result.slice).chip
  yield (
    f'{result.mode}: {result.batch} x {result.size[0]}x{result.size[1]} on {result.chips} of the '
    f'chips of {result.slice} (compiled in {result.compile_seconds:.0f} s)'
  )
  verdict = 'fits' if result.fits else 'does not fit'
  yield f'memory    {result.needed_bytes / 2**30:.2f} of {chip.memory >> 30} GiB a chip: {verdict}'
  yield (
    f"time      {result.seconds * 1e3:.2f} ms, {result.cycles / 1e6:.2f} M cycles (the compiler's "
    f'estimate; {result.unestimated_cycles / result.cycles:.0%} of it bounded by bytes)'
  )
  yield (
    f'work      {result.flops / 1e9:.1f} GFLOP a chip, {result.share_of_peak:.1%} of its peak in '
    'bfloat16 (estimated)'
  )
  sent = ', '.join(f'{kind} {n / 2**20:.2f} MiB' for kind, n in sorted(result.exchanged.items()))
  yield f'exchanged {sent or "nothing"}'
  yield 'dearest layers, in M cycles (estimated):'
  for layer, cycles in result.layers.items():
    yield f'  {cycles / 1e6:8.2f}  {cycles / result.cycles:4.0%}  {layer}'


def _title(experiment: Experiment, rented: Slice, mode: str, size: tuple[int, int]) -> str:
  batch = experiment.settings.batch_size
  return f'{experiment.name}, {mode} of {batch} x {size[0]}x{size[1]} on {rented.name}:'


def _what_fits(experiment: Experiment, rented: Slice, mode: str, size: tuple[int, int]) -> str:
  """Says which change makes it fit: the first, of those that keep most, with which it compiles."""
  for words, changed in _smaller(experiment, mode):
    try:
      if compiled(changed, rented, mode, size).result.fits:
        return f'it fits with {words}'
    except OutOfMemory:
      continue
  return (
    'nothing tried fits: take a smaller --crop, or split rows, as --config.mesh=data:1,spatial:4'
  )


def _smaller(experiment: Experiment, mode: str) -> Iterator[tuple[str, Experiment]]:
  settings, batch = experiment.settings, experiment.settings.batch_size
  if mode == 'train':
    if not experiment.config['model'].get('remat', True):
      yield '--config.model.remat=True', ours.changed(experiment, {'remat': True})
    accumulate = 2 * settings.accumulate
    while experiment.task.weights_from_labels and accumulate <= batch:
      if batch % accumulate == 0:
        words = f'--config.accumulate={accumulate}'
        yield words, ours.changed(experiment, accumulate=accumulate)
      accumulate *= 2
  while batch > 1:
    batch //= 2
    yield f'--batch={batch}', ours.changed(experiment, batch_size=batch)


def table(
  slices: Sequence[Slice],
  modes: Sequence[str],
  overrides: Sequence[str] = (),
  json_file: str | None = None,
  size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
  """Compiles the baselines of configs/, and prints a table in Markdown; see `run`."""
  rows = files.read_json(files.place(json_file)) if _exists(json_file) else []
  done = {tuple(row[name] for name in _KEYS): row for row in rows}
  print('estimates of the TPU compiler, nothing was run\n')
  print('| config | mode | slice | images | chips busy | GiB a chip | ms (estimated) | of peak |')
  print('|---|---|---|---|---|---|---|---|')
  specs = [spec for spec, _ in baselines('configs')]
  for spec, rented, mode in itertools.product(specs, slices, modes):
    key = spec, rented.name, mode
    if key not in done:
      done[key] = _row(spec, overrides, rented, mode, size) | dict(zip(_KEYS, key, strict=True))
      if json_file:
        _write_json(json_file, list(done.values()))
    print(_line(done[key]), flush=True)
  return list(done.values())


_KEYS = ('config', 'slice', 'mode')


def _exists(json_file: str | None) -> bool:
  return bool(json_file) and files.place(json_file).exists()


def _row(
  spec: str,
  overrides: Sequence[str],
  rented: Slice,
  mode: str,
  size: tuple[int, int] | None,
) -> dict[str, Any]:
  try:
    experiment = build.experiment(config.load(spec, overrides))
    batch = experiment.settings.batch_size
    if rented.busy(batch) is None:
      return {'problem': f'{rented.hosts} hosts cannot share {batch} images'}
    return as_json(compiled(experiment, rented, mode, size or training_size(experiment)).result)
  except (UserError, OutOfMemory) as error:
    return {'problem': str(error)}


def _line(row: Mapping[str, Any]) -> str:
  begin = f'| {row["config"]} | {row["mode"]} | {row["slice"]} '
  if 'problem' in row:
    return f'{begin}| {row["problem"]} | | | | |'
  return (
    f'{begin}| {row["batch"]} x {"x".join(map(str, row["size"]))} | {row["chips"]} '
    f'| {row["needed_bytes"] / 2**30:.2f} | {row["seconds"] * 1e3:.1f} | {row["share_of_peak"]:.0%} |'
  )
