"""Fully Convolutional Networks for Semantic Segmentation (arXiv:1411.4038; PAMI: arXiv:1605.06211).

The defaults are the authors' reference release (fcn.berkeleyvision.org, voc-fcn8s): VGG16 whose
conv1_1 pads the image by 100 pixels, pooling that rounds up, unpadded 7x7 fc6, zero-initialised score
layers, fixed bilinear upsampling (hence without parameters), and crops from the top left (19, 27 or 31
pixels for the result, 5 and 9 for the skips), for images of any size.

Departures from it, by option:
  stride=32|16|8        FCN-32s, FCN-16s, FCN-8s.
  at_once=True          FCN-8s trained in one go: pool4 scaled by 0.01 and pool3 by 0.0001.
  learn_upsampling      True: every upsampling is a learned deconvolution initialised bilinearly;
                        'intermediate': all but the last (the conference paper).
  aligned=True          'SAME' padding instead of 100 pixels and crops: cheaper, modern.
  batch_norm=True       batch norm in VGG16, for training from scratch.
  head='light'          without fc6 and fc7: scores the last features of strides 32, 16 and 8 of any
                        backbone, all aligned. Not from a paper.
  head='torchvision'    torchvision's fcn_resnet50 and fcn_resnet101: stages 3 and 4 dilated, one
                        3x3 convolution, bilinear resize; aux=True adds its head on stage 3.
Dropout is elementwise, as in Caffe; some ports drop channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxseg.models import channels, check_options, check_size, dropout
from jaxseg.nn import backbones
from jaxseg.nn.backbones.blocks import conv_norm
from jaxseg.nn.backbones.vgg import VGG16, fully_connected
from jaxseg.nn.layers import (
  BatchNorm,
  Conv,
  ConvTranspose,
  bilinear_kernel,
  resize_bilinear,
  upsample_bilinear,
)
from jaxseg.types import Array, Outputs, SizeRule, UserError

_IMAGE_PADDING = 100
# stride: (name of the last upsampling, its crop from the top left)
_LAST = {32: ('upscore', 19), 16: ('upscore16', 27), 8: ('upscore8', 31)}
# (stride of the skip, upsampling before it, score layer, crop of the skip, at-once scale)
_SKIPS = ((16, 'upscore2', 'score_pool4', 5, 1e-2), (8, 'upscore_pool4', 'score_pool3', 9, 1e-4))
_torch_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # PyTorch's default


class Model(nn.Module):
  """FCN-32s, FCN-16s or FCN-8s.

  Parameters: conv1_1 ... conv5_3, fc6, fc7 (and bn1_1 ...) with VGG16, other backbones under
  'backbone' with their published names; score_fr, score_pool4, score_pool3; learned upsampling in
  upscore2, upscore_pool4, upscore, upscore16, upscore8. head='torchvision' has classifier_0 (3x3),
  classifier_1 (batch norm), classifier_4, and the same with aux_classifier_.

  Attributes:
    stride: of the finest scores.
    backbone: VGG16, or any with other heads than the paper's.
    head: 'paper' (VGG16 only), 'light' or 'torchvision' (ResNets only, stride 8 only).
    width: channels of VGG16's first stage, 64 as published; the rest scales, fc6 is 64 * width.
    batch_norm, aligned, at_once, learn_upsampling: see above; head='light' is always aligned.
    dropout_rate: None is 0.5 after fc6 and fc7, 0.1 in torchvision's head.
    aux: also return 'aux_logits' (head='torchvision').
    remat: recompute each stage (VGG16) or block of the backbone in the backward pass.
    frozen_norm: the backbone's batch norm uses, and does not update, its running statistics.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  stride: Literal[32, 16, 8] = 8
  backbone: Literal[*backbones.NAMES] = 'vgg16'
  head: Literal['paper', 'light', 'torchvision'] = 'paper'
  width: int = channels(default=64)
  batch_norm: bool = False
  aligned: bool = False
  at_once: bool = False
  learn_upsampling: bool | Literal['intermediate'] = False
  dropout_rate: float | None = dropout(default=None)
  aux: bool = False
  remat: bool = False
  frozen_norm: bool = False

  @property
  def size_rule(self) -> SizeRule:
    if self._is_aligned:
      return SizeRule(multiple=32, minimum=32)
    return SizeRule()

  @nn.compact
  def __call__(self, image: Array, *, train: bool, dropout: bool | None = None) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to {'logits': [b,h,w,num_classes]}.

    With `aux` also 'aux_logits', of the same shape. `train` chooses batch statistics and, unless
    `dropout` says otherwise, dropout (random stream 'dropout').

    Raises:
      UserError: incompatible options, or a size outside `size_rule`.
    """
    self._check_options()
    check_size('this FCN', self.size_rule, image.shape)
    dropout = train if dropout is None else dropout
    taps = self._features(image, train)
    if self.head == 'torchvision':
      return self._torchvision_heads(taps, image.shape[1:3], train, dropout)
    x = taps['stride32']
    if self.head == 'paper':
      rate = 0.5 if self.dropout_rate is None else self.dropout_rate
      pad = 3 if self.aligned else 0
      x = fully_connected(x, 64 * self.width, rate, dropout, padding=pad)
    score = self._score(x, 'score_fr')
    for stride, upsampling, name, offset, scale in _SKIPS:
      if self.stride > stride:
        break
      score = self._upsample(score, 2, upsampling)
      skip = self._score(self.scale(taps[f'stride{stride}'], scale), name)
      score = score + self.crop(skip, offset, score.shape[1:3])
    name, offset = _LAST[self.stride]
    score = self._upsample(score, self.stride, name)
    return {'logits': self.crop(score, offset, image.shape[1:3])}

  @property
  def _is_aligned(self) -> bool:
    return self.head == 'light' or (self.head == 'paper' and self.aligned)

  def _check_options(self) -> None:
    check_options(self)
    if self.head == 'paper' and self.backbone != 'vgg16':
      raise UserError(f"head='paper' is VGG16's: got {self.backbone!r}, take head='light'")
    if self.head == 'torchvision' and (not self.backbone.startswith('resnet') or self.stride != 8):
      raise UserError(
        "head='torchvision' goes with backbone='resnet50' or 'resnet101' and stride=8: got "
        f'{self.backbone!r} and stride={self.stride}'
      )
    if self.aux and self.head != 'torchvision':
      raise UserError(f"aux=True goes with head='torchvision' only: got {self.head!r}")
    if self.at_once and self.head != 'paper':
      raise UserError(f"at_once=True goes with head='paper' only: got {self.head!r}")
    if self.batch_norm and self.backbone != 'vgg16':
      raise UserError(f'batch_norm=True is for vgg16 only: {self.backbone!r} always has it')

  def _features(self, image: Array, train: bool) -> dict[str, Array]:
    """Feature maps of the backbone by stride, and for a ResNet also by stage."""
    options = {name: getattr(self, name) for name in ('width', 'norm', 'dtype', 'remat')}
    train = train and not self.frozen_norm
    if self.backbone == 'vgg16':
      padding = 1 if self._is_aligned else _IMAGE_PADDING
      vgg = VGG16(batch_norm=self.batch_norm, first_padding=padding, ceil=True, **options)
      nn.share_scope(self, vgg)  # VGG16's names beside fc6 and the scores, as in the release
      taps = vgg(image, train=train)
    else:
      if self.head == 'torchvision':
        options['output_stride'] = 8
      taps = backbones.build(self.backbone, **options, name='backbone')(image, train=train)
    for name, x in taps.items():
      self.sow('intermediates', name, x)
    return taps

  def _score(self, x: Array, name: str) -> Array:
    """[b,h,w,c] -> [b,h,w,num_classes], initially zero."""
    zeros = nn.initializers.zeros_init()
    return Conv(self.num_classes, (1, 1), dtype=self.dtype, kernel_init=zeros, name=name)(x)

  def _upsample(self, x: Array, factor: int, name: str) -> Array:
    """[b,h,w,c] -> [b,(h+1)*factor,(w+1)*factor,c], aligned: [b,h*factor,w*factor,c]."""
    learned = self.learn_upsampling is True
    if self.learn_upsampling == 'intermediate':
      learned = name != _LAST[self.stride][0]
    if learned:
      x = ConvTranspose(
        self.num_classes,
        (2 * factor, 2 * factor),
        strides=(factor, factor),
        padding='SAME' if self._is_aligned else 'VALID',
        use_bias=False,
        dtype=self.dtype,
        kernel_init=_bilinear_init,
        name=name,
      )(x)
    else:
      aligned = (x.shape[1] * factor, x.shape[2] * factor) if self._is_aligned else None
      x = upsample_bilinear(x, factor, size=aligned, offset=(factor // 2,) * 2)
      self.sow('intermediates', name, x)
    return x

  def scale(self, x: Array, factor: float) -> Array:
    """Scales down a skip [b,h,w,c] for training all scores at once."""
    return x * factor if self.at_once else x

  def crop(self, x: Array, offset: int, size: tuple[int, int]) -> Array:
    """Crops x [b,h,w,c] to `size`, starting `offset` pixels from the top left corner."""
    if self._is_aligned:
      return x
    return x[:, offset : offset + size[0], offset : offset + size[1]]

  def _torchvision_heads(
    self, taps: dict[str, Array], size: tuple[int, int], train: bool, dropout: bool
  ) -> Outputs:
    def head(x: Array, name: str) -> Array:
      options = dict(kernel_init=_torch_init)
      names = f'{name}_0', f'{name}_1'
      x = nn.relu(conv_norm(self, x, x.shape[-1] // 4, 3, names, train, **options))
      rate = 0.1 if self.dropout_rate is None else self.dropout_rate
      x = nn.Dropout(rate, name=f'{name}_3')(x, deterministic=not dropout)
      x = Conv(self.num_classes, (1, 1), dtype=self.dtype, name=f'{name}_4', **options)(x)
      return resize_bilinear(x, size, align_corners=False)

    outputs = {'logits': head(taps['stage4'], 'classifier')}
    if self.aux:
      outputs['aux_logits'] = head(taps['stage3'], 'aux_classifier')
    return outputs


def _bilinear_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """Kernel [k,k,c,c] that interpolates each channel separately."""
  del key
  size, _, channels, features = shape
  channel_map = jnp.eye(channels, features, dtype=dtype)[None, None]
  return jnp.asarray(bilinear_kernel(size), dtype)[:, :, None, None] * channel_map
