"""Throughput of the input, alone and in the training loop, and the bottleneck."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxseg.console import say
from jaxseg.data.loader import Batches, train_batches
from jaxseg.data.views import Cached
from jaxseg.tools.benchmark.ours import Workload
from jaxseg.train.build import Experiment

_FIRST_READ = 50  # images


def measure_input(experiment: Experiment, steps: int) -> dict[str, float]:
  """Measures reading, decoding and augmenting `steps` batches with warm caches."""
  source, batches = _batches(experiment)
  count, images = min(len(source), _FIRST_READ), steps * experiment.settings.batch_size
  first, first_cpu = _clocked(lambda i: source[i], count)
  next(batches)
  wall, cpu = _clocked(lambda i: next(batches), steps)
  batches.close()
  say(
    f'input     {images / wall:.4g} images/s, {images / cpu:.4g} per CPU-second; '
    f'read for the first time {count / first_cpu:.4g} per CPU-second'
  )
  return {
    'images_per_second': images / wall,
    'images_per_cpu_second': images / cpu,
    'first_read_images_per_second': count / first,
    'first_read_images_per_cpu_second': count / first_cpu,
  }


def measure_loop(workload: Workload, steps: int) -> dict[str, float]:
  """Measures the training loop without logging: input and step together."""
  _, batches = _batches(workload.experiment)
  step, state, key = workload.loop_step()

  def advance(state):
    batch = dict(next(batches))
    del batch['index']
    return step(state, workload.wrapper.place_batch(batch), key)

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
  rate = steps * workload.shape[0] / wall
  say(f'loop      {rate:.4g} images/s, waiting for data {waiting:.1%}')
  return {'images_per_second': rate, 'waiting': waiting}


def _batches(experiment: Experiment) -> tuple[Cached, Batches]:
  settings, data = experiment.settings, experiment.data
  source = Cached(experiment.source(data.train_split), data.memory_mb << 20)
  return source, train_batches(
    source,
    experiment.transforms,
    seed=settings.seed,
    batch_size=settings.batch_size,
    num_threads=data.num_threads,
    replacement=data.replacement,
  )


def _clocked(function: Callable[[int], Any], count: int) -> tuple[float, float]:
  """Calls a function with 0, 1, ...; returns wall and CPU seconds, always above 0."""
  wall, cpu = time.perf_counter(), time.process_time()
  for i in range(count):
    function(i)
  return max(time.perf_counter() - wall, 1e-9), max(time.process_time() - cpu, 1e-9)


def bottleneck(result: Mapping[str, Any]) -> str:
  """Describes the bottleneck in one line, by the measurements."""
  waiting = result.get('loop', {}).get('waiting', 0.0)
  step = result.get('train') or result.get('infer')
  if waiting > 0.05:
    return (
      f'the input: the step waits for data {waiting:.0%} of the time; raise config.data.num_threads'
    )
  if step is None:
    return 'not known: measure --mode=train too'
  images, takes = (
    result.get('input', {}).get('images_per_second'),
    step['images_per_second']['ours'],
  )
  if images is not None and images < takes:
    return f'the input: {images:.4g} images/s, where the device takes {takes:.4g}'
  share = step['utilisation']
  if share >= 0.5:
    return f'the matrix units: {share:.0%} of their measured rate'
  return (
    f'the device, but not its matrix units ({share:.0%} of their measured rate): memory traffic, '
    'small operations, or a batch too small'
  )
