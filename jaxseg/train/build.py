"""Turns a config into one frozen `Experiment` of the parts it names.

Shared by training, evaluation and prediction, so that a run is evaluated exactly as it was trained.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg import files, models, tasks
from jaxseg.config import Settings
from jaxseg.config.parts import arguments, coerced, defaults, load, names, parameters
from jaxseg.data import augment, label_check, threads, transforms
from jaxseg.data.frame import Frame
from jaxseg.data.options import Data
from jaxseg.data.statistics import median_frequency_weights
from jaxseg.data.views import Resized, Stretched
from jaxseg.nn.layers.norm import BatchNorm
from jaxseg.nn.precision import at_precision
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.train import allocator, machine
from jaxseg.train.optim import Optim
from jaxseg.train.options import EvalOptions, InitOptions, LogOptions
from jaxseg.train.run_folder import load_config
from jaxseg.train.state import make_init
from jaxseg.types import UserError

MEDIAN_FREQUENCY = 'median_frequency'  # class weights computed from the training labels
_OF_SOURCE = ('split', 'data_dir', 'cache_dir')  # passed by the caller that opens a source
_GROUPS = {
  'data': Data,
  'optim': Optim,
  'eval': EvalOptions,
  'init': InitOptions,
  'log': LogOptions,
}


def check_names(trained: Sequence[str], there: Sequence[str]) -> None:
  """Raises UserError where a class has another index in the data than in the run; renaming is allowed."""
  there = tuple(there)
  moved = [name for i, name in enumerate(trained) if name in there and there.index(name) != i]
  if moved:
    raise UserError(
      f'the run was trained on the classes {", ".join(trained)}, but the data have {", ".join(there)}: '
      'restore their order'
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config names.

  Attributes:
    config: plain, nested and complete, as config.json holds it.
    settings: the top-level keys.
    data, optim, eval, init, log: the groups of these names.
    task: without class weights that come from the labels; `task_for` adds them.
    transforms: of training examples, the task's last.
    preprocess: maps a batch's images to the network's input.
    outside: a path outside of the data's folder that a run from another machine names; `source` then
      refuses to open the data. '' for none.
  """

  config: Mapping[str, Any]
  settings: Settings
  data: Data
  task: Any
  transforms: tuple
  preprocess: Preprocessing
  optim: Optim
  eval: EvalOptions
  init: InitOptions
  log: LogOptions
  outside: str = ''

  @property
  def channels(self) -> int:
    """Image channels."""
    return self.data.channels

  @property
  def schedule(self) -> Callable[[int], Any]:
    """Step -> learning rate."""
    return self.optim.make_schedule(self.settings.num_steps)

  @property
  def name(self) -> str:
    """The network and its options, as text."""
    options = dict(self.config['model'])
    return f'{options.pop("name")}({", ".join(f"{k}={v}" for k, v in options.items())})'

  def model(self, axis_name: str | None = None) -> nn.Module:
    """Returns the network; BatchNorm averages over `axis_name`, the step wrapper's mapped axis."""
    options = dict(self.config['model'])
    model = models.load(options.pop('name'))(
      num_classes=self.task.num_outputs,
      norm=partial(BatchNorm, axis_name=axis_name),
      dtype=jnp.dtype(self.settings.dtype),
      **options,
    )
    settings = self.settings
    return model if settings.dtype != 'float32' else at_precision(model, settings.matmul_precision)

  @functools.cached_property
  def variable_shapes(self) -> dict[str, Any]:
    """Shapes of the parameters and statistics; nothing is computed."""
    return self._shapes(self.model())

  @property
  def class_parameters(self) -> set[str]:
    """Names of the parameters whose shapes follow from the number of classes, 'params/score/bias'."""
    model = self.model()
    more = flatten_dict(self._shapes(model.clone(num_classes=model.num_classes + 1)), sep='/')
    here = flatten_dict(self.variable_shapes, sep='/')
    return {name for name, value in here.items() if value.shape != more[name].shape}

  def _shapes(self, model: nn.Module) -> dict[str, Any]:
    side = model.size_rule.at_least(64)
    init = make_init(model, optax.identity(), (1, side, side, self.channels))
    return jax.eval_shape(init, jax.random.key(0)).variables

  def source(self, split: str, names: Sequence[str] | None = None) -> Any:
    """Returns the dataset's split, checked against the config's classes and channels.

    Args:
      split: of the dataset.
      names: class names that a run was trained on, in order.

    Raises:
      UserError: no such dataset, split, folder or option, or other classes or another order of them.
      StuckError: a read took longer than data.timeout seconds.
    """
    if self.outside:
      raise UserError(
        f"this run was not trained here, and its data are to be read by {self.outside}, outside of the data's "
        'folder: put a file of your own there, and its name into the config.json'
      )
    settings, open_split = self.settings, self._opener()
    with threads.time_limit(self.data.timeout):
      source = open_split(split)
    dtype = getattr(source, 'dtype', 'uint8')
    for key, here, have, advice in (
      ('num_classes', settings.num_classes, source.num_classes, 'add --config.num_classes={}'),
      ('data.mean and data.std: channels', self.channels, source.channels, 'give {} values'),
      ('data.dtype', self.data.dtype, dtype, 'add --config.data.dtype={}, and mean and std in it'),
    ):
      if here != have:
        advice = advice.format(have)
        raise UserError(f'config.{key}={here}, but {self.data.name} has {have}: {advice}')
    if names is not None:
      check_names(names, source.class_names)
    if self.data.percentiles:
      source = Stretched(source, self.data.percentiles)
    size, by = self.data.image_size, self.data.resize_labels
    return Resized(source, size, by) if size else source

  def check_data(self) -> None:
    """Raises UserError for an unknown dataset or dataset option; reads nothing."""
    self._opener()

  def _opener(self) -> Callable[[str], Any]:
    """Returns the function that opens a split."""
    settings, dataset = self.settings, load('datasets', self.data.name)
    options = dict(self.data.options)
    if dataset.NUM_CLASSES is None:  # a user's own files, to be checked against the config
      expected = {'num_classes': settings.num_classes, 'channels': self.channels}
      expected = expected | {'dtype': self.data.dtype}
      accepted = parameters(dataset.source)
      options = {key: value for key, value in expected.items() if key in accepted} | options
    options = arguments(dataset.source, options, 'config.data.options', _OF_SOURCE)
    folders = dict(data_dir=settings.data_dir or None, cache_dir=self.cache_dir)
    return partial(dataset.source, **folders, **options)

  @property
  def cache_dir(self) -> str | None:
    """Folder of the built records; None: the default."""
    return self.settings.cache_dir or None

  def task_for(self, source: Any) -> Any:
    """Returns the task with class weights computed from the labels of the training split."""
    if getattr(self.task, 'class_weights', None) != MEDIAN_FREQUENCY:
      return self.task
    with threads.time_limit(self.data.timeout):
      histogram = label_check.scan(source, cache_dir=self.cache_dir)
    weights = tuple(median_frequency_weights(histogram).tolist())
    return dataclasses.replace(self.task, class_weights=weights)

  def frame(self, model: nn.Module, *, scale: float | None = None, multiple: int = 0) -> Frame:
    """Returns how images are placed on the network's canvas, outside training.

    Args:
      model: of this experiment.
      scale: of the images; None: that of evaluation.
      multiple: see Frame.
    """
    options = self.eval
    return Frame(
      model.size_rule,
      scale=options.scales[0] if scale is None else scale,
      multiple=multiple,
      short_side=options.short_side,
      long_side=options.long_side,
      image_size=() if self.task.maps else self.data.image_size,  # maps are resized back, not cut
      mirrored=options.mirror_border,
      fill=self.preprocess.fill,
    )


