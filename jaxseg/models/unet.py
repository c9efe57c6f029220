"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597, figure 1).

The defaults are the paper's: 23 unpadded convolutions (572x572 in, 388x388 out), He initialisation,
skips cropped at their centre, dropout 0.5 at the end of the contracting path, no batch norm. The
paper does not say which feature maps drop out ("at the end of the contracting path"), nor in which
order a skip is concatenated: here the last one, and as drawn in figure 1, skip first.

What others mean by "the U-Net", and the option that gives it:
  variant='release'  the authors' phseg_v5: ReLU after every up-convolution, 128 channels (not 64)
                     out of the last one, dropout also at the end of level 3 before its pooling and
                     its skip, Xavier initialisation, upsampled features first.
  variant='keras'    the tutorials' padded one: linear 3x3 up-convolution, dropout 0.25 after the
                     first pooling and 0.5 after the other poolings and the concatenations (skips
                     are taken before pooling and dropout), Glorot initialisation.
  variant='nvidia'   DeepLearningExamples' UNet_Medical: 3x3 up-convolution with ReLU, upsampled
                     features first, Glorot initialisation; else the paper's.
  padding='same'     output as large as the input.
  batch_norm=True    after every 3x3 convolution, which then has no bias.
  up='bilinear'      bilinear upsampling (corners aligned) and half as many channels going up; with
                     padding='same' and batch_norm this is milesial/Pytorch-UNet. The corners of
                     each tile being aligned, tiles do not join exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.models import check_choice, check_size
from jaxseg.nn.layers import BatchNorm, Conv, ConvTranspose, max_pool, resize_bilinear
from jaxseg.types import Array, Outputs, SizeRule, UserError

_scaling = nn.initializers.variance_scaling
# (convolution, up-convolution). Caffe counts a deconvolution's fan-in over its *output* channels.
_INITIALIZERS = {
  'paper': (_scaling(2.0, 'fan_in', 'normal'), _scaling(2.0, 'fan_in', 'normal')),
  'release': (
    _scaling(1.0, 'fan_in', 'uniform'),
    _scaling(1.0, 'fan_in', 'uniform', in_axis=-1, out_axis=-2),
  ),
  'keras': (nn.initializers.glorot_uniform(), nn.initializers.glorot_uniform()),
  'nvidia': (nn.initializers.glorot_uniform(), nn.initializers.glorot_uniform()),
}


