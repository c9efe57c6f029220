"""Initial parameters from another run or from published weights."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files, pretrained
from jaxseg.fetch import get, manifest, weights
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.run_folder import checked_classes, checked_config, load_classes
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError

# Options in which a run's network may differ without a word: they act in training alone, add layers
# whose names tell it, or choose which of the proposals and objects are kept.
_ALIKE = (
  *('name', 'remat', 'dropout_rate', 'bayesian', 'frozen_norm', 'frozen_stages', 'stride', 'aux'),
  *('pre_nms', 'post_nms', 'rpn_samples', 'roi_samples', 'roi_share'),
  *('detections', 'candidates', 'score', 'nms'),
)


def start_from(
  experiment: Experiment, variables: dict[str, Any], names: Sequence[str] = ()
) -> tuple[dict[str, Any], str]:
  """Replaces fresh variables by those of settings.init_from: a workdir's checkpoint or a weight file.

  Args:
    experiment: its `init` lists names that only one side has, and differences to ignore.
    variables: {'params': ..., 'batch_stats': ...}, fresh arrays or only their shapes; parameters
      in `init.new` are returned unchanged.
    names: of the classes of the data.

  Returns:
    The variables, {} without init_from, and the report: how many names matched, every name that did
    not, and a warning where layers are kept that a run trained for other classes.

  Raises:
    UserError: published weights cannot be fetched; a name is missing, unexpected or of another shape
      and not listed in `init`; or the weights expect other preprocessing or other network options.
  """
  options = experiment.init
  if not experiment.settings.init_from:
    new = ','.join(options.new)
    return {}, f'note      init.new={new} changes nothing without init_from' if new else ''
  path = first_weights(experiment, variables)
  converted, trained = _opened(path, experiment, variables)
  problems: list[str] = []  # report them all at once: each may need a flag
  with _collected(problems, path):
    loaded, report = pretrained.load_into(
      variables,
      converted.tensors,
      allow_new=options.new,
      allow_unused=(*options.unused, *converted.optional),
    )
  with _collected(problems, path):
    check_network(experiment, converted.needs)
  if converted.preprocessing is not None:
    with _collected(problems, path):
      check_pixels(experiment, converted.preprocessing, trained and trained.percentiles)
  if problems:
    raise UserError(f'{path}: {"; and ".join(problems)}')
  report = dataclasses.replace(report, source=converted.source, needs=converted.needs)
  return loaded, f'init_from {report}{_remark(experiment, converted, trained, report, names)}'


@dataclasses.dataclass(frozen=True)
class _Trained:
  """What a run, or the card of its export, says of the training of its weights."""

  preprocess: Preprocessing
  percentiles: tuple[float, ...]
  network: Mapping[str, Any]
  classes: tuple[str, ...]

  @classmethod
  def of(cls, config: Mapping[str, Any], classes: Sequence[str]) -> '_Trained':
    data = config['data']
    pixels = Preprocessing(data['mean'], data['std'], data['channel_order'], data['dtype'])
    return cls(pixels, tuple(data['percentiles']), dict(config['model']), tuple(classes))


def _opened(
  path: Path, experiment: Experiment, variables: dict[str, Any]
) -> tuple[pretrained.Converted, _Trained | None]:
  """Reads weights, and what is known of our own."""
  if path.is_dir():
    restored, step = load_variables(path, experiment.init.step)
    tensors, source = pretrained.flatten(restored), f'{path} at step {step}'
    converted = pretrained.Converted(tensors, source, None)
    trained = _Trained.of(load_experiment(path).config, load_classes(path).names)
  else:
    converted = pretrained.open_weights(path, variables)
    trained = _by_card(path) if converted.preprocessing is None else None
  if not trained:
    return converted, None
  here = experiment.config['model']
  needs = {
    k: v for k, v in trained.network.items() if k not in _ALIKE and k in here and here[k] != v
  }
  return dataclasses.replace(converted, preprocessing=trained.preprocess, needs=needs), trained


def _by_card(weights: Path) -> _Trained | None:
  """Returns what the card says that an export wrote beside its weights; None without one."""
  try:
    card = files.read_json(weights.with_name('card.json'))
    if card['weights'] != weights.name:
      return None
    listed = {'names': [c['name'] for c in card['classes']]}
    classes = checked_classes(listed | {'palette': [c['color'] for c in card['classes']]})
    return _Trained.of(checked_config(card['config']), classes.names)
  except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
    return None


def _remark(
  experiment: Experiment,
  converted: pretrained.Converted,
  trained: _Trained | None,
  report: pretrained.LoadReport,
  names: Sequence[str],
) -> str:
  """Returns a line on classes that the weights do not share, or where nothing is known of them."""
  if converted.preprocessing is None:
    return (
      '\nwarning: whether these weights were trained with these mean, std, classes and network options is not '
      'known: no card.json of an export lies beside them'
    )
  if not trained or not names or trained.classes == tuple(names):
    return ''
  if experiment.class_parameters.isdisjoint(report.matched):
    return ''
  return (
    f'\nwarning: its last layers were trained for the classes {", ".join(trained.classes)}; these are '
    f'{", ".join(names)}: name the layers in --config.init.new to initialise them anew'
  )


def first_weights(
  experiment: Experiment, variables: Mapping[str, Any], way: get.FetchOptions | None = None
) -> Path:
  """Returns the file or workdir of settings.init_from; published weights are fetched by name.

  Args:
    variables: of the network, or their shapes.
    way: how to fetch published weights; default: the config's.

  Raises:
    UserError: no such weights, or they cannot be fetched.
  """
  settings = experiment.settings
  if not weights.is_name(settings.init_from):
    return files.to_path(settings.init_from)

  def suits(published: manifest.Weights) -> bool:
    pixels = pretrained.pixels(published.naming)
    different = experiment.preprocess.differences(pixels, experiment.channels) if pixels else ()
    return not set(different) - set(experiment.init.ignore)

  layers = {part for name in pretrained.flatten(variables) for part in name.split('/')}
  published = weights.choose(settings.init_from, _encoder(experiment.model()), layers, suits)
  return weights.path_of(
    published, way or get.FetchOptions(settings.mirror, cache_dir=experiment.cache_dir)
  )


def _encoder(model: Any) -> str:
  """Returns the manifest's name of a network's encoder, '' where it has no standard one."""
  name = getattr(model, 'backbone', '') or getattr(model, 'variant', '')
  name += '_v1' if getattr(model, 'release', '') == 'caffe' else ''
  return f'{name}_deep' if getattr(model, 'deep_stem', False) else name


@contextlib.contextmanager
def _collected(problems: list[str], path: Path) -> Iterator[None]:
  """Collects a UserError instead of raising it, without the name of the weights."""
  try:
    yield
  except UserError as error:
    problems.append(str(error).removeprefix(f'{path}: '))


def check_network(experiment: Experiment, needs: Mapping[str, Any]) -> None:
  """Refuses weights that fit by name and shape but need other network options.

  Raises:
    UserError: lists the flags that set the options the weights were trained with.
  """
  here = experiment.config['model']
  wrong = {k: v for k, v in needs.items() if here.get(k, v) != v}
  if wrong and 'network' not in experiment.init.ignore:
    flags = ' '.join(shlex.quote(f'--config.model.{k}={v}') for k, v in wrong.items())
    raise UserError(
      f'{experiment.settings.init_from}: these weights were trained in another network: add {flags}, '
      'or --config.init.ignore=network to train them in this one'
    )


def check_pixels(
  experiment: Experiment, expected: Preprocessing, percentiles: tuple[float, ...] | None = None
) -> None:
  """Refuses weights trained with another dtype, mean, standard deviation, channel order or contrast.

  Args:
    experiment: that starts from the weights.
    expected: by the weights.
    percentiles: of their images, as in config.data; None: not known.

  Raises:
    UserError: lists the flags that set the weights' preprocessing.
  """
  ignored, channels = experiment.init.ignore, experiment.channels
  different = experiment.preprocess.differences(expected, channels)
  if percentiles not in (None, experiment.data.percentiles):
    different = (*different, 'percentiles')
  different = [name for name in different if name not in ignored]
  if not different:
    return
  flags = {
    'dtype': expected.dtype,
    'mean': _flag(expected.mean, channels),
    'std': _flag(expected.std, channels),
    'channel_order': expected.channel_order,
    'percentiles': percentiles,
  }
  wanted = ' '.join(shlex.quote(f'--config.data.{name}={flags[name]}') for name in different)
  raise UserError(
    f'{experiment.settings.init_from}: these weights were trained with another '
    f'{" and ".join(different)}: add {wanted}, or '
    f'--config.init.ignore={",".join([*ignored, *different])} to train them anew'
  )


def _flag(values: tuple[float, ...], channels: int) -> str:
  return ','.join(f'{v:g}' for v in (values * channels if len(values) == 1 else values)) + (
    ',' if channels == 1 else ''
  )
