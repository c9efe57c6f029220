"""Mask R-CNN against torchvision's maskrcnn_resnet50_fpn: pyramid, proposals, heads, detections.

Its compiled operators (suppression, RoIAlign) are missing beside a CPU build of PyTorch. torchvision's
own RoIAlign in Python takes the one's place, a plain loop over boxes the other's. It runs in double
precision, ours in single.
"""

import importlib
import importlib.util

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxseg import pretrained
from jaxseg.models.mask_rcnn import Model
from jaxseg.nn.layers.roi_align import level_of, roi_align
from jaxseg.pretrained import convert
from tests import torch_models

pytestmark = pytest.mark.parity
CLASSES, SIZE = 5, (128, 192)


def loop_nms(boxes, scores, threshold):
  """Places of the boxes that survive, by falling score."""
  order, kept = torch.argsort(scores, descending=True, stable=True), []
  area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
  while len(order):
    first, order = order[0], order[1:]
    kept.append(first)
    low = torch.maximum(boxes[order, :2], boxes[first, :2])
    high = torch.minimum(boxes[order, 2:], boxes[first, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    order = order[shared / (area[order] + area[first] - shared) <= threshold]
  return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


@pytest.fixture(scope='module')
def operators():
  """torchvision's modules that use the missing operators, with others in their place."""
  if importlib.util.find_spec('torchvision') is None:
    pytest.skip('parity compares with torchvision: pip install jaxseg[parity]')
  torch_models.import_torchvision_models()
  align = importlib.import_module('torchvision.ops.roi_align')._roi_align

  def in_python(feature, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
    height, width = output_size
    return align(feature, rois, spatial_scale, height, width, sampling_ratio, aligned)

  patch = pytest.MonkeyPatch()
  patch.setattr(importlib.import_module('torchvision.ops.boxes'), 'nms', loop_nms)
  patch.setattr(importlib.import_module('torchvision.ops.poolers'), 'roi_align', in_python)
  yield in_python
  patch.undo()


@pytest.fixture(scope='module')
def nets(operators):
  """Their network and our variables, random but tame: scores neither saturate nor tie."""
  detection = importlib.import_module('torchvision.models.detection')
  net = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
  net = torch_models.randomize(net, seed=1).double().eval()
  box, mask = net.roi_heads.box_predictor, net.roi_heads.mask_predictor
  with torch.no_grad():
    for block in (m for m in net.backbone.body.modules() if hasattr(m, 'bn3')):
      block.bn3.weight *= 0.2
    for layer, factor in (
      (net.rpn.head.cls_logits, 0.1),
      (net.rpn.head.bbox_pred, 0.02),
      (box.cls_score, 0.1),
      (box.bbox_pred, 0.1),
      (mask.mask_fcn_logits, 0.1),
    ):
      layer.weight *= factor
  tensors = {name: t.numpy() for name, t in net.state_dict().items()}
  model = Model(CLASSES, aligned=False, anchors_rounded=True, pre_nms=(1, 1000), post_nms=(1, 1000))
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, *SIZE, 3)), train=False)
  )
  variables, report = pretrained.load_into(shapes, convert(tensors).tensors)
  assert not report.new and not report.unused
  return net, model, variables


@pytest.fixture(scope='module')
def results(nets):
  """Everything of both networks on one image."""
  net, model, variables = nets
  image = np.random.default_rng(0).normal(size=(1, *SIZE, 3)).astype(np.float32)

  @jax.jit
  def run(variables, image):
    return model.apply(
      variables, image, train=False, capture_intermediates=True, mutable=['intermediates']
    )

  outputs, state = run(variables, image)
  ours = jax.tree.map(np.asarray, (outputs, state['intermediates']))
  theirs = {}
  images = torch.from_numpy(image).permute(0, 3, 1, 2).double()
  listed = importlib.import_module('torchvision.models.detection.image_list').ImageList

  def keep(name):
    return lambda module, inputs, output: theirs.__setitem__(name, output)

  hooks = [
    module.register_forward_hook(keep(name))
    for name, module in (('rpn', net.rpn.head), ('box', net.roi_heads.box_predictor))
  ]
  with torch.no_grad():
    features = net.backbone(images)
    proposals, _ = net.rpn(listed(images, [SIZE]), features)
    found, _ = net.roi_heads(features, proposals, [SIZE])
  for hook in hooks:
    hook.remove()
  return ours, theirs | {'features': features, 'proposals': proposals[0], 'found': found[0]}


def assert_near(ours, theirs, bound=1e-4):
  theirs = np.asarray(theirs)
  difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
  assert ours.shape == theirs.shape and difference < bound, difference
  return difference