class Model(nn.Module):
  """U-Net with `depth` poolings; level l has width * 2**l channels.

  Parameters: enc{l}_conv1, enc{l}_conv2, bottom_conv1, bottom_conv2, dec{l}_up, dec{l}_conv1,
  dec{l}_conv2, score; with batch norm enc{l}_bn1 and so on. Level 0 is the full resolution.

  Attributes:
    num_classes: channels of the logits.
    norm: factory of batch normalisation layers.
    dtype: dtype of the computation; parameters stay float32.
    width: channels of level 0.
    depth: number of poolings.
    padding: 'valid' or 'same'; None is what the variant was published with.
    batch_norm: normalise after every 3x3 convolution.
    up: 'deconv' or 'bilinear'.
    variant: 'paper', 'release', 'keras' or 'nvidia'.
    dropout_rate: the variant's main rate ('keras' halves it after the first pooling).
    remat: recompute the convolutions of each level in the backward pass.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  width: int = 64
  depth: int = 4
  padding: str | None = None
  batch_norm: bool = False
  up: str = 'deconv'
  variant: str = 'paper'
  dropout_rate: float = 0.5
  remat: bool = False

  @property
  def size_rule(self) -> SizeRule:
    step = 2**self.depth
    if self._padding == 'SAME':
      return SizeRule(multiple=step, minimum=step)
    # An unpadded level eats 4 pixels before its pooling and 4 after its up-convolution.
    minimum = 12 * step - 4
    return SizeRule(step, offset=minimum % step, minimum=minimum, margin=6 * step - 4)

  @nn.compact
  def __call__(self, image: Array, *, train: bool, dropout: bool | None = None) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to {'logits': [b,h-2m,w-2m,num_classes]}.

    m is the margin of `size_rule`, 92 for four unpadded levels. `train` chooses batch statistics
    and, unless `dropout` says otherwise, dropout (random stream 'dropout').

    Raises:
      UserError: an option that does not exist, or a size outside `size_rule`.
    """
    self._check_options()
    check_size('the U-Net', self.size_rule, image.shape)
    drop = partial(self._drop, active=train if dropout is None else dropout)
    x, skips = jnp.asarray(image, self.dtype), []
    for level in range(self.depth):
      x = self._convolve(x, f'enc{level}', (self.width * 2**level,) * 2, train)
      if self.variant == 'release' and level == self.depth - 1:
        x = drop(x, f'enc{level}_dropout')
      skips.append(x)
      x = max_pool(x)
      if self.variant == 'keras':
        x = drop(x, f'enc{level}_dropout', scale=0.5 if level == 0 else 1.0)
    narrow = 2 if self.up == 'bilinear' else 1
    x = self._convolve(x, 'bottom', (self.width * 2**self.depth // narrow,) * 2, train)
    if self.variant != 'keras':
      x = drop(x, 'bottom_dropout')
    for level in reversed(range(self.depth)):
      x = self._join(self._upsample(x, level), skips[level])
      if self.variant == 'keras':
        x = drop(x, f'dec{level}_dropout')
      channels = self.width * 2**level
      last = channels // narrow if level else channels
      x = self._convolve(x, f'dec{level}', (channels, last), train)
    return {'logits': self._conv(self.num_classes, 1, name='score')(x)}

  @property
  def _padding(self) -> str:
    default = 'same' if self.variant == 'keras' else 'valid'
    return (self.padding or default).upper()

  def _check_options(self) -> None:
    check_choice('variant', self.variant, tuple(_INITIALIZERS))
    check_choice('padding', self.padding, ('valid', 'same', None))
    check_choice('up', self.up, ('deconv', 'bilinear'))
    if self.variant == 'keras' and self._padding == 'VALID':
      raise UserError("variant='keras' is padded: got padding='valid', leave it out or say 'same'")
    if self.variant != 'paper' and self.up == 'bilinear':
      raise UserError(f"up='bilinear' goes with variant='paper' only: got {self.variant!r}")

  def _conv(self, features: int, size: int, **options) -> nn.Module:
    return Conv(
      features,
      (size, size),
      padding=self._padding,
      dtype=self.dtype,
      kernel_init=_INITIALIZERS[self.variant][0],
      **options,
    )

  def _convolve(self, x: Array, name: str, channels: tuple[int, ...], train: bool) -> Array:
    """3x3 convolutions with ReLU, [b,h,w,c] -> [b,h',w',channels[-1]]."""

    def block(model: Model, x: Array) -> Array:
      for i, features in enumerate(channels, start=1):
        bias = not model.batch_norm
        x = model._conv(features, 3, use_bias=bias, name=f'{name}_conv{i}')(x)
        if model.batch_norm:
          norm = model.norm(epsilon=1e-5, dtype=model.dtype, name=f'{name}_bn{i}')
          x = norm(x, use_running_average=not train)
        x = nn.relu(x)
      return x

    return nn.remat(block)(self, x) if self.remat else block(self, x)

  def _upsample(self, x: Array, level: int) -> Array:
    """[b,h,w,c] -> [b,2h,2w,c'], by up-convolution or bilinear interpolation."""
    if self.up == 'bilinear':
      return resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
    features = self.width * 2**level
    if self.variant == 'release' and level == 0:
      features *= 2
    size = 3 if self.variant in ('keras', 'nvidia') else 2
    x = ConvTranspose(
      features,
      (size, size),
      strides=(2, 2),
      padding='SAME' if size == 3 else 'VALID',
      dtype=self.dtype,
      kernel_init=_INITIALIZERS[self.variant][1],
      name=f'dec{level}_up',
    )(x)
    return nn.relu(x) if self.variant in ('release', 'nvidia') else x

  def _join(self, x: Array, skip: Array) -> Array:
    """Concatenates x [b,h,w,c] with the centre of skip [b,h+2m,w+2m,c']."""
    top, left = (skip.shape[1] - x.shape[1]) // 2, (skip.shape[2] - x.shape[2]) // 2
    skip = skip[:, top : top + x.shape[1], left : left + x.shape[2]]
    return jnp.concatenate((skip, x) if self.variant == 'paper' else (x, skip), axis=-1)

  def _drop(self, x: Array, name: str, *, active: bool, scale: float = 1.0) -> Array:
    return nn.Dropout(scale * self.dropout_rate, name=name)(x, deterministic=not active)
