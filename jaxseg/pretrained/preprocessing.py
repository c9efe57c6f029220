"""What a network expects of its pixels: the record that every weight set carries with it.

Weights are useless with another's preprocessing: Caffe's VGG wants blue first and 0..255 minus a
mean, torchvision's wants red first, scaled by a mean and a standard deviation.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxseg.types import Array, UserError

CHANNEL_ORDERS = ('rgb', 'bgr')


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """Maps pixels in 0..255, red first, to network inputs: reorder, subtract mean, divide by std.

  Attributes:
    mean: per channel, in 0..255 units, in the network's channel order; one value serves every
      channel.
    std: like mean; never 0.
    channel_order: 'rgb' leaves the channels as they stand (also gray or more than three), 'bgr'
      reverses the first three.
  """

  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  channel_order: str = 'rgb'

  def __post_init__(self):
    for name in ('mean', 'std'):  # lists come from JSON and from configs
      object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
    if self.channel_order not in CHANNEL_ORDERS:
      raise UserError(
        f'channel_order is {self.channel_order!r}; allowed are {", ".join(CHANNEL_ORDERS)}'
      )
    if not self.mean or not self.std or not all(self.std):
      raise UserError(f'mean {self.mean} and std {self.std} need values, and no std may be 0')

  def __call__(self, image: Array) -> Array:
    """Normalises an image.

    Args:
      image: numpy or JAX array [..., c], values 0..255, red first.

    Returns:
      float32 [..., c] in the network's channel order.

    Raises:
      UserError: the channels are neither one per mean and std nor served by a single value.
    """
    channels = image.shape[-1]
    if self.channel_order == 'bgr':
      if channels < 3:
        raise UserError(f'channel_order is bgr, but the image has {channels} channels: use rgb')
      image = image[..., np.r_[2:-1:-1, 3:channels] if channels > 3 else slice(None, None, -1)]
    mean, std = (self._row(getattr(self, name), name, image.ndim, channels) for name in _FIELDS)
    return (image.astype(np.float32) - mean) / std

  def _row(self, values, name, rank, channels):
    if len(values) not in (1, channels):
      raise UserError(
        f'preprocessing {name} has {len(values)} values, but the image has {channels} channels: '
        f'give 1 or {channels}'
      )
    row = np.broadcast_to(np.asarray(values, np.float32), (channels,))
    return row.reshape((1,) * (rank - 1) + (channels,))


_FIELDS = ('mean', 'std')

# SegNet's release: pixels as OpenCV reads them.
SEGNET = Preprocessing(channel_order='bgr')
# ImageNet statistics of torchvision's models (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225).
TORCHVISION = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The means of VGG's and of the Microsoft ResNets' Caffe releases, which Keras kept.
CAFFE = Preprocessing((103.939, 116.779, 123.68), channel_order='bgr')
# shelhamer/fcn.berkeleyvision.org, voc_layers.py: the means that all PASCAL nets were trained with.
FCN = Preprocessing((104.00699, 116.66877, 122.67892), channel_order='bgr')
KERAS_MOBILENET = Preprocessing((127.5,), (127.5,))
