"""EfficientNet-Lite 0 to 2: EfficientNet (arXiv:1905.11946) without squeeze and excitation, with ReLU6.

As released by Google (tensorflow/tpu, efficientnet/lite): stem, head, first and last stage keep their
size in every variant. Names are those of its best-known port to PyTorch, without leading underscores
and with '_' for '.': conv_stem, bn0, blocks_0_depthwise_conv, blocks_0_bn1 ... conv_head, bn1, fc.
Padding is TensorFlow's 'SAME' (for even sides and stride 2 more at the bottom and right), batch norm has
epsilon 1e-3, and pixels are (x - 127) / 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.nn.backbones.blocks import conv_norm, run_block
from jaxseg.nn.layers import BatchNorm
from jaxseg.types import Array

# (expansion, side of the depthwise kernel, channels, repetitions, stride of the first).
_STAGES = (
  (1, 3, 16, 1, 1),
  (6, 3, 24, 2, 2),
  (6, 5, 40, 2, 2),
  (6, 3, 80, 3, 2),
  (6, 5, 112, 3, 1),
  (6, 5, 192, 4, 2),
  (6, 3, 320, 1, 1),
)
SCALES = {  # name -> factors of width and of depth
  'efficientnet_lite0': (1.0, 1.0),
  'efficientnet_lite1': (1.0, 1.1),
  'efficientnet_lite2': (1.1, 1.2),
}

_he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class EfficientNetLite(nn.Module):
  """EfficientNet-Lite, as a backbone or (with `num_classes`) as a classifier.

  Attributes:
    scale: factors of width and of depth, see SCALES.
    width: scales every channel count by width / 64; 64 is the published net.
    num_classes: adds the head of 1280 channels, global average pooling, dropout and fc.
    remat: recompute each block in the backward pass.
  """

  scale: tuple[float, float] = (1.0, 1.0)
  width: int = 64
  num_classes: int | None = None
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> dict[str, Array]:
    """Maps image [b,h,w,c] to {'stride2': ..., 'stride32': [b,h/32,w/32,320]}, rounded up.

    Each tap is the last feature map of its stride: 16, 24, 40, 112 and 320 channels of Lite 0. A
    classifier adds 'logits' [b,num_classes].
    """
    x = jnp.asarray(image, self.dtype)
    x = nn.relu6(self._conv_bn(x, self._narrowed(32), 3, ('conv_stem', 'bn0'), train, stride=2))
    taps, stride, index = {}, 2, 0
    for stage, (expansion, side, published, count, step) in enumerate(_STAGES):
      if 0 < stage < len(_STAGES) - 1:
        count = math.ceil(self.scale[1] * count)
      for repetition in range(count):
        step = step if repetition == 0 else 1
        x = self._residual(x, index, expansion, side, self._channels(published), step, train)
        stride, index = stride * step, index + 1
      taps[f'stride{stride}'] = x
    if self.num_classes is not None:
      x = nn.relu6(self._conv_bn(x, self._narrowed(1280), 1, ('conv_head', 'bn1'), train))
      x = nn.Dropout(0.2, name='dropout')(jnp.mean(x, axis=(1, 2)), deterministic=not train)
      taps['logits'] = nn.Dense(self.num_classes, dtype=self.dtype, name='fc')(x)
    return taps

  def _channels(self, published: int) -> int:
    """The channels of a stage: a multiple of 8, at least 90 % of the scaled number."""
    scaled = published * self.scale[0]
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return self._narrowed(rounded if rounded >= 0.9 * scaled else rounded + 8)

  def _narrowed(self, channels: int) -> int:
    return max(1, channels * self.width // 64)

  def _conv_bn(
    self, x: Array, features: int, side: int, names: tuple[str, str], train: bool, **options
  ) -> Array:
    options |= dict(padding='SAME', kernel_init=_he_normal, epsilon=1e-3)
    return conv_norm(self, x, features, side, names, train, **options)

  def _residual(
    self, x: Array, index: int, expansion: int, side: int, features: int, stride: int, train: bool
  ) -> Array:
    """Expand (1x1), filter (depthwise), project (1x1, linear); add where shapes agree."""
    name = f'blocks_{index}'

    def residual(net: EfficientNetLite, x: Array) -> Array:
      def layer(x, features, side, conv, norm, **options):
        names = f'{name}_{conv}', f'{name}_{norm}'
        return net._conv_bn(x, features, side, names, train, **options)

      y, wide = x, expansion * x.shape[-1]
      if expansion > 1:
        y = nn.relu6(layer(y, wide, 1, 'expand_conv', 'bn0'))
      options = dict(stride=stride, feature_group_count=wide)
      y = nn.relu6(layer(y, wide, side, 'depthwise_conv', 'bn1', **options))
      y = layer(y, features, 1, 'project_conv', 'bn2')
      return x + y if stride == 1 and x.shape[-1] == features else y

    return run_block(self, residual, x)
