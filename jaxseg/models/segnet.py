"""SegNet: A Deep Convolutional Encoder-Decoder Architecture (arXiv:1511.00561, figure 2, table 1).

Pooling stores each maximum's index; the decoder unpools values to these positions (zeros elsewhere)
and convolves. The defaults are the authors' release (SegNet-Tutorial, caffe-segnet):
every convolution has a bias, batch norm has epsilon 1e-9, scale 1 and shift 0.001, MSRA fan-in
initialisation, pooling rounds up (360x480 > ... > 23x30 > 12x15).

  variant='vgg16'   13 convolutions of VGG16 down, 13 up; the last, 3x3, is the classifier.
  variant='basic'   SegNet-Basic: local response normalisation of the raw input (feed BGR 0-255
                    without subtracting a mean), 4 + 4 convolutions 7x7 of 64 channels, no ReLU in
                    the decoder, 1x1 classifier.
  bayesian=True     Bayesian SegNet (arXiv:1511.02680): dropout in the deep half, as released.
  use_bias=False    the paper's text: no bias before batch norm (the release has them).

The release has no running averages: after training it averages the statistics of one pass over the
training set. Here the model has running averages; the training loop can make that pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.models import channels, check_options, check_size, dropout
from jaxseg.nn.backbones.blocks import run_block
from jaxseg.nn.backbones.vgg import STAGES
from jaxseg.nn.layers import (
  BatchNorm,
  Conv,
  local_contrast_norm,
  local_response_norm,
  max_pool_argmax,
  max_unpool,
)
from jaxseg.types import Array, Outputs, SizeRule

# Convolutions (name, channels in units of `width`) of each encoder stage, finest first.
_ENCODERS = {
  'vgg16': tuple(
    tuple((f'conv{stage}_{i}', multiple) for i in range(1, count + 1))
    for stage, (count, multiple) in enumerate(STAGES, start=1)
  ),
  'basic': tuple(((f'conv{stage}', 1),) for stage in range(1, 5)),
}
_SHALLOWEST_DROPOUT = 3  # first stage with dropout in Bayesian SegNet, of both variants
_msra = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class Model(nn.Module):
  """SegNet or SegNet-Basic, with or without dropout.

  Parameters, as in the release: 'vgg16' has conv1_1, conv1_1_bn ... conv5_3, conv5_3_bn,
  conv5_3_D, conv5_3_D_bn ... conv1_2_D, conv1_2_D_bn, conv1_1_D (the classifier); 'basic' has
  conv1, conv1_bn ... conv4, conv_decode4, conv_decode4_bn ... conv_decode1, conv_classifier.

  Attributes:
    variant: see above.
    input_norm: of 'basic', before its first convolution: 'response' as released, or local 'contrast'
      normalisation, as in the paper's comparison of variants (section 4.1).
    width: channels of the first convolution; all others scale with it.
    bayesian: dropout after poolings and decoder stages 3 and deeper.
    dropout_rate: its rate.
    use_bias: biases in the convolutions that batch norm follows.
    remat: recompute each stage in the backward pass.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  variant: Literal['vgg16', 'basic'] = 'vgg16'
  input_norm: Literal['response', 'contrast'] = 'response'
  width: int = channels(default=64)
  bayesian: bool = False
  dropout_rate: float = dropout(default=0.5)
  use_bias: bool = True
  remat: bool = False

  @property
  def size_rule(self) -> SizeRule:
    return SizeRule()  # pooling rounds up, and unpooling restores the stored size

  @nn.compact
  def __call__(self, image: Array, *, train: bool, dropout: bool | None = None) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to {'logits': [b,h,w,num_classes]}.

    `train` chooses batch statistics and, unless `dropout` says otherwise, dropout of the Bayesian
    variant (random stream 'dropout').
    """
    check_options(self)
    check_size('SegNet', self.size_rule, image.shape)
    dropout = train if dropout is None else dropout
    encoder, poolings = _ENCODERS[self.variant], []
    x = jnp.asarray(image, self.dtype)
    if self.variant == 'basic':
      contrast = self.input_norm == 'contrast'
      normalise = local_contrast_norm if contrast else local_response_norm
      x = normalise(image.astype(jnp.float32)).astype(self.dtype)
    for stage, convolutions in enumerate(encoder, start=1):
      size = x.shape[1:3]
      encode = partial(Model._encode, convolutions=convolutions, train=train)
      x, index = run_block(self, encode, x)
      poolings.append((index, size))
      self.sow('intermediates', f'pool{stage}', x)
      x = self._drop(x, stage, f'encdrop{stage}', dropout)
    for stage in range(len(encoder), 0, -1):
      decode = partial(Model._decode, stage=stage, pooling=poolings.pop(), train=train)
      x = run_block(self, decode, x)
      x = self._drop(x, stage, f'decdrop{stage}', dropout)
    size, name = (1, 'conv_classifier') if self.variant == 'basic' else (3, 'conv1_1_D')
    return {'logits': self._conv(self.num_classes, size, name=name)(x)}

  def _encode(self, x: Array, convolutions: tuple, train: bool) -> tuple[Array, Array]:
    """Convolves and pools, [b,h,w,c] -> values and indices [b,ceil(h/2),ceil(w/2),c']."""
    for name, multiple in convolutions:
      x = nn.relu(self._convolve(x, name, self.width * multiple, train))
    return max_pool_argmax(x)

  def _decode(self, x: Array, stage: int, pooling: tuple, train: bool) -> Array:
    """Unpools x [b,h,w,c] to the size before the pooling and convolves; mirrors the encoder's stage."""
    x = max_unpool(x, *pooling)
    if self.variant == 'basic':
      return self._convolve(x, f'conv_decode{stage}', self.width, train)
    for i, (name, multiple) in reversed(list(enumerate(_ENCODERS['vgg16'][stage - 1]))):
      if i == 0:  # the last one has the channels of the next finer stage, or is the classifier
        if stage == 1:
          break
        _, multiple = _ENCODERS['vgg16'][stage - 2][0]
      x = nn.relu(self._convolve(x, f'{name}_D', self.width * multiple, train))
    return x

  def _convolve(self, x: Array, name: str, features: int, train: bool) -> Array:
    """Convolution and batch norm, [b,h,w,c] -> [b,h,w,features]."""
    size = 7 if self.variant == 'basic' else 3
    x = self._conv(features, size, use_bias=self.use_bias, name=name)(x)
    shift = 0.0 if self.bayesian and self.variant == 'vgg16' else 0.001  # as released
    options = dict(epsilon=1e-9, bias_init=nn.initializers.constant(shift), dtype=self.dtype)
    return self.norm(name=f'{name}_bn', **options)(x, use_running_average=not train)

  def _conv(self, features: int, size: int, **options) -> nn.Module:
    return Conv(features, (size, size), dtype=self.dtype, kernel_init=_msra, **options)

  def _drop(self, x: Array, stage: int, name: str, active: bool) -> Array:
    if not self.bayesian or stage < _SHALLOWEST_DROPOUT:
      return x
    return nn.Dropout(self.dropout_rate, name=name)(x, deterministic=not active)
