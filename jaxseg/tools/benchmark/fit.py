"""Will it fit: batch x crop x remat against a device's memory, by the compiler's own account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxseg.tools.benchmark.ours import Network
from jaxseg.tools.benchmark.timing import device_limit_bytes
from jaxseg.types import UserError


def table(
  config: ConfigDict,
  batches: Sequence[int],
  sizes: Sequence[tuple[int, int]],
  say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Compiles the training step of every combination and allocates nothing.

  Args:
    config: its `batch_size` and `model_options.remat` are replaced.
    batches: images a step, over all devices.
    sizes: (height, width) of the images.
    say: gets a line for each combination as soon as it is known.

  Returns:
    A dict for each: batch, size, remat, needed_bytes (all devices that share this memory),
    limit_bytes, fits. needed_bytes is None where the compiler itself gave up.
  """
  rows = []
  limit = device_limit_bytes(jax.local_devices()[0])
  say(f'{"batch":>6} {"crop":>10} {"remat":>6} {"needs GiB":>10}   of {limit / 2**30:.1f} GiB')
  for size in sizes:
    for remat in (False, True):
      for batch in sorted(batches):
        needed = _needed_bytes(config, batch, size, remat)
        fits = needed is not None and needed <= limit
        rows.append(
          dict(
            batch=batch, size=size, remat=remat, needed_bytes=needed, limit_bytes=limit, fits=fits
          )
        )
        shown = 'too much' if needed is None else f'{needed / 2**30:.2f}'
        crop = f'{size[0]}x{size[1]}'
        say(
          f'{batch:>6} {crop:>10} {remat!s:>6} {shown:>10}   {"fits" if fits else "does not fit"}'
        )
        if not fits:
          break  # nor does a larger batch
  return rows


def _needed_bytes(config: ConfigDict, batch: int, size: tuple[int, int], remat: bool) -> int | None:
  config = config.copy_and_resolve_references()
  config.batch_size = batch
  if batch % config.accumulate:
    raise UserError(f'--batch={batch} does not divide into accumulate={config.accumulate} parts')
  with config.model_options.unlocked():
    config.model_options.remat = remat
  try:
    program = Network(config, size).train_program()
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    return None
  shared = program.devices if jax.local_devices()[0].platform == 'cpu' else 1
  return program.needed_bytes * shared