def test_pyramid_and_proposal_head(results):
  (_, inner), theirs = results
  for ours, expected in zip(inner['fpn']['__call__'][0], theirs['features'].values(), strict=True):
    assert_near(ours, expected.permute(0, 2, 3, 1))
  logits, deltas = inner['rpn']['__call__'][0]
  for level in range(5):
    scores, moves = (part[level] for part in theirs['rpn'])
    assert_near(logits[level], scores.permute(0, 2, 3, 1).reshape(1, -1))
    count, height, width = moves.shape[1] // 4, *moves.shape[2:]
    moves = moves.reshape(1, count, 4, height, width).permute(0, 3, 4, 1, 2)
    assert_near(deltas[level], moves.reshape(1, -1, 4))


def ranks_of(ours, theirs):
  """Our rank of each of their boxes; single precision may swap neighbours of nearly one score."""
  distance = np.abs(ours[None] - np.asarray(theirs)[:, None]).max(-1)
  ranks = distance.argmin(1)
  assert distance.min(1).max() < 1e-2 and sorted(ranks) == list(range(len(theirs)))
  assert np.abs(ranks - np.arange(len(theirs))).max() <= 2
  return ranks


def is_inside(boxes):
  """Of boxes as RoIAlign sees them, a cell wide at least: their Python form knows no zero outside."""
  cell = 4 * 2 ** np.asarray(level_of(boxes, 4))[:, None]
  ends = boxes[:, :2] + np.maximum(boxes[:, 2:] - boxes[:, :2], cell)
  return (ends <= np.array([SIZE[1], SIZE[0]])).all(1)


def test_proposals_and_box_head(results):
  (_, inner), theirs = results
  ours = inner['proposals'][0][0][inner['proposal_scores'][0][0] > -np.inf]
  assert len(ours) == len(theirs['proposals']) > 500
  ranks = ranks_of(ours, theirs['proposals'])
  inside = is_inside(ours[ranks])
  assert inside.mean() > 0.8
  scores, moves = (part[inside] for part in theirs['box'])
  logits, deltas = (part[0][ranks][inside] for part in inner['box_head']['__call__'][0])
  assert_near(logits, scores, 1e-3)
  assert_near(deltas, moves.reshape(len(moves), CLASSES, 4)[:, 1:], 1e-3)


def test_detections(results):
  (ours, _), theirs = results
  found = theirs['found']
  count = len(found['scores'])
  assert count == 100 == (ours['scores'][0] > 0).sum()
  np.testing.assert_allclose(ours['scores'][0], found['scores'], atol=1e-4)
  np.testing.assert_array_equal(ours['classes'][0], found['labels'])
  np.testing.assert_allclose(ours['boxes'][0], found['boxes'], atol=1e-2)
  np.testing.assert_allclose(ours['masks'][0], found['masks'][:, 0], atol=1e-3)


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(operators, aligned):
  """Values and gradients, of boxes inside, along the border and of no area.

  The rule for points outside of the map is not in their Python form: see test_nn_roi_align.py.
  """
  random = np.random.default_rng(0)
  feature = random.normal(size=(20, 30, 4)).astype('f')
  corner, sides = random.uniform(0, (116, 76), (40, 2)), random.uniform(0, 90, (40, 2))
  boxes = np.concatenate([corner, corner + sides], axis=1).astype('f')
  boxes = np.minimum(boxes, np.array([120, 80, 120, 80], 'f'))
  boxes[0] = (10, 10, 10, 10)
  weight = random.normal(size=(40, 7, 7, 4)).astype('f')
  tensor = torch.from_numpy(feature).permute(2, 0, 1)[None].double().requires_grad_()
  rois = torch.from_numpy(np.pad(boxes, ((0, 0), (1, 0)))).double()
  theirs = operators(tensor, rois, (7, 7), 0.25, 2, aligned).permute(0, 2, 3, 1)
  (theirs * torch.from_numpy(weight)).sum().backward()

  @jax.jit
  def run(feature):
    levels = jnp.zeros(40, jnp.int32)
    return roi_align([feature], [4], boxes, levels, 7, aligned=aligned)

  ours, back = jax.vjp(run, feature)
  moved = back(jnp.array(weight))[0]
  assert_near(np.asarray(ours), theirs.detach())
  assert_near(np.asarray(moved), tensor.grad[0].permute(1, 2, 0))


def test_levels(operators):
  mapper = importlib.import_module('torchvision.ops.poolers').LevelMapper(2, 5)
  random = np.random.default_rng(0)
  boxes = np.pad(np.exp(random.uniform(0, 7, (500, 2))), ((0, 0), (2, 0))).astype('f')
  expected = mapper([torch.from_numpy(boxes)])
  np.testing.assert_array_equal(level_of(jnp.array(boxes), 4), expected)
