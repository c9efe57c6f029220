"""Mask R-CNN's step from torchvision's detection parts, at a config's widths: the other side.

torchvision's compiled suppression and RoIAlign are taken where they are installed; a build of
torchvision without them gets torch_detection's.
"""

import functools
import importlib
import importlib.util
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jaxseg.tools.benchmark import torch_detection, torch_side
from jaxseg.tools.benchmark.torch_pspnet import Bottleneck, conv_bn
from jaxseg.train.build import model_from
from jaxseg.types import UserError

_OPERATORS = (
  'nms qnms roi_align qroi_align roi_pool ps_roi_align ps_roi_pool deform_conv2d '
  '_roi_align_backward _roi_pool_backward _ps_roi_align_backward _ps_roi_pool_backward '
  '_deform_conv2d_backward'
)
_LIBRARY = torch.library.Library('torchvision', 'FRAGMENT')  # what it declares goes when it goes


@functools.cache
def import_torchvision():
  """Returns torchvision, beside a build of torch that lacks its operators too.

  Raises:
    UserError: it is not installed.
  """
  spec = importlib.util.find_spec('torchvision')
  if spec is None:
    raise UserError('PyTorch has no Mask R-CNN without torchvision: pip install torchvision')
  try:
    torch.ops.load_library(Path(spec.origin).with_name('_C.so'))
  except OSError:  # torchvision describes operators that nothing has declared then
    for name in _OPERATORS.split():
      _LIBRARY.define(f'{name}(Tensor x) -> Tensor')
  return importlib.import_module('torchvision')


class Network(torch_side.Network):
  """As torch_side.Network; the batch holds objects too, and PyTorch compiles nothing."""

  compiled = False

  def __init__(self, config, batch):
    super().__init__(config, batch)
    self._targets = [_target(batch, i, self.device) for i in range(len(batch['image']))]

  def _build(self, config):
    return build(config)

  def _step_loss(self):
    with self._precision():
      losses = self._net(self._images(), self._targets)
    return sum(losses.values())


def build(config):
  """Returns the module of a config: forward(images, targets) -> losses, or detections in evaluation."""
  _replace_missing_operators(import_torchvision())
  return MaskRCNN(model_from(config), config.channels)


class MaskRCNN(nn.Module):
  """Widths, anchors and samples are those of `ours`, a jaxseg.models.mask_rcnn.Model."""

  def __init__(self, ours, channels):
    super().__init__()
    stages, shapes = list(ours._stage_sizes), len(ours.anchor_ratios)
    names, features = [str(i) for i in range(len(stages))], ours.features
    ops = importlib.import_module('torchvision.ops')
    parts = importlib.import_module('torchvision.models.detection')
    rpn, heads = parts.rpn, parts.roi_heads
    self.backbone = ResNet(stages, ours.width, channels)
    self.backbone.freeze(ours.frozen_stages, ours.frozen_norm)
    extra = len(ours.anchor_sizes) > len(stages)
    self.fpn = ops.FeaturePyramidNetwork(
      [4 * ours.width * 2**i for i in range(len(stages))],
      features,
      ops.feature_pyramid_network.LastLevelMaxPool() if extra else None,
    )
    anchors = rpn.AnchorGenerator(
      tuple((s,) for s in ours.anchor_sizes), (tuple(ours.anchor_ratios),) * len(ours.anchor_sizes)
    )
    self.rpn = rpn.RegionProposalNetwork(
      anchors,
      rpn.RPNHead(features, shapes),
      fg_iou_thresh=0.7,
      bg_iou_thresh=0.3,
      batch_size_per_image=ours.rpn_samples,
      positive_fraction=0.5,
      pre_nms_top_n=dict(zip(('training', 'testing'), ours.pre_nms, strict=True)),
      post_nms_top_n=dict(zip(('training', 'testing'), ours.post_nms, strict=True)),
      nms_thresh=0.7,
    )

    def pool(size):
      return ops.MultiScaleRoIAlign(names, size, 2, canonical_scale=ours.canonical_size)

    box, mask = parts.faster_rcnn, parts.mask_rcnn
    self.heads = heads.RoIHeads(
      pool(7),
      box.TwoMLPHead(features * 49, ours.box_features),
      box.FastRCNNPredictor(ours.box_features, ours.num_classes),
      fg_iou_thresh=0.5,
      bg_iou_thresh=0.5,
      batch_size_per_image=ours.roi_samples,
      positive_fraction=ours.roi_share,
      bbox_reg_weights=None,
      score_thresh=ours.score,
      nms_thresh=ours.nms,
      detections_per_img=ours.detections,
      mask_roi_pool=pool(14),
      mask_head=mask.MaskRCNNHeads(features, (ours.mask_features,) * ours.mask_layers, 1),
      mask_predictor=mask.MaskRCNNPredictor(
        ours.mask_features, ours.mask_features, ours.num_classes
      ),
    )
    self._listed = parts.image_list.ImageList

  def forward(self, images, targets=None):
    sizes = [tuple(images.shape[2:])] * len(images)
    maps = self.fpn(self.backbone(images))
    proposals, first = self.rpn(self._listed(images, sizes), maps, targets)
    found, second = self.heads(maps, proposals, sizes, targets)
    return {**first, **second} if self.training else found


