"""Mask R-CNN: counts, sizes, names, published weights, what a step learns."""

import functools
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.models.mask_rcnn import Model
from jaxseg.nn.layers import BatchNorm
from jaxseg.pretrained import convert, flatten
from jaxseg.tasks.instance import Task
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests.networks import abstract, size
from tests.test_nn_masks import paste
from tests.test_parallel import PREPROCESS, wrappers

TINY = dict(
  width=4,
  stage_sizes=(1, 1),
  frozen_norm=False,
  frozen_stages=0,
  features=16,
  anchor_sizes=(8, 16),
  anchor_ratios=(1.0,),
  pre_nms=(60, 60),
  post_nms=(30, 30),
  rpn_samples=80,
  roi_samples=34,
  roi_share=1.0,
  box_features=32,
  mask_features=8,
  mask_layers=1,
  detections=6,
  candidates=40,
)


@pytest.mark.parametrize(
  'backbone, expected', [('resnet50', 44_396_336), ('resnet101', 63_388_464)]
)
def test_parameter_counts(backbone, expected):
  """Detectron2's networks for COCO's 80 classes."""
  outputs, variables = abstract(Model(81, backbone=backbone), (2, 800, 1344, 3))
  params = variables['params']
  assert size(params) == expected
  assert size(params['fpn']) == 3_344_384 and size(params['rpn']) == 593_935
  assert size([params['box_head'][name] for name in ('fc6', 'fc7')]) == 13_895_680
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in outputs.items()} == {
    'boxes': ((2, 100, 4), jnp.float32),
    'scores': ((2, 100), jnp.float32),
    'classes': ((2, 100), jnp.int32),
    'masks': ((2, 100, 28, 28), jnp.float32),
  }


def test_the_affine_values_of_frozen_batch_norm():
  params = abstract(Model(81), (1, 64, 64, 3))[1]['params']['backbone']
  assert size([p for name, p in params.items() if 'bn' in name or 'downsample_1' in name]) == 53_120


def test_training_outputs_have_fixed_shapes():
  model = Model(81)
  variables = abstract(model, (1, 64, 64, 3))[1]
  truth = {
    'boxes': jnp.zeros((2, 7, 4)),
    'classes': jnp.zeros((2, 7), jnp.int32),
    'crowd': jnp.zeros((2, 7), bool),
    'masks': jnp.zeros((2, 7, 56, 56), jnp.uint8),
    'mask_boxes': jnp.zeros((2, 7, 4)),
  }

  def run(variables, truth):
    image, keys = jnp.zeros((2, 256, 320, 3)), {'sample': jax.random.key(0)}
    return model.apply(variables, image, train=True, truth=truth, rngs=keys)

  outputs = jax.eval_shape(run, variables, truth)
  assert {name: leaf.shape for name, leaf in outputs.items()} == {
    'rpn_logits': (2, 256),
    'rpn_labels': (2, 256),
    'rpn_deltas': (2, 256, 4),
    'rpn_targets': (2, 256, 4),
    'rois': (2, 512, 4),
    'roi_classes': (2, 512),
    'class_logits': (2, 512, 81),
    'box_deltas': (2, 512, 80, 4),
    'box_targets': (2, 512, 4),
    'mask_logits': (2, 128, 28, 28, 80),
    'mask_targets': (2, 128, 28, 28),
  }


def test_bfloat16_computes_heads_in_bfloat16_and_boxes_in_float32():
  outputs, variables = abstract(Model(3, dtype=jnp.bfloat16), (1, 64, 64, 3))
  assert outputs['boxes'].dtype == outputs['masks'].dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_what_it_refuses():
  for options, side, message in (
    (dict(), 70, 'sizes are 32 n, at least 32; .*to 64 or 96'),
    (dict(anchor_sizes=(8, 16)), 64, 'one for each of 4 stages'),
  ):
    with pytest.raises(UserError, match=message):
      abstract(Model(2, **options), (1, 64, side, 3))
  height, width = jax.export.symbolic_shape('32*h, 32*w')
  with pytest.raises(UserError, match='Mask R-CNN has a program for each image size'):
    abstract(Model(2), (1, height, width, 3))
  with pytest.raises(UserError, match="config.task='instance'"):
    Model(2, **TINY).init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=True)


# --- the step


