"""Turns out-of-memory errors into advice."""

import contextlib
from collections.abc import Iterator

import jax

from jaxseg.train.build import Experiment
from jaxseg.types import UserError


@contextlib.contextmanager
def advise_on_out_of_memory(experiment: Experiment) -> Iterator[None]:
  """Turns an out-of-memory error of compiler, device or host into a UserError with remedies."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    if not isinstance(e, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    reason = next(iter(str(e).splitlines()), 'the allocation failed')[:120]
    raise UserError(f'{_out_of_memory(experiment)} ({reason})') from e


def _out_of_memory(experiment: Experiment) -> str:
  """Lists the options that would save memory and are not in use yet."""
  settings, ways = experiment.settings, []
  if experiment.task.weights_from_labels:
    accumulate = 2 * settings.accumulate
    ways.append(f'--config.accumulate={accumulate} (same result, half the images at once)')
  if not experiment.config['model'].get('remat', True):
    ways.append('--config.model.remat=True (recompute instead of keeping)')
  if settings.dtype == 'float32':
    ways.append('--config.dtype=bfloat16')
  ways.append('a smaller --config.augment.crop.size')
  return f'there is too little memory for this step: try {", ".join(ways)}'
