"""The run folder: one process at a time, one config for its whole life."""

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
from jaxseg import storage
from jaxseg.types import UserError


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours of the classes; kept in a run, so that prediction needs no data."""

  names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]


class Workdir:
  """An open run folder; the lock goes with the process, however it ends.

  A bucket has no locks: there, that only one process trains in a folder is up to who starts them.

  Args:
    path: made if it is absent.
    config: compared with the config.json that is there, else written.

  Raises:
    UserError: the folder cannot be written, another process trains in it, or a key that changes what
      is computed differs from the run's.
  """

  def __init__(self, path: str | Path, config: ConfigDict):
    self.path = storage.absolute(path)
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = None if storage.is_remote(path) else (self.path / '.lock').open('w')
    except OSError as e:
      reason = e.strerror or e
      raise UserError(f'--workdir={path}: {reason}; choose a folder that can be written') from e
    if self._lock:
      self._take_lock()
    try:
      self._keep_config(config)
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

  def keep_classes(self, classes: Classes) -> None:
    storage.write_text(
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
    storage.write_text(file, json.dumps(run, indent=2) + '\n')

  def _keep_config(self, config: ConfigDict) -> None:
    file = self.path / 'config.json'
    if file.exists():
      found = configs.differences(load_config(self.path), config)
      if found:
        changes = '; '.join(f'{k}: {old!r} there, {new!r} now' for k, (old, new) in found.items())
        raise UserError(
          f'--workdir={self.path} belongs to another run ({changes}): use another --workdir, or these values'
        )
    storage.write_text(file, configs.to_json(config))

  def close(self) -> None:
    if self._lock:
      self._lock.close()


def load_run(workdir: str | Path) -> dict[str, Any]:
  """Reads run.json; {} where there is none (older runs) or it cannot be read."""
  try:
    return json.loads((storage.place(workdir) / 'run.json').read_text(encoding='utf-8'))
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
  file = storage.place(workdir) / 'classes.json'
  try:
    found = json.loads(file.read_text(encoding='utf-8'))
    return Classes(tuple(found['names']), tuple(tuple(c) for c in found['palette']))
  except (FileNotFoundError, ValueError, KeyError, TypeError) as e:
    raise UserError(
      f'{file} cannot be read ({type(e).__name__}): give the --workdir of a training'
    ) from e


def load_config(workdir: str | Path) -> ConfigDict:
  """Reads the config of a run. Raises UserError where there is no run."""
  file = storage.place(workdir) / 'config.json'
  try:
    return configs.from_json(file.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'no run in {workdir} (no config.json): give the --workdir of a training'
    ) from None
  except (ValueError, KeyError) as e:
    raise UserError(f'{file} is not a config that this project wrote: {e}') from e
