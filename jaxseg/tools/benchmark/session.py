"""Implements launch/benchmark.py: measures the requested modes, prints lines, returns one dict."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxseg.console import say
from jaxseg.tools import figures
from jaxseg.tools.benchmark import (
  detection,
  feed,
  footprint,
  needs,
  ours,
  timing,
  torch_side,
)
from jaxseg.tools.benchmark.process import Process
from jaxseg.tools.examples import training_size
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

MODES = ('train', 'infer', 'memory', 'input', 'loop')
TABLES = ('fit', 'spatial', 'detection')  # modes that cannot be combined with others
COMPARE = ('torch', 'flax')


def run(
  config: Mapping[str, Any],
  *,
  modes: Sequence[str] = (),
  batches: Sequence[int] = (),
  sizes: Sequence[tuple[int, int]] = (),
  json_file: str | None = None,
  **options: Any,
) -> dict[str, Any]:
  """Measures and prints.

  Args:
    config: of jaxseg.config.load.
    modes: of MODES, or one of TABLES; () is all of MODES, without those whose data are missing.
    batches: images per step, default config.batch_size; several only for the mode 'fit'.
    sizes: (height, width) of the images, default those of training; several likewise.
    json_file: to write the result to.
    options: further attributes of `Session`.

  Returns:
    All measurements by mode, in plain units: seconds, bytes, images and FLOPs.

  Raises:
    UserError: an unknown mode or comparison, a size that the network cannot take, missing data.
  """
  compare = options.get('compare', ())
  figures.check_is_new(json_file)
  _check('mode', modes, (*MODES, *TABLES))
  _check('compare', compare, COMPARE)
  if 'torch' in compare:
    torch_side.check_installed()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # both sides share one GPU
  experiment = build.experiment(config)
  build.set_up_jax(experiment.settings)
  batches = tuple(batches) or (experiment.settings.batch_size,)
  sizes = tuple(sizes) or (training_size(experiment),)
  if 'fit' in modes:
    result = {'fit': needs.fit_table(experiment, batches, sizes)}
  elif len(batches) > 1 or len(sizes) > 1:
    raise UserError('several of --batch or --crop are for --mode=fit only')
  else:
    augment = _cropped(experiment.config['augment'], sizes[0])
    experiment = ours.changed(experiment, batch_size=batches[0], augment=augment)
    result = Session(experiment, sizes[0], **options).run(modes)
  figures.write(json_file, result)
  return result


def _check(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
  for word in words:
    if word not in known:
      raise UserError(f'--{flag}={word}: choose from {", ".join(known)}')


def _cropped(augment: Sequence[tuple[str, dict]], size: tuple[int, int]) -> tuple:
  """Returns the transforms with crops of this size."""
  steps = [(name, {**o, 'size': size} if name == 'crop' else o) for name, o in augment]
  return (*steps, *(() if 'crop' in dict(steps) else (('crop', {'size': size}),)))


@dataclasses.dataclass
class Session:
  """One experiment at one shape.

  Attributes:
    experiment: its `batch_size` is the number of images per step.
    size: (height, width) of the images.
    compare: of COMPARE: sides that alternate with ours.
    trials: rounds, of which the median is taken.
    steps: training steps of the loop, and batches of the input alone.
    matmul_side: of the matrix product used as reference; 0: enough to saturate the device.
  """

  experiment: Experiment
  size: tuple[int, int]
  compare: Sequence[str] = ()
  trials: int = 5
  steps: int = 20
  matmul_side: int = 0

  @functools.cached_property
  def _workload(self) -> ours.Workload:
    return ours.Workload(self.experiment, self.size)

  @functools.cached_property
  def _torch(self) -> Process:
    return Process('torch_side.make', self.experiment.config, self._workload.batch)

  @property
  def _devices(self) -> list[jax.Device]:
    return list(self._workload.wrapper.devices)

  @property
  def _batch_size(self) -> int:
    return self.experiment.settings.batch_size

  def run(self, modes: Sequence[str] = ()) -> dict[str, Any]:
    """Measures the modes; by default all except those whose data are missing."""
    for mode in modes:
      if mode in TABLES:
        return {mode: self._measure(mode)}
    result = {'setting': self._describe()}
    for mode in modes or MODES:
      try:
        result[mode] = self._measure(mode)
      except UserError as e:
        if modes or mode not in ('input', 'loop'):
          raise
        say(f'{mode:9} not measured: {e}')
    result['bottleneck'] = feed.bottleneck(result)
    say(f'{"limit":9} {result["bottleneck"]}')
    return result

  def _measure(self, mode: str) -> Any:
    match mode:
      case 'spatial':
        return needs.spatial_table(self.experiment, self.size)
      case 'detection':
        torch = 'torch' in self.compare
        return detection.table(self.experiment, self.size, torch=torch, trials=self.trials)
      case 'input':
        return feed.measure_input(self.experiment, self.steps)
      case 'loop':
        return feed.measure_loop(self._workload, self.steps)
      case 'memory':
        return self._memory()
    return self._compute(mode)

  def _describe(self) -> dict[str, Any]:
    load, workload = os.getloadavg()[0], self._workload
    options = dict(self.experiment.config['model'])
    dtype, (b, h, w, c) = self.experiment.settings.dtype, workload.shape
    say(f'network   {self.experiment.name}, {workload.parameters:,} parameters')
    say(f'shape     {b} x {h}x{w}x{c}, {dtype}, {workload.wrapper.describe()}')
    say(f'machine   {os.cpu_count()} cores, load {load:.1f} before the start')
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

  def _compute(self, mode: str) -> dict[str, Any]:
    """Times a step or an inference, alternating with the other sides and the matrix product."""
    dtype = self.experiment.settings.dtype
    program = getattr(self._workload, f'{mode}_program')()
    kinds = zip(('arguments', 'temporary', 'new'), program.bytes.values(), strict=True)
    parts = ' + '.join(f'{name} {_mebibytes(count)}' for name, count in kinds)
    say(f'{mode:9} compiled in {program.compile_seconds:.1f} s; a device needs {parts}')
    programs = {'ours': program.call}
    if 'torch' in self.compare:
      programs['torch'] = self._torch.program(mode)
    if 'flax' in self.compare:
      stock = ours.Workload(self.experiment, self.size, stock_layers=True)
      programs['flax'] = getattr(stock, f'{mode}_program')().call
    matmul, products = timing.matmul(self._devices, dtype, self.matmul_side)
    times = timing.alternate({**programs, 'matmul': matmul}, self.trials)
    rate = products / times['matmul'].wall
    flops = ours.flops(self.experiment, self.size, train=mode == 'train')
    utilisation = flops / times['ours'].wall / rate
    images = {side: self._batch_size / times[side].wall for side in programs}
    for side in programs:
      line = timing.line(times[side], times['ours'])
      say(f'{mode:9} {side:5} {images[side]:8.4g} images/s, {line}')
    say(
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

  def _memory(self) -> dict[str, Any]:
    """Measured in new processes on a CPU; elsewhere by the allocators' peaks in `_compute`."""
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
      say(f'memory    {side:5} peak {first}, once compiled {steps}')
    return peaks


def _mebibytes(count: int | None) -> str:
  return 'unknown' if count is None else f'{count / 2**20:,.0f} MiB'
