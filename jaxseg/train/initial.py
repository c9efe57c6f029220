"""Initial parameters from another run or from published weights."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files, pretrained
from jaxseg.fetch import get, manifest, weights
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.run_folder import load_classes
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError


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
    The variables, and the report: how many names matched, every name that did not, and and a
    warning where a run's last layers were trained for other classes.

  Raises:
    UserError: published weights cannot be fetched; a name is missing, unexpected or of another shape
      and not listed in `init`; or the weights expect other preprocessing or other network options.
  """
  path, options, others = first_weights(experiment, variables), experiment.init, ''
  if path.is_dir():
    restored, step = load_variables(path, options.step)
    others = '' if options.new else _other_classes(path, names)
    tensors, pixels = pretrained.flatten(restored), load_experiment(path).preprocess
    converted = pretrained.Converted(tensors, f'{path} at step {step}', pixels)
  else:
    converted = pretrained.open_weights(path, variables)
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
      check_pixels(experiment, converted.preprocessing)
  if problems:
    raise UserError(f'{path}: {"; and ".join(problems)}')
  report = dataclasses.replace(report, source=converted.source, needs=converted.needs)
  return loaded, f'init_from {report}{others}'


def _other_classes(workdir: Path, names: Sequence[str]) -> str:
  trained = load_classes(workdir).names
  if not names or tuple(trained) == tuple(names):
    return ''
  return (
    f'\nwarning: its last layers were trained for the classes {", ".join(trained)}; these are {", ".join(names)}: '
    'name the layers in --config.init.new to initialise them anew'
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
  model = experiment.model()
  wrong = [k for k, v in needs.items() if getattr(model, k) != v]
  if wrong and 'network' not in experiment.init.ignore:
    flags = ' '.join(f'--config.model.{k}={needs[k]}' for k in wrong)
    raise UserError(
      f'{experiment.settings.init_from}: these weights were trained in another network: add {flags}, '
      'or --config.init.ignore=network to train them in this one'
    )


def check_pixels(experiment: Experiment, expected: Preprocessing) -> None:
  """Refuses weights trained with another dtype, mean, standard deviation or channel order.

  Raises:
    UserError: lists the flags that set the weights' preprocessing.
  """
  ignored, channels = experiment.init.ignore, experiment.channels
  different = experiment.preprocess.differences(expected, channels)
  different = [name for name in different if name not in ignored]
  if not different:
    return
  flags = {
    'dtype': expected.dtype,
    'mean': _flag(expected.mean, channels),
    'std': _flag(expected.std, channels),
    'channel_order': expected.channel_order,
  }
  wanted = ' '.join(f'--config.data.{name}={flags[name]}' for name in different)
  raise UserError(
    f'{experiment.settings.init_from}: these weights were trained with another '
    f'{" and ".join(different)}: add {wanted}, or '
    f'--config.init.ignore={",".join([*ignored, *different])} to train them anew'
  )


def _flag(values: tuple[float, ...], channels: int) -> str:
  return ','.join(f'{v:g}' for v in (values * channels if len(values) == 1 else values)) + (
    ',' if channels == 1 else ''
  )