class ResNet(nn.Module):
  """Bottlenecks; forward returns the stages' maps, '0' the finest."""

  def __init__(self, stage_sizes, width, channels):
    super().__init__()
    self.stem = nn.Sequential(*conv_bn(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    self.stages, inputs = nn.ModuleList(), width
    for stage, count in enumerate(stage_sizes):
      features, blocks = width * 2**stage, []
      for i in range(count):
        stride = 2 if stage and not i else 1
        blocks.append(Bottleneck(inputs, features, stride, 1, i == 0))
        inputs = 4 * features
      self.stages.append(nn.Sequential(*blocks))
    self._frozen_norm = False

  def freeze(self, stages, norm):
    """The stem and `stages` stages get no gradients; where `norm`, statistics stay as they are."""
    self._frozen_norm = norm
    if stages:
      for part in (self.stem, *self.stages[:stages]):
        part.requires_grad_(False)
    if norm:
      for module in self.modules():
        if isinstance(module, nn.BatchNorm2d):
          module.requires_grad_(False)

  def train(self, mode=True):
    super().train(mode)
    if self._frozen_norm:
      for module in self.modules():
        if isinstance(module, nn.BatchNorm2d):
          module.eval()
    return self

  def forward(self, x):
    x, maps = self.stem(x), OrderedDict()
    for i, stage in enumerate(self.stages):
      maps[str(i)] = x = stage(x)
    return maps


def _target(batch, image, device):
  """One image's objects as torchvision takes them."""
  used = np.flatnonzero(batch['classes'][image] > 0)
  ids, layers = batch['ids'][image][used], batch['instances'][image]
  masks = np.stack([(layers == i).any(-1) for i in ids]) if len(ids) else layers[None, :0, :, 0]
  arrays = {
    'boxes': batch['boxes'][image][used],
    'labels': batch['classes'][image][used].astype(np.int64),
    'masks': masks.astype(np.uint8),
  }
  return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _replace_missing_operators(torchvision):
  if torchvision.extension._has_ops():
    return
  load = importlib.import_module
  load('torchvision.ops.boxes').nms = _nms
  for name in ('ops.poolers', 'models.detection.roi_heads'):
    load(f'torchvision.{name}').roi_align = _roi_align


def _nms(boxes, scores, threshold):
  order = scores.argsort(descending=True)
  return order[torch_detection.suppress(boxes[order], threshold)]


def _roi_align(features, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
  """RoIAlign with pixels as areas; `rois` [n, 5] begin with the number of their image."""
  size = output_size if isinstance(output_size, int) else output_size[0]
  samples = max(sampling_ratio, 1)
  out = features.new_zeros(len(rois), features.shape[1], size, size)
  for image in rois[:, 0].unique():
    chosen = torch.nonzero(rois[:, 0] == image)[:, 0]
    levels = torch.zeros(len(chosen), dtype=torch.long)
    one, boxes = features[int(image)][None].float(), rois[chosen, 1:]
    cut = torch_detection.roi_align([one], [1 / spatial_scale], boxes, levels, size, samples)
    out = out.index_copy(0, chosen, cut.to(out.dtype))
  return out
