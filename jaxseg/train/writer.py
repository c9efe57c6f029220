"""Writes scalars to metrics.jsonl, TensorBoard and, optionally, Weights & Biases."""

import json
import math
import operator
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.console import install_hint
from jaxseg.train.events import Events
from jaxseg.types import LARGEST, UserError

_NUMBERS = frozenset((int, float))


class Writer:
  """Appends scalars to <workdir>/metrics.jsonl (one JSON object per line) and to TensorBoard.

  Args:
    workdir: an existing folder.
    restored_step: later lines are dropped, because the resumed run writes them again.
    wandb: Weights & Biases project that gets the same; '' is off.
    config: shown there beside the run.

  Raises:
    UserError: wandb is requested but not installed.
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
    """Flushes everything to storage: a checkpoint must not be ahead of its log."""
    self._file.sync()
    self._events.sync()

  def close(self) -> None:
    self._file.close()
    self._events.close()
    if self._wandb:
      self._wandb.finish()


def open_wandb(project: str, workdir: Path, config: dict[str, Any] | None) -> Any:
  """Starts or resumes the Weights & Biases run of a workdir."""
  try:
    import wandb
  except ImportError as e:
    raise UserError(
      f'config.log.wandb={project!r} needs wandb: {install_hint("wandb")}, or leave it empty'
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
  """Drops damaged lines and those after `last_step`, atomically."""
  if path.exists():
    lines = (line for line, record in _lines(path) if record and record['step'] <= last_step)
    files.write_bytes(path, b''.join(line + b'\n' for line in lines))


def read_log(workdir: Path) -> tuple[list[dict[str, float]], int]:
  """Returns the intact lines of metrics.jsonl, and the number of damaged ones."""
  try:
    records = [record for _, record in _lines(workdir / 'metrics.jsonl')]
  except FileNotFoundError:
    return [], 0
  return [r for r in records if r], sum(r is None for r in records)


def read_records(workdir: Path) -> list[dict[str, float]]:
  """Returns the intact lines of metrics.jsonl, [] without the file."""
  return read_log(workdir)[0]


def best_score(records: Iterable[dict[str, float]], score: str) -> tuple[float, int]:
  """Returns the best score in a log, 0 without any, and the number of evaluations since."""
  best, since = 0.0, 0
  for record in records:
    if any(name.startswith('eval/') for name in record):
      since = 0 if record.get(f'eval/{score}', 0.0) > best else since + 1
      best = max(best, record.get(f'eval/{score}', 0.0))
  return best, since


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, float] | None]]:
  """Yields each line and its parsed record, finite numbers by name with 'step'; None if damaged."""
  lines = files.read_bytes(path).splitlines()
  # Parsing all at once is much faster; a damaged line may swallow its neighbours, then parse singly.
  records = _parsed(b'[' + b','.join(lines) + b']')
  if len(lines) != len(records or ()) or not all(map(_is_valid, records, lines)):
    each = zip(map(_parsed, lines), lines, strict=True)
    records = [record if _is_valid(record, line) else None for record, line in each]
  yield from zip(lines, records, strict=True)


def _parsed(text: bytes) -> Any:
  try:
    return files.parsed(text)
  except ValueError:
    return None


def _is_valid(record: Any, line: bytes) -> bool:
  """Whether a parsed line is an object of finite numbers with a valid step."""
  try:
    values = record.values()
    finite = math.isfinite(sum(values)) or all(map(math.isfinite, values))
    finite = finite and _NUMBERS.issuperset(map(type, values)) and line.startswith(b'{')
    return finite and 0 <= operator.index(record['step']) <= LARGEST
  except (TypeError, LookupError, AttributeError, OverflowError):
    return False
