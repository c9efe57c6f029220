"""Feature pyramid: Feature Pyramid Networks for Object Detection (arXiv:1612.03144).

A 1x1 convolution maps each of the backbone's maps to the same number of channels; the coarser map is
upsampled (nearest) and added; a 3x3 convolution smooths the sum. There is no ReLU or norm. Names are
torchvision's: inner_blocks_0 (1x1, on the finest map) ..., layer_blocks_0 (3x3) ....
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.nn.layers import Conv
from jaxseg.types import Array

_xavier = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')  # Caffe2's XavierFill


class FPN(nn.Module):
  """Feature maps with the same number of channels at all scales.

  Attributes:
    features: channels of every map.
    extra: adds a coarser map, every second value of the coarsest (P6, for proposals only).
  """

  features: int = 256
  extra: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: Sequence[Array]) -> list[Array]:
    """Maps [b,h,w,c], finest first, each half the size of the last, -> [b,h,w,features] each."""
    inner = [self._conv(x, 1, f'inner_blocks_{i}') for i, x in enumerate(maps)]
    for i in reversed(range(len(inner) - 1)):
      inner[i] += double(inner[i + 1])[:, : inner[i].shape[1], : inner[i].shape[2]]
    out = [self._conv(x, 3, f'layer_blocks_{i}') for i, x in enumerate(inner)]
    return [*out, out[-1][:, ::2, ::2]] if self.extra else out

  def _conv(self, x: Array, side: int, name: str) -> Array:
    options = dict(kernel_init=_xavier, dtype=self.dtype, name=name)
    return Conv(self.features, (side, side), padding=side // 2, **options)(x)


def double(x: Array) -> Array:
  """Nearest upsampling, [b,h,w,c] -> [b,2h,2w,c]."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
