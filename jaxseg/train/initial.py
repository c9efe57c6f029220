"""The first parameters of a run that starts from another or from published weights."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxseg import files, pretrained
from jaxseg.fetch import get, manifest, weights
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError


def start_from(experiment: Experiment, variables: dict[str, Any]) -> tuple[dict[str, Any], str]:
  """Replaces fresh variables by those of settings.init_from: a workdir's checkpoint or a weight file.

  Args:
    experiment: its `init` says which names only one of the two sides has, and what may differ.
    variables: {'params': ..., 'batch_stats': ...}, fresh arrays or only their shapes; what is new
      stays as it is given here.

  Returns:
    The variables, and the report: how many names matched, and every name that did not.

  Raises:
    UserError: published weights that cannot be got; a name is missing, unexpected or of another shape
      and was not announced; or the weights were trained with other pixels, or in a network that the same names do not tell apart.
  """
  path, options = first_weights(experiment, variables), experiment.init
  if path.is_dir():
    given, step = load_variables(path, options.step)
    tensors, pixels = pretrained.flatten(given), load_experiment(path).preprocess
    found = pretrained.Converted(tensors, f'{path} at step {step}', pixels)
  else:
    found = pretrained.open_weights(path, variables)
  problems: list[str] = []  # all of them are told: each may need a flag
  with _noted(problems, path):
    loaded, report = pretrained.load_into(
      variables,
      found.tensors,
      allow_new=options.new,
      allow_unused=(*options.unused, *found.optional),
    )
  with _noted(problems, path):
    check_network(experiment, found.needs)
  if found.preprocessing is not None:
    with _noted(problems, path):
      check_pixels(experiment, found.preprocessing)
  if problems:
    raise UserError(f'{path}: {"; and ".join(problems)}')
  return loaded, f'init_from {dataclasses.replace(report, source=found.source, needs=found.needs)}'


def first_weights(
  experiment: Experiment, variables: Mapping[str, Any], way: get.Way | None = None
) -> Path:
  """Returns the file or workdir of settings.init_from; published weights are got by their name.

  Args:
    variables: of the network, or their shapes.
    way: how published weights are got; default: the config's.

  Raises:
    UserError: there are no such weights, or they cannot be got.
  """
  settings = experiment.settings
  if not weights.is_name(settings.init_from):
    return files.place(settings.init_from)

  def suits(published: manifest.Weights) -> bool:
    pixels = pretrained.pixels(published.naming)
    different = experiment.preprocess.differences(pixels, experiment.channels) if pixels else ()
    return not set(different) - set(experiment.init.ignore)

  layers = {part for name in pretrained.flatten(variables) for part in name.split('/')}
  published = weights.chosen(settings.init_from, _encoder(experiment.model()), layers, suits)
  return weights.fetched(published, way or get.Way(settings.mirror, cache_dir=experiment.cache_dir))


def _encoder(model: Any) -> str:
  """Returns what the manifest calls a network's encoder, '' where it is its own."""
  name = getattr(model, 'backbone', '') or getattr(model, 'variant', '')
  name += '_v1' if getattr(model, 'release', '') == 'caffe' else ''
  return f'{name}_deep' if getattr(model, 'deep_stem', False) else name


@contextlib.contextmanager
def _noted(problems: list[str], path: Path) -> Iterator[None]:
  """Keeps what a user must mend, without the name of the weights."""
  try:
    yield
  except UserError as error:
    problems.append(str(error).removeprefix(f'{path}: '))


def check_network(experiment: Experiment, needs: Mapping[str, Any]) -> None:
  """Refuses weights whose names and shapes fit a network that is another function of them.

  Raises:
    UserError: says which flags give the network that the weights are of.
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
  """Refuses weights that were trained with another mean, deviation or order of the channels.

  Raises:
    UserError: says which flags would give the weights what they know.
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