def experiment(config: ConfigDict | Mapping[str, Any]) -> Experiment:
  """Builds every part of a config that does not need the data.

  Raises:
    UserError: an unknown part or option, or a value that does not fit.
  """
  plain = configs.plain(config)
  settings = configs.settings(plain)
  groups = {
    name: receiver(**arguments(receiver, plain[name], f'config.{name}'))
    for name, receiver in _GROUPS.items()
  }
  task, loss = _task(settings, plain['loss'])
  data: Data = groups['data']
  evaluation: EvalOptions = groups['eval']
  score = arguments(task.scorer, evaluation.score, 'config.eval.score', ('class_names',))
  score = defaults(task.scorer, ('class_names',)) | score
  preprocess = Preprocessing(data.mean, data.std, data.channel_order, data.dtype)
  steps = augment.make_transforms(plain['augment'], preprocess.fill, preprocess.span, data.dtype)
  _check_sizes(task, data, evaluation, steps)
  if any(isinstance(step, transforms.Pad) for step in steps) and evaluation.mirror_border is None:
    evaluation = dataclasses.replace(evaluation, mirror_border=False)  # padded, as in training
  groups['eval'] = dataclasses.replace(evaluation, score=score)
  complete = {
    **dataclasses.asdict(settings),
    **{name: dataclasses.asdict(group) for name, group in groups.items()},
    'model': _model_options(plain['model']),
    'augment': tuple(_complete(*s, made) for s, made in zip(plain['augment'], steps, strict=True)),
    'loss': loss,
  }
  return Experiment(
    config=complete,
    settings=settings,
    task=task,
    transforms=(*steps, *task.transforms),
    preprocess=preprocess,
    **groups,
  )


