"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597, figure 1).

The defaults are the paper's: 23 unpadded convolutions (572x572 in, 388x388 out), He initialisation,
centre-cropped skips, dropout 0.5 at the end of the contracting path, no batch norm. The paper does not
say on which feature maps dropout acts ("at the end of the contracting path"), nor in which order a
skip is concatenated: here on the last one, and skip first, as drawn in figure 1.

Other networks called "the U-Net" are a `variant`, see VARIANTS, or one of these options:
  padding='same'     output as large as the input.
  batch_norm=True    after every 3x3 convolution, which then has no bias.
  up='bilinear'      bilinear upsampling (aligned corners) and half as many channels going up; with
                     padding='same' and batch_norm this is milesial/Pytorch-UNet. Because corners are
                     aligned per tile, tiled prediction is not exact.
  backbone='resnet50'  a classification network as the contracting path, its features of strides 2 to
                     32 as skips and bottom; bilinear upsampling of the scores of stride 2. Not from a
                     paper, but common: start from ImageNet weights, with batch_norm=True and a width
                     of 8 to 32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.config.fields import within
from jaxseg.models import channels, check_options, check_size, dropout
from jaxseg.nn import backbones
from jaxseg.nn.backbones.blocks import run_block
from jaxseg.nn.layers import (
  BatchNorm,
  Conv,
  ConvTranspose,
  concatenate,
  max_pool,
  resize_bilinear,
)
from jaxseg.types import Array, Outputs, SizeRule, UserError

_he = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
_xavier = partial(nn.initializers.variance_scaling, 1.0, 'fan_in', 'uniform')
_glorot = nn.initializers.glorot_uniform()


@dataclasses.dataclass(frozen=True)
class Variant:
  """A published U-Net; the defaults are the paper's.

  Attributes:
    conv_init, up_init: initialisers of convolutions and of up-convolutions.
    padding: default of the network's `padding`.
    up_side: of the up-convolutions' kernel.
    up_relu: whether ReLU follows them.
    last_up: channels of the last up-convolution, as a multiple of its level's.
    skip_first: whether the skip is concatenated before the upsampled features.
    dropout: position -> rate, in units of the network's `dropout_rate`.
  """

  conv_init: Callable = _he
  up_init: Callable = _he
  padding: str = 'valid'
  up_side: int = 2
  up_relu: bool = False
  last_up: int = 1
  skip_first: bool = True
  dropout: Mapping[str, float] = dataclasses.field(default_factory=lambda: {'bottom': 1.0})


VARIANTS = {
  'paper': Variant(),
  'release': Variant(  # the authors' phseg_v5
    conv_init=_xavier(),
    up_init=_xavier(in_axis=-1, out_axis=-2),  # Caffe counts the fan-in over *output* channels
    up_relu=True,
    last_up=2,
    skip_first=False,
    dropout={'last_skip': 1.0, 'bottom': 1.0},
  ),
  'keras': Variant(  # the tutorials'
    conv_init=_glorot,
    up_init=_glorot,
    padding='same',
    up_side=3,
    skip_first=False,
    dropout={'first_pool': 0.5, 'pool': 1.0, 'join': 1.0},
  ),
  'nvidia': Variant(  # DeepLearningExamples' UNet_Medical
    conv_init=_glorot, up_init=_glorot, up_side=3, up_relu=True, skip_first=False
  ),
}


