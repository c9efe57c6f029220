"""The first parameters of a run that starts from another run's or from published weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxseg import files, pretrained
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.predict.predictor import load_variables
from jaxseg.train import build
from jaxseg.train.run_folder import load_config
from jaxseg.types import UserError


def start_from(config: ConfigDict, variables: dict[str, Any]) -> tuple[dict[str, Any], str]:
  """Replaces fresh variables by those of config.init_from.

  Args:
    config: `init_from` is a workdir (its best checkpoint) or a weight file; `init_new` and
      `init_unused` are patterns of names that only one of the two sides has; `init_ignore` names
      what of the pixels may differ, and with 'network' that its options may.
    variables: {'params': ..., 'batch_stats': ...}, fresh arrays or only their shapes; what is new
      stays as it is given here.

  Returns:
    The variables, and the report: how many names matched, and every name that did not.

  Raises:
    UserError: a name is missing, unexpected or of another shape and was not announced; or the
      weights were trained with other pixels, or in a network that the same names do not tell apart.
  """
  path = files.place(config.init_from)
  announced = dict(allow_new=tuple(config.init_new), allow_unused=tuple(config.init_unused))
  if path.is_dir():
    theirs = load_config(path)
    given, step = load_variables(path)
    try:
      loaded, report = pretrained.load_into(variables, pretrained.flatten(given), **announced)
    except UserError as e:
      raise UserError(f'{path}: {e}') from None
    report = dataclasses.replace(report, source=f'{path} at step {step}')
    pixels = build.preprocessing_from(theirs)
  else:
    loaded, report, pixels = pretrained.load_file(variables, path, **announced)
    check_network(config, report.needs)
  if pixels is not None:
    check_pixels(config, pixels)
  return loaded, f'init_from {report}'


def check_network(config: ConfigDict, needs: Mapping[str, Any]) -> None:
  """Refuses weights whose names and shapes fit a network that is another function of them.

  Raises:
    UserError: says which flags give their own network.
  """
  model = build.model_from(config)
  wrong = [k for k, v in needs.items() if getattr(model, k) != v]
  if wrong and 'network' not in config.init_ignore:
    flags = ' '.join(f'--config.model_options.{k}={needs[k]}' for k in wrong)
    raise UserError(
      f'{config.init_from}: these weights were trained in another network: add {flags}, or '
      '--config.init_ignore=network to train them in this one'
    )


def check_pixels(config: ConfigDict, expected: Preprocessing) -> None:
  """Refuses weights that were trained with another mean, deviation or order of the channels.

  Raises:
    UserError: says which flags would give the weights what they know.
  """
  ours = build.preprocessing_from(config)
  ignored = tuple(config.init_ignore)
  found = [d for d in ours.differences(expected, config.channels) if d not in ignored]
  if not found:
    return
  flags = {
    'mean': _flag(expected.mean, config.channels),
    'std': _flag(expected.std, config.channels),
    'channel_order': expected.channel_order,
  }
  wanted = ' '.join(f'--config.{name}={flags[name]}' for name in found)
  raise UserError(
    f'{config.init_from}: these weights were trained with another {" and ".join(found)}: add '
    f'{wanted}, or --config.init_ignore={",".join([*ignored, *found])} to train them anew'
  )


def _flag(values: tuple[float, ...], channels: int) -> str:
  return ','.join(f'{v:g}' for v in (values * channels if len(values) == 1 else values)) + (
    ',' if channels == 1 else ''
  )
