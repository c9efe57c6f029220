"""Measures programs in alternation, the rate of a matrix product, and a process's memory."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_LEAST_SECONDS = 0.2  # a trial repeats a program for at least this long
_MATMUL_SIDE = {'cpu': 2048}  # elsewhere 8192


@dataclasses.dataclass(frozen=True)
class Timing:
  """Medians over the trials.

  Attributes:
    wall: seconds per call.
    cpu: CPU seconds per call over all cores, less affected by a busy machine.
    trials: wall seconds per call in each trial.
  """

  wall: float
  cpu: float
  trials: tuple[float, ...]

  def share_of(self, other: Timing) -> tuple[float, float]:
    """Returns wall and CPU seconds relative to the other's."""
    return self.wall / other.wall, self.cpu / max(other.cpu, 1e-9)


def alternate(programs: Mapping[str, Callable[[], float | None]], trials: int) -> dict[str, Timing]:
  """Times programs in alternation, so that disturbances affect all of them.

  Args:
    programs: each call does the work once and blocks until it is done; its result, if any, is the CPU
      seconds spent in another process.
    trials: rounds; each turn begins with one untimed call.

  Returns:
    The medians of each.
  """
  repeats, walls, cpus = {}, {}, {}
  for name, program in programs.items():
    program()
    seconds = _clock(program, 1)[0]
    repeats[name] = max(1, math.ceil(_LEAST_SECONDS / seconds))
    walls[name], cpus[name] = [], []
  for _ in range(trials):
    for name, program in programs.items():
      program()  # caches are the others' at first, but warm in training
      wall, cpu = _clock(program, repeats[name])
      walls[name].append(wall)
      cpus[name].append(cpu)
  return {
    name: Timing(statistics.median(walls[name]), statistics.median(cpus[name]), tuple(walls[name]))
    for name in programs
  }


def _clock(program: Callable[[], float | None], repeats: int) -> tuple[float, float]:
  wall, cpu, elsewhere = time.perf_counter(), time.process_time(), 0.0
  for _ in range(repeats):
    elsewhere += program() or 0.0
  cpu = time.process_time() - cpu + elsewhere
  return (time.perf_counter() - wall) / repeats, cpu / repeats


def record(times: Mapping[str, Timing], sides: Sequence[str]) -> dict[str, Any]:
  """Returns 'seconds' of all, and 'ratio' and 'ratio_cpu': ours relative to each side."""
  shares = {side: times['ours'].share_of(times[side]) for side in sides if side != 'ours'}
  return {
    'seconds': {name: dataclasses.asdict(t) for name, t in times.items()},
    'ratio': {side: wall for side, (wall, _) in shares.items()},
    'ratio_cpu': {side: cpu for side, (_, cpu) in shares.items()},
  }


def line(times: Timing, ours: Timing) -> str:
  """Formats the seconds per call, and for another side ours relative to them."""
  text = f'{times.wall:.4g} s ({times.cpu:.4g} CPU-s)'
  if times is ours:
    return text
  wall, cpu = ours.share_of(times)
  return f'{text}; ours takes {wall:.2f} of its time ({cpu:.2f} of its CPU time)'


def matmul(
  devices: Sequence[jax.Device], dtype: str, side: int = 0
) -> tuple[Callable[[], None], int]:
  """A square matrix product on each device at once, to be timed, and its FLOPs over all devices.

  Args:
    devices: that the network runs on.
    dtype: of the factors; accumulation is the device's default.
    side: rows and columns; 0: enough to saturate the device.
  """
  side = side or _MATMUL_SIDE.get(devices[0].platform, 8192)
  multiply = jax.pmap(lambda a: a @ a, devices=devices)
  factor = multiply(jnp.full((len(devices), side, side), 1 / side, dtype))

  def product() -> None:
    multiply(factor).block_until_ready()

  return product, 2 * len(devices) * side**3


def resident_bytes(*, peak: bool = False, status: str | Path = '/proc/self/status') -> int:
  """Resident memory, or its peak, of this process or that of the `status` file (Linux)."""
  name = 'VmHWM:' if peak else 'VmRSS:'
  with open(status, encoding='utf-8') as f:
    return next(int(line.split()[1]) << 10 for line in f if line.startswith(name))


def device_peak_bytes(device: jax.Device) -> int | None:
  """The allocator's peak; None if the device (a CPU) does not report it."""
  return (device.memory_stats() or {}).get('peak_bytes_in_use')


def device_limit_bytes(device: jax.Device) -> int:
  """Memory available to programs on the device: the allocator's limit, or a CPU's free memory."""
  limit = (device.memory_stats() or {}).get('bytes_limit')
  if limit is not None:
    return limit
  return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