class Model(nn.Module):
  """U-Net with `depth` poolings; level l has width * 2**l channels.

  Parameters: enc{l}_conv1, enc{l}_conv2, bottom_conv1, bottom_conv2, dec{l}_up, dec{l}_conv1,
  dec{l}_conv2, score; with batch norm enc{l}_bn1 and so on. Level 0 is the full resolution. A backbone
  has its published names under 'backbone', and the decoder the levels 4 to 1.

  Attributes:
    width: channels of level 0.
    depth: number of poolings.
    padding: 'valid' or 'same'; None: the variant's.
    batch_norm: normalise after every 3x3 convolution.
    up: 'deconv' or 'bilinear'.
    variant: a key of VARIANTS.
    dropout_rate: the variant's main rate.
    remat: recompute the convolutions of each level in the backward pass.
    backbone: one of jaxseg.nn.backbones, see above; None: the paper's contracting path.
    backbone_width: of the backbone; 64 is the published network.
    frozen_norm: the backbone's batch norm uses, and does not update, its running statistics.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  width: int = channels(default=64)
  depth: int = within(1, 10, default=4)
  padding: Literal['valid', 'same'] | None = None
  batch_norm: bool = False
  up: Literal['deconv', 'bilinear'] = 'deconv'
  variant: Literal['paper', 'release', 'keras', 'nvidia'] = 'paper'
  dropout_rate: float = dropout(default=0.5)
  remat: bool = False
  backbone: Literal[*backbones.NAMES] | None = None
  backbone_width: int = channels(default=64)
  frozen_norm: bool = False

  @nn.compact
  def __call__(self, image: Array, *, train: bool, dropout: bool | None = None) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to {'logits': [b,h-2m,w-2m,num_classes]}.

    m is the margin of `size_rule`, 92 for four unpadded levels. `train` chooses batch statistics
    and, unless `dropout` says otherwise, dropout (random stream 'dropout').

    Raises:
      UserError: an invalid option, or a size outside `size_rule`.
    """
    self._check_options()
    check_size('the U-Net', self.size_rule, image.shape)
    convolve = partial(self._convolve, train=train)
    drop = partial(self._drop, active=train if dropout is None else dropout)
    if self.backbone:
      return self._on_backbone(image, train, convolve, drop)
    narrow = 2 if self.up == 'bilinear' else 1  # without up-convolutions, which halve the channels

    x, skips = jnp.asarray(image, self.dtype), []
    for level in range(self.depth):
      x = convolve(x, f'enc{level}', self.width * 2**level)
      x = drop(x, 'last_skip' if level == self.depth - 1 else 'skip', f'enc{level}')
      skips.append(x)
      x = drop(max_pool(x), 'pool' if level else 'first_pool', f'enc{level}')
    x = convolve(x, 'bottom', self.width * 2**self.depth // narrow)
    x = drop(x, 'bottom', 'bottom')
    for level in reversed(range(self.depth)):
      x = self.join(self._upsample(x, level), skips[level])
      x = drop(x, 'join', f'dec{level}')
      channels = self.width * 2**level
      x = convolve(x, f'dec{level}', channels, channels // narrow if level else channels)
    return {'logits': self._conv(self.num_classes, 1, name='score')(x)}

  def _on_backbone(self, image: Array, train: bool, convolve: Callable, drop: Callable) -> Outputs:
    """The network on a backbone, whose level l has stride 2**l."""
    options = {name: getattr(self, name) for name in ('norm', 'dtype', 'remat')}
    options |= dict(width=self.backbone_width, name='backbone')
    backbone = backbones.build(self.backbone, **options)
    taps = backbone(image, train=train and not self.frozen_norm)
    x = drop(taps['stride32'], 'bottom', 'bottom')
    for level in (4, 3, 2, 1):
      x = self.join(self._upsample(x, level), taps[f'stride{2**level}'])
      x = convolve(x, f'dec{level}', self.width * 2**level)
    score = self._conv(self.num_classes, 1, name='score')(x)
    return {'logits': resize_bilinear(score, image.shape[1:3])}

  def _convolve(
    self, x: Array, name: str, first: int, second: int | None = None, *, train: bool
  ) -> Array:
    """Two 3x3 convolutions with ReLU, of `first` and `second` channels: [b,h,w,c] -> [b,h',w',second]."""

    def block(model: Model, x: Array) -> Array:
      for i, features in ((1, first), (2, second or first)):
        x = model._conv(features, 3, use_bias=not model.batch_norm, name=f'{name}_conv{i}')(x)
        if model.batch_norm:
          norm = model.norm(epsilon=1e-5, dtype=model.dtype, name=f'{name}_bn{i}')
          x = norm(x, use_running_average=not train)
        x = nn.relu(x)
      return x

    return run_block(self, block, x)

  def _conv(self, features: int, side: int, **options) -> nn.Module:
    options |= dict(dtype=self.dtype, kernel_init=VARIANTS[self.variant].conv_init)
    return Conv(features, (side, side), padding=self._padding, **options)

  def _upsample(self, x: Array, level: int) -> Array:
    """[b,h,w,c] -> [b,2h,2w,c'], by up-convolution or bilinear interpolation."""
    if self.up == 'bilinear':
      return resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
    variant, features = VARIANTS[self.variant], self.width * 2**level
    x = ConvTranspose(
      features if level else features * variant.last_up,
      (variant.up_side, variant.up_side),
      strides=(2, 2),
      padding='VALID' if variant.up_side == 2 else 'SAME',
      dtype=self.dtype,
      kernel_init=variant.up_init,
      name=f'dec{level}_up',
    )(x)
    return nn.relu(x) if variant.up_relu else x

  def join(self, x: Array, skip: Array) -> Array:
    """Concatenates x [b,h,w,c] with the centre of skip [b,h+2m,w+2m,c']."""
    top, left = (skip.shape[1] - x.shape[1]) // 2, (skip.shape[2] - x.shape[2]) // 2
    skip = skip[:, top : top + x.shape[1], left : left + x.shape[2]]
    parts = (skip, x) if VARIANTS[self.variant].skip_first else (x, skip)
    return concatenate(parts)

  def _drop(self, x: Array, where: str, name: str, *, active: bool) -> Array:
    """Dropout, if the variant has it at this position."""
    factor = VARIANTS[self.variant].dropout.get(where)
    if factor is None:
      return x
    drop = nn.Dropout(factor * self.dropout_rate, name=f'{name}_dropout')
    return drop(x, deterministic=not active)

  @property
  def size_rule(self) -> SizeRule:
    step = 32 if self.backbone else 2**self.depth
    if self._padding == 'SAME':
      return SizeRule(multiple=step, minimum=step)
    # An unpadded level loses 4 pixels before its pooling and 4 after its up-convolution.
    minimum = 12 * step - 4
    return SizeRule(step, offset=minimum % step, minimum=minimum, margin=6 * step - 4)

  @property
  def _padding(self) -> str:
    default = 'same' if self.backbone else VARIANTS[self.variant].padding
    return (self.padding or default).upper()

  def _check_options(self) -> None:
    check_options(self)
    if self.backbone and (self.variant, self.depth, self._padding) != ('paper', 4, 'SAME'):
      raise UserError(
        f'backbone={self.backbone!r} goes without variant, depth and padding: got '
        f'{self.variant!r}, {self.depth} and {self.padding!r}'
      )
    if self.variant == 'keras' and self._padding == 'VALID':
      raise UserError("variant='keras' is padded: got padding='valid', leave it out or say 'same'")
    if self.variant != 'paper' and self.up == 'bilinear':
      raise UserError(f"up='bilinear' goes with variant='paper' only: got {self.variant!r}")
