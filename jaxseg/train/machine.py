"""Settings of a machine rather than of a run: its folders, its memory, an account.

A workdir may come from a stranger, so these are not read from its config.json. Training stores them in
this machine's cache folder, from which later commands take them; on any other machine the defaults apply.
The same goes for code: user-defined parts are imported only if this machine trained the run with them,
or if the environment variable JAXSEG_IMPORTS lists their packages.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxseg import config as configs
from jaxseg import files
from jaxseg.data import cache
from jaxseg.types import UserError

KEYS = (
  'data_dir',
  'cache_dir',
  'compile_cache',
  'mirror',
  'cpu_devices',
  'data.num_threads',
  'data.timeout',
  'data.memory_mb',
  'log.wandb',
)
_VARIABLE = 'JAXSEG_IMPORTS'  # environment variable, 'mine,theirs'


def save(workdir: str | Path, config: Mapping[str, Any]) -> None:
  """Stores the machine's keys of a run trained here; does nothing if the cache is not writable."""
  values = {key: value for key, value in configs.flattened(config).items() if key in KEYS}
  values['imports'] = sorted(_imports(config))
  with contextlib.suppress(UserError, OSError):
    cache.save(_file(workdir), values)


def apply(workdir: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a run's config with its machine keys replaced by this machine's values, or removed.

  Args:
    workdir: of the run.
    config: nested, from `run_folder.load_config`.

  Raises:
    UserError: it names code that this machine did not train with.
  """
  known = {}
  with contextlib.suppress(UserError, OSError, ValueError, TypeError):
    known = dict(configs.plain(files.read_json(_file(workdir))))
  allowed = filter(None, os.environ.get(_VARIABLE, '').split(','))
  untrusted = _imports(config) - {*known.get('imports', ())}
  if packages := {name.partition('.')[0] for name in untrusted}.difference(allowed):
    raise UserError(
      f'{workdir} names code outside jaxseg ({", ".join(sorted(untrusted))}) and was not trained here: if you '
      f'trust it, set {_VARIABLE}={",".join(sorted(packages))} in the environment'
    )
  config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
  for key in KEYS:
    group, _, name = key.rpartition('.')
    values = config[group] if group else config
    values.pop(name, None)
    if key in known:
      values[name] = known[key]
  return config


def outside(workdir: str | Path, config: Mapping[str, Any]) -> str:
  """Returns a path outside of the data's folder that the options of a run's data name; '' if it was trained here."""
  with contextlib.suppress(UserError, OSError):  # there may be no cache folder
    if _file(workdir).exists():
      return ''
  data = config.get('data')
  texts = _texts(data.get('options') if isinstance(data, Mapping) else None)
  return next((t for t in texts if t[:1] in ('/', '~') or '..' in t.split('/')), '')


def _texts(value: Any) -> Iterator[str]:
  """Yields the texts in nested containers."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, (Mapping, list, tuple)):
    for part in value.values() if isinstance(value, Mapping) else value:
      yield from _texts(part)


def _imports(config: Mapping[str, Any]) -> set[str]:
  """Returns the dotted import paths in a config, which may be malformed."""
  groups = (config.get(name) for name in ('model', 'data', 'loss'))
  named = [config.get('task'), *(g.get('name') for g in groups if isinstance(g, Mapping))]
  steps, evaluation = config.get('augment'), config.get('eval')
  scores = evaluation.get('scores') if isinstance(evaluation, Mapping) else ()
  for listed in (steps, scores.split(',') if isinstance(scores, str) else scores):
    for entry in listed if isinstance(listed, (list, tuple)) else ():
      named.append(entry[0] if isinstance(entry, (list, tuple)) and entry else entry)
  return {name.strip() for name in named if isinstance(name, str) and '.' in name}


def shared(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings that must be equal on every host, as {'group.key': value}."""
  per_host = (*KEYS, 'init_from')  # only the first host reads the weights
  return {key: value for key, value in configs.flattened(config).items() if key not in per_host}


def _file(workdir: str | Path) -> Path:
  name = hashlib.sha256(os.fsencode(files.absolute(workdir))).hexdigest()[:16]
  return cache.cache_root(None) / 'runs' / f'{name}.json'
