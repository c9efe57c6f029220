"""Rows of an image split over 1, 2, 4, 8 devices: what each one needs and sends, by the compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxseg.tools.benchmark.collectives import collectives, total_bytes
from jaxseg.tools.benchmark.ours import Network
from jaxseg.train.devices import spatial
from jaxseg.types import UserError


def table(
  config: ConfigDict,
  size: tuple[int, int],
  devices: Sequence[int] = (1, 2, 4, 8),
  say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Compiles the training step of every number of devices; nothing of the network is allocated.

  Args:
    config: `parallel` and `mesh` are replaced.
    size: (height, width) of the images.
    devices: numbers of devices that share the rows of every image.
    say: gets a line for each as soon as it is known.

  Returns:
    A dict for each: devices, needed_bytes of one device (arguments, outputs and temporaries), and what
    one device exchanges in a step: all_reduce_bytes, halo_bytes, gather_bytes.

  Raises:
    UserError: fewer devices than asked for, or rows that do not divide.
  """
  if max(devices) > len(jax.devices()):
    raise UserError(
      f'{max(devices)} devices are compiled for, there are {len(jax.devices())}: on a CPU add '
      f'--config.cpu_devices={max(devices)}'
    )
  say('devices   GiB a device   of one   all-reduced MiB   halo MiB   gathered MiB')
  rows: list[dict[str, Any]] = []
  for count in devices:
    row = _measured(config, size, count)
    rows.append(row)
    share = row['needed_bytes'] / rows[0]['needed_bytes']
    sent = [row[f'{kind}_bytes'] / 2**20 for kind in ('all_reduce', 'halo', 'gather')]
    say(
      f'{count:>7} {row["needed_bytes"] / 2**30:>14.2f} {share:>8.3f}'
      + ''.join(f'{n:>{width}.2f}' for n, width in zip(sent, (18, 11, 15), strict=True))
    )
  return rows


def _measured(config: ConfigDict, size: tuple[int, int], count: int) -> dict[str, Any]:
  config = config.copy_and_resolve_references()
  config.parallel, config.mesh = 'mesh', f'data:1,spatial:{count}'
  network = Network(config, size)
  spatial.check_height(network.model, network.shape, count)
  program = network.train_program()
  found = collectives(program.text())
  return {
    'devices': count,
    'needed_bytes': program.needed_bytes,
    'all_reduce_bytes': total_bytes(found, 'all-reduce'),
    'halo_bytes': total_bytes(found, 'collective-permute'),
    'gather_bytes': total_bytes(found, 'all-gather') + total_bytes(found, 'all-to-all'),
  }
