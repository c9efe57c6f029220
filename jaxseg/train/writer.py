"""Where numbers go: metrics.jsonl, TensorBoard events and, where wanted, Weights & Biases."""

import json
import math
import operator
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.console import installing
from jaxseg.train.events import Events
from jaxseg.types import LARGEST, UserError

_NUMBERS = frozenset((int, float))


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
      f'config.log.wandb={project!r} needs wandb: {installing("wandb")}, or leave it empty'
    ) from e
  file = workdir / 'wandb_id'
  if not file.exists():
    files.write_text(file, secrets.token_hex(8))
  return wandb.init(
    project=project,
    name=workdir.name,
    dir=None if files.is_remote(workdir) else str(workdir),
    id=files.read_text(file, 64),
    resume='allow',
    config=config,
  )


def keep_lines(path: Path, last_step: int) -> None:
  """Drops the lines past `last_step` and damaged ones; the file changes in one move."""
  if path.exists():
    kept = (line for line, record in _lines(path) if record and record['step'] <= last_step)
    files.write_bytes(path, b''.join(line + b'\n' for line in kept))


def read_log(workdir: Path) -> tuple[list[dict[str, float]], int]:
  """Returns the lines of metrics.jsonl, and how many more there are that are damaged."""
  try:
    records = [record for _, record in _lines(workdir / 'metrics.jsonl')]
  except FileNotFoundError:
    return [], 0
  return [r for r in records if r], sum(r is None for r in records)


def read_records(workdir: Path) -> list[dict[str, float]]:
  """Returns the lines of metrics.jsonl that are whole, [] where there is none."""
  return read_log(workdir)[0]


def best_score(records: Iterable[dict[str, float]], score: str) -> tuple[float, int]:
  """Returns the best score in lines of a log, 0 without any, and how many evaluations followed it."""
  best, since = 0.0, 0
  for record in records:
    if any(name.startswith('eval/') for name in record):
      since = 0 if record.get(f'eval/{score}', 0.0) > best else since + 1
      best = max(best, record.get(f'eval/{score}', 0.0))
  return best, since


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, float] | None]]:
  """Yields the lines, and each as finite numbers by name, one of them 'step'; None of a damaged one."""
  lines = files.read_bytes(path).splitlines()
  # All at once, which is much faster than each; where one is damaged, it may have eaten its neighbours.
  records = _parsed(b'[' + b','.join(lines) + b']')
  if len(lines) != len(records or ()) or not all(map(_is_sound, records, lines)):
    each = zip(map(_parsed, lines), lines, strict=True)
    records = [record if _is_sound(record, line) else None for record, line in each]
  yield from zip(lines, records, strict=True)


def _parsed(text: bytes) -> Any:
  try:
    return files.parsed(text)
  except ValueError:
    return None


def _is_sound(record: Any, line: bytes) -> bool:
  """Whether a line that was read holds finite numbers by their names, and their step."""
  try:
    values = record.values()
    finite = math.isfinite(sum(values)) or all(map(math.isfinite, values))
    finite = finite and _NUMBERS.issuperset(map(type, values)) and line.startswith(b'{')
    return finite and 0 <= operator.index(record['step']) <= LARGEST
  except (TypeError, LookupError, AttributeError, OverflowError):
    return False
