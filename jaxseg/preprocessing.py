"""From the uint8 image that travels to the device to the float image that a network was made for."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxseg.types import Array


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """(image - mean) / std, in the channel order that the weights expect.

  Attributes:
    mean: one value a channel in 0..255, in the order of the image (RGB).
    std: one value a channel, likewise.
    channel_order: 'rgb', or 'bgr' to reverse the channels after normalising.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  channel_order: str = 'rgb'

  def __call__(self, image: Array) -> Array:
    """Maps uint8 or float [b, h, w, c] in 0..255 to float32 of the same shape."""
    mean = jnp.asarray(self.mean, jnp.float32).reshape(1, 1, 1, -1)
    std = jnp.asarray(self.std, jnp.float32).reshape(1, 1, 1, -1)
    image = (image.astype(jnp.float32) - mean) / std
    return image[..., ::-1] if self.channel_order == 'bgr' else image

  @property
  def fill(self) -> tuple[int, ...]:
    """The uint8 colour of padding: the mean, so that the network sees (nearly) zero there."""
    return tuple(int(v) for v in np.clip(np.round(self.mean), 0, 255))
