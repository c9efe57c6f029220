"""A training step's memory as reported by the compiler, without allocating the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxseg.console import say
from jaxseg.tools.benchmark.collectives import collectives, total_bytes
from jaxseg.tools.benchmark.ours import Program, Workload, changed
from jaxseg.tools.benchmark.timing import device_limit_bytes
from jaxseg.train.build import Experiment
from jaxseg.types import UserError


def fit_table(
  experiment: Experiment,
  batches: Sequence[int],
  sizes: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
  """Compares batch x crop x remat with a device's memory; prints each result as soon as it is known.

  Args:
    experiment: its `batch_size` and the model's `remat` are replaced.
    batches: images per step, over all devices.
    sizes: (height, width) of the images.

  Returns:
    A dict for each: batch, size, remat, needed_bytes (of all devices that share this memory),
    limit_bytes, fits. needed_bytes is None if the compiler itself ran out of memory. Batches larger than
    one that does not fit are skipped.
  """
  table = []
  limit = device_limit_bytes(jax.local_devices()[0])
  say(f'{"batch":>6} {"crop":>10} {"remat":>6} {"needs GiB":>10}   of {limit / 2**30:.1f} GiB')
  for size, remat in ((size, remat) for size in sizes for remat in (False, True)):
    for batch in sorted(batches):
      needed = _shared_bytes(experiment, batch, size, remat)
      fits = needed is not None and needed <= limit
      entry = dict(batch=batch, size=size, remat=remat, needed_bytes=needed, limit_bytes=limit)
      table.append(entry | {'fits': fits})
      shown = 'too much' if needed is None else f'{needed / 2**30:.2f}'
      words, crop = 'fits' if fits else 'does not fit', f'{size[0]}x{size[1]}'
      say(f'{batch:>6} {crop:>10} {remat!s:>6} {shown:>10}   {words}')
      if not fits:
        break
  return table


def _shared_bytes(
  experiment: Experiment, batch: int, size: tuple[int, int], remat: bool
) -> int | None:
  accumulate = experiment.settings.accumulate
  if batch % accumulate:
    raise UserError(f'--batch={batch} does not divide into accumulate={accumulate} parts')
  experiment = changed(experiment, {'remat': remat}, batch_size=batch)
  try:
    program = Workload(experiment, size).train_program()
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    return None
  return _needed(program) * (program.devices if jax.local_devices()[0].platform == 'cpu' else 1)


def _needed(program: Program) -> int:
  """Returns bytes per device."""
  return sum(program.bytes.values())


def spatial_table(
  experiment: Experiment,
  size: tuple[int, int],
  devices: Sequence[int] = (1, 2, 4, 8),
) -> list[dict[str, Any]]:
  """Memory and communication per device with an image's rows split over devices; prints each likewise.

  Args:
    experiment: `parallel` and `mesh` are replaced.
    size: (height, width) of the images.
    devices: numbers of devices to split the rows of every image over.

  Returns:
    A dict for each: devices, and per device needed_bytes (arguments, outputs and temporaries) and the
    bytes exchanged per step: all_reduce_bytes, halo_bytes, gather_bytes.

  Raises:
    UserError: too few devices, or rows that do not divide evenly.
  """
  if max(devices) > len(jax.devices()):
    raise UserError(
      f'{max(devices)} devices are compiled for, there are {len(jax.devices())}: on a CPU add '
      f'--config.cpu_devices={max(devices)}'
    )
  say('devices   GiB a device   of one   all-reduced MiB   halo MiB   gathered MiB')
  table: list[dict[str, Any]] = []
  for count in devices:
    table.append(_split(experiment, size, count))
    needed, *sent = (v for k, v in table[-1].items() if k.endswith('bytes'))
    line = f'{count:>7} {needed / 2**30:>14.2f} {needed / table[0]["needed_bytes"]:>8.3f}'
    widths = (18, 11, 15)
    say(line + ''.join(f'{n / 2**20:>{w}.2f}' for n, w in zip(sent, widths, strict=True)))
  return table


def _split(experiment: Experiment, size: tuple[int, int], count: int) -> dict[str, Any]:
  mesh = f'data:1,spatial:{count}'
  workload = Workload(changed(experiment, parallel='mesh', mesh=mesh), size)
  program = workload.train_program()
  exchanged = collectives(program.compiled.as_text())
  gathered = (total_bytes(exchanged, kind) for kind in ('all-gather', 'all-to-all'))
  return {
    'devices': count,
    'needed_bytes': _needed(program),
    'all_reduce_bytes': total_bytes(exchanged, 'all-reduce'),
    'halo_bytes': total_bytes(exchanged, 'collective-permute'),
    'gather_bytes': sum(gathered),
  }
