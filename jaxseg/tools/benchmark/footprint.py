"""Peak memory of a training step on a CPU, in a fresh process for each side (Linux)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jaxseg.tools.benchmark import ours, torch_side
from jaxseg.tools.benchmark.process import Process
from jaxseg.tools.benchmark.timing import resident_bytes
from jaxseg.tools.examples import make_batch
from jaxseg.train import build
from jaxseg.train.build import Experiment


def measure(side: str, experiment: Experiment, size: tuple[int, int]) -> dict[str, int]:
  """Runs a few steps in a new process.

  Args:
    side: 'ours', 'flax' or 'torch'.
    experiment: its `batch_size` is the number of images per step.
    size: (height, width) of the images.

  Returns:
    peak_bytes and steps_peak_bytes, both relative to the memory after imports. The first is the peak since
    then, including compilation; the second is the peak of three more steps after the first two.

  Raises:
    UserError: the side cannot be built, or its process died.
  """
  with Process('footprint.Footprint', side, experiment.config, size) as process:
    return process.call('peaks')


class Footprint:
  """A side and its step, in the measured process."""

  def __init__(self, side: str, config: dict, size: tuple[int, int]):
    self._side, self._experiment, self._size = side, build.experiment(config), size
    build.set_up_jax(self._experiment.settings)
    if side == 'torch':
      torch_side.import_module(config['model']['name'])

  def _make_step(self) -> Callable[[], None]:
    if self._side != 'torch':
      stock = self._side == 'flax'
      return ours.Workload(self._experiment, self._size, stock_layers=stock).train_program().call
    shape = (self._experiment.settings.batch_size, *self._size, self._experiment.channels)
    batch = make_batch(self._experiment, shape)
    return torch_side.make(self._experiment.config, batch).train

  def peaks(self) -> dict[str, int]:
    imported = resident_bytes()
    step = self._make_step()
    step()
    step()
    first = resident_bytes(peak=True)
    Path('/proc/self/clear_refs').write_text('5', encoding='ascii')  # resets the peak
    for _ in range(3):
      step()
    steps = resident_bytes(peak=True)
    peaks = {'peak_bytes': max(first, steps), 'steps_peak_bytes': steps}
    return {name: peak - imported for name, peak in peaks.items()}
