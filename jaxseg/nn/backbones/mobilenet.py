"""MobileNet V1 (arXiv:1704.04861) and V2 (arXiv:1801.04381).

Each has the names and conventions of its best-known published weights, V1 those of Keras
(conv1, conv1_bn, conv_dw_1, conv_dw_1_bn, conv_pw_1, conv_pw_1_bn ..., conv_preds; strided
convolutions padded at the bottom and right only; batch norm epsilon 1e-3), V2 those of torchvision
with '_' for '.' (features_0_0, features_0_1, features_1_conv_0_0 ..., classifier_1; symmetric
padding; 1e-5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.nn.backbones.blocks import conv_norm, run_block
from jaxseg.nn.layers import BatchNorm, Conv
from jaxseg.types import Array

# (channels, stride) of V1's thirteen separable convolutions.
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2))
_V1 = (*_V1, (1024, 1))
# (expansion, channels, repetitions, stride of the first) of V2's inverted residuals.
_V2 = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)

_he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class _MobileNet(nn.Module):
  """What V1 and V2 share.

  Attributes:
    width: scales every channel count by width / 64; 64 is the published net.
    num_classes: adds global average pooling, dropout and a classifier.
    remat: recompute each block in the backward pass.
  """

  width: int = 64
  num_classes: int | None = None
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  remat: bool = False

  strided_padding, epsilon = ((1, 1), (1, 1)), 1e-5  # of 3x3 convolutions; of batch norm

  def _channels(self, published: int) -> int:
    return max(1, published * self.width // 64)

  def _conv_bn(
    self,
    x: Array,
    features: int,
    names: tuple[str, str],
    train: bool,
    *,
    side: int = 1,
    stride: int = 1,
    groups: int = 1,
  ) -> Array:
    """Convolution without bias and batch norm."""
    options = dict(feature_group_count=groups, kernel_init=_he_normal, epsilon=self.epsilon)
    if stride == 2:
      options['padding'] = self.strided_padding
    return conv_norm(self, x, features, side, names, train, stride=stride, **options)

  def _depthwise(self, x: Array, names: tuple[str, str], train: bool, stride: int) -> Array:
    """3x3 depthwise convolution, batch norm and ReLU6."""
    features = x.shape[-1]
    options = dict(side=3, stride=stride, groups=features)
    return nn.relu6(self._conv_bn(x, features, names, train, **options))


class MobileNetV1(_MobileNet):
  """MobileNet V1: a strided convolution and thirteen depthwise separable ones."""

  strided_padding, epsilon = ((0, 1), (0, 1)), 1e-3

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> dict[str, Array]:
    """Maps image [b,h,w,c] to {'stride2': ..., 'stride32': [b,h/32,w/32,1024]}.

    Each tap is the last feature map of its stride: conv_pw_5 at 8, _11 at 16, _13 at 32. A
    classifier adds 'logits' [b,num_classes].
    """
    x = jnp.asarray(image, self.dtype)
    x = self._conv_bn(x, self._channels(32), ('conv1', 'conv1_bn'), train, side=3, stride=2)
    x, taps, stride = nn.relu6(x), {}, 2
    for i, (published, step) in enumerate(_V1, start=1):

      def separable(net: MobileNetV1, x: Array, i: int = i, c=published, step: int = step) -> Array:
        x = net._depthwise(x, (f'conv_dw_{i}', f'conv_dw_{i}_bn'), train, step)
        names = f'conv_pw_{i}', f'conv_pw_{i}_bn'
        return nn.relu6(net._conv_bn(x, net._channels(c), names, train))

      x, stride = run_block(self, separable, x), stride * step
      taps[f'stride{stride}'] = x
    if self.num_classes is not None:
      x = jnp.mean(x, axis=(1, 2), keepdims=True)
      x = nn.Dropout(1e-3, name='dropout')(x, deterministic=not train)
      x = Conv(self.num_classes, (1, 1), dtype=self.dtype, name='conv_preds')(x)
      taps['logits'] = x.reshape(x.shape[0], self.num_classes)
    return taps


class MobileNetV2(_MobileNet):
  """MobileNet V2: inverted residuals with linear bottlenecks."""

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> dict[str, Array]:
    """Maps image [b,h,w,c] to {'stride2': ..., 'stride32': [b,h/32,w/32,1280]}.

    Each tap is the last feature map of its stride: features.6 (32 channels) at 8, features.13 (96)
    at 16, features.18 (1280) at 32. A classifier adds 'logits' [b,num_classes].
    """
    x, names = jnp.asarray(image, self.dtype), ('features_0_0', 'features_0_1')
    x = nn.relu6(self._conv_bn(x, self._channels(32), names, train, side=3, stride=2))
    taps, stride, index = {'stride2': x}, 2, 0
    for expansion, published, count, first_stride in _V2:
      for repetition in range(count):
        step, index = first_stride if repetition == 0 else 1, index + 1
        x = self._residual(x, index, expansion, self._channels(published), step, train)
        stride *= step
        taps[f'stride{stride}'] = x
    names = 'features_18_0', 'features_18_1'
    x = nn.relu6(self._conv_bn(x, self._channels(1280), names, train))
    taps['stride32'] = x
    if self.num_classes is not None:
      x = nn.Dropout(0.2, name='classifier_0')(jnp.mean(x, axis=(1, 2)), deterministic=not train)
      taps['logits'] = nn.Dense(self.num_classes, dtype=self.dtype, name='classifier_1')(x)
    return taps

  def _residual(
    self, x: Array, index: int, expansion: int, features: int, stride: int, train: bool
  ) -> Array:
    """Expand (1x1), filter (3x3 depthwise), project (1x1, linear); add where shapes agree."""
    prefix = f'features_{index}_conv'

    def residual(net: MobileNetV2, x: Array) -> Array:
      y, part = x, 0
      if expansion > 1:
        names = f'{prefix}_0_0', f'{prefix}_0_1'
        y, part = nn.relu6(net._conv_bn(y, expansion * x.shape[-1], names, train)), 1
      y = net._depthwise(y, (f'{prefix}_{part}_0', f'{prefix}_{part}_1'), train, stride)
      y = net._conv_bn(y, features, (f'{prefix}_{part + 1}', f'{prefix}_{part + 2}'), train)
      return x + y if stride == 1 and x.shape[-1] == features else y

    return run_block(self, residual, x)
