"""Configs: one Python file per baseline, variants after a colon, overrides, one-line errors.

    python launch/train.py --config=configs/segnet_camvid.py:basic,small --config.batch_size=4

A config file defines `get_config(variant)`. It starts from `base()` and sets its paper's values. The
keys of `Settings` are at the top level; all others are in groups, each of which is the keyword arguments
of a function or dataclass, whose signature is the only place for their defaults and types:

    model    jaxseg.models.<name>.Model            optim  jaxseg.train.optim.Optim
    data     jaxseg.data.options.Data              eval   jaxseg.train.options.EvalOptions
    augment  transforms of jaxseg.data.transforms  init   jaxseg.train.options.InitOptions
    loss     jaxseg.tasks.<task>.Task              log    jaxseg.train.options.LogOptions

`augment` is a sequence of (name, arguments), in the order in which they are applied.
"""

import ast
import dataclasses
import typing
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Literal

from ml_collections import ConfigDict

from jaxseg.config import config_files
from jaxseg.config.config_files import UnknownVariant
from jaxseg.config.config_files import config_module as config_module
from jaxseg.config.fields import check_fields, checked, within
from jaxseg.config.flat import NEW_NAMES
from jaxseg.config.parts import arguments, coerced, did_you_mean
from jaxseg.types import LARGEST, UserError

GROUPS = ('model', 'data', 'augment', 'loss', 'optim', 'eval', 'init', 'log')
_NAMED = ('model', 'data', 'loss', 'optim')  # --config.model=unet selects one, with its defaults


def _is_paper(values: Mapping[str, Any]) -> bool:
  kinds = {'source': str, 'split': str, 'params': int}
  known = ('source' in values) and all(isinstance(name, str) for name in values)
  return known and all(
    isinstance(value, kinds.get(name, (int, float, str, type(None))))
    for name, value in values.items()
  )


@dataclasses.dataclass(frozen=True)
class Settings:
  """The top-level keys of a config.

  Attributes:
    seed: determines weights, order, augmentation and dropout.
    num_steps: optimiser updates.
    max_minutes: wall time of a run, including compilation and evaluations; if num_steps take longer, the
      run's start determines how many fit, and schedules use that (jaxseg.train.budget). 0: no limit.
    batch_size: images per update, over all devices and micro-batches.
    accumulate: micro-batches per update; batch_size / accumulate images are in memory at once.
    dtype: of computation; parameters are always float32.
    matmul_precision: of float32 in convolutions on a TPU or GPU: 'highest' is float32; 'high' is TF32, or
      on a TPU three bfloat16 products; 'default' is the fastest, see jaxseg.nn.precision.
    num_classes: in the labels.
    task: a module of jaxseg.tasks.
    parallel: 'pmap' over devices | 'mesh', one jit-compiled program.
    mesh: with 'mesh': 'data:2,spatial:4' (rows); '' takes as many devices as divide the batch.
    cpu_devices: devices that a CPU is split into, each with a share of the batch; 0: one per core.
    deterministic: refuse operations whose result depends on timing (matters on GPUs).
    compile_cache: folder of compiled programs; '' disables the cache.
    data_dir: folder that holds camvid/, isbi2012/, ...; '' is $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: of built records; '' is $JAXSEG_CACHE, else ~/.cache/jaxseg.
    mirror: of data and weights, tried before their own URLs (jaxseg.fetch.get.FetchOptions); '' is
      $JAXSEG_MIRROR, if set.
    init_from: start from this workdir's or weight file's parameters, or from published weights by name:
      'imagenet', 'torchvision:resnet50' and so on (jaxseg/fetch/manifest.toml).
    eval_split: split to evaluate during training.
    paper: published values: dict(params=..., mean_iou=..., source='arXiv:..., table ...').
  """

  seed: int = within(0, LARGEST, default=0)
  num_steps: int = within(1, LARGEST, default=1000)
  max_minutes: float = within(0, 1e6, default=0.0)
  batch_size: int = within(1, 1 << 16, default=8)
  accumulate: int = within(1, 1 << 16, default=1)
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  matmul_precision: Literal['highest', 'high', 'default'] = 'highest'
  num_classes: int = within(2, 255, default=2)
  task: str = 'semantic'
  parallel: Literal['pmap', 'mesh'] = 'pmap'
  mesh: str = ''
  cpu_devices: int = within(0, 4096, default=0)
  deterministic: bool = False
  compile_cache: str = '~/.cache/jaxseg/xla'
  data_dir: str = ''
  cache_dir: str = ''
  mirror: str = ''
  init_from: str = ''
  eval_split: str = 'val'
  paper: dict | None = checked(
    _is_paper, "dict(source='...'), and of params, split and scores what is known", default=None
  )

  def __post_init__(self):
    check_fields(self, 'config')
    if self.batch_size % self.accumulate:
      raise UserError(
        f'config.batch_size={self.batch_size} does not divide into accumulate={self.accumulate} parts'
      )


