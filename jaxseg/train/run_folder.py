"""The run folder: one process at a time, one config from its first checkpoint on."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg import files
from jaxseg.types import UserError

_SHOWN, _LONGEST = 3, 60  # differences of two configs in a line; characters of each value


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours of the classes; kept in a run, so that prediction needs no data."""

  names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]


class Workdir:
  """An open run folder; the lock goes with the process, however it ends.

  Opening writes nothing but the lock: a command that is refused later leaves the folder to the next.
  A bucket has no locks: there, that only one process trains in a folder is up to who starts them.

  Args:
    path: made if it is absent.
    config: compared with that of the run whose checkpoints are there; without any there is no run.

  Raises:
    UserError: the folder cannot be written, another process trains in it, or a key that changes what
      is computed differs from the run's.
  """

  def __init__(self, path: str | Path, config: ConfigDict):
    self.path, self._config = files.absolute(path), config
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = None if files.is_remote(path) else (self.path / '.lock').open('w')
    except OSError as e:
      reason = e.strerror or e
      raise UserError(f'--workdir={path}: {reason}; choose a folder that can be written') from e
    if self._lock:
      self._take_lock()
    try:
      self._compare()
    except UserError:
      self.close()
      raise

  def _take_lock(self) -> None:
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      self._lock.close()
      raise UserError(
        f'--workdir={self.path}: another process is training there; wait or choose another'
      ) from None

  def keep_config(self) -> None:
    """Writes config.json; where it replaces another, which left no checkpoint, run.json starts anew."""
    file = self.path / 'config.json'
    if file.exists() and configs.differences(load_config(self.path), self._config):
      (self.path / 'run.json').unlink(missing_ok=True)
    files.write_text(file, configs.to_json(self._config))

  def keep_classes(self, classes: Classes) -> None:
    files.write_text(
      self.path / 'classes.json', json.dumps(dataclasses.asdict(classes), indent=2) + '\n'
    )

  def keep_run(self, devices: str) -> None:
    """Writes run.json: the command, versions, devices, revision and times of every start.

    The top level is that of the latest start, 'started' that of the first; `devices` is in words.
    """
    file, now = (
      self.path / 'run.json',
      datetime.datetime.now().astimezone().isoformat('T', 'seconds'),
    )
    before = load_run(self.path)
    session = {'started': now, 'command': shlex.join(['python', *sys.argv]), 'git': git_revision()}
    run = {
      **session,
      'started': before.get('started', now),
      'devices': devices,
      'hardware': f'{devices}; {_processor()}, {os.cpu_count()} cores',
      'system': platform.platform(),
      'versions': {'python': platform.python_version()} | _versions(),
      'sessions': [*before.get('sessions', []), session],
    }
    files.write_text(file, json.dumps(run, indent=2) + '\n')

  def _compare(self) -> None:
    steps = (p for p in self.path.glob('checkpoints/*') if p.name.isdigit())
    if next(steps, None) is None:
      return
    found = configs.differences(load_config(self.path), self._config)
    if found:
      raise UserError(
        f'--workdir={self.path} belongs to another run ({_told(found)}): use another --workdir, or '
        'these values'
      )

  def close(self) -> None:
    if self._lock:
      self._lock.close()


def _told(differences: dict[str, tuple[Any, Any]]) -> str:
  """Writes the first differences, options one by one, and how many more there are."""
  flat = {}
  for key, (old, new) in differences.items():
    if isinstance(old, dict) and isinstance(new, dict):
      names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
      flat |= {f'{key}.{name}': (old.get(name), new.get(name)) for name in names}
    else:
      flat[key] = (old, new)
  shown = list(flat.items())[:_SHOWN]
  texts = [f'{key}: {_short(old)} there, {_short(new)} now' for key, (old, new) in shown]
  texts += [f'{len(flat) - _SHOWN} more'] if len(flat) > _SHOWN else []
  return '; '.join(texts)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'


def load_run(workdir: str | Path) -> dict[str, Any]:
  """Reads run.json; {} where there is none (older runs) or it cannot be read."""
  try:
    return json.loads((files.place(workdir) / 'run.json').read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return {}


def git_revision() -> str:
  """Returns the checkout's revision, with '+' where tracked files are changed; '' where it is none."""
  root = Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return ''
  try:
    head, status = (
      subprocess.run(
        ['git', '-C', str(root), *words], capture_output=True, text=True, timeout=20, check=True
      ).stdout.strip()
      for words in (('rev-parse', 'HEAD'), ('status', '--porcelain', '--untracked-files=no'))
    )
  except (OSError, subprocess.SubprocessError):
    return ''
  return head + ('+' if status else '')


def _versions() -> dict[str, str]:
  found = {}
  for name in ('jaxseg', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass  # a checkout on PYTHONPATH is not installed; its revision says more
  return found


def _processor() -> str:
  try:
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
  except (OSError, StopIteration):
    return platform.processor() or platform.machine()


def load_classes(workdir: str | Path) -> Classes:
  """Reads the classes of a run. Raises UserError where there is none."""
  file = files.place(workdir) / 'classes.json'
  try:
    found = json.loads(file.read_text(encoding='utf-8'))
    return Classes(tuple(found['names']), tuple(tuple(c) for c in found['palette']))
  except (FileNotFoundError, ValueError, KeyError, TypeError) as e:
    raise UserError(
      f'{file} cannot be read ({type(e).__name__}): give the --workdir of a training'
    ) from e


def load_config(workdir: str | Path) -> ConfigDict:
  """Reads the config of a run. Raises UserError where there is no run."""
  file = files.place(workdir) / 'config.json'
  try:
    return configs.from_json(file.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'no run in {workdir} (no config.json): give the --workdir of a training'
    ) from None
  except (ValueError, KeyError) as e:
    raise UserError(f'{file} is not a config that this project wrote: {e}') from e