def _check_sizes(task: Any, data: Data, evaluation: EvalOptions, steps: tuple) -> None:
  """Refuses options that set image sizes twice, or differently in training and evaluation."""
  kinds, short = {type(step) for step in steps}, evaluation.short_side
  if data.image_size and (short or kinds & {transforms.Resize, transforms.ShortSide}):
    raise UserError(
      f'config.data.image_size={data.image_size}: leave out augment.resize, augment.short_side and '
      'eval.short_side, sizes are fixed already'
    )
  if data.image_size and data.percentiles:
    raise UserError(
      f'config.data.image_size={data.image_size} with config.data.percentiles={data.percentiles}: '
      'contrast is that of the image before resizing, so use config.augment.resize and config.eval.scales'
    )
  if task.maps and (short or transforms.ShortSide in kinds):
    raise UserError(
      'config.augment.short_side and config.eval.short_side are only for tasks that tell objects '
      'apart: use config.augment.resize and config.eval.scales'
    )
  if transforms.ShortSide in kinds and not short:
    raise UserError(
      'config.augment.short_side trains at other sizes than evaluation has: set config.eval.short_side'
    )


def _task(settings: Settings, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
  """Returns the task, and its options with the defaults filled in."""
  cls = tasks.load(settings.task)
  options = arguments(cls, given, 'config.loss', ('num_classes',))
  task = cls(num_classes=settings.num_classes, **options)
  return task, defaults(cls, ('num_classes',)) | options


def _complete(name: str, given: Mapping[str, Any], transform: Any) -> tuple[str, dict[str, Any]]:
  """Returns a transform's name and arguments, without those derived from the mean."""
  keys = [field.name for field in dataclasses.fields(transform)]
  derived = augment.DERIVED - given.keys()
  return name, {k: getattr(transform, k) for k in keys if k not in derived}


def _model_options(given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the model's name and options, with the defaults filled in."""
  name = coerced(given.get('name', 'unet'), str, 'config.model.name')
  cls = models.load(name)
  options = {k: v for k, v in given.items() if k != 'name'}
  for key in (key for key in options if key not in parameters(cls)):
    others = (other for other in names('models') if key in parameters(models.load(other)))
    if other := next(others, None):
      raise UserError(
        f'config.model.{key}: {name} has no such option, {other} has: --config.model={name} takes that '
        'network without the options of another'
      )
  return {'name': name} | defaults(cls) | arguments(cls, options, 'config.model')


def load_experiment(workdir: str | Path) -> Experiment:
  """Returns the experiment of a run, with this machine's folders and memory (see train.machine).

  Raises:
    UserError: there is no run, or it cannot be read.
  """
  config = load_config(workdir)
  made = experiment(machine.apply(workdir, config))
  return dataclasses.replace(made, outside=machine.outside(workdir, config))


def set_up_jax(settings: Settings) -> None:
  """Sets the number of CPU devices, the allocator, the compile cache and, on request, determinism.

  XLA runs many operations of a training step on one core; one device per core keeps all busy.
  """
  try:
    jax.config.update('jax_num_cpu_devices', settings.cpu_devices or len(os.sched_getaffinity(0)))
  except RuntimeError:  # JAX has already initialised its devices
    pass
  allocator.keep_freed_memory()
  if settings.deterministic and '--xla_gpu_deterministic_ops' not in os.environ.get(
    'XLA_FLAGS', ''
  ):
    os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_deterministic_ops=true'
  if settings.compile_cache:
    jax.config.update('jax_compilation_cache_dir', str(files.absolute(settings.compile_cache)))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
