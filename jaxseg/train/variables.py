"""The parameters and statistics of a trained run."""

from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.types import UserError


def load_variables(
  workdir: str | Path, step: str = 'best', experiment: Experiment | None = None
) -> tuple[dict[str, Any], int]:
  """Restores the parameters and statistics of a run as numpy arrays.

  Args:
    workdir: written by training.
    step: 'best' (by the task's headline score) | 'latest' | a number.
    experiment: the workdir's, if already loaded.

  Returns:
    {'params': ..., 'batch_stats': ...} and their step.

  Raises:
    UserError: no run, no checkpoint, or no such step (the message lists the available ones).
  """
  experiment, folder = (
    experiment or load_experiment(workdir),
    files.to_path(workdir) / 'checkpoints',
  )
  if not folder.is_dir():
    raise UserError(f'no checkpoints in {workdir}: train first')
  checkpoints = Checkpoints(folder, metric=experiment.task.headline, read_only=True)
  steps = checkpoints.steps()
  if not steps:
    raise UserError(f'no checkpoint in {folder}: the training stopped before its first save')
  named = {str(number): number for number in steps}
  named |= {'best': checkpoints.best_step(), 'latest': steps[-1]}
  if str(step) not in named:
    available = ', '.join(map(str, steps))
    raise UserError(f'no step {step!r}: choose best, latest or one of the steps {available}')
  chosen = named[str(step)]
  variables = checkpoints.restore_variables(experiment.variable_shapes, chosen)
  checkpoints.close()
  return variables, chosen
