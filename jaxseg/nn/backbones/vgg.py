"""VGG16: Very Deep Convolutional Networks for Large-Scale Image Recognition (arXiv:1409.1556, D).

Thirteen 3x3 convolutions in five stages, each followed by 2x2 pooling, then fc6, fc7 and fc8 as
convolutions (7x7, 1x1, 1x1): a 224x224 image gives one vector of class scores, a larger one the scores
of windows 32 pixels apart. fc6 [7,7,8w,64w] is the fully connected [49*8w,64w] in the order h, w, c.
Names are Caffe's: conv1_1 ... conv5_3, fc6, fc7, fc8, and bn1_1 ... bn5_3 with batch norm
(torchvision's vgg16_bn, whose convolutions keep their biases).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.nn.backbones.blocks import run_block
from jaxseg.nn.layers import BatchNorm, Conv, max_pool
from jaxseg.types import Array

STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))  # (convolutions, channels in units of width)

_he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class VGG16(nn.Module):
  """The convolutions and poolings of VGG16 and, with `num_classes`, its classifier.

  Attributes:
    width: channels of the first stage; 64 is the published net.
    batch_norm: batch normalisation after each convolution.
    padding: zeros around the input of each convolution; with 0 the net is a pure sliding window.
    first_padding: the same for conv1_1 (FCN pads the image by 100); None is `padding`.
    ceil: pooling rounds sizes up, as in Caffe; torch and Keras round down.
    num_classes: adds fc6, fc7 and fc8.
    dropout_rate: after fc6 and fc7.
    remat: recompute each stage in the backward pass.
  """

  width: int = 64
  batch_norm: bool = False
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  padding: int = 1
  first_padding: int | None = None
  ceil: bool = False
  num_classes: int | None = None
  dropout_rate: float = 0.5
  remat: bool = False

  @nn.compact
  def __call__(self, image: Array, *, train: bool) -> dict[str, Array]:
    """Maps image [b,h,w,c] to {'stride2': pool1 [b,h/2,w/2,width], ..., 'stride32': pool5}.

    A classifier adds 'logits' [b,h/32-6,w/32-6,num_classes].
    """
    taps, x = {}, jnp.asarray(image, self.dtype)
    for stage in range(1, len(STAGES) + 1):
      x = run_block(self, lambda vgg, x, stage=stage: vgg._convolve(x, stage, train), x)
      x = max_pool(x, ceil=self.ceil)
      taps[f'stride{2**stage}'] = x
    if self.num_classes is not None:
      x = fully_connected(x, 64 * self.width, self.dropout_rate, train, padding=0)
      taps['logits'] = Conv(self.num_classes, (1, 1), dtype=self.dtype, name='fc8')(x)
    return taps

  def _convolve(self, x: Array, stage: int, train: bool) -> Array:
    """The convolutions of one stage (1 to 5)."""
    count, multiple = STAGES[stage - 1]
    for i in range(1, count + 1):
      pad = self.padding
      if (stage, i) == (1, 1) and self.first_padding is not None:
        pad = self.first_padding
      options = dict(dtype=self.dtype, kernel_init=_he_normal, name=f'conv{stage}_{i}')
      x = Conv(self.width * multiple, (3, 3), padding=pad, **options)(x)
      if self.batch_norm:
        norm = self.norm(epsilon=1e-5, dtype=self.dtype, name=f'bn{stage}_{i}')
        x = norm(x, use_running_average=not train)
      x = nn.relu(x)
    return x


def fully_connected(x: Array, features: int, rate: float, dropout: bool, padding: int) -> Array:
  """fc6 and fc7 as convolutions; call it in a compact method.

  Args:
    x: pool5, [b,h,w,c].
    features: channels of both; 4096 in the published net.
    rate: dropout rate (elementwise) after each ReLU.
    dropout: whether to apply it.
    padding: zeros around pool5: 0 as published, 3 keeps the size.

  Returns:
    [b,h-6+2*padding,w-6+2*padding,features]
  """
  for name, size, pad in (('fc6', 7, padding), ('fc7', 1, 0)):
    options = dict(dtype=x.dtype, kernel_init=_he_normal, name=name)
    x = Conv(features, (size, size), padding=pad, **options)(x)
    x = nn.Dropout(rate, name=f'drop{name[-1]}')(nn.relu(x), deterministic=not dropout)
  return x
