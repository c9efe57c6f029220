"""The run folder: one process at a time, one config from its first checkpoint on."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxseg import config as configs
from jaxseg import files
from jaxseg.config import flat
from jaxseg.train import machine, provenance
from jaxseg.train.claim import Claim
from jaxseg.types import UserError, is_word

_SHOWN, _LONGEST = 3, 60  # differences of two configs in a line; characters of each value
_LARGEST = 64 << 20  # bytes of a run's own JSON files
EXTENDABLE = ('constant', 'step')  # schedules whose rates do not depend on the number of steps
# Keys that may change when a run is resumed: none affects the result.
FREE_KEYS = (
  *machine.KEYS,
  'parallel',
  'mesh',
  'eval_split',
  'paper',
  'log.',
  'data.changed',
  'eval.every',
  'eval.patience',
  'eval.batch_size',
  'eval.scales',
  'eval.score.f_scores',
  'eval.scores',
)


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours of the classes, saved with a run so that prediction needs no data.

  `ids` are the class ids in the raw data, () where these are 0..c-1.
  """

  names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  ids: tuple[int | str, ...] = ()


class RunFolder:
  """An open run folder, see Claim; a start that is refused later leaves it as it was.

  Args:
    path: created if absent.
    config: complete; compared with the config of the run whose checkpoints are in the folder; a folder
      without checkpoints has no run.
    complete: adds the defaults to a saved config.

  Raises:
    UserError: the folder cannot be claimed, or a key that affects the result differs from the run's.

  Attributes:
    config: what `write_facts` writes.
    notes: lines about free keys whose change makes earlier scores incomparable.
  """

  def __init__(
    self,
    path: str | Path,
    config: Mapping[str, Any],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
  ):
    self.path, self.config, self._complete = files.to_utf8_path(path), config, complete
    self.notes: list[str] = []
    self._claim = Claim(self.path, _holds_config)
    try:
      self._compare()
    except UserError:
      self.close()
      raise

  def _compare(self) -> None:
    if not has_checkpoints(self.path):
      _refuse_stale(self.path)
      _refuse_others(self.path)
      return
    before = self._complete(load_config(self.path))
    self.notes = _changed_scores(before, self.config)
    changed = differences(before, self.config)
    if set(changed) == {'num_steps'}:
      old, new = changed['num_steps']
      raise UserError(
        f'--workdir={self.path} is a run of {old} steps, and so is its rate (optim.schedule='
        f'{self.config["optim"]["schedule"]}): to train {"longer" if new > old else "less"}, start '
        f'another from it with --workdir=NEW --config.init_from={self.path}, or go on with '
        f'--config.num_steps={old}; runs of --config.optim.schedule={" or ".join(EXTENDABLE)} can be '
        'extended'
      )
    if changed:
      raise UserError(
        f'--workdir={self.path} belongs to another run ({_listed(changed)}): use another --workdir, '
        'or these values'
      )

  def _is_another(self) -> bool:
    """Whether config.json, from a start that left no checkpoint, differs from this config."""
    try:
      return bool(differences(self._complete(load_config(self.path)), self.config))
    except UserError:  # it cannot even be built
      return True

  def begin(self) -> None:
    """Allows writing; see Claim."""
    self._claim.begin()

  def write_facts(self, classes: Classes, devices: str) -> None:
    """Writes config.json, classes.json and run.json: the folder belongs to this run from now on.

    run.json holds the command, versions, devices, revision and time of every start; its top level is
    that of the latest start, 'started' that of the first. Where config.json replaces that of a start
    without a checkpoint, run.json starts afresh. `record_times` adds the time that each start took.

    Args:
      classes: of the data.
      devices: description of the devices.
    """
    file = self.path / 'config.json'
    if file.exists() and self._is_another():
      (self.path / 'run.json').unlink(missing_ok=True)
    _write_json(file, self.config)
    _write_json(self.path / 'classes.json', dataclasses.asdict(classes))
    _write_json(self.path / 'run.json', provenance.describe(devices, load_run(self.path)))
    self._claim.keep()

  def close(self) -> None:
    self._claim.close()


def has_checkpoints(workdir: str | Path) -> bool:
  """Returns whether there is a run that can be resumed."""
  return any(p.name.isdigit() for p in files.to_utf8_path(workdir).glob('checkpoints/*'))


