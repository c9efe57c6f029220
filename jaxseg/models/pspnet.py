"""PSPNet: Pyramid Scene Parsing Network (arXiv:1612.01105).

A ResNet whose last two stages are dilated (stride 8), pyramid pooling over 1, 4, 9 and 36 bins
concatenated with its features, one 3x3 convolution, and bilinear upsampling with aligned corners: input
sides are 8 n + 1 pixels, the features' n + 1. In training an auxiliary head on stage 3 is supervised as
well; the task weights it (0.4).

Details that the paper leaves open follow one of the authors' two releases:
  release='semseg'  PyTorch (hszhao/semseg): bottlenecks stride in their 3x3; channelwise dropout;
                   PyTorch's initialisation of new layers; batch norm momentum 0.9.
  release='caffe'  hszhao/PSPNet: bottlenecks stride in their first 1x1; elementwise dropout; MSRA; 0.95.
In both the stem is three 3x3 convolutions ('deep'), and every 3x3 of a dilated stage has its stage's
dilation. Both heads are supervised at the size of the image, as in semseg (Caffe: at an eighth of it).
Departures, by option:
  deep_stem=False  the 7x7 stem, for torchvision's ImageNet weights.
  aux=False        no auxiliary head: the network of inference.
  align_corners=False  pixels as areas: the input is 8 n pixels and the features n, which can be
                   split evenly over devices by rows (config.mesh='data:4,spatial:2').
  bins, width, stage_sizes  other pyramids, or narrower and shallower networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.config.fields import within
from jaxseg.models import channels, check_options, check_size, dropout, stages
from jaxseg.nn.backbones import STAGE_SIZES, ResNet
from jaxseg.nn.backbones.blocks import conv_norm
from jaxseg.nn.layers import BatchNorm, Conv, adaptive_average_pool, resize_bilinear
from jaxseg.nn.layers.split_rows import unsplit_rows
from jaxseg.types import Array, Outputs, SizeRule, UserError

_INITIAL = {
  'semseg': nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),  # PyTorch's default
  'caffe': nn.initializers.variance_scaling(2.0, 'fan_in', 'normal'),  # MSRA
}


class Model(nn.Module):
  """PSPNet on a dilated ResNet.

  Parameters have the release's names with '_' for '.': ppm_features_0_1 (convolution of the first
  level of the pyramid), ppm_features_0_2 (its batch norm) ..., cls_0 (3x3), cls_1 (batch norm), cls_4
  (scores), likewise aux_0, aux_1 and aux_4; the ResNet's names are under 'backbone'.

  Attributes:
    backbone: determines the bottlenecks in each stage.
    release, deep_stem: see above.
    bins: bins along a side at each level of the pyramid; their number divides 32 * width.
    width: channels of the ResNet's first stage, 64 as published; the heads scale with it.
    stage_sizes: bottlenecks in each of the four stages, instead of the backbone's.
    dropout_rate: before the scores.
    aux: adds the auxiliary head and 'aux_logits' to the outputs.
    align_corners: of all bilinear upsampling; see above.
    remat: recompute each bottleneck in the backward pass.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  backbone: Literal[*STAGE_SIZES] = 'resnet50'
  release: Literal['semseg', 'caffe'] = 'semseg'
  deep_stem: bool = True
  bins: tuple[int, ...] = within(1, 64, some=True, default=(1, 2, 3, 6))
  width: int = channels(default=64)
  stage_sizes: tuple[int, ...] | None = stages(4, 4, default=None)
  dropout_rate: float = dropout(default=0.1)
  aux: bool = True
  align_corners: bool = True
  remat: bool = False

  @property
  def size_rule(self) -> SizeRule:
    return SizeRule(8, offset=1) if self.align_corners else SizeRule(8, minimum=8)

  @nn.compact
  def __call__(self, image: Array, *, train: bool, dropout: bool | None = None) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to {'logits': [b,h,w,num_classes]}.

    With `aux` also 'aux_logits', of the same shape. `train` chooses batch statistics and, unless
    `dropout` says otherwise, dropout (random stream 'dropout').

    Raises:
      UserError: no such backbone, a pyramid that does not divide the channels, or a size outside
        `size_rule`.
    """
    check_options(self)
    if 32 * self.width % len(self.bins):
      raise UserError(
        f'bins={tuple(self.bins)}: the number of levels has to divide {32 * self.width} channels'
      )
    check_size('PSPNet', self.size_rule, image.shape)
    dropout = train if dropout is None else dropout
    resnet = ResNet(
      stage_sizes=self.stage_sizes or STAGE_SIZES[self.backbone],
      width=self.width,
      output_stride=8,
      dilate_first=True,
      stride_first=self.release == 'caffe',
      deep_stem=self.deep_stem,
      norm=self._norm,
      dtype=self.dtype,
      remat=self.remat,
      name='backbone',
    )
    taps, size = resnet(image, train=train), image.shape[1:3]
    pyramid = self._pyramid(taps['stage4'], train)
    outputs = {'logits': self._head(pyramid, 8 * self.width, 'cls', size, train, dropout)}
    if self.aux:
      features = 4 * self.width
      outputs['aux_logits'] = self._head(taps['stage3'], features, 'aux', size, train, dropout)
    return outputs

  @property
  def _norm(self) -> Callable[..., nn.Module]:
    return partial(self.norm, momentum=0.95) if self.release == 'caffe' else self.norm

  def _pyramid(self, x: Array, train: bool) -> Array:
    """[b,h,w,c] -> [b,h,w,2c]: x, then c / levels channels of each pooling level."""
    levels, features = [x], x.shape[-1] // len(self.bins)
    for i, bins in enumerate(self.bins):
      name = f'ppm_features_{i}'
      with unsplit_rows():
        y = adaptive_average_pool(x, bins)
        y = self._conv_bn_relu(y, features, 1, (f'{name}_1', f'{name}_2'), train)
        y = resize_bilinear(y, x.shape[1:3], align_corners=self.align_corners)
      self.sow('intermediates', f'{name}_upsampled', y)
      levels.append(y)
    return jnp.concatenate(levels, axis=-1)

  def _head(
    self, x: Array, features: int, name: str, size: Sequence[int], train: bool, dropout: bool
  ) -> Array:
    """[b,h,w,c] -> logits [b,*size,num_classes]."""
    x = self._conv_bn_relu(x, features, 3, (f'{name}_0', f'{name}_1'), train)
    shared = (1, 2) if self.release == 'semseg' else ()
    drop = nn.Dropout(self.dropout_rate, broadcast_dims=shared, name=f'{name}_3')
    x = drop(x, deterministic=not dropout)
    options = dict(dtype=self.dtype, kernel_init=_INITIAL[self.release], name=f'{name}_4')
    x = Conv(self.num_classes, (1, 1), **options)(x)
    x = resize_bilinear(x, size, align_corners=self.align_corners)
    self.sow('intermediates', f'{name}_upsampled', x)
    return x

  def _conv_bn_relu(self, x: Array, features: int, side: int, names: tuple, train: bool) -> Array:
    options = dict(kernel_init=_INITIAL[self.release], norm=self._norm)
    return nn.relu(conv_norm(self, x, features, side, names, train, **options))