def base() -> ConfigDict:
  """Returns the settings with their defaults and empty groups; unlocked until `load` returns it."""
  groups = {name: () if name == 'augment' else {} for name in GROUPS}
  return ConfigDict(dataclasses.asdict(Settings()) | groups, type_safe=False)


def on_shapes(config: ConfigDict, *, size: int, num_classes: int = 4, **options: Any) -> None:
  """Trains for six steps on 16 generated images: the basis of every config's ':smoke'.

  Args:
    config: changed in place; the config file sets network and augmentation.
    size: height and width of the images, in pixels.
    num_classes: of the shapes, background included.
    **options: further ones of jaxseg.datasets.shapes.
  """
  config.num_classes = num_classes
  config.data.name, config.data.train_split, config.eval_split = 'shapes', 'train', 'val'
  config.data.options = dict(size=size, count=16, num_classes=num_classes, **options)
  config.init_from = ''
  config.num_steps = config.eval.every = config.log.checkpoint_every = 6
  config.log.every = 2
  config.paper = None


def variants(argument: str | None, **defaults: Any) -> SimpleNamespace:
  """Parses the variants after a config's colon.

  Args:
    argument: for example 'basic,small' or 'nvidia,fold=3'; None or '' is the bare config.
    **defaults: the existing variants; a bool is enabled by its name alone, others by name=value.

  Returns:
    A namespace with a value for every default.

  Raises:
    UserError: an unknown variant; the message lists the existing ones.
  """
  chosen = dict(defaults)
  for item in filter(None, (argument or '').split(',')):
    name, equals, value = item.strip().partition('=')
    if name not in defaults or bool(equals) == isinstance(defaults[name], bool):
      allowed = ', '.join(k if isinstance(v, bool) else f'{k}=...' for k, v in defaults.items())
      raise UnknownVariant(
        f'unknown variant {item!r}; this config has: {allowed}{did_you_mean(name, defaults)}',
        tuple(allowed.split(', ')) if allowed else (),
      )
    default = defaults[name]
    chosen[name] = coerced(_literal(value), type(default), name, default) if equals else True
  return SimpleNamespace(**chosen)


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """Reads a config, applies 'key=value' overrides and locks the result.

  The groups are checked when the parts are built (jaxseg.train.build).

  Args:
    spec: `path/to/config.py[:variant]`, or `name[:variant]` of one included in jaxseg.
    overrides: 'key=value' each, in order.

  Raises:
    UserError: no such file, variant or key, or a value of the wrong type.
  """
  path, argument = config_files.resolve(spec)
  config = config_files.run_config(path, argument)
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'{path}: get_config returned {config!r}: return what jaxseg.config.base() gave'
    )
  for assignment in overrides:
    override(config, assignment)
  settings(plain(config))
  return config.lock()


def settings(config: Mapping[str, Any]) -> Settings:
  """Returns the top-level keys of a plain config, checked.

  Raises:
    UserError: an unknown key, a wrong value, or a missing or malformed group.
  """
  known = [field.name for field in dataclasses.fields(Settings)]
  for name in config:
    if name not in (*known, *GROUPS):
      raise _unknown(name)
  for name in GROUPS:
    if name not in config:
      raise UserError(f'the config has no group {name!r}: start from jaxseg.config.base()')
    if name != 'augment' and not isinstance(config[name], dict):
      raise UserError(f'config.{name}={config[name]!r}: expected a group, as in dict(name=...)')
  if not isinstance(config['augment'], tuple):
    raise UserError(f'config.augment={config["augment"]!r}: expected transforms, as in ()')
  for step in config['augment']:
    kinds = tuple(map(type, step)) if isinstance(step, tuple) else ()
    if kinds != (str, dict):
      raise UserError(f'config.augment: give (name, dict(...)) for each transform, not {step!r}')
  top = {name: config[name] for name in known if name in config}
  return Settings(**arguments(Settings, top, 'config'))


