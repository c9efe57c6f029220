"""What is known of a naming of published weights, how a file is recognised as having it, and what pixels
the weights expect (means and deviations red first, as in configs)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxseg.nn.preprocessing import Preprocessing

Tensors = Mapping[str, np.ndarray]
# VGG's fully connected layers and the side of the convolution that takes the place of each.
FULLY_CONNECTED = {'fc6': 7, 'fc7': 1, 'fc8': 1}

# SegNet's release: pixels as OpenCV reads them.
SEGNET = Preprocessing(channel_order='bgr')
# ImageNet statistics of torchvision's models (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225).
TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The means of VGG's and of the Microsoft ResNets' Caffe releases, which Keras kept.
CAFFE = Preprocessing((123.68, 116.779, 103.939), channel_order='bgr')
# shelhamer/fcn.berkeleyvision.org, voc_layers.py: the means that all PASCAL nets were trained with.
FCN = Preprocessing((122.67892, 116.66877, 104.00699), channel_order='bgr')
# tensorflow/tpu, efficientnet/lite: the same for every channel, so that quantised nets need no table.
EFFICIENTNET_LITE = Preprocessing((127.0,), (128.0,))
KERAS_MOBILENET = Preprocessing((127.5,), (127.5,))


@dataclasses.dataclass(frozen=True)
class Naming:
  """A naming of published weights.

  Attributes:
    name: what the report calls it.
    matches: tells from a file's tensors whether they are of this naming.
    translate: file's tensors -> 'params/<layer>/kernel' and so on.
    preprocessing: what the weights were trained with; None: the workdir's config knows.
    optional: patterns of names that a network may do without.
    classifier: patterns of the layers that only classified ImageNet: optional too. All else is a
      backbone, and belongs under 'backbone' in a network that has such a part.
    needs: fields of the network's Model and the values that make it the source's network, where
      names and shapes do not tell.
  """

  name: str
  matches: Callable[[Tensors], bool]
  translate: Callable[[Tensors], dict[str, np.ndarray]]
  preprocessing: Preprocessing | None
  optional: tuple[str, ...] = ()
  classifier: tuple[str, ...] = ()
  needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def has(*names: str) -> Callable[[Tensors], bool]:
  """Returns a test for all of these names."""
  return lambda tensors: all(name in tensors for name in names)


def has_layer(*layers: str) -> Callable[[Tensors], bool]:
  """Returns a test for a weight of any of these layers, '<layer>/...'."""
  starts = tuple(f'{layer}/' for layer in layers)
  return lambda tensors: any(name.startswith(starts) for name in tensors)
