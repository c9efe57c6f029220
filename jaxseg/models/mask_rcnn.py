"""Mask R-CNN (arXiv:1703.06870) on a feature pyramid (arXiv:1612.03144).

A region proposal network runs on all levels of the pyramid; RoIAlign extracts features of its
proposals; one head classifies them and refines their boxes, a second predicts a mask for each. Details
that the paper leaves open are Detectron2's (facebookresearch/detectron2), the published numbers' source:
  the first stages are frozen, and so is batch norm (frozen_stages=1, frozen_norm=True);
  anchors are centred on multiples of the stride, their corners not rounded;
  RoIAlign treats pixels as areas (aligned=True), here always with 2 x 2 points per bin (there as many
  as the bin has cells).
Departures, with their options:
  aligned=False, anchors_rounded=True  torchvision's, for its weights.
  background is class 0, not the last one, and has no boxes and masks.
  candidates  limits the (proposal, class) pairs that enter the final NMS to the most probable.
  anchors on crowds (which Detectron2 drops from the truth) or centred outside the image (which it
  samples) are never background.
  frozen_norm=False, frozen_stages=0, width, features ...  small networks from scratch.
All shapes are static: lists of boxes have a fixed number of rows, and the unused ones are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.config.fields import within
from jaxseg.models import channels, check_options, check_size, stages
from jaxseg.nn.backbones import STAGE_SIZES, ResNet
from jaxseg.nn.backbones.fpn import FPN
from jaxseg.nn.detection import masks
from jaxseg.nn.detection.boxes import image_box, make_anchors
from jaxseg.nn.detection.heads import RPN, BoxHead, MaskHead
from jaxseg.nn.detection.nms import detect, propose
from jaxseg.nn.detection.targets import anchor_targets, roi_targets
from jaxseg.nn.layers import BatchNorm
from jaxseg.nn.layers.roi_align import level_of, roi_align
from jaxseg.nn.layers.split_rows import rows_are_split
from jaxseg.types import LONGEST, Array, Outputs, SizeRule, UserError

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # for the second stage's deltas

_rows = partial(within, 1, 100_000)  # of lists of boxes


class Model(nn.Module):
  """Mask R-CNN on a ResNet with a feature pyramid.

  Parameters have torchvision's names with '_' for '.', in the scopes 'backbone', 'fpn', 'rpn' (conv,
  cls_logits, bbox_pred), 'box_head' (fc6, fc7, cls_score, bbox_pred) and 'mask_head' (mask_fcn1 ...,
  conv5_mask, mask_fcn_logits). Sampling in training draws from the random stream 'sample'.

  Attributes:
    num_classes: with background, which is class 0.
    backbone: determines the bottlenecks in each stage.
    width: channels of the ResNet's first stage, 64 as published.
    stage_sizes: bottlenecks in each stage, instead of the backbone's.
    frozen_norm: batch norm uses, and does not update, its running statistics.
    frozen_stages: the stem and this many stages get no gradients.
    features: channels of the pyramid and of the proposal network.
    anchor_sizes: square root of the anchors' area for each level; one more than the ResNet has stages
      adds a level.
    anchor_ratios: height over width.
    anchor_offset, anchors_rounded: see detection.boxes.make_anchors.
    aligned: see layers.roi_align.
    canonical_size: side of a box, in pixels, that is assigned to the third level (stride 16).
    pre_nms: candidates of each level that enter NMS, (in training, otherwise).
    post_nms: proposals per image, likewise.
    rpn_samples: sampled anchors per image, up to half of them positive.
    roi_samples: sampled proposals per image.
    roi_share: largest fraction of them that is positive.
    box_features, mask_features, mask_layers: widths of the heads; 3x3 convolutions of the mask head.
    detections: rows of the result.
    candidates: see detection.nms.detect.
    score: smallest probability of a detection.
    nms: IoU above which the less probable of two detections of a class is suppressed.
    remat: recompute each bottleneck in the backward pass.
  """

  num_classes: int
  norm: Callable[..., nn.Module] = BatchNorm
  dtype: Any = jnp.float32
  backbone: Literal[*STAGE_SIZES] = 'resnet50'
  width: int = channels(default=64)
  stage_sizes: tuple[int, ...] | None = stages(1, 8, default=None)
  frozen_norm: bool = True
  frozen_stages: int = within(0, 8, default=1)
  features: int = channels(default=256)
  anchor_sizes: tuple[float, ...] = within(1, LONGEST, default=(32, 64, 128, 256, 512))
  anchor_ratios: tuple[float, ...] = within(0.01, 100, some=True, default=(0.5, 1.0, 2.0))
  anchor_offset: float = within(0, 1, default=0.0)
  anchors_rounded: bool = False
  aligned: bool = True
  canonical_size: float = within(1, LONGEST, default=224.0)
  pre_nms: tuple[int, int] = _rows(default=(2000, 1000))
  post_nms: tuple[int, int] = _rows(default=(1000, 1000))
  rpn_samples: int = _rows(default=256)
  roi_samples: int = _rows(default=512)
  roi_share: float = within(0, 1, default=0.25)
  box_features: int = channels(default=1024)
  mask_features: int = channels(default=256)
  mask_layers: int = within(0, 100, default=4)
  detections: int = _rows(default=100)
  candidates: int = _rows(default=1000)
  score: float = within(0, 1, default=0.05)
  nms: float = within(0, 1, default=0.5)
  remat: bool = False

  @property
  def size_rule(self) -> SizeRule:
    coarsest = 2 ** (len(self._stage_sizes) + 1)
    return SizeRule(coarsest, minimum=coarsest)

  @property
  def _stage_sizes(self) -> Sequence[int]:
    return self.stage_sizes or STAGE_SIZES[self.backbone]

  @nn.compact
  def __call__(
    self,
    image: Array,
    *,
    train: bool,
    truth: Mapping[str, Array] | None = None,
    extent: Array | None = None,
  ) -> Outputs:
    """Maps image [b,h,w,c], preprocessed, to detections, or in training to the inputs of the losses.

    Args:
      image: of a size that size_rule allows.
      train: whether to sample, and return the outputs for tasks.instance.Task.losses.
      truth: for training: 'boxes' float32 [b,n,4], 'classes' int32 [b,n] (0: unused row), 'crowd' bool
        [b,n], 'masks' uint8 [b,n,m,m] and 'mask_boxes' float32 [b,n,4], see data.objects.
      extent: float32 [b,4], x0, y0, x1, y1 of the image without padding; None: no padding.

    Returns:
      With d = `detections`: 'boxes' float32 [b,d,4] in pixels of the image, 'scores' float32 [b,d],
      descending, 0 unused, 'classes' int32 [b,d], from 1, 0 unused, and 'masks' float32 [b,d,28,28],
      probabilities inside the box. In training: see `_sampled`.

    Raises:
      UserError: no such backbone, a size outside `size_rule`, levels that do not fit, no truth in
        training, or rows of an image split over devices.
    """
    self._check(image, train, truth)
    extent = image_box(image) if extent is None else extent
    maps = self._pyramid(image, train)
    anchors = self._anchors(maps)
    logits, deltas = RPN(self.features, len(self.anchor_ratios), self.dtype, name='rpn')(maps)
    proposals, scores = self._propose(anchors, logits, deltas, extent, train)
    self.sow('intermediates', 'proposals', proposals)
    self.sow('intermediates', 'proposal_scores', scores)
    heads = self._heads(maps)
    if not train:
      return self._detect(heads, proposals, scores, extent)
    rpn = (jnp.concatenate(anchors), *(jnp.concatenate(x, axis=1) for x in (logits, deltas)))
    return self._sampled(heads, rpn, proposals, scores > -jnp.inf, truth, extent)

  def _check(self, image, train, truth) -> None:
    check_options(self)
    check_size('Mask R-CNN', self.size_rule, image.shape)
    stages = len(self._stage_sizes)
    if len(self.anchor_sizes) not in (stages, stages + 1):
      raise UserError(
        f'anchor_sizes={tuple(self.anchor_sizes)}: one for each of {stages} stages, or one more'
      )
    if not all(isinstance(side, int) for side in image.shape[1:3]):
      raise UserError('Mask R-CNN has a program for each image size: its anchors are laid out once')
    if train and truth is None:
      raise UserError("Mask R-CNN trains on the truth of a batch: use config.task='instance'")
    if rows_are_split():
      raise UserError('Mask R-CNN needs whole images on a device: set config.mesh=data:N')

  def _pyramid(self, image: Array, train: bool) -> list[Array]:
    """Returns the maps [b,h,w,features] of strides 4, 8, ..., finest first."""
    resnet = ResNet(
      stage_sizes=self._stage_sizes,
      width=self.width,
      norm=self.norm,
      dtype=self.dtype,
      remat=self.remat,
      frozen_stages=self.frozen_stages,
      name='backbone',
    )
    taps = resnet(image, train=train and not self.frozen_norm)
    stages = range(1, len(self._stage_sizes) + 1)
    extra = len(self.anchor_sizes) > len(stages)
    return FPN(self.features, extra, self.dtype, name='fpn')([taps[f'stage{i}'] for i in stages])

  def _anchors(self, maps: Sequence[Array]) -> list[Array]:
    """Returns the anchors of each level, [a,4]."""
    options = dict(offset=self.anchor_offset, rounded=self.anchors_rounded)
    levels = zip(maps, _strides(maps), self.anchor_sizes, strict=True)
    return [
      jnp.asarray(make_anchors(level.shape[1:3], stride, size, self.anchor_ratios, **options))
      for level, stride, size in levels
    ]

  def _propose(self, anchors, logits, deltas, extent, train: bool) -> tuple[Array, Array]:
    """Returns proposals [b,r,4] and their logits [b,r]; no gradient flows through them."""
    phase = 0 if train else 1
    counts = dict(candidates=self.pre_nms[phase], count=self.post_nms[phase])
    one = partial(propose, anchors, threshold=0.7, **counts)
    return jax.vmap(one)(*jax.lax.stop_gradient((logits, deltas)), extent)

  def _heads(self, maps: Sequence[Array]) -> tuple[Callable, Callable]:
    """Returns (boxes [b,r,4] -> logits, deltas) and (boxes -> mask logits)."""
    maps = tuple(maps[: len(self._stage_sizes)])
    box_head = BoxHead(self.num_classes, self.box_features, self.dtype, name='box_head')
    mask_head = MaskHead(
      self.num_classes, self.mask_features, self.mask_layers, self.dtype, name='mask_head'
    )

    def pool(boxes: Array, size: int) -> Array:
      def one(maps, boxes):
        levels = level_of(boxes, len(maps), canonical_size=self.canonical_size)
        return roi_align(maps, _strides(maps), boxes, levels, size, aligned=self.aligned)

      return jax.vmap(one)(maps, boxes)

    return lambda boxes: box_head(pool(boxes, 7)), lambda boxes: mask_head(pool(boxes, 14))

  def _detect(self, heads, proposals: Array, scores: Array, extent: Array) -> Outputs:
    box_head, mask_head = heads
    one = partial(
      detect,
      weights=BOX_WEIGHTS,
      candidates=self.candidates,
      count=self.detections,
      score=self.score,
      threshold=self.nms,
    )
    boxes, scores, classes = jax.vmap(one)(
      proposals, scores > -jnp.inf, *box_head(proposals), extent
    )
    mask_logits = mask_head(boxes).astype(jnp.float32)
    chosen = jnp.maximum(classes - 1, 0)[:, :, None, None, None]
    mask_logits = jnp.take_along_axis(mask_logits, chosen, axis=-1, mode='clip')[..., 0]
    used = (classes > 0)[:, :, None, None]
    probability = jnp.where(used, jax.nn.sigmoid(mask_logits), 0.0)
    return {'boxes': boxes, 'scores': scores, 'classes': classes, 'masks': probability}

  def _sampled(self, heads, rpn, proposals: Array, valid: Array, truth, extent) -> Outputs:
    """Predictions and targets for the sampled anchors and proposals.

    Returns:
      'rpn_logits' [b,s], 'rpn_labels' int32 [b,s] (1, 0, VOID unused), 'rpn_deltas' and 'rpn_targets'
      [b,s,4] of s sampled anchors; 'rois' [b,r,4], 'roi_classes' int32 [b,r] (VOID unused),
      'class_logits' [b,r,c], 'box_deltas' [b,r,c-1,4] and 'box_targets' [b,r,4] of r sampled
      proposals; 'mask_logits' [b,p,28,28,c-1] and 'mask_targets' bool [b,p,28,28] of the first p of
      them, which include all positives. Targets carry no gradient.
    """
    anchors, logits, deltas = rpn
    rows = {name: truth[name] for name in ('boxes', 'classes', 'crowd')}
    keys = jax.random.split(self.make_rng('sample'), (len(logits), 2))
    positives = int(self.roi_samples * self.roi_share)

    def assign(keys, proposals, valid, rows, extent):
      count = min(self.rpn_samples, len(anchors))
      first = anchor_targets(keys[0], anchors, rows, extent, count=count, most_positive=count // 2)
      options = dict(count=self.roi_samples, most_positive=positives, weights=BOX_WEIGHTS)
      return first, roi_targets(keys[1], proposals, valid, rows, **options)

    first, second = jax.vmap(assign)(keys, proposals, valid, rows, extent)
    row, boxes = second['rows'][:, :positives], second['rois'][:, :positives]
    drawn = (jax.vmap(lambda a, i: a[i])(truth[name], row) for name in ('masks', 'mask_boxes'))
    mask_targets = jax.vmap(partial(masks.crop, size=28))(*drawn, boxes)
    box_head, mask_head = heads
    class_logits, box_deltas = box_head(second['rois'])
    index = first['index']
    return {
      'rpn_logits': jnp.take_along_axis(logits, index, axis=1),
      'rpn_labels': first['labels'],
      'rpn_deltas': jnp.take_along_axis(deltas, index[..., None], axis=1),
      'rpn_targets': first['targets'],
      'rois': second['rois'],
      'roi_classes': second['classes'],
      'class_logits': class_logits,
      'box_deltas': box_deltas,
      'box_targets': second['targets'],
      'mask_logits': mask_head(boxes),
      'mask_targets': mask_targets,
    }


def _strides(maps: Sequence[Array]) -> list[int]:
  return [4 * 2**i for i in range(len(maps))]
