"""What launch/compile.py does: one program of a config compiled and explained, or a table of many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from jaxseg import config, files
from jaxseg.console import say
from jaxseg.tools import figures
from jaxseg.tools.benchmark import ours
from jaxseg.tools.compile import layers as each_layer
from jaxseg.tools.compile import table, topology
from jaxseg.tools.compile.program import Compiled, OutOfMemory, as_json, report
from jaxseg.tools.compile.unfinished import traced
from jaxseg.tools.examples import training_size
from jaxseg.tools.slices import Slice, slice_of
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

MODES = ('train', 'eval', 'predict')
LAYERS = ('ours', 'stock', 'each')


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
  price_per_chip_hour: float | None = None,
  minutes: float | None = None,
  memory_only: bool = False,
  show: table.Show | None = None,
) -> None:
  """Compiles one program and prints what the compiler says of it, or makes a table of many.

  Args:
    spec: of jaxseg.config.load, with `overrides`.
    every_baseline: a table of the configs' baselines; with `spec` it compiles this one alone.
    slices: names such as 'v5e-8'.
    modes: of MODES: the training step, or what evaluation or prediction runs.
    batch: images over all chips; default: the config's.
    size: (height, width) of the images; default: the training's.
    layers: 'ours', or 'stock': Flax's and lax's in place of ours; 'each': a table of every layer
      beside its namesake, in place of `spec`, of `batch` (8) images in bfloat16.
    program_file: where to write the compiled program, XLA's text.
    json_file: where to write the figures; a table goes on with what is missing there.
    price_per_chip_hour: adds what the training's steps cost, of all chips of the slice.
    minutes: after which a table begins no further program; None: all are compiled.
    memory_only: compile no further than the layout of the buffers: without cycles.
    show: of a table's name, head and rows; for `every_baseline`.

  Raises:
    UserError: options that do not go together; or the program does not fit, with what does.
  """
  _check('mode', modes, MODES)
  flag = 'memory-only --layers' if memory_only else 'layers'  # without estimates nothing compares
  _check(flag, [layers], LAYERS[:2] if memory_only else LAYERS)
  if [bool(spec) or every_baseline, layers == 'each'].count(True) != 1:
    raise UserError('give --config=FILE, or --all for every baseline, or --layers=each')
  rented = [slice_of(name) for name in slices]
  if every_baseline:
    scope = table.Scope(rented, modes, overrides, size, spec, memory_only)
    return table.fill(scope, json_file, minutes, show)
  figures.check_is_new(json_file)
  figures.check_is_new(program_file, 'program')
  topology.prepare()
  if layers == 'each':
    return figures.write(json_file, each_layer.table(rented[0], batch or 8, jnp.bfloat16))
  if len(rented) != 1 or len(modes) != 1:
    raise UserError('several of --topology or --mode are for --all only')
  overrides = [*overrides, *([f'batch_size={batch}'] if batch else [])]
  experiment = build.experiment(config.load(spec, overrides))
  target = experiment, rented[0], modes[0], size or training_size(experiment)
  found = _fitting(*target, stock_layers=layers == 'stock', memory_only=memory_only)
  say(*report(found.result, price_per_chip_hour))
  _write(found, program_file, json_file)


def _write(found: Compiled, program_file: str | None, json_file: str | None) -> None:
  if program_file:
    files.write_text(files.to_path(program_file), found.text)
  figures.write(json_file, as_json(found.result))


def _fitting(*target: Any, **kind: bool) -> Compiled:
  """unfinished.traced's program, compiled."""
  try:
    with traced(*target, **kind) as program:
      return program.compile()
  except OutOfMemory as error:
    raise UserError(f'{error}; {_what_fits(*target)}') from None


def _check(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
  for word in words:
    if word not in known:
      raise UserError(f'--{flag}={word}: choose of {", ".join(known)}')


def _what_fits(experiment: Experiment, rented: Slice, mode: str, size: tuple[int, int]) -> str:
  """Says which change makes it fit: the first, of those that keep most, with which it compiles."""
  for words, changed in _smaller(experiment, mode):
    try:
      with traced(changed, rented, mode, size, memory_only=True) as program:
        if program.compile().result.fits:
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
