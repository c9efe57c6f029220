"""Hours of a training on TPUs, computed and not measured: counted FLOPs over a stated share of the peak.

Only the steps are counted: no evaluation, compilation or waiting for data. A chip needs an image to
work on, so a batch of 4 keeps 4 chips busy, however many there are; and every host must have as many
images as the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxseg.tools.benchmark import ours
from jaxseg.tools.slices import SLICES, Slice
from jaxseg.train.build import Experiment
from jaxseg.types import UserError


def table(
  experiment: Experiment,
  size: tuple[int, int],
  *,
  utilisation: float = 0.3,
  price: float | None = None,
  say: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Counts the FLOPs of a step and prints the hours of num_steps on each slice, in Markdown.

  Args:
    experiment: its `batch_size` and `num_steps` are the training's.
    size: (height, width) of the images.
    utilisation: share of the busy chips' peak that the step is assumed to reach.
    price: of one chip for an hour; all chips of a slice are paid for. None: no cost.
    say: gets the lines.

  Returns:
    flops_per_step, utilisation, and 'slices': a dict for each with its name, chips, busy chips, hours
    (None where the hosts cannot share the batch), hours_all_busy (the same number of images, in
    batches that keep all chips busy: another recipe) and cost of `hours`.

  Raises:
    UserError: a utilisation outside of 0..1, or a price below 0.
  """
  if not 0 < utilisation <= 1:
    raise UserError(f'--utilisation={utilisation:g}: give a share of the peak, above 0, at most 1')
  if price is not None and price < 0:
    raise UserError(f'--price-per-chip-hour={price:g}: it cannot be below 0')
  settings, flops = experiment.settings, ours.flops(experiment, size, train=True)
  say(
    f'computed, not measured: {settings.num_steps:,} steps of {settings.batch_size} x '
    f'{size[0]}x{size[1]}x{experiment.channels}, {flops / 1e12:.3g} TFLOP a step (counted), at '
    f'{utilisation:.0%} of the peak in bfloat16 (assumed)\n\n'
    f'| slice | chips | busy, batch {settings.batch_size} | hours | hours, all busy | cost |\n'
    '|---|---|---|---|---|---|'
  )
  seconds = settings.num_steps * flops / utilisation  # times a FLOP/s of peak
  slices = [_needed(rented, seconds, settings.batch_size, price) for rented in SLICES]
  for entry in slices:
    busy = entry['busy'] or 'the hosts cannot share them'
    cost = '-' if entry['cost'] is None else f'{entry["cost"]:,.2f}'
    hours, all_busy = _hours(entry['hours']), _hours(entry['hours_all_busy'])
    say(f'| {entry["slice"]} | {entry["chips"]} | {busy} | {hours} | {all_busy} | {cost} |')
  if price is not None:
    say(f'\ncost of all chips of a slice at {price:g} for a chip and hour')
  return {'flops_per_step': flops, 'utilisation': utilisation, 'slices': slices}


def _needed(rented: Slice, seconds: float, batch_size: int, price: float | None) -> dict[str, Any]:
  busy, chip_hours = rented.busy(batch_size), seconds / rented.chip.flops / 3600
  hours = chip_hours / busy if busy else None
  return {
    'slice': rented.name,
    'chips': rented.chips,
    'busy': busy,
    'hours': hours,
    'hours_all_busy': chip_hours / rented.chips,
    'cost': None if price is None or hours is None else price * rented.chips * hours,
  }


def _hours(value: float | None) -> str:
  if value is None:
    return '-'
  return f'{value:.2g}' if value < 10 else f'{value:,.0f}'
