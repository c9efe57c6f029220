"""Too little memory for a step, in words that help."""

import contextlib
from collections.abc import Iterator

import jax

from jaxseg.train.build import Experiment
from jaxseg.types import UserError


@contextlib.contextmanager
def explained(experiment: Experiment) -> Iterator[None]:
  """Turns the compiler's, the device's or this machine's want of memory into what the user can change."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    if not isinstance(e, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    reason = next(iter(str(e).splitlines()), 'no more could be had')[:120]
    raise UserError(f'{_out_of_memory(experiment)} ({reason})') from e


def _out_of_memory(experiment: Experiment) -> str:
  """Says which keys make the step smaller, from those that have not been used yet."""
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
