"""Weights by name: 'torchvision:resnet50', or 'imagenet' for those of a network's encoder."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Collection
from pathlib import Path

from jaxseg import console
from jaxseg.config.parts import did_you_mean
from jaxseg.data import cache
from jaxseg.fetch import get, manifest
from jaxseg.fetch.manifest import Weights
from jaxseg.types import UserError

IMAGENET = 'imagenet'


def is_name(given: str) -> bool:
  """Returns whether this names weights, rather than a file or folder (to force which, prefix ./)."""
  return given == IMAGENET or given in manifest.weights() or bool(re.match(r'\w+:[\w-]+$', given))


def choose(
  given: str,
  network: str,
  layers: Collection[str],
  suits: Callable[[Weights], bool] = lambda weights: True,
) -> Weights:
  """Returns the weights of this name.

  Args:
    given: a name; see is_name.
    network: the encoder, such as 'resnet50_deep'.
    layers: names of all its layers; weights that lack any of them are excluded.
    suits: whether weights were trained with the same normalisation of pixels; these are preferred.

  Raises:
    UserError: there are none of this name or for this network.
  """
  known = manifest.weights()
  if given != IMAGENET:
    if given not in known:
      raise UserError(
        f'no weights {given!r}: choose one of {_listed()}{did_you_mean(given, known)}'
      )
    return known[given]
  fitting = [w for w in known.values() if w.network == network and not set(w.lacks) & set(layers)]
  if not fitting:
    networks = ', '.join(sorted({w.network for w in known.values()} - {''}))
    raise UserError(
      f"init_from='{IMAGENET}': no ImageNet weights are known for {network or 'this network'}; there are "
      f'some for {networks}'
    )
  return next(filter(suits, fitting), fitting[0])


def path_of(weights: Weights, way: get.FetchOptions) -> Path:
  """Returns the file of weights: an installed package's, or downloaded to the cache folder's weights/.

  Raises:
    UserError: the package is not installed, the terms are not agreed to, or no address provides the file.
  """
  if weights.package:
    spec = importlib.util.find_spec(weights.package)
    if spec is None:
      raise UserError(f'{weights.name} comes with a package: {console.install_hint(weights.extra)}')
    return Path(spec.submodule_search_locations[0]) / weights.file.name
  folder = cache.cache_root(way.cache_dir) / 'weights'
  if weights.agree and not (folder / weights.file.name).exists():
    get.ask_to_agree(weights.name, weights.licence, way)
  elif not (folder / weights.file.name).exists():
    console.say(f'{weights.name}: {weights.licence}')
  return get.file(weights.file, folder, 'weights', way)


def _listed() -> str:
  return ', '.join((IMAGENET, *manifest.weights()))
