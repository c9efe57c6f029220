"""What launch/benchmark.py does: measures the parts asked for, prints lines, returns one dict."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxseg import files
from jaxseg.data.loader import train_batches
from jaxseg.data.views import Remembered
from jaxseg.tools.benchmark import detection, footprint, hours, needs, ours, timing, torch_side
from jaxseg.tools.benchmark.process import Process
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

MODES = ('train', 'infer', 'memory', 'input', 'loop')
TABLES = ('fit', 'hours', 'spatial', 'detection')  # modes that are measured alone
COMPARE = ('torch', 'flax')
_FIRST_READ = 50  # images


def run(
  config: Mapping[str, Any],
  *,
  modes: Sequence[str] = (),
  compare: Sequence[str] = (),
  batches: Sequence[int] = (),
  sizes: Sequence[tuple[int, int]] = (),
  trials: int = 5,
  steps: int = 20,
  matmul_side: int = 0,
  utilisation: float = 0.3,
  price_per_chip_hour: float | None = None,
  json_file: str | None = None,
) -> dict[str, Any]:
  """Measures and prints.

  Args:
    config: of jaxseg.config.load.
    modes: of MODES, or one of TABLES; () is all of MODES that the data allow.
    compare: of COMPARE, what to time in turn with ours.
    batches: images a step, default config.batch_size; several only for the mode 'fit'.
    sizes: (height, width) of the images, default those of the training.
    trials: rounds of which medians are taken.
    steps: training steps of the loop, and batches of the input alone.
    matmul_side: of the matrix product whose rate is the yardstick; 0: enough to fill the device.
    utilisation, price_per_chip_hour: see `hours.table`.
    json_file: where to write what is returned.

  Returns:
    Everything measured, by mode; seconds, bytes, images and FLOPs, never scaled.

  Raises:
    UserError: an unknown mode or comparison, a size the network cannot take, data that is missing.
  """
  _check('mode', modes, (*MODES, *TABLES))
  _check('compare', compare, COMPARE)
  if 'torch' in compare:
    torch_side.check_installed()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # both sides share one GPU
  experiment = build.experiment(config)
  build.set_up_jax(experiment.settings)
  batches = tuple(batches) or (experiment.settings.batch_size,)
  table = next((name for name in TABLES if name in modes), None)
  if table != 'fit' and max(len(batches), len(sizes)) > 1:
    raise UserError('several of --batch or --crop are for --mode=fit only')
  sizes = tuple(sizes) or (_training_size(experiment),)
  one = ours.changed(
    experiment, batch_size=batches[0], augment=_cropped(experiment.config['augment'], sizes[0])
  )
  prices = dict(utilisation=utilisation, price=price_per_chip_hour)
  tables = {
    'fit': lambda: needs.fit_table(experiment, batches, sizes),
    'hours': lambda: hours.table(one, sizes[0], **prices),
    'spatial': lambda: needs.spatial_table(one, sizes[0]),
    'detection': lambda: detection.table(one, sizes[0], torch='torch' in compare, trials=trials),
  }
  if table:
    result = {table: tables[table]()}
  else:
    result = Session(one, sizes[0], compare, trials, steps, matmul_side).run(modes)
  if json_file:
    files.write_text(files.place(json_file), json.dumps(result, indent=2) + '\n')
  return result


def _check(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
  for word in words:
    if word not in known:
      raise UserError(f'--{flag}={word}: choose from {", ".join(known)}')


def _cropped(augment: Sequence[tuple[str, dict]], size: tuple[int, int]) -> tuple:
  """Returns the transforms with a crop of this size."""
  steps = [(name, {**o, 'size': size} if name == 'crop' else o) for name, o in augment]
  return (*steps, *(() if 'crop' in dict(steps) else (('crop', {'size': size}),)))


def _training_size(experiment: Experiment) -> tuple[int, int]:
  """(height, width) of a training image: of its crop, else what the transforms make of the first."""
  crop = dict(experiment.config['augment']).get('crop')
  if crop:
    return tuple(crop['size'])
  example = experiment.source(experiment.data.train_split)[0]
  for transform in experiment.transforms:
    example = transform(example, np.random.default_rng(0))
  return tuple(example['image'].shape[:2])


@dataclasses.dataclass
class Session:
  """One experiment at one shape; the attributes are those of `run`."""

  experiment: Experiment
  size: tuple[int, int]
  compare: Sequence[str] = ()
  trials: int = 5
  steps: int = 20
  matmul_side: int = 0

  def __post_init__(self):
    self._workload = ours.Workload(self.experiment, self.size)
    self._devices = list(self._workload.wrapper.devices)
    self._batch_size = self.experiment.settings.batch_size

  @functools.cached_property
  def _torch(self) -> Process:
    return Process('torch_side.make', self.experiment.config, self._workload.batch)

  def run(self, modes: Sequence[str] = ()) -> dict[str, Any]:
    """Measures the modes; all, but those whose data are missing, where none is given."""
    result = {'setting': self._describe()}
    for mode in modes or MODES:
      try:
        result[mode] = getattr(self, f'measure_{mode}')()
      except UserError as e:
        if modes or mode not in ('input', 'loop'):
          raise
        print(f'{mode:9} not measured: {e}')
    result['bottleneck'] = bottleneck(result)
    print(f'{"limit":9} {result["bottleneck"]}')
    return result

  def _describe(self) -> dict[str, Any]:
    load, workload = os.getloadavg()[0], self._workload
    options = dict(self.experiment.config['model'])
    dtype, (b, h, w, c) = self.experiment.settings.dtype, workload.shape
    print(f'network   {self.experiment.name}, {workload.parameters:,} parameters')
    print(f'shape     {b} x {h}x{w}x{c}, {dtype}, {workload.wrapper.describe()}')
    print(f'machine   {os.cpu_count()} cores, load {load:.1f} before the start')
    return {
      'model': options.pop('name'),
      'model_options': options,
      'shape': workload.shape,
      'dtype': dtype,
      'parameters': workload.parameters,
      'devices': workload.wrapper.describe(),
      'jax': jax.__version__,
      'load_average': load,
    }

  def measure_train(self) -> dict[str, Any]:
    return self._compute('train')

  def measure_infer(self) -> dict[str, Any]:
    return self._compute('infer')

  def _compute(self, mode: str) -> dict[str, Any]:
    """Times a step or an inference in turn with the other sides and the matrix product."""
    dtype = self.experiment.settings.dtype
    program = getattr(self._workload, f'{mode}_program')()
    kinds = zip(('arguments', 'temporary', 'new'), program.bytes.values(), strict=True)
    parts = ' + '.join(f'{name} {_mebibytes(count)}' for name, count in kinds)
    print(f'{mode:9} compiled in {program.compile_seconds:.1f} s; a device needs {parts}')
    programs = {'ours': program.call}
    if 'torch' in self.compare:
      programs['torch'] = self._torch.program(mode)
    if 'flax' in self.compare:
      stock = ours.Workload(self.experiment, self.size, stock_layers=True)
      programs['flax'] = getattr(stock, f'{mode}_program')().call
    matmul, products = timing.matmul(self._devices, dtype, self.matmul_side)
    times = timing.in_turn({**programs, 'matmul': matmul}, self.trials)
    rate = products / times['matmul'].wall
    flops = ours.flops(self.experiment, self.size, train=mode == 'train')
    utilisation = flops / times['ours'].wall / rate
    images = {side: self._batch_size / times[side].wall for side in programs}
    for side in programs:
      line = timing.line(times[side], times['ours'])
      print(f'{mode:9} {side:5} {images[side]:8.4g} images/s, {line}')
    print(
      f'{"":9} {flops / 1e9:.4g} GFLOP, {utilisation:.0%} of the {rate / 1e9:,.0f} GFLOP/s of a '
      f'{dtype} matrix product in the same run'
    )
    return {
      'compile_seconds': program.compile_seconds,
      **program.bytes,
      'devices': program.devices,
      **timing.record(times, tuple(programs)),
      'images_per_second': images,
      'flops': flops,
      'matmul_flops_per_second': rate,
      'utilisation': utilisation,
      'allocator_peak_bytes': timing.device_peak_bytes(self._devices[0]),
    }

  def measure_memory(self) -> dict[str, Any]:
    """On a CPU in processes of their own; elsewhere the allocators' peaks of the training above."""
    if self._devices[0].platform == 'cpu':
      sides = ('ours', *self.compare)
      peaks = {side: footprint.measure(side, self.experiment, self.size) for side in sides}
    else:
      bytes_of = {'ours': timing.device_peak_bytes(self._devices[0])}
      if 'torch' in self.compare:
        bytes_of['torch'] = self._torch.call('peak_bytes')
      peaks = {
        side: {'peak_bytes': peak, 'steps_peak_bytes': peak} for side, peak in bytes_of.items()
      }
    for side, peak in peaks.items():
      first, steps = map(_mebibytes, peak.values())
      print(f'memory    {side:5} peak {first}, once compiled {steps}')
    return peaks

  def measure_input(self) -> dict[str, float]:
    """Reading, decoding and augmenting alone, once all is remembered that can be."""
    source, batches = self._batches()
    count, images = min(len(source), _FIRST_READ), self.steps * self._batch_size
    first, first_cpu = _clocked(lambda i: source[i], count)
    next(batches)
    wall, cpu = _clocked(lambda i: next(batches), self.steps)
    batches.close()
    print(
      f'input     {images / wall:.4g} images/s, {images / cpu:.4g} per CPU-second; '
      f'read for the first time {count / first_cpu:.4g} per CPU-second'
    )
    return {
      'images_per_second': images / wall,
      'images_per_cpu_second': images / cpu,
      'first_read_images_per_second': count / first,
      'first_read_images_per_cpu_second': count / first_cpu,
    }

  def measure_loop(self) -> dict[str, float]:
    """The training loop without its records: input and step together."""
    _, batches = self._batches()
    step, state, key = self._workload.loop_step()

    def advance(state):
      batch = dict(next(batches))
      del batch['index']
      return step(state, self._workload.wrapper.place_batch(batch), key)

    state, metrics = advance(state)
    jax.block_until_ready(metrics)
    begin, waited = time.perf_counter(), batches.waited_seconds
    pending = None
    for _ in range(self.steps):
      state, metrics = advance(state)
      jax.device_get(pending)  # as in train/loop.py, one step behind
      pending = metrics
    jax.block_until_ready((state, metrics))
    wall = time.perf_counter() - begin
    waiting = (batches.waited_seconds - waited) / wall
    batches.close()
    rate = self.steps * self._batch_size / wall
    print(f'loop      {rate:.4g} images/s, waiting for data {waiting:.1%}')
    return {'images_per_second': rate, 'waiting': waiting}

  def _batches(self):
    settings, data = self.experiment.settings, self.experiment.data
    source = Remembered(self.experiment.source(data.train_split), data.memory_mb << 20)
    return source, train_batches(
      source,
      self.experiment.transforms,
      seed=settings.seed,
      batch_size=settings.batch_size,
      num_threads=data.num_threads,
      replacement=data.replacement,
    )


