"""A naming scheme of published weights, how a file with it is recognised, and the preprocessing that the
weights expect (means and standard deviations red first, as in configs)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxseg.nn.preprocessing import Preprocessing

Tensors = Mapping[str, np.ndarray]
# VGG's fully connected layers and the side of the convolution that replaces each.
FULLY_CONNECTED = {'fc6': 7, 'fc7': 1, 'fc8': 1}

# SegNet's release: pixels as read by OpenCV.
SEGNET = Preprocessing(channel_order='bgr')
# ImageNet statistics of torchvision's models (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225).
TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The means of the Caffe releases of VGG and of Microsoft's ResNets, adopted by Keras.
CAFFE = Preprocessing((123.68, 116.779, 103.939), channel_order='bgr')
# shelhamer/fcn.berkeleyvision.org, voc_layers.py: the means for all PASCAL nets.
FCN = Preprocessing((122.67892, 116.66877, 104.00699), channel_order='bgr')
# tensorflow/tpu, efficientnet/lite: the same for every channel, for the sake of quantised nets.
EFFICIENTNET_LITE = Preprocessing((127.0,), (128.0,))
KERAS_MOBILENET = Preprocessing((127.5,), (127.5,))


@dataclasses.dataclass(frozen=True)
class Naming:
  """A naming of published weights.

  Attributes:
    name: used in the report.
    matches: whether a file's tensors follow this naming.
    translate: file's tensors -> 'params/<layer>/kernel' and so on.
    preprocessing: that the weights were trained with; None: see the workdir's config.
    optional: patterns of names that a network may lack.
    classifier: patterns of the layers that only classify ImageNet: optional too. Everything else is a
      backbone, and goes under 'backbone' in a network that has one.
    needs: values of Model's fields that the source's network requires, if names and shapes do not imply
      them.
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
