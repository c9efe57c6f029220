"""ResNet-50 and ResNet-101: Deep Residual Learning for Image Recognition (arXiv:1512.03385).

Version 1.5 as in torchvision: the stride sits on the 3x3 convolution. The paper's and Keras' is on the
first 1x1: 'resnet50_v1'. Names are torchvision's with '_' for '.': conv1, bn1, layer1_0_conv1, layer1_0_bn1 ...,
layer1_0_downsample_0 (convolution), layer1_0_downsample_1 (batch norm), fc. The deep stem is
conv1, bn1, conv2, bn2, conv3, bn3. Padding is symmetric, as the published weights expect; XLA's
'SAME' is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.nn.backbones.blocks import conv_norm, run_block
from jaxseg.nn.layers import BatchNorm, max_pool, single_columns
from jaxseg.types import Array, UserError

STAGE_SIZES = {'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3)}

FIRST = '_v1'  # suffix of the variants that stride in the first 1x1

_he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class ResNet(nn.Module):
  """Bottleneck ResNet, as a backbone or (with `num_classes`) as a classifier.

  Attributes:
    stage_sizes: number of bottlenecks in each of the four stages.
    width: channels of the stem and of the first bottlenecks' 3x3; 64 is the published net.
    output_stride: 32, or 16 or 8: the last one or two stages dilate instead of striding.
    dilate_first: the first block of a dilated stage already has the stage's dilation (PSPNet);
      torchvision gives it the dilation of the stage before.
    deep_stem: three 3x3 convolutions instead of the 7x7 (PSPNet).
    stride_first: a block strides in its first 1x1, as in the paper, not in its 3x3.
    num_classes: adds global average pooling and fc.
    remat: recompute each bottleneck in the backward pass.
    frozen_stages: the stem and this many stages get no gradients (detectors: 1); 0: none is frozen.
  """

  stage_sizes: Sequence[int] = STAGE_SIZES['resnet50']
  width: int = 64
  output_stride: int = 32
  dilate_first: bool = False
  deep_stem: bool = False
  stride_first: bool = False
  num_classes: int | None = None
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  remat: bool = False
  frozen_stages: int = 0

  @nn.compact
  @single_columns()
  def __call__(self, image: Array, *, train: bool) -> dict[str, Array]:
    """Maps image [b,h,w,c] to its feature maps.

    Returns:
      'stage1' ... 'stage4' [b,h/s,w/s,4*width*2**i], of stride s = min(4 * 2**i, output_stride);
      the same under 'stride4' ... 'stride32' where a stage has its undilated stride; 'stride2'
      [b,h/2,w/2,width], the stem's; and 'logits' [b,num_classes] of a classifier.
    """
    if self.output_stride not in (8, 16, 32):
      raise UserError(f'output_stride={self.output_stride}: a ResNet has 8, 16 or 32')
    x = self._stem(jnp.asarray(image, self.dtype), train)
    taps = {'stride2': jax.lax.stop_gradient(x) if self.frozen_stages else x}
    stride, dilation = 4, 1
    x = max_pool(x, window=3, stride=2, padding=((1, 1), (1, 1)))
    for stage, count in enumerate(self.stage_sizes, start=1):
      nominal, first_stride, first_dilation = 2 ** (stage + 1), 1, dilation
      if stride < min(nominal, self.output_stride):
        first_stride, stride = 2, 2 * stride
      elif stride < nominal:
        dilation = nominal // stride
        first_dilation = dilation if self.dilate_first else first_dilation
      x = self._bottleneck(x, stage, 0, first_stride, first_dilation, train)
      for block in range(1, count):
        x = self._bottleneck(x, stage, block, 1, dilation, train)
      if stage == self.frozen_stages:
        x = jax.lax.stop_gradient(x)
      taps[f'stage{stage}'] = x
      if stride == nominal:
        taps[f'stride{stride}'] = x
    if self.num_classes is not None:
      x = jnp.mean(x, axis=(1, 2))
      taps['logits'] = nn.Dense(self.num_classes, dtype=self.dtype, name='fc')(x)
    return taps

  def _stem(self, x: Array, train: bool) -> Array:
    """[b,h,w,c] -> [b,h/2,w/2,width] (deep stem: 2 * width)."""
    convolutions = ((3, 1), (3, 1), (3, 2)) if self.deep_stem else ((7, 1),)
    for i, (side, multiple) in enumerate(convolutions, start=1):
      stride = 2 if i == 1 else 1
      x = self._conv_bn(x, self.width * multiple, side, f'conv{i}', f'bn{i}', train, stride=stride)
      x = nn.relu(x)
    return x

  def _bottleneck(
    self, x: Array, stage: int, block: int, stride: int, dilation: int, train: bool
  ) -> Array:
    """1x1, 3x3 (with stride and dilation) and 1x1 convolutions around a shortcut."""
    name, features = f'layer{stage}_{block}', self.width * 2 ** (stage - 1)
    first, second = (stride, 1) if self.stride_first else (1, stride)

    def bottleneck(net: ResNet, x: Array) -> Array:
      def layer(x, features, side, i, **options):
        return net._conv_bn(x, features, side, f'{name}_conv{i}', f'{name}_bn{i}', train, **options)

      y = nn.relu(layer(x, features, 1, 1, stride=first))
      y = nn.relu(layer(y, features, 3, 2, stride=second, dilation=dilation))
      y = layer(y, 4 * features, 1, 3)
      if block == 0:
        names = f'{name}_downsample_0', f'{name}_downsample_1'
        x = net._conv_bn(x, 4 * features, 1, *names, train, stride=stride)
      return nn.relu(x + y)

    return run_block(self, bottleneck, x)

  def _conv_bn(
    self, x: Array, features: int, side: int, conv: str, norm: str, train: bool, **options
  ) -> Array:
    options['kernel_init'] = _he_normal
    return conv_norm(self, x, features, side, (conv, norm), train, **options)
