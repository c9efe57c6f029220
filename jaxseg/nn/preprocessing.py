"""Converts images, sent to the device in their own dtype, to the network's normalised float input.

Weights are useless with other preprocessing: Caffe's VGG needs blue first and 0..255 minus a mean,
torchvision's red first, normalised by mean and standard deviation. So configs, published weights
(`jaxseg.pretrained.names.sources`) and steps share this record. It needs no JAX.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxseg.types import Array, UserError

CHANNEL_ORDERS = ('rgb', 'bgr')
# Tolerances within which two records are equivalent to a network: ImageNet's published means differ
# by 1.0 (Caffe's VGG has red 123.68, FCN trains the same weights with 122.679).
_SAME_MEAN, _SAME_STD, _SAME_SHARE = 2.0, 0.02, 0.04


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """(image - mean) / std, in the channel order that the weights expect.

  Attributes:
    mean: one value per channel in the image's units and channel order (red first, regardless of
      `channel_order`), or a single value for all.
    std: likewise; never 0.
    dtype: of the images: uint8, uint16, int16 or float32.
    channel_order: 'rgb' keeps the channels (also one, or more than three), 'bgr' reverses the first
      three after normalising.
  """

  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  channel_order: str = 'rgb'
  dtype: str = 'uint8'

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
    """Normalises a numpy or JAX image [..., c] of any dtype, red first.

    Returns:
      float32 [..., c] in the network's channel order.

    Raises:
      UserError: the number of channels does not fit mean and std.
    """
    channels = image.shape[-1]
    if self.channel_order == 'bgr' and channels < 3:
      raise UserError(f'channel_order is bgr, but the image has {channels} channels: use rgb')
    mean, std = (self._row(name, image.ndim, channels) for name in ('mean', 'std'))
    image = (image.astype(np.float32) - mean) / std
    if self.channel_order == 'rgb':
      return image
    if channels == 3:
      return image[..., ::-1]
    return image[..., np.r_[2:-1:-1, 3:channels]]

  @property
  def fill(self) -> tuple[float, ...]:
    """The padding colour in the images' dtype: the mean, which the network sees as (nearly) zero."""
    if self.dtype == 'float32':
      return self.mean
    limits = np.iinfo(self.dtype)
    return tuple(int(v) for v in np.clip(np.round(self.mean), limits.min, limits.max))

  @property
  def span(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Black and white level of each channel: 0 and 255, or the mean -/+ two standard deviations.

    Dtypes other than uint8 do not imply a range: an 11-bit sensor uses a thirtieth of 16 bits.
    """
    if self.dtype == 'uint8':
      return (0.0,), (255.0,)
    sides = [np.asarray(self.mean) + sign * 2 * np.asarray(self.std) for sign in (-1, 1)]
    return tuple(tuple(side.tolist()) for side in sides)

  def differences(self, other: Preprocessing, channels: int) -> tuple[str, ...]:
    """Returns the attributes in which `other` differs for images with this number of channels.

    Means within 2 grey levels (for other dtypes than uint8 4 % of the standard deviation) and standard
    deviations within 2 % count as equal.
    """
    means, stds = (
      np.array([record._row(name, 1, channels) for record in (self, other)])
      for name in ('mean', 'std')
    )
    same_mean = _SAME_MEAN if self.dtype == 'uint8' else _SAME_SHARE * stds[1]
    differ = {
      'dtype': self.dtype != other.dtype,
      'mean': (np.abs(means[0] - means[1]) > same_mean).any(),
      'std': np.abs(np.log(stds[0] / stds[1])).max() > np.log1p(_SAME_STD),
      'channel_order': channels >= 3 and self.channel_order != other.channel_order,
    }
    return tuple(name for name, differs in differ.items() if differs)

  def _row(self, name: str, rank: int, channels: int) -> np.ndarray:
    values = getattr(self, name)
    if len(values) not in (1, channels):
      raise UserError(
        f'preprocessing {name} has {len(values)} values, but the image has {channels} channels: '
        f'give 1 or {channels}'
      )
    row = np.broadcast_to(np.asarray(values, np.float32), (channels,))
    return row.reshape((1,) * (rank - 1) + (channels,))