def batch_of(step, count=2, side=32):
  """Images with one or two bright squares each, by turns, and their truth in four rows."""
  rng = np.random.default_rng(step)
  image = rng.integers(0, 60, (count, side, side, 3), dtype=np.uint8)
  instances = np.zeros((count, side, side, 1), np.uint16)
  boxes, ids = np.zeros((count, 4, 4), np.float32), np.zeros((count, 4), np.int32)
  for i in range(count):
    for k in range(1 + i % 2):
      x, y = 1 + 15 * k + rng.integers(4), 1 + rng.integers(18)
      image[i, y : y + 10, x : x + 10] = 220
      instances[i, y : y + 10, x : x + 10, 0] = ids[i, k] = k + 1
      boxes[i, k] = (x, y, x + 10, y + 10)
  return {
    'image': image,
    'label': (instances[..., 0] > 0).astype(np.uint8),
    'instances': instances,
    'boxes': boxes,
    'ids': ids,
    'classes': (ids > 0).astype(np.int32),
    'crowd': np.zeros((count, 4), bool),
    'masks': np.full((count, 4, 8, 8), 255, np.uint8),  # squares fill their boxes
    'mask_boxes': boxes,
    'extent': np.tile(np.array([0, 0, side, side], np.float32), (count, 1)),
  }


# Falling to zero: where the last of 80 steps lands does not hang on rounding.
TX = optax.adam(optax.cosine_decay_schedule(5e-3, 80))


@functools.cache
def program(place):
  """One of `wrappers`, and its step, compiled once for all tests."""
  wrapper = wrappers()[place]
  axis = wrapper.axis_name
  model = Model(2, **TINY, norm=partial(BatchNorm, axis_name=axis))
  return wrapper, wrapper.wrap_train(
    make_train_step(model, Task(2), TX, PREPROCESS, axis_name=axis)
  )


def first_state():
  """He-normal kernels, small ones in the last layers, drawn by NumPy: nothing to compile."""
  rng = np.random.default_rng(0)
  init = make_init(Model(2, **TINY), TX, (1, 32, 32, 3))

  def value(path, leaf):
    *_, layer, name = (str(getattr(p, 'key', p)) for p in path)
    if name in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if name != 'kernel':
      return np.zeros(leaf.shape, leaf.dtype)
    last = layer in ('cls_logits', 'bbox_pred', 'cls_score', 'mask_fcn_logits')
    spread = 0.01 if last else (2 / np.prod(leaf.shape[:-1])) ** 0.5
    return rng.normal(0, spread, leaf.shape).astype(leaf.dtype)

  shapes = jax.eval_shape(init, jax.random.key(0))
  made = jax.tree_util.tree_map_with_path(value, shapes.variables)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  return zeros.replace(**made)


def steps(place, count, batches=batch_of):
  wrapper, step = program(place)
  state, seen = wrapper.place_state(first_state()), []
  for i in range(count):
    state, metrics = step(state, wrapper.place_batch(batches(i)), jax.random.key(1))
    seen.append({name: float(value) for name, value in metrics.items()})
  return jax.device_get(state), seen


def test_it_learns_one_batch_and_finds_its_objects():
  state, seen = steps(0, 80, batches=lambda _: batch_of(0))
  terms = {'rpn/objectness', 'rpn/box', 'class', 'box', 'mask'}
  assert {name[5:] for name in seen[0] if name.startswith('loss/')} == terms
  assert all(step['finite'] and step['invalid'] == 0 for step in seen)
  assert np.mean([s['loss'] for s in seen[-5:]]) < 0.4 * seen[0]['loss']
  batch = batch_of(0)
  images = PREPROCESS(batch['image'])
  found = jax.jit(partial(Model(2, **TINY).apply, train=False))(state.variables, images)
  for i, count in enumerate((1, 2)):
    boxes, scores = np.asarray(found['boxes'][i]), np.asarray(found['scores'][i])
    assert (np.diff(scores) <= 0).all()
    assert not boxes[scores == 0].any() and not found['masks'][i][scores == 0].any()
    masks = paste(found['masks'][i], boxes, (32, 32))[scores > 0.5]
    for number in range(1, count + 1):
      truth = batch['instances'][i, ..., 0] == number
      overlap = [(m & truth).sum() / (m | truth).sum() for m in masks]
      assert max(overlap) > 0.7, (i, number, overlap)


def test_every_parameter_gets_a_finite_gradient():
  state, before = steps(0, 1)[0], flatten(first_state().params)
  for name, leaf in flatten(state.params).items():
    assert np.isfinite(leaf).all() and np.abs(leaf - before[name]).max() > 0, name


def test_images_without_objects_and_with_a_crowd_cost_no_boxes_and_stay_finite():
  def empty(i, crowd=False):
    batch = batch_of(i)
    return {**batch, 'classes': 0 * batch['classes'], 'crowd': (batch['ids'] > 0) & crowd}

  for batches in (empty, functools.partial(empty, crowd=True)):
    _, (seen,) = steps(0, 1, batches)
    assert seen['finite'] and seen['loss/class'] > 0
    assert seen['loss/rpn/box'] == seen['loss/box'] == seen['loss/mask'] == 0


