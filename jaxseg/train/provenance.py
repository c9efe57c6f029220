"""Records how a run was started: command, revision, versions, processor."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_SECONDS = 1e10  # longer is not a duration
# Text fields; 'versions' is text by package, 'sessions' has these fields for every start.
_WORDS = ('started', 'command', 'git', 'devices', 'hardware', 'system')


def describe(devices: str, before: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the contents of run.json for a new start.

  Args:
    devices: description of the devices.
    before: the contents so far, {} at the first start.
  """
  now = datetime.datetime.now().astimezone().isoformat('T', 'seconds')
  session = {'started': now, 'command': _command(sys.argv), 'git': git_revision()}
  return {
    **session,
    'started': before.get('started', now),
    'devices': devices,
    'hardware': f'{devices}; {_processor()}, {os.cpu_count()} cores',
    'system': platform.platform(),
    'versions': {'python': platform.python_version()} | _versions(),
    'sessions': [*before.get('sessions', []), session],
  }


def known(saved: Any) -> dict[str, Any]:
  """Returns the valid fields of a saved run.json; drops the rest."""
  if not isinstance(saved, dict):
    return {}
  facts = _words(saved, _WORDS)
  if isinstance(saved.get('versions'), dict):
    facts['versions'] = _words(saved['versions'], saved['versions'])
  if isinstance(saved.get('sessions'), list):
    facts['sessions'] = [_session(s) for s in saved['sessions'] if isinstance(s, dict)]
  return facts


def _session(saved: Mapping[str, Any]) -> dict[str, Any]:
  facts, seconds, steps = _words(saved, _WORDS), saved.get('seconds'), saved.get('steps')
  if isinstance(seconds, dict):
    facts['seconds'] = {
      k: v for k, v in seconds.items() if type(v) is float and abs(v) < _MAX_SECONDS
    }
  if isinstance(steps, list) and len(steps) == 2 and all(type(step) is int for step in steps):
    facts['steps'] = steps
  return facts


def _words(saved: Mapping[str, Any], names: Any) -> dict[str, str]:
  return {name: saved[name] for name in names if isinstance(saved.get(name), str)}


def _command(argv: list[str]) -> str:
  """Returns the shell command that started a process."""
  script, *flags = argv
  started = {'jaxseg': ['jaxseg'], '__main__.py': ['python', '-m', 'jaxseg']}
  return shlex.join([*started.get(Path(script).name, ['python', script]), *flags])


def git_revision() -> str:
  """Returns the checkout's revision, with '+' if tracked files are modified; '' outside a checkout."""
  root = Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return ''
  try:
    head, status = (
      subprocess.run(
        ['git', '--no-optional-locks', '-C', str(root), *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
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
