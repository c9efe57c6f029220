"""How time and memory scale with the number of images, for whole commands in separate processes.

A training split of N generated images, 16 x 16 pixels of two classes, and a few held out: planned, checked, built
into records, trained for one step and evaluated. Linear cost is the same for every further thousand.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.console import Table, say
from jaxseg.tools import figures
from jaxseg.tools.benchmark.timing import resident_bytes
from jaxseg.types import UserError

SIDE, HELD_OUT = 16, 20
COMMANDS = {
  'plan': 'data plan --folder=images --output=mine.py',
  'check': 'data check --config=mine.py --output=checked',
  'first step': 'train --config=mine.py --workdir=run --stop_at=1 --config.log.figures=0 '
  '--config.compile_cache=programs',  # not shared with other runs
  'evaluation': 'evaluate --workdir=run --split=train --step=latest',
}  # records are built by plan, which reads them first
# Linux's ru_maxrss starts at the caller's memory, so a command measures itself.
_RUN = """
import atexit, pathlib, runpy, sys
kept = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: kept.write_bytes(pathlib.Path('/proc/self/status').read_bytes()))
runpy.run_module('jaxseg', run_name='__main__', alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class Cost:
  """A command's wall seconds, CPU seconds and peak memory in bytes."""

  seconds: float
  cpu_seconds: float
  peak_bytes: int


def run(counts: Sequence[int], json_file: str | None = None) -> dict[int, dict[str, Cost]]:
  """Measures every command for every number of images, and prints a table.

  Args:
    counts: of training images.
    json_file: to write the result to.

  Raises:
    UserError: a command failed.
  """
  figures.check_is_new(json_file)
  costs = {}
  for count in counts:
    with tempfile.TemporaryDirectory() as folder:
      start = time.perf_counter()
      make_images(Path(folder) / 'images' / 'train', count)
      make_images(Path(folder) / 'images' / 'val', HELD_OUT)
      say(f'{count:,} images made in {time.perf_counter() - start:.1f} s')
      costs[count] = {name: measure(words.split(), folder) for name, words in COMMANDS.items()}
  say(table(costs))
  plain = {n: {k: dataclasses.asdict(c) for k, c in row.items()} for n, row in costs.items()}
  figures.write(json_file, plain)
  return costs


def make_images(folder: Path, count: int) -> None:
  """Writes `count` noisy images with a bright square each, and their masks."""
  for kind in ('images', 'masks'):
    (folder / kind).mkdir(parents=True)
  rng = np.random.default_rng(count)
  for i in range(count):
    pixels = rng.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    top, left = rng.integers(0, SIDE - 6, 2)
    mask[top : top + 6, left : left + 6] = 1
    pixels[mask == 1] += 120
    for kind, array in (('images', pixels), ('masks', mask)):
      Image.fromarray(array).save(folder / kind / f'{i:06d}.png', compress_level=1)


def measure(words: Sequence[str], folder: str) -> Cost:
  """Runs a command of jaxseg in a folder; its records and compiled programs stay there."""
  env = {**os.environ, 'JAXSEG_CACHE': f'{folder}/cache'}
  with tempfile.TemporaryDirectory() as own:
    status = Path(own, 'status')
    on_linux = sys.platform == 'linux'
    start = time.perf_counter()
    process = subprocess.Popen(
      [sys.executable, *(('-c', _RUN, str(status)) if on_linux else ('-m', 'jaxseg')), *words],
      cwd=folder,
      env=env,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    said = process.stderr.read()
    _, code, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
      raise UserError(f'jaxseg {" ".join(words)}: {" ".join(said.split())[-300:]}')
    peak = resident_bytes(peak=True, status=status) if on_linux else usage.ru_maxrss
  return Cost(seconds, usage.ru_utime + usage.ru_stime, peak)


def table(costs: Mapping[int, Mapping[str, Cost]]) -> Table:
  """Returns a row per command: seconds and memory for each count, and the increase per thousand at the end."""
  made, counts = Table('', title='seconds of all cores, peak memory'), [*costs]
  for count in counts:
    made.add_column(f'{count:,} images', justify='right')
  few, many = counts[-2:] if len(counts) > 1 else (None, None)
  if few:
    made.add_column(f'each 1,000 from {few:,} on', justify='right')
  for name in COMMANDS:
    row = [costs[count][name] for count in counts]
    cells = [f'{cost.cpu_seconds:,.1f} s, {cost.peak_bytes / 2**20:,.0f} MiB' for cost in row]
    if few:
      more, (a, b) = (many - few) / 1000, row[-2:]
      seconds, held = b.cpu_seconds - a.cpu_seconds, (b.peak_bytes - a.peak_bytes) / 2**20
      cells.append(f'{seconds / more:.2f} s, {held / more:.2f} MiB')
    made.add_row(name, *cells)
  return made
