"""Downloads data and weights: those that a config needs, or any by name."""

from __future__ import annotations

import os
from collections.abc import Sequence

from jaxseg import config as configs
from jaxseg import console, files
from jaxseg.config.parts import defaults, did_you_mean, load
from jaxseg.fetch import manifest, weights
from jaxseg.fetch.get import FetchOptions, dataset
from jaxseg.types import UserError


def get(
  names: Sequence[str] = (),
  config: str | None = None,
  overrides: Sequence[str] = (),
  data_dir: str = '',
  mirror: str = '',
  yes: bool = False,
) -> None:
  """Downloads everything named, and the data and initial weights of a config.

  Args:
    names: of datasets and weights in jaxseg/fetch/manifest.toml.
    config, overrides: see config.load.
    data_dir: parent of the datasets' folders; '' is the config's, else $JAXSEG_DATA, else
      ~/jaxseg_data.
    mirror, yes: see fetch.get.FetchOptions; the mirror defaults to the config's.

  Raises:
    UserError: neither names nor config, an unknown name, or as config.load and fetch.get.
  """
  datasets, published = manifest.datasets(), manifest.weights()
  known = [*datasets, *published]
  if unknown := next((name for name in names if name not in known), None):
    close = did_you_mean(unknown, known)
    raise UserError(f'nothing is called {unknown!r}: there are {", ".join(known)}{close}')
  if not names and not config:
    raise UserError(f'get needs --config=configs/NAME.py, or names: {", ".join(known)}')
  way = FetchOptions(mirror, yes)
  for name in names:
    if name in published:
      console.say(f'{name}: {weights.path_of(published[name], way)}')
    else:
      dataset(datasets[name], files.absolute(_root(data_dir)), way)
  if config:
    _of_config(config, overrides, data_dir, way)


def _of_config(config: str, overrides: Sequence[str], data_dir: str, way: FetchOptions) -> None:
  from jaxseg.train.build import experiment  # imports JAX: slow, and names do not need it
  from jaxseg.train.initial import first_weights

  parts = experiment(configs.load(config, overrides))
  settings, data = parts.settings, parts.data
  way = FetchOptions(way.mirror or settings.mirror, way.yes, parts.cache_dir)
  if weights.is_name(settings.init_from):
    path = first_weights(parts, parts.variable_shapes, way)
    console.say(f'{settings.init_from}: {path}')
  if data.name not in manifest.datasets():
    console.say(f'{data.name}: nothing to get')
    return
  options = defaults(load('datasets', data.name).source) | dict(data.options)
  root = files.absolute(_root(data_dir or settings.data_dir))
  splits = data.train_split, settings.eval_split
  dataset(manifest.datasets()[data.name], root, way, splits, options)


def _root(data_dir: str) -> str:
  return data_dir or os.environ.get('JAXSEG_DATA') or '~/jaxseg_data'