def _changed_scores(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  a, b = (configs.flattened(configs.plain(json.loads(json.dumps(config)))) for config in (old, new))
  return [
    f'note      {key} is {_short(b.get(key))} from here on, {_short(a.get(key))} before: the best checkpoint is '
    'chosen by scores of both'
    for key in ('eval_split', 'eval.scales')
    if a.get(key) != b.get(key)
  ]


def _refuse_stale(folder: Path) -> None:
  """Rejects results of weights that are gone, which would pass for those of the run that begins."""
  for stale in (*sorted(folder.glob('eval/*.json')), folder / 'temperature.json'):
    if stale.exists():
      raise UserError(
        f'--workdir={folder} has no checkpoints, but results of earlier ones ({stale.name}): remove eval/ and '
        'temperature.json, or use another --workdir'
      )


def _refuse_others(folder: Path) -> None:
  """Rejects files of a run's names that no run wrote: a start that was killed leaves a folder marked as a run's."""
  forms = {
    'config.json': lambda saved: load_config(folder),
    'classes.json': checked_classes,
    'run.json': lambda saved: saved['started'],
    'data.json': lambda saved: [text + '' for split in saved.values() for text in split.values()],
    'metrics.jsonl': lambda saved: saved['step'],
  }
  for name, check in forms.items():
    try:
      file = folder / name
      check(_first_line(file) if name.endswith('l') else files.read_json(file, _LARGEST))
    except FileNotFoundError:
      continue
    except (UserError, ValueError, LookupError, TypeError, AttributeError):
      raise UserError(
        f'--workdir={folder} has no checkpoints, and a {name} that no run wrote: choose an empty or a new folder'
      ) from None


def _first_line(file: Path) -> Any:
  """Returns the first record of a log; one with a step if it has none yet, or half of one."""
  with files.opened(file) as log:
    line = log.readline(_LARGEST)
  return json.loads(line) if line.endswith(b'\n') and line.strip() else {'step': 0}


def _holds_config(folder: Path) -> bool:
  try:
    load_config(folder)
  except UserError:
    return False
  return True


def _write_json(file: Path, value: Any) -> None:
  files.write_text(file, json.dumps(value, indent=2) + '\n')


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns {key: (old, new)} for the keys of two complete configs that differ and affect the result."""
  a, b = (configs.flattened(configs.plain(json.loads(json.dumps(config)))) for config in (old, new))
  keys = sorted(key for key in a | b if not key.startswith(FREE_KEYS))
  changed = {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}
  if 'augment' in changed:  # different transforms: listing their arguments adds nothing
    changed = {key: pair for key, pair in changed.items() if not key.startswith('augment.')}
  if set(changed) == {'num_steps'} and new['optim']['schedule'] in EXTENDABLE:
    return {}  # the steps that both runs do are identical
  return changed


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
  """Lists the first differences, and counts the rest."""
  shown = list(changed.items())[:_SHOWN]
  texts = [f'{key}: {_short(old)} there, {_short(new)} now' for key, (old, new) in shown]
  texts += [f'{len(changed) - _SHOWN} more'] if len(changed) > _SHOWN else []
  return '; '.join(texts)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'


def load_run(workdir: str | Path) -> dict[str, Any]:
  """Returns the contents of run.json; {} where it is missing (older runs) or unreadable."""
  try:
    return provenance.known(files.read_json(files.to_path(workdir) / 'run.json', _LARGEST))
  except (OSError, UserError):
    return {}


def record_times(
  folder: Path, seconds: Mapping[str, float], steps: tuple[int, int]
) -> list[dict[str, Any]]:
  """Adds the time split and the steps of the latest start to run.json; returns all starts.

  Args:
    folder: of a run with a run.json.
    seconds: see jaxseg.train.times.
    steps: (at the start, at the latest save).
  """
  run = load_run(folder)
  sessions = run.get('sessions') or [{}]
  sessions[-1] |= {'seconds': dict(seconds), 'steps': list(steps)}
  _write_json(folder / 'run.json', run | {'sessions': sessions})
  return sessions


def load_classes(workdir: str | Path) -> Classes:
  """Reads the classes of a run. Raises UserError where there is no run, or its file is damaged."""
  file = files.to_path(workdir) / 'classes.json'
  try:
    return checked_classes(files.read_json(file, _LARGEST))
  except FileNotFoundError:
    raise UserError(f'{file} is not there: give the --workdir of a training') from None
  except (KeyError, TypeError, ValueError) as e:
    reason = f'{type(e).__name__} {e}' if isinstance(e, (KeyError, TypeError)) else e
    raise UserError(f'{file} cannot be read ({reason}): give the --workdir of a training') from e


def checked_classes(saved: Any) -> Classes:
  """Parses the contents of classes.json. Raises ValueError, KeyError or TypeError if invalid."""
  names, palette = saved['names'], saved['palette']
  if not names or not all(isinstance(name, str) and is_word(name) for name in names):
    raise ValueError('the names of the classes must be words')
  if len(set(names)) < len(names) or len(names) != len(palette):
    raise ValueError(f'{len(set(names))} different names and {len(palette)} colours')
  for color in palette:
    if len(color) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in color):
      raise ValueError(f'a colour is three whole numbers from 0 to 255, not {color!r}')
  ids = saved.get('ids', ())
  if len(ids) not in (0, len(names)) or not all(type(i) in (int, str) for i in ids):
    raise ValueError('the data have an own number or word for each class, or none')
  return Classes(tuple(names), tuple(map(tuple, palette)), tuple(ids))


def load_config(workdir: str | Path) -> dict[str, Any]:
  """Returns the saved config of a run, nested and plain; configs of jaxseg 0.1 are converted.

  Its folders and process options are those of the machine that trained it: see train.machine.

  Raises:
    UserError: there is no run, or its config cannot be read.
  """
  file = files.to_path(workdir) / 'config.json'
  try:
    return checked_config(files.read_json(file, _LARGEST))
  except FileNotFoundError:
    raise UserError(
      f'no run in {workdir} (no config.json): give the --workdir of a training'
    ) from None
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
    raise UserError(f'{file} is not a config that this project wrote: {e}') from None


def checked_config(saved: Any) -> dict[str, Any]:
  """Parses the contents of config.json into a nested, plain config.

  Raises:
    ValueError, LookupError, TypeError, AttributeError, RecursionError: invalid.
  """
  config = configs.plain(saved)
  config = flat.nested(config) if flat.is_flat(config) else flat.without_left_out(config)
  configs.settings(config)
  return config
