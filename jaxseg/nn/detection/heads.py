"""The three heads of Mask R-CNN: region proposals, boxes and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.nn.layers import Conv, ConvTranspose
from jaxseg.types import Array

_normal = nn.initializers.normal
_xavier = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')
_msra = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class RPN(nn.Module):
  """Region proposal network: one head for all levels (arXiv:1506.01497)."""

  features: int
  shapes: int  # anchors per cell
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Maps [b,h,w,c] of each level to logits [b,h*w*shapes] and deltas [b,h*w*shapes,4], float32."""
    options = dict(dtype=self.dtype, kernel_init=_normal(0.01))
    conv = Conv(self.features, (3, 3), padding=1, name='conv', **options)
    score = Conv(self.shapes, (1, 1), name='cls_logits', **options)
    move = Conv(4 * self.shapes, (1, 1), name='bbox_pred', **options)
    logits, deltas = [], []
    for level in maps:
      x = nn.relu(conv(level))
      logits.append(score(x).reshape(len(x), -1).astype(jnp.float32))
      deltas.append(move(x).reshape(len(x), -1, 4).astype(jnp.float32))
    return logits, deltas


class BoxHead(nn.Module):
  """Two fully connected layers, class scores, and a box for each class but background."""

  num_classes: int
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """[b,r,s,s,c] -> logits [b,r,num_classes] and deltas [b,r,num_classes-1,4]."""
    x = x.reshape(*x.shape[:2], -1)
    for name in ('fc6', 'fc7'):
      x = nn.relu(self._dense(x, self.features, _xavier, name))
    logits = self._dense(x, self.num_classes, _normal(0.01), 'cls_score')
    deltas = self._dense(x, 4 * (self.num_classes - 1), _normal(0.001), 'bbox_pred')
    return logits, deltas.reshape(*deltas.shape[:2], -1, 4)

  def _dense(self, x: Array, features: int, init: Callable, name: str) -> Array:
    return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)(x)


class MaskHead(nn.Module):
  """Convolutions, a 2x upsampling one, and a mask for each class but background."""

  num_classes: int
  features: int
  layers: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[b,r,s,s,c] -> logits [b,r,2s,2s,num_classes-1]."""
    count, x = x.shape[:2], x.reshape(-1, *x.shape[2:])
    options = dict(dtype=self.dtype, kernel_init=_msra)
    for i in range(1, self.layers + 1):
      x = nn.relu(Conv(self.features, (3, 3), padding=1, name=f'mask_fcn{i}', **options)(x))
    up = ConvTranspose(
      self.features, (2, 2), strides=(2, 2), padding='VALID', name='conv5_mask', **options
    )
    options = dict(dtype=self.dtype, kernel_init=_normal(0.001))
    x = Conv(self.num_classes - 1, (1, 1), name='mask_fcn_logits', **options)(nn.relu(up(x)))
    return x.reshape(*count, *x.shape[1:])