def override(config: ConfigDict, assignment: str) -> None:
  """Applies one 'key=value' or 'group.key=value'; a name assigned to a whole group selects its part.

  Raises:
    UserError: an unknown key, or a value that does not fit.
  """
  key, equals, text = assignment.partition('=')
  if not equals:
    raise UserError(f'--config.{key} needs a value: --config.{key}=...')
  first, *path = key.split('.')
  if first == 'augment' and path:
    config.augment = _with_transform(config.augment, path, _literal(text))
  elif first in GROUPS and path:
    _set(config[first], key, path, _literal(text))
  elif first in GROUPS:
    value = _literal(text)
    if first == 'augment' and value != ():
      raise UserError(
        f'--config.augment={text}: name a transform, as in --config.augment.flip=True'
      )
    if first != 'augment' and not (first in _NAMED and isinstance(value, str)):
      raise UserError(f'{key!r} is a group: set one of its keys, --config.{key}.NAME=value')
    config[first] = () if first == 'augment' else {'name': value}
  elif key in {field.name for field in dataclasses.fields(Settings)}:
    hint = typing.get_type_hints(Settings)[key]
    default = getattr(Settings(), key)
    config[key] = coerced(text if hint is str else _literal(text), hint, f'--config.{key}', default)
  else:
    raise _unknown(key)


def options(group: str, overrides: Iterable[str]) -> dict[str, Any]:
  """Returns the values set by 'group.key=value' overrides of a single group.

  Raises:
    UserError: any other key.
  """
  values = {}
  for assignment in overrides:
    key, equals, text = assignment.partition('=')
    if not (equals and key.startswith(f'{group}.')):
      raise UserError(f'--config.{assignment}: here only --config.{group}.NAME=VALUE is allowed')
    values[key.removeprefix(f'{group}.')] = _literal(text)
  return values


def _unknown(key: str) -> UserError:
  known = [*(field.name for field in dataclasses.fields(Settings)), *GROUPS]
  first = key.split('.')[0]
  if first in NEW_NAMES:
    rest = key[len(first) :]
    return UserError(f'unknown config key {key!r}: it is now {NEW_NAMES[first]}{rest}')
  return UserError(f'unknown config key {key!r}{did_you_mean(first, known)}')


def _set(group: ConfigDict, key: str, path: list[str], value: Any) -> None:
  *outer, name = path
  for part in outer:
    if part not in group:
      group[part] = {}
    group = group[part]
    if not isinstance(group, ConfigDict):
      raise UserError(f'unknown config key {key!r}: {part!r} is no group')
  if isinstance(value, bool) and isinstance(group.get(name), float):  # ConfigDict would make it 1.0
    raise UserError(f'--config.{key}={value}: expected a number, as in {group[name]!r}')
  group[name] = value


def _with_transform(augment: Any, path: list[str], value: Any) -> tuple:
  """Returns the transforms with one argument set, or with one transform appended or removed."""
  name, *rest = path
  steps = [(step, dict(options)) for step, options in plain(augment)]
  places = [i for i, (step, _) in enumerate(steps) if step == name]
  if not rest and value in (False, 'false', 'False'):
    return tuple(step for step in steps if step[0] != name)
  if not places:
    steps.append((name, {}))
  options = steps[places[0] if places else -1][1]
  if len(rest) == 1:
    options[rest[0]] = value
  elif rest or value not in (True, 'true', 'True'):
    raise UserError(
      f'--config.augment.{".".join(path)}={value}: switch it with True or False, or set one of its '
      f'arguments, --config.augment.{name}.ARGUMENT=value'
    )
  return tuple(steps)


def _literal(text: str) -> Any:
  """Parses a Python literal; anything else is a string."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    return text


def plain(value: Any) -> Any:
  """Replaces ConfigDicts by nested dicts and lists by tuples."""
  if isinstance(value, ConfigDict):
    value = {k: value[k] for k in value}
  if isinstance(value, dict):
    return {k: plain(v) for k, v in value.items()}
  return tuple(map(plain, value)) if isinstance(value, (tuple, list)) else value


def flattened(config: Mapping[str, Any], group: str = '') -> dict[str, Any]:
  """Returns a plain config's values as 'group.key'; for augment the order, and 'augment.step.key'."""
  values: dict[str, Any] = {}
  for key, value in config.items():
    name = f'{group}{key}'
    if key == 'augment':
      steps = values[name] = tuple(step for step, _ in value)
      count = [steps[: i + 1].count(step) for i, step in enumerate(steps)]  # numbers repeated steps
      named = zip(steps, count, value, strict=True)
      value = {f'{step}.{n}' if n > 1 else step: options for step, n, (_, options) in named}
    values |= flattened(value, f'{name}.') if isinstance(value, Mapping) else {name: value}
  return values
