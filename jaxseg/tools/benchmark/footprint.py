"""Peak memory of a training step on a CPU: a fresh process for each side, read at its end.

    python -m jaxseg.tools.benchmark.footprint ours|flax|torch HEIGHT WIDTH < CONFIG.json

prints {"peak_bytes", "steps_peak_bytes"}, both less what the process held after its imports. The
first counts all since then, compiling included; the second only what three further steps needed at
most, once two had run (Linux).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg.types import UserError

SIDES = ('ours', 'flax', 'torch')


def measure(side: str, config: ConfigDict, size: tuple[int, int]) -> dict[str, int]:
  """Runs `main` in a process of its own.

  Raises:
    UserError: what the process ended with.
  """
  done = subprocess.run(
    [sys.executable, '-m', __name__, side, *map(str, size)],
    input=configs.to_json(config),
    capture_output=True,
    text=True,
    cwd=Path(__file__).resolve().parents[3],
  )
  if done.returncode:
    raise UserError(f'memory of {side}: {done.stderr.strip().splitlines()[-1]}')
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  side, height, width = sys.argv[1], *map(int, sys.argv[2:])
  config = configs.from_json(sys.stdin.read())
  step = _maker(side, config, (height, width))
  from jaxseg.tools.benchmark.timing import resident_bytes

  imported = resident_bytes()
  step = step()
  step()
  whole = resident_bytes(peak=True)
  Path('/proc/self/clear_refs').write_text('5', encoding='ascii')  # the peak starts anew
  for _ in range(3):
    step()
  steps = resident_bytes(peak=True)
  peaks = {'peak_bytes': max(whole, steps), 'steps_peak_bytes': steps}
  print(json.dumps({name: peak - imported for name, peak in peaks.items()}))


def _maker(side: str, config: ConfigDict, size: tuple[int, int]) -> Callable[[], Callable]:
  """Imports all that a side needs; what it returns makes the step."""
  if side == 'torch':
    import numpy as np

    from jaxseg.tools.benchmark import torch_models, torch_side

    del torch_models
    shape = (config.batch_size, *size, config.channels)
    batch = {'image': np.zeros(shape, np.uint8), 'label': np.zeros(shape[:3], np.uint8)}
    return lambda: torch_side.Network(config, batch).train
  from jaxseg.tools.benchmark import ours
  from jaxseg.train import build

  build.set_up_jax(config)

  def make():
    return ours.Network(config, size, stock_layers=side == 'flax').train_program().call

  return make


if __name__ == '__main__':
  main()
