"""Translates published weights to our names; the source is recognised by the names in the file.

Our names follow the published ones (conv1_1, layer1_0_conv1, features_0_0), so most of this is about
axes. In addition, VGG's fully connected layers become convolutions, Keras' biases before a batch norm are
folded into its mean, and FCN's stored bilinear filters may be unused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.pretrained.names import caffe, keras, layouts, maskrcnn, torch
from jaxseg.pretrained.names.sources import Naming, Tensors
from jaxseg.types import UserError


@dataclasses.dataclass(frozen=True)
class Converted:
  """Tensors under our names, and facts about them; see Naming for the other fields."""

  tensors: dict[str, np.ndarray]
  source: str
  preprocessing: Preprocessing | None
  optional: tuple[str, ...] = ()
  is_backbone: bool = False
  needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def in_scope(self, scope: str) -> Converted:
    """Returns the same with every layer inside `scope`: 'params/fc/bias', 'params/scope/fc/bias'."""
    moved = {re.sub('/', f'/{scope}/', name, count=1): v for name, v in self.tensors.items()}
    optional = tuple(f'{scope}/{pattern}' for pattern in self.optional)
    return dataclasses.replace(self, tensors=moved, optional=optional)


def convert(tensors: Tensors) -> Converted:
  """Translates a weight file's tensors to our names and axes.

  Args:
    tensors: what `read` returned: the file's own names and axes.

  Returns:
    Converted; its arrays are views where possible.

  Raises:
    UserError: the naming is not among SOURCES, or a tensor contradicts it.
  """
  if tensors and all(name.startswith('module.') for name in tensors):  # nn.DataParallel
    tensors = {name.removeprefix('module.'): values for name, values in tensors.items()}
  for source in SOURCES:
    if source.matches(tensors):
      translated = _translate(source, tensors)
      return Converted(
        tensors=translated,
        source=source.name,
        preprocessing=source.preprocessing,
        optional=(*source.optional, *source.classifier, *_fixed_upsampling(translated)),
        is_backbone=bool(source.classifier),
        needs=source.needs,
      )
  raise UserError(
    f'weights with the names {", ".join(list(tensors)[:4])} ... are of no known naming; known are '
    f'{", ".join(s.name for s in SOURCES)}; rename them to params/<layer>/kernel and so on'
  )


def pixels(naming: str) -> Preprocessing | None:
  """Returns the preprocessing that the weights of a naming were trained with, by the naming's name."""
  return next(source.preprocessing for source in SOURCES if source.name == naming)


def _translate(source: Naming, tensors: Tensors) -> dict[str, np.ndarray]:
  try:
    return source.translate(tensors)
  except (KeyError, IndexError, ValueError) as error:
    if isinstance(error, UserError):
      raise
    raise UserError(
      f'the names are those of {source.name}, but a tensor is of another kind: {error}'
    ) from None


def _fixed_upsampling(tensors: Tensors) -> list[str]:
  """FCN's filters that were never learned, which a network with fixed upsampling does not have."""
  return [
    re.escape(name)
    for name, kernel in tensors.items()
    if name.startswith('params/upscore') and layouts.is_bilinear(kernel)
  ]


def _is_ours(tensors: Tensors) -> bool:
  return bool(tensors) and all(n.startswith(('params/', 'batch_stats/')) for n in tensors)


SOURCES = (
  Naming('jaxseg', _is_ours, dict, None),
  *maskrcnn.SOURCES,
  *torch.SOURCES,
  *caffe.SOURCES,
  *keras.SOURCES,
)
