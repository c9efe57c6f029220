"""What launch/benchmark.py does: measures the parts asked for, prints lines, returns one dict."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg.data.loader import train_batches
from jaxseg.data.views import remember
from jaxseg.tools.benchmark import detection, fit, footprint, hours, ours, rows, timing, torch_side
from jaxseg.tools.benchmark.torch_process import TorchProcess
from jaxseg.train import build
from jaxseg.types import UserError

MODES = ('train', 'infer', 'memory', 'input', 'loop')
COMPARE = ('torch', 'flax')


@dataclasses.dataclass(frozen=True)
class Options:
  """How to measure.

  Attributes:
    modes: of MODES; () is all that the config allows.
    compare: of COMPARE, what to time in turn with ours.
    trials: rounds of which medians are taken.
    steps: training steps of the whole loop, and batches of the input alone.
    matmul_side: of the matrix product whose rate is the yardstick; 0: enough to fill the device.
    utilisation, price_per_chip_hour: see `hours.table`.
  """

  modes: Sequence[str] = ()
  compare: Sequence[str] = ()
  trials: int = 5
  steps: int = 20
  matmul_side: int = 0
  utilisation: float = 0.3
  price_per_chip_hour: float | None = None


def run(
  config: ConfigDict,
  *,
  batches: Sequence[int] = (),
  sizes: Sequence[tuple[int, int]] = (),
  json_file: str | None = None,
  options: Options = Options(),
) -> dict[str, Any]:
  """Measures and prints.

  Args:
    config: complete and locked (jaxseg.config.load).
    batches: images a step, default config.batch_size; several only for the mode 'fit'.
    sizes: (height, width) of the images, default config.crop or those of the training set.
    json_file: where to write what is returned.

  Returns:
    Everything measured, by mode; seconds, bytes, images and FLOPs, never scaled.

  Raises:
    UserError: an unknown mode or comparison, a size the network cannot take, data that is missing.
  """
  for name, chosen, known in (
    ('mode', options.modes, (*MODES, 'fit', 'hours', 'spatial', 'detection')),
    ('compare', options.compare, COMPARE),
  ):
    for word in chosen:
      if word not in known:
        raise UserError(f'--{name}={word}: choose from {", ".join(known)}')
  if 'torch' in options.compare:
    torch_side.check_installed()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # both sides share one GPU
  config = config.copy_and_resolve_references()
  build.set_up_jax(config)
  batches = tuple(batches) or (config.batch_size,)
  sizes = tuple(sizes) or (_size(config),)
  if 'fit' in options.modes:
    result = {'fit': fit.table(config, batches, sizes)}
  elif len(batches) > 1 or len(sizes) > 1:
    raise UserError('several of --batch or --crop are for --mode=fit only')
  else:
    config.batch_size = batches[0]
    if sizes[0] != tuple(config.crop):
      config.crop = sizes[0]
    result = _one(config, sizes[0], options)
  if json_file:
    path = Path(json_file)
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    part.replace(path)
  return result


def _one(config: ConfigDict, size: tuple[int, int], options: Options) -> dict[str, Any]:
  if 'hours' in options.modes:
    assumed = dict(utilisation=options.utilisation, price=options.price_per_chip_hour)
    return {'hours': hours.table(config, size, **assumed)}
  if 'spatial' in options.modes:
    return {'spatial': rows.table(config, size)}
  if 'detection' in options.modes:
    sides = dict(torch='torch' in options.compare, trials=options.trials)
    return {'detection': detection.table(config, size, **sides)}
  return _Session(config, size, options).run()


def _size(config: ConfigDict) -> tuple[int, int]:
  """(height, width) of a training image: config.crop, else what the transforms make of the first."""
  if config.crop:
    return tuple(config.crop)
  example = build.source_from(config, config.train_split)[0]
  for transform in build.transforms_from(config):
    example = transform(example, np.random.default_rng(0))
  return tuple(example['image'].shape[:2])


class _Session:
  """One config at one shape."""

  def __init__(self, config: ConfigDict, size: tuple[int, int], options: Options):
    self._config, self._size, self._options = config, size, options
    self._network = ours.Network(config, size)
    self._devices = list(self._network.wrapper.devices)
    self._torch: TorchProcess | None = None
    self._result: dict[str, Any] = {}

  def run(self) -> dict[str, Any]:
    config, network = self._config, self._network
    load = os.getloadavg()[0]
    self._result['setting'] = {
      'model': config.model,
      'model_options': config.model_options.to_dict(),
      'shape': network.shape,
      'dtype': config.dtype,
      'parameters': network.parameters,
      'devices': network.wrapper.describe(),
      'jax': jax.__version__,
      'load_average': load,
    }
    words = ', '.join(f'{k}={v}' for k, v in config.model_options.items())
    print(f'network   {config.model}({words}), {network.parameters:,} parameters')
    b, h, w, c = network.shape
    print(f'shape     {b} x {h}x{w}x{c}, {config.dtype}, {network.wrapper.describe()}')
    print(f'machine   {os.cpu_count()} cores, load {load:.1f} before the start')
    for mode in self._options.modes or MODES:
      try:
        getattr(self, f'_{mode}')()
      except UserError as e:
        if self._options.modes or mode not in ('input', 'loop'):
          raise
        print(f'{mode:9} not measured: {e}')
    self._result['bottleneck'] = bottleneck(self._result)
    print(f'{"limit":9} {self._result["bottleneck"]}')
    return self._result

  def _train(self) -> None:
    self._compute('train')

  def _infer(self) -> None:
    self._compute('infer')

  def _compute(self, mode: str) -> None:
    """Times a step or an inference in turn with the other sides and the matrix product."""
    config, options = self._config, self._options
    program = getattr(self._network, f'{mode}_program')()
    record = {
      'compile_seconds': program.compile_seconds,
      'argument_bytes': program.argument_bytes,
      'temporary_bytes': program.temporary_bytes,
      'output_bytes': program.output_bytes,
      'devices': program.devices,
    }
    needs = ' + '.join(
      f'{name} {_bytes(getattr(program, f"{word}_bytes"))}'
      for name, word in (('arguments', 'argument'), ('temporary', 'temporary'), ('new', 'output'))
    )
    print(f'{mode:9} compiled in {program.compile_seconds:.1f} s; a device needs {needs}')
    matmul, products = timing.matmul(self._devices, config.dtype, options.matmul_side)
    programs = {'ours': program.call}
    if 'torch' in options.compare:
      self._torch = self._torch or TorchProcess(config, self._network.batch())
      programs['torch'] = getattr(self._torch, mode)
    if 'flax' in options.compare:
      stock = ours.Network(config, self._size, stock_layers=True)
      programs['flax'] = getattr(stock, f'{mode}_program')().call
    times = timing.in_turn({**programs, 'matmul': matmul}, options.trials)
    rate = products / times['matmul'].wall
    flops = ours.flops(config, self._size, train=mode == 'train')
    record |= {
      'seconds': {name: dataclasses.asdict(times[name]) for name in times},
      'images_per_second': {n: config.batch_size / times[n].wall for n in programs},
      'ratio': {n: times['ours'].wall / times[n].wall for n in programs if n != 'ours'},
      'ratio_cpu': {n: times['ours'].cpu / times[n].cpu for n in programs if n != 'ours'},
      'flops': flops,
      'matmul_flops_per_second': rate,
      'utilisation': flops / times['ours'].wall / rate,
      'allocator_peak_bytes': timing.device_peak_bytes(self._devices[0]),
    }
    self._result[mode] = record
    for name in programs:
      self._say_times(mode, name, times[name], times['ours'])
    print(
      f'{"":9} {flops / 1e9:.4g} GFLOP, {record["utilisation"]:.0%} of the {rate / 1e9:,.0f} '
      f'GFLOP/s of a {config.dtype} matrix product in the same run'
    )

  def _say_times(self, mode, name, times, base) -> None:
    line = (
      f'{mode:9} {name:5} {self._config.batch_size / times.wall:8.4g} images/s, '
      f'{times.wall:.4g} s ({times.cpu:.4g} CPU-s)'
    )
    if name != 'ours':
      wall, cpu = base.wall / times.wall, base.cpu / max(times.cpu, 1e-9)
      line += f'; ours takes {wall:.2f} of its time ({cpu:.2f} of its CPU time)'
    print(line)

  def _memory(self) -> None:
    """On a CPU in processes of their own; elsewhere the allocators' peaks of the training above."""
    sides = ('ours', *self._options.compare)
    if self._devices[0].platform == 'cpu':
      record = {s: footprint.measure(s, self._config, self._size) for s in sides}
    else:
      peak = timing.device_peak_bytes(self._devices[0])
      record = {'ours': {'peak_bytes': peak, 'steps_peak_bytes': peak}}
      if self._torch:
        peak = self._torch.peak_bytes()
        record['torch'] = {'peak_bytes': peak, 'steps_peak_bytes': peak}
    for side, peaks in record.items():
      whole, steps = (_bytes(peaks[k]) for k in ('peak_bytes', 'steps_peak_bytes'))
      print(f'memory    {side:5} peak {whole}, once compiled {steps}')
    self._result['memory'] = record

  def _input(self) -> None:
    """Reading, decoding and augmenting alone, once all is remembered that can be."""
    source, batches = self._batches()
    steps, size = self._options.steps, self._config.batch_size
    first, first_cpu = time.perf_counter(), time.process_time()
    for i in range(min(len(source), 50)):
      source[i]
    read = min(len(source), 50)
    first, first_cpu = time.perf_counter() - first, time.process_time() - first_cpu
    next(batches)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
      next(batches)
    wall, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    batches.close()
    self._result['input'] = {
      'images_per_second': steps * size / wall,
      'images_per_cpu_second': steps * size / cpu,
      'first_read_images_per_second': read / first,
      'first_read_images_per_cpu_second': read / max(first_cpu, 1e-9),
    }
    print(
      f'input     {steps * size / wall:.4g} images/s, {steps * size / cpu:.4g} per CPU-second; '
      f'read for the first time {read / max(first_cpu, 1e-9):.4g} per CPU-second'
    )

  def _loop(self) -> None:
    """The training loop without its records: input and step together."""
    _, batches = self._batches()
    step, state, key = self._network.loop_step()
    place, steps = self._network.wrapper.place_batch, self._options.steps

    def advance(state):
      batch = dict(next(batches))
      del batch['index']
      return step(state, place(batch), key)

    state, metrics = advance(state)
    jax.block_until_ready(metrics)
    begin, waited = time.perf_counter(), batches.waited_seconds
    pending = None
    for _ in range(steps):
      state, metrics = advance(state)
      jax.device_get(pending)  # as in train/loop.py, one step behind
      pending = metrics
    jax.block_until_ready((state, metrics))
    wall = time.perf_counter() - begin
    waiting = (batches.waited_seconds - waited) / wall
    batches.close()
    rate = steps * self._config.batch_size / wall
    self._result['loop'] = {'images_per_second': rate, 'waiting': waiting}
    print(f'loop      {rate:.4g} images/s, waiting for data {waiting:.1%}')

  def _batches(self):
    config = self._config
    source = remember(build.source_from(config, config.train_split), config.remember_mb << 20)
    return source, train_batches(
      source,
      build.transforms_from(config),
      seed=config.seed,
      batch_size=config.batch_size,
      num_threads=config.num_threads,
      replacement=config.replacement,
    )


def bottleneck(result: dict[str, Any]) -> str:
  """Names in one line what to improve first, from what has been measured."""
  waiting = result.get('loop', {}).get('waiting', 0.0)
  train = result.get('train') or result.get('infer')
  if waiting > 0.05:
    return f'the input: the step waits for data {waiting:.0%} of the time; raise config.num_threads'
  data = result.get('input', {}).get('images_per_second')
  if train is None:
    return 'not known: measure --mode=train too'
  if data is not None and data < train['images_per_second']['ours']:
    return f'the input: {data:.4g} images/s, where the device takes {train["images_per_second"]["ours"]:.4g}'
  share = train['utilisation']
  if share >= 0.5:
    return f'the matrix units: {share:.0%} of their measured rate'
  return (
    f'the device, but not its matrix units ({share:.0%} of their measured rate): memory traffic, '
    'small operations, or a batch too small'
  )


def _bytes(count: int | None) -> str:
  return 'unknown' if count is None else f'{count / 2**20:,.0f} MiB'