@pytest.mark.parametrize('place', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_device_and_eight_agree_where_nothing_is_drawn(place):
  """TINY samples all that there is; where it may not, devices draw other samples, by design."""
  eight = partial(batch_of, count=8)
  (state, seen), (other, theirs) = (steps(where, 1, eight) for where in (0, place))
  for name, value in seen[0].items():
    np.testing.assert_allclose(theirs[0][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
  for name, leaf in flatten(state.batch_stats).items():
    np.testing.assert_allclose(flatten(other.batch_stats)[name], leaf, rtol=1e-4, atol=1e-6)


def test_micro_batches_are_refused():
  with pytest.raises(UserError, match='accumulate=2.*set accumulate=1'):
    make_train_step(Model(2, **TINY), Task(2), optax.sgd(0.1), PREPROCESS, accumulate=2)


# --- published weights


def torchvision_tensors(classes, published):
  """A state_dict named and shaped as torchvision's Mask R-CNN is, a stage of one block, tiny."""
  rng, tensors = np.random.default_rng(0), {}

  def add(name, *shape, bias=True):
    tensors[f'{name}.weight'] = rng.normal(size=shape).astype('f')
    if bias:
      tensors[f'{name}.bias'] = rng.normal(size=shape[0]).astype('f')

  def norm(name, features):
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      tensors[f'backbone.body.{name}.{part}'] = rng.uniform(0.5, 1, features).astype('f')

  add('backbone.body.conv1', 4, 3, 7, 7, bias=False)
  norm('bn1', 4)
  add('backbone.fpn.inner_blocks.0' + '.0' * (not published), 16, 16, 1, 1)
  add('rpn.head.conv' + '.0.0' * (not published), 16, 16, 3, 3)
  add('rpn.head.cls_logits', 3, 16, 1, 1)
  add('roi_heads.box_head.fc6', 8, 49 * 2)
  add('roi_heads.box_predictor.cls_score', classes, 8)
  add('roi_heads.box_predictor.bbox_pred', 4 * classes, 8)
  add('roi_heads.mask_head.' + ('mask_fcn2' if published else '1.0'), 4, 4, 3, 3)
  add('roi_heads.mask_predictor.conv5_mask', 4, 4, 2, 2)
  add('roi_heads.mask_predictor.mask_fcn_logits', classes, 4, 1, 1)
  return tensors


@pytest.mark.parametrize('published', [True, False])
def test_torchvisions_names(published):
  tensors = torchvision_tensors(5, published)
  converted = convert(tensors)
  assert ('published' in converted.source) == published and converted.needs['aligned'] is False
  ours = converted.tensors
  layers = {name.split('/', 1)[1].rsplit('/', 1)[0] for name in ours}
  assert layers == {
    'backbone/conv1', 'backbone/bn1', 'fpn/inner_blocks_0', 'rpn/conv', 'rpn/cls_logits',
    'box_head/fc6', 'box_head/cls_score', 'box_head/bbox_pred', 'mask_head/mask_fcn2',
    'mask_head/conv5_mask', 'mask_head/mask_fcn_logits',
  }  # fmt: skip
  variance = tensors['backbone.body.bn1.running_var'] - np.float32(1e-5) * published
  np.testing.assert_array_equal(ours['batch_stats/backbone/bn1/var'], variance)
  fc6 = tensors['roi_heads.box_head.fc6.weight']
  place = (3 * 7 + 4) * 2 + 1  # row 3, column 4, channel 1 of [7, 7, 2]; theirs is [2, 7, 7]
  np.testing.assert_array_equal(ours['params/box_head/fc6/kernel'][place], fc6[:, 49 + 3 * 7 + 4])
  boxes = tensors['roi_heads.box_predictor.bbox_pred.bias']
  np.testing.assert_array_equal(ours['params/box_head/bbox_pred/bias'], boxes[4:])
  masks = tensors['roi_heads.mask_predictor.mask_fcn_logits.weight'][1:, :, 0, 0].T
  np.testing.assert_array_equal(ours['params/mask_head/mask_fcn_logits/kernel'][0, 0], masks)
  assert ours['params/box_head/cls_score/bias'].shape == (5,)


def test_of_cocos_91_numbers_80_are_classes():
  """Number 13 (stop sign) is class 12, for 12 is unused; 90 (toothbrush) is class 80."""
  tensors = torchvision_tensors(91, True)
  ours = convert(tensors).tensors
  scores = tensors['roi_heads.box_predictor.cls_score.bias']
  np.testing.assert_array_equal(
    ours['params/box_head/cls_score/bias'][[0, 11, 12, 80]], scores[[0, 11, 13, 90]]
  )
  boxes = tensors['roi_heads.box_predictor.bbox_pred.bias'].reshape(91, 4)
  np.testing.assert_array_equal(ours['params/box_head/bbox_pred/bias'][44:48], boxes[13])
  assert ours['params/mask_head/mask_fcn_logits/kernel'].shape == (1, 1, 4, 80)
