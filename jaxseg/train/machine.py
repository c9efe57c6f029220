"""What belongs to a machine and not to a run: its folders, its memory, an account.

A workdir may come from anybody, so its config.json is not asked for these. When a run is trained, this
machine notes them in its own cache folder; whoever reads the run here gets them from there, and anywhere
else the defaults. So it is with code: parts of the user's own are imported where this machine has trained
the run with them, or where JAXSEG_IMPORTS, in the environment, lists their packages.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
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
_PACKAGES = 'JAXSEG_IMPORTS'  # of the environment: 'mine,theirs'


def remember(workdir: str | Path, config: Mapping[str, Any]) -> None:
  """Notes the machine's keys of a run that is trained here; where the cache cannot be written, none."""
  values = {key: value for key, value in configs.flattened(config).items() if key in KEYS}
  values['imports'] = sorted(_imports(config))
  with contextlib.suppress(UserError, OSError):
    file = _file(workdir)
    cache.make_folder(file.parent)
    files.write_text(file, json.dumps(values))


def adopted(workdir: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config of a run with this machine's own values, or no values, of its keys.

  Args:
    workdir: that it lies in.
    config: nested, as `run_folder.load_config` gives it.

  Raises:
    UserError: it names code that was not trained with here.
  """
  known = {}
  with contextlib.suppress(UserError, OSError, ValueError, TypeError):
    known = dict(configs.plain(files.read_json(_file(workdir))))
  allowed = os.environ.get(_PACKAGES, '').split(',')
  strange = _imports(config) - {*known.get('imports', ())}
  if packages := {name.partition('.')[0] for name in strange}.difference(allowed):
    raise UserError(
      f'{workdir} names code of somebody ({", ".join(sorted(strange))}) and was not trained here: if it is '
      f'yours, set {_PACKAGES}={",".join(sorted(packages))} in the environment'
    )
  config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
  for key in KEYS:
    group, _, name = key.rpartition('.')
    values = config[group] if group else config
    values.pop(name, None)
    if key in known:
      values[name] = known[key]
  return config


def _imports(config: Mapping[str, Any]) -> set[str]:
  """Returns the dotted names of parts, which are imported, in a config of any form."""
  groups = (config.get(name) for name in ('model', 'data', 'loss'))
  named = [config.get('task'), *(g.get('name') for g in groups if isinstance(g, Mapping))]
  steps, evaluation = config.get('augment'), config.get('eval')
  scores = evaluation.get('scores') if isinstance(evaluation, Mapping) else ()
  for listed in (steps, scores.split(',') if isinstance(scores, str) else scores):
    for one in listed if isinstance(listed, (list, tuple)) else ():
      named.append(one[0] if isinstance(one, (list, tuple)) and one else one)
  return {name.strip() for name in named if isinstance(name, str) and '.' in name}


def shared(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what must be the same on every host, as 'group.key': what is about no machine, and read by all."""
  alone = (*KEYS, 'init_from')  # the first host reads the weights for all
  return {key: value for key, value in configs.flattened(config).items() if key not in alone}


def _file(workdir: str | Path) -> Path:
  name = hashlib.sha256(os.fsencode(files.absolute(workdir))).hexdigest()[:16]
  return cache.cache_root(None) / 'runs' / f'{name}.json'
