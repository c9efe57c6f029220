"""What is known of a naming of published weights, and how a file is recognised as having it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxseg.nn.preprocessing import Preprocessing

Tensors = Mapping[str, np.ndarray]
# VGG's fully connected layers and the side of the convolution that takes the place of each.
FULLY_CONNECTED = {'fc6': 7, 'fc7': 1, 'fc8': 1}


@dataclasses.dataclass(frozen=True)
class Source:
  """A naming of published weights.

  Attributes:
    name: what the report calls it.
    matches: tells from a file's tensors whether they are of this naming.
    translate: file's tensors -> 'params/<layer>/kernel' and so on.
    preprocessing: what the weights were trained with; None: the workdir's config knows.
    optional: patterns of names that a network may do without (ImageNet's classifier).
    is_backbone: belongs under 'backbone' in a network that has such a part.
    needs: fields of the network's Model and the values that make it the source's network, where
      names and shapes do not tell.
  """

  name: str
  matches: Callable[[Tensors], bool]
  translate: Callable[[Tensors], dict[str, np.ndarray]]
  preprocessing: Preprocessing | None
  optional: tuple[str, ...] = ()
  is_backbone: bool = False
  needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def has(*names: str) -> Callable[[Tensors], bool]:
  """Returns a test for all of these names."""
  return lambda tensors: all(name in tensors for name in names)


def has_layer(*layers: str) -> Callable[[Tensors], bool]:
  """Returns a test for a weight of any of these layers, '<layer>/...'."""
  starts = tuple(f'{layer}/' for layer in layers)
  return lambda tensors: any(name.startswith(starts) for name in tensors)
