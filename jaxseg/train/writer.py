"""Where numbers go: metrics.jsonl, TensorBoard events and, where wanted, Weights & Biases."""

import json
import math
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.train.events import Events
from jaxseg.types import UserError


class Writer:
  """Appends scalars to <workdir>/metrics.jsonl (one JSON object a line) and to TensorBoard.

  Args:
    workdir: an existing folder.
    restored_step: lines past this step are dropped: they come again, identical.
    wandb: project of Weights & Biases that gets the same; '' is off.
    config: shown there beside the run.

  Raises:
    UserError: wandb is wanted and not installed.
  """

  def __init__(
    self,
    workdir: Path,
    restored_step: int = 0,
    *,
    wandb: str = '',
    config: dict[str, Any] | None = None,
  ):
    self._wandb = open_wandb(wandb, workdir, config) if wandb else None
    self._path = workdir / 'metrics.jsonl'
    keep_lines(self._path, restored_step)
    self._file = files.Appended(self._path)
    self._events = Events(workdir, restored_step + 1)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Writes finite scalars at `step`; names are paths such as 'eval/mean_iou'."""
    scalars = {k: float(v) for k, v in scalars.items() if math.isfinite(v)}
    self._file.write(json.dumps({'step': step, **scalars}).encode() + b'\n')
    self._events.scalars(step, scalars)
    if self._wandb:
      self._wandb.log(scalars, step=step)

  def picture(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a uint8 [h, w, 3] picture to TensorBoard."""
    self._events.picture(step, name, image)
    if self._wandb:
      import wandb

      self._wandb.log({name: wandb.Image(image)}, step=step)

  def sync(self) -> None:
    """Returns once all is written where others see it: a checkpoint must not be ahead of its log."""
    self._file.sync()
    self._events.sync()

  def close(self) -> None:
    self._file.close()
    self._events.close()
    if self._wandb:
      self._wandb.finish()


def open_wandb(project: str, workdir: Path, config: dict[str, Any] | None) -> Any:
  """Starts, or on a second start continues, the run of Weights & Biases that belongs to a workdir."""
  try:
    import wandb
  except ImportError as e:
    raise UserError(
      f"config.log.wandb={project!r} needs wandb: pip install -e '.[wandb]', or leave it empty"
    ) from e
  file = workdir / 'wandb_id'
  if not file.exists():
    file.write_text(secrets.token_hex(8), encoding='utf-8')
  return wandb.init(
    project=project,
    name=workdir.name,
    dir=None if files.is_remote(workdir) else str(workdir),
    id=file.read_text(encoding='utf-8'),
    resume='allow',
    config=config,
  )


def keep_lines(path: Path, last_step: int) -> None:
  """Drops the lines past `last_step`, and one cut short by a crash; the file changes in one move."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding='utf-8').splitlines():
    try:
      if json.loads(line)['step'] <= last_step:
        kept.append(line)
    except (json.JSONDecodeError, KeyError, TypeError):
      continue
  files.write_text(path, ''.join(line + '\n' for line in kept))


def read_records(workdir: Path) -> list[dict[str, float]]:
  """Returns the lines of metrics.jsonl, [] where there is none."""
  path = workdir / 'metrics.jsonl'
  lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
  return [json.loads(line) for line in lines]
