"""PyTorch's side: Mask R-CNN's step from torchvision's detection parts, with a config's widths.

torchvision's compiled NMS and RoIAlign are used if installed, else those of torch_detection.
"""

import functools
import importlib
import importlib.util
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from jaxseg.nn.backbones import STAGE_SIZES
from jaxseg.nn.detection.masks import paste
from jaxseg.tools.benchmark import torch_detection, torch_side
from jaxseg.tools.benchmark.torch_pspnet import conv_bn, stage
from jaxseg.types import UserError

_FORWARD = ('nms', 'roi_align', 'roi_pool', 'ps_roi_align', 'ps_roi_pool', 'deform_conv2d')
_BACKWARD = tuple(f'_{name}_backward' for name in _FORWARD[1:])
_OPERATORS = (*_FORWARD, 'qnms', 'qroi_align', *_BACKWARD)
_LIBRARY = torch.library.Library('torchvision', 'FRAGMENT')  # its declarations live as long


@functools.cache
def import_torchvision():
  """Returns torchvision, even if its operators are missing from this build.

  Raises:
    UserError: it is not installed.
  """
  spec = importlib.util.find_spec('torchvision')
  if spec is None:
    raise UserError('PyTorch has no Mask R-CNN without torchvision: pip install torchvision')
  try:
    torch.ops.load_library(Path(spec.origin).with_name('_C.so'))
  except OSError:  # torchvision registers fakes of operators that are then undeclared
    for name in _OPERATORS:
      _LIBRARY.define(f'{name}(Tensor x) -> Tensor')
  return importlib.import_module('torchvision')


class TorchDetector(torch_side.TorchSide):
  """A TorchSide whose batch includes objects, without torch.compile."""

  compiled = False

  def __init__(self, experiment, batch):
    super().__init__(experiment, batch)
    self._targets = [_target(batch, i, self.device) for i in range(len(batch['image']))]

  def _step_loss(self):
    with self._precision():
      losses = self._net(self._images(), self._targets)
    return sum(losses.values())


SIDE = TorchDetector


def mask_rcnn(classes, channels, **options):
  """Builds it from the JAX model's options: forward(images, targets) -> losses; without targets, detections."""
  _replace_missing_operators(import_torchvision())
  return MaskRCNN(classes, channels, SimpleNamespace(**options))


class MaskRCNN(nn.Module):
  """Widths, anchors and samples come from `ours`, the options of jaxseg.models.mask_rcnn.Model."""

  def __init__(self, classes, channels, ours):
    super().__init__()
    stages = list(ours.stage_sizes or STAGE_SIZES[ours.backbone])
    ops = importlib.import_module('torchvision.ops')
    self._images = importlib.import_module('torchvision.models.detection.image_list').ImageList
    self.backbone = ResNet(stages, ours.width, channels)
    self.backbone.freeze(ours.frozen_stages, ours.frozen_norm)
    extra = len(ours.anchor_sizes) > len(stages)
    self.fpn = ops.FeaturePyramidNetwork(
      [4 * ours.width * 2**i for i in range(len(stages))],
      ours.features,
      ops.feature_pyramid_network.LastLevelMaxPool() if extra else None,
    )
    self.rpn = _proposals(ours)
    self.heads = _heads(classes, [str(i) for i in range(len(stages))], ours)

  def forward(self, images, targets=None):
    sizes = [tuple(images.shape[2:])] * len(images)
    maps = self.fpn(self.backbone(images))
    proposals, first = self.rpn(self._images(images, sizes), maps, targets)
    detections, second = self.heads(maps, proposals, sizes, targets)
    return {**first, **second} if self.training else detections


def _proposals(ours):
  rpn = importlib.import_module('torchvision.models.detection.rpn')
  kinds = ('training', 'testing')
  ratios = (tuple(ours.anchor_ratios),) * len(ours.anchor_sizes)
  return rpn.RegionProposalNetwork(
    rpn.AnchorGenerator(tuple((size,) for size in ours.anchor_sizes), ratios),
    rpn.RPNHead(ours.features, len(ours.anchor_ratios)),
    fg_iou_thresh=0.7,
    bg_iou_thresh=0.3,
    batch_size_per_image=ours.rpn_samples,
    positive_fraction=0.5,
    pre_nms_top_n=dict(zip(kinds, ours.pre_nms, strict=True)),
    post_nms_top_n=dict(zip(kinds, ours.post_nms, strict=True)),
    nms_thresh=0.7,
  )


def _heads(classes, maps, ours):
  detection = importlib.import_module('torchvision.models.detection')
  align = importlib.import_module('torchvision.ops').MultiScaleRoIAlign
  box, mask, features = detection.faster_rcnn, detection.mask_rcnn, ours.mask_features
  return detection.roi_heads.RoIHeads(
    align(maps, 7, 2, canonical_scale=ours.canonical_size),
    box.TwoMLPHead(ours.features * 49, ours.box_features),
    box.FastRCNNPredictor(ours.box_features, classes),
    fg_iou_thresh=0.5,
    bg_iou_thresh=0.5,
    batch_size_per_image=ours.roi_samples,
    positive_fraction=ours.roi_share,
    bbox_reg_weights=None,
    score_thresh=ours.score,
    nms_thresh=ours.nms,
    detections_per_img=ours.detections,
    mask_roi_pool=align(maps, 14, 2, canonical_scale=ours.canonical_size),
    mask_head=mask.MaskRCNNHeads(ours.features, (features,) * ours.mask_layers, 1),
    mask_predictor=mask.MaskRCNNPredictor(features, features, classes),
  )


class ResNet(nn.Module):
  """A bottleneck ResNet; forward returns the stages' maps, '0' the finest."""

  def __init__(self, stage_sizes, width, channels):
    super().__init__()
    self.stem = nn.Sequential(*conv_bn(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    self.stages, inputs = nn.ModuleList(), width
    for i, count in enumerate(stage_sizes):
      features = width * 2**i
      self.stages.append(stage(inputs, features, count, stride=2 if i else 1))
      inputs = 4 * features
    self._frozen_norm = False

  def freeze(self, stages, norm):
    """Freezes the stem and `stages` stages, and with `norm` all batch norms with their statistics."""
    self._frozen_norm = norm
    for part in (self.stem, *self.stages[:stages]) if stages else ():
      part.requires_grad_(False)
    for module in self._norms():
      module.requires_grad_(False)

  def train(self, mode=True):
    super().train(mode)
    for module in self._norms():
      module.eval()
    return self

  def _norms(self):
    """The frozen batch norms."""
    return [m for m in self.modules() if self._frozen_norm and isinstance(m, nn.BatchNorm2d)]

  def forward(self, x):
    x, maps = self.stem(x), OrderedDict()
    for i, blocks in enumerate(self.stages):
      maps[str(i)] = x = blocks(x)
    return maps


def _target(batch, image, device):
  """Returns an image's objects in torchvision's format."""
  used = np.flatnonzero(batch['classes'][image] > 0)
  masks = np.zeros((len(used), *batch['image'].shape[1:3]), bool)
  shown = batch['masks'][image][used] / 255, batch['mask_boxes'][image][used]
  for mask, (top, left, part) in zip(masks, paste(*shown, masks.shape[1:]), strict=True):
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
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
  """RoIAlign with pixels as areas; the first column of `rois` [n, 5] is the image's index."""
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