def _clocked(function, count: int) -> tuple[float, float]:
  """Calls a function with 0, 1, ...; returns wall and CPU seconds, a little above 0."""
  wall, cpu = time.perf_counter(), time.process_time()
  for i in range(count):
    function(i)
  return max(time.perf_counter() - wall, 1e-9), max(time.process_time() - cpu, 1e-9)


def bottleneck(result: Mapping[str, Any]) -> str:
  """Names in one line what to improve first, from what has been measured."""
  waiting = result.get('loop', {}).get('waiting', 0.0)
  train = result.get('train') or result.get('infer')
  if waiting > 0.05:
    return (
      f'the input: the step waits for data {waiting:.0%} of the time; raise config.data.num_threads'
    )
  if train is None:
    return 'not known: measure --mode=train too'
  data, device = (
    result.get('input', {}).get('images_per_second'),
    train['images_per_second']['ours'],
  )
  if data is not None and data < device:
    return f'the input: {data:.4g} images/s, where the device takes {device:.4g}'
  share = train['utilisation']
  if share >= 0.5:
    return f'the matrix units: {share:.0%} of their measured rate'
  return (
    f'the device, but not its matrix units ({share:.0%} of their measured rate): memory traffic, '
    'small operations, or a batch too small'
  )


def _mebibytes(count: int | None) -> str:
  return 'unknown' if count is None else f'{count / 2**20:,.0f} MiB'
