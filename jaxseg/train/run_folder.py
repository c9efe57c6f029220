"""The run folder: one process at a time, one config from its first checkpoint on."""

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxseg import config as configs
from jaxseg import files
from jaxseg.config import flat
from jaxseg.types import UserError

_SHOWN, _LONGEST = 3, 60  # differences of two configs in a line; characters of each value
# Keys that may differ when a run is resumed: none of them changes what is computed.
FREE_KEYS = (
  'data_dir',
  'cache_dir',
  'parallel',
  'mesh',
  'cpu_devices',
  'compile_cache',
  'init_from',
  'eval_split',
  'paper',
  'init.',
  'log.',
  'data.num_threads',
  'data.timeout',
  'data.memory_mb',
  'eval.every',
  'eval.batch_size',
  'eval.scales',
  'eval.score.f_scores',
  'eval.scores',
)


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours of the classes; kept in a run, so that prediction needs no data.

  `ids` are the data's own numbers of the classes, () where these are 0..c-1.
  """

  names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  ids: tuple[int | str, ...] = ()


class RunFolder:
  """An open run folder; the lock goes with the process, however it ends.

  Opening writes nothing but the lock: a command that is refused later leaves the folder to the next.
  A bucket has no locks: there, that only one process trains in a folder is up to who starts them.

  Args:
    path: made if it is absent.
    config: complete; compared with that of the run whose checkpoints are there; without any there is
      no run.
    complete: fills a saved config up with the defaults of what it does not set.

  Raises:
    UserError: the folder cannot be written, another process trains in it, or a key that changes what
      is computed differs from the run's.
  """

  def __init__(
    self,
    path: str | Path,
    config: Mapping[str, Any],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
  ):
    self.path, self._config, self._complete = files.absolute(path), config, complete
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

  def _compare(self) -> None:
    steps = (p for p in self.path.glob('checkpoints/*') if p.name.isdigit())
    if next(steps, None) is None:
      return
    changed = differences(self._complete(load_config(self.path)), self._config)
    if changed:
      raise UserError(
        f'--workdir={self.path} belongs to another run ({_listed(changed)}): use another --workdir, '
        'or these values'
      )

  def _is_another(self) -> bool:
    """Whether the config that is there, of a start that left no checkpoint, is not this one's."""
    try:
      return bool(differences(self._complete(load_config(self.path)), self._config))
    except UserError:  # nor one that can be built
      return True

  def write_facts(self, classes: Classes, devices: str) -> None:
    """Writes config.json, classes.json and run.json: the folder is this run's from now on.

    run.json holds the command, versions, devices, revision and time of every start; its top level is
    that of the latest start, 'started' that of the first. Where config.json replaces another, which
    left no checkpoint, run.json starts anew. `record_times` adds what each start took.

    Args:
      classes: of the data.
      devices: in words.
    """
    file = self.path / 'config.json'
    if file.exists() and self._is_another():
      (self.path / 'run.json').unlink(missing_ok=True)
    _write_json(file, self._config)
    _write_json(self.path / 'classes.json', dataclasses.asdict(classes))
    now = datetime.datetime.now().astimezone().isoformat('T', 'seconds')
    before = load_run(self.path)
    session = {'started': now, 'command': _command(sys.argv), 'git': git_revision()}
    run = {
      **session,
      'started': before.get('started', now),
      'devices': devices,
      'hardware': f'{devices}; {_processor()}, {os.cpu_count()} cores',
      'system': platform.platform(),
      'versions': {'python': platform.python_version()} | _versions(),
      'sessions': [*before.get('sessions', []), session],
    }
    _write_json(self.path / 'run.json', run)

  def close(self) -> None:
    if self._lock:
      self._lock.close()


def _write_json(file: Path, value: Any) -> None:
  files.write_text(file, json.dumps(value, indent=2) + '\n')


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns {key: (old, new)} for the keys of two complete configs that differ and matter to a run."""
  a, b = (configs.flattened(_from_json(json.dumps(config))) for config in (old, new))
  keys = sorted(key for key in a | b if not key.startswith(FREE_KEYS))
  changed = {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}
  if 'augment' in changed:  # other transforms: their arguments say no more
    changed = {key: pair for key, pair in changed.items() if not key.startswith('augment.')}
  if set(changed) == {'num_steps'} and new['optim']['schedule'] == 'constant':
    return {}  # longer or shorter, every step that both take is the same
  return changed


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
  """Writes the first differences, and how many more there are."""
  shown = list(changed.items())[:_SHOWN]
  texts = [f'{key}: {_short(old)} there, {_short(new)} now' for key, (old, new) in shown]
  texts += [f'{len(changed) - _SHOWN} more'] if len(changed) > _SHOWN else []
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


def record_times(
  folder: Path, seconds: Mapping[str, float], steps: tuple[int, int]
) -> list[dict[str, Any]]:
  """Writes where the time of the latest start went, and its steps, into run.json; returns all starts.

  Args:
    folder: of a run whose facts are written.
    seconds: see jaxseg.train.times.
    steps: (before, after) of its saves.
  """
  run = load_run(folder)
  sessions = run.get('sessions') or [{}]
  sessions[-1] |= {'seconds': dict(seconds), 'steps': list(steps)}
  _write_json(folder / 'run.json', run | {'sessions': sessions})
  return sessions


def _command(argv: list[str]) -> str:
  """Returns how a process was started, as one would type it again."""
  script, *flags = argv
  started = {'jaxseg': ['jaxseg'], '__main__.py': ['python', '-m', 'jaxseg']}
  return shlex.join([*started.get(Path(script).name, ['python', script]), *flags])


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
  versions = {}
  for name in ('jaxseg', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'):
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass  # a checkout on PYTHONPATH is not installed; its revision says more
  return versions


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
    saved = json.loads(file.read_text(encoding='utf-8'))
    palette = tuple(tuple(c) for c in saved['palette'])
    return Classes(tuple(saved['names']), palette, tuple(saved.get('ids', ())))
  except (FileNotFoundError, ValueError, KeyError, TypeError) as e:
    raise UserError(
      f'{file} cannot be read ({type(e).__name__}): give the --workdir of a training'
    ) from e


def load_config(workdir: str | Path) -> dict[str, Any]:
  """Returns the config of a run as it was saved, nested and plain; runs of jaxseg 0.1 are translated.

  Raises:
    UserError: there is no run, or its config cannot be read.
  """
  file = files.place(workdir) / 'config.json'
  try:
    config = _from_json(file.read_text(encoding='utf-8'))
    return flat.nested(config) if flat.is_flat(config) else config
  except FileNotFoundError:
    raise UserError(
      f'no run in {workdir} (no config.json): give the --workdir of a training'
    ) from None
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f'{file} is not a config that this project wrote: {e}') from e


def _from_json(text: str) -> Any:
  return configs.plain(json.loads(text))
