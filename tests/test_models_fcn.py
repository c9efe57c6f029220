"""FCN against the reference release: sizes, numbers of parameters, and where each score lands."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models.fcn import Model
from jaxseg.nn.layers import bilinear_kernel
from jaxseg.types import UserError
from tests.networks import abstract, draw, image_of, size


def constant(model, shape, value=0.0):
  """The model's variables, every number the same; for tests that then write a few by hand."""
  return jax.tree.map(lambda leaf: np.full(leaf.shape, value, 'f'), abstract(model, shape)[1])


@pytest.mark.parametrize(
  'stride, fixed, learned, intermediate',
  [
    (32, 134346581, 136152917, 134346581),
    (16, 134357354, 134815994, 134357354 + 21 * 21 * 16),
    (8, 134362751, 134489759, 134362751 + 2 * 21 * 21 * 16),
  ],
)
def test_parameter_counts_of_the_paper(stride, fixed, learned, intermediate):
  model = Model(num_classes=21, stride=stride)
  shape = (1, 500, 375, 3)
  outputs, variables = abstract(model, shape)
  assert set(variables) == {'params'}
  assert outputs['logits'].shape == (1, 500, 375, 21)
  assert size(variables['params']) == fixed
  assert not [name for name in variables['params'] if name.startswith('upscore')]
  assert size(abstract(model.clone(learn_upsampling=True), shape)[1]['params']) == learned
  partly = abstract(model.clone(learn_upsampling='intermediate'), shape)[1]
  assert size(partly['params']) == intermediate


def test_aligned_and_at_once_have_the_same_parameters():
  model = Model(num_classes=21, aligned=True, at_once=True)
  outputs, variables = abstract(model, (1, 512, 384, 3))
  assert size(variables['params']) == 134362751
  assert outputs['logits'].shape == (1, 512, 384, 21)


@pytest.mark.parametrize(
  'backbone, expected',
  [
    ('resnet50', 75327),
    ('mobilenet_v2', 29631),
    ('mobilenet_v1', 37695),
    ('efficientnet_lite0', (320 + 112 + 40 + 3) * 21),
  ],
)
def test_parameter_counts_of_light_heads(backbone, expected):
  features = {'resnet50': 23508032, 'mobilenet_v2': 2223872, 'mobilenet_v1': 3206976}
  features |= {'efficientnet_lite0': 2958848}
  model = Model(num_classes=21, backbone=backbone, head='light')
  outputs, variables = abstract(model, (1, 96, 128, 3))
  params = dict(variables['params'])
  assert size(params.pop('backbone')) == features[backbone]
  assert size(params) == expected and set(params) == {'score_fr', 'score_pool4', 'score_pool3'}
  assert outputs['logits'].shape == (1, 96, 128, 21)


def test_light_head_on_vgg16():
  _, variables = abstract(Model(num_classes=21, head='light'), (1, 96, 128, 3))
  assert size(variables['params']) == 14714688 + 21 * (512 + 512 + 256 + 3)
  assert 'conv5_3' in variables['params'] and 'fc6' not in variables['params']


@pytest.mark.parametrize(
  'backbone, plain, with_aux',
  [('resnet50', 32957013, 35322218), ('resnet101', 51949141, 54314346)],
)
def test_parameter_counts_of_torchvision(backbone, plain, with_aux):
  model = Model(num_classes=21, backbone=backbone, head='torchvision')
  outputs, variables = abstract(model, (1, 375, 500, 3))
  assert size(variables['params']) == plain and set(outputs) == {'logits'}
  model = model.clone(aux=True)
  outputs, variables = abstract(model, (1, 375, 500, 3), capture_intermediates=True)
  assert size(variables['params']) == with_aux
  assert outputs['logits'].shape == outputs['aux_logits'].shape == (1, 375, 500, 21)
  taps = variables['intermediates']
  assert taps['stage4'][0].shape == (1, 47, 63, 2048) and 'backbone' in variables['params']
  heads = {name for name in variables['params'] if name != 'backbone'}
  parts = '_0', '_1', '_4'
  assert heads == {f'{head}classifier{part}' for head in ('', 'aux_') for part in parts}


def test_every_size_is_taken_unless_aligned():
  for stride in (32, 16, 8):
    for side in (1, 17, 31, 32, 33, 63, 65, 97, 100):
      model = Model(num_classes=2, stride=stride, width=4)
      assert abstract(model, (1, side, 40, 3))[0]['logits'].shape == (1, side, 40, 2)
  aligned = Model(num_classes=2, width=4, aligned=True)
  with pytest.raises(UserError, match='height 100.*32 n,.*96 or 128'):
    abstract(aligned, (1, 100, 96, 3))
  with pytest.raises(UserError, match='width 31.*to 32'):
    abstract(Model(num_classes=2, backbone='resnet50', head='light'), (1, 32, 31, 3))


def test_scores_start_at_zero():
  model = Model(num_classes=3, width=1)
  image = image_of((1, 20, 20, 3))

  names = 'score_fr', 'score_pool4', 'score_pool3', 'conv2_1'
  init = lambda key: model.init(key, image, train=False)['params']  # noqa: E731
  *scores, conv = jax.jit(lambda key: [init(key)[name] for name in names])(jax.random.key(0))
  assert all(not leaf.any() for leaf in jax.tree.leaves(scores))
  assert conv['kernel'].any() and not conv['bias'].any()


# One bright square that is exactly one cell of a feature map must come back where it was: the
# networks' convolutions are set to copy channel 0, one score layer to 1, the others to 0. Cell n of
# the features of stride s covers s pixels from s*n - 99 on (conv1_1 pads 100 and sees 1 around);
# aligned, from s*n on.

SCORES = {32: 'score_fr', 16: 'score_pool4', 8: 'score_pool3'}
CASES = [(32, 32), (16, 32), (16, 16), (8, 32), (8, 16), (8, 8)]


def copying_variables(model, shape):
  variables = constant(model, shape)
  for name, layer in variables['params'].items():
    if name.startswith(('conv', 'fc')):
      centre = layer['kernel'].shape[0] // 2
      layer['kernel'][centre, centre, 0, 0] = 1
  return variables


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('stride', [32, 16, 8])
def test_each_score_lands_where_it_came_from(stride, aligned):
  model = Model(num_classes=1, stride=stride, width=1, aligned=aligned)
  shape = (1, 96, 128, 1)
  variables = copying_variables(model, shape)
  run = jax.jit(lambda v, x: model.apply(v, x, train=False)['logits'][0, ..., 0])
  for tap in (s for net, s in CASES if net == stride):
    scores = jax.tree.map(np.copy, variables)
    scores['params'][SCORES[tap]]['kernel'][0, 0, 0, 0] = 1
    start = tap if aligned else -99 % tap  # first pixel of a cell well inside the image
    top, left = start, start + (tap if tap < 32 else 0)
    image = np.zeros(shape, 'f')
    image[0, top : top + tap, left : left + tap] = 1
    logits = np.asarray(run(scores, image))
    rows, columns = np.mgrid[0:96, 0:128]
    assert logits.min() >= 0 and logits.max() > 0.5
    centre = [(logits * axis).sum() / logits.sum() for axis in (rows, columns)]
    half = (tap - 1) / 2
    np.testing.assert_allclose(centre, (top + half, left + half), atol=1e-3)


def test_learned_upsampling_starts_as_the_fixed_one():
  fixed = Model(num_classes=2, stride=8, width=1)
  learned = fixed.clone(learn_upsampling=True)
  image = image_of((1, 40, 33, 3))
  variables = draw(fixed, image.shape)
  names = {'upscore2': 4, 'upscore_pool4': 4, 'upscore8': 16}

  @jax.jit
  def run(key):
    params = learned.init(key, image, train=False)['params']
    kernels = {name: params[name] for name in names}
    both = {'params': {**variables['params'], **kernels}}
    return (
      kernels,
      fixed.apply(variables, image, train=False)['logits'],
      learned.apply(both, image, train=False)['logits'],
    )

  kernels, expected, logits = run(jax.random.key(0))
  for name, k in names.items():
    assert set(kernels[name]) == {'kernel'} and kernels[name]['kernel'].shape == (k, k, 2, 2)
    np.testing.assert_array_equal(kernels[name]['kernel'][..., 0, 0], bilinear_kernel(k))
    np.testing.assert_array_equal(kernels[name]['kernel'][..., 0, 1], np.zeros((k, k)))
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_at_once_scales_the_skips_before_their_scores():
  staged = Model(num_classes=2, stride=8, width=1, aligned=True)
  image = image_of((1, 32, 64, 3))
  variables = draw(staged, image.shape)
  scaled = jax.tree.map(np.copy, variables)
  scaled['params']['score_pool4']['kernel'] *= np.float32(0.01)
  scaled['params']['score_pool3']['kernel'] *= np.float32(0.0001)

  @jax.jit
  def run(variables, scaled):
    logits = lambda model, v: model.apply(v, image, train=False)['logits']  # noqa: E731
    return logits(staged.clone(at_once=True), variables), logits(staged, scaled)

  np.testing.assert_allclose(*run(variables, scaled), rtol=1e-4, atol=1e-6)


def test_dropout_is_elementwise_and_can_stay_on_in_evaluation():
  model = Model(num_classes=2, stride=32, width=1, aligned=True)
  image = np.ones((1, 64, 64, 3), 'f')
  variables = constant(model, image.shape, 0.1)

  @jax.jit
  def run(key):
    rngs = {'dropout': key}
    outputs, state = model.apply(
      variables, image, train=False, dropout=True, rngs=rngs, capture_intermediates=True
    )
    plain = model.apply(variables, image, train=False)['logits']
    return state['intermediates']['drop6']['__call__'][0], outputs['logits'], plain

  dropped, first, plain = run(jax.random.key(0))
  _, second, plain_again = run(jax.random.key(1))
  kept = np.asarray(dropped[0] != 0)  # [2,2,64]
  assert 0.35 < kept.mean() < 0.65
  assert (kept.any(axis=(0, 1)) & ~kept.all(axis=(0, 1))).any()  # not whole channels
  assert jnp.abs(first - second).max() > 1e-3 and jnp.abs(first - plain).max() > 1e-3
  np.testing.assert_array_equal(plain, plain_again)


def test_batch_norm_of_vgg16():
  shape = (1, 32, 32, 3)
  _, variables = abstract(Model(num_classes=21, batch_norm=True), shape)
  assert size(variables['params']) == 134362751 + 8448
  assert set(variables['batch_stats']) == {name for name in variables['params'] if name[:2] == 'bn'}


def test_options_that_do_not_go_together_are_refused():
  for options, message in (
    (dict(backbone='resnet50'), "head='light'"),
    (dict(head='torchvision'), "backbone='resnet50'"),
    (dict(head='torchvision', backbone='resnet50', stride=16), 'stride=8'),
    (dict(aux=True), "head='torchvision'"),
    (dict(head='light', at_once=True), "head='paper'"),
    (dict(head='light', backbone='resnet50', batch_norm=True), 'vgg16'),
  ):
    with pytest.raises(UserError, match=message):
      abstract(Model(num_classes=2, **options), (1, 32, 32, 3))


def test_frozen_norm_keeps_the_backbones_statistics():
  """Its score layers are zero at first, so that what is shown is the statistics alone."""
  options = dict(num_classes=2, width=1, batch_norm=True, head='light')
  variables, image = draw(Model(**options), (1, 32, 32, 3)), image_of((1, 32, 32, 3))

  @partial(jax.jit, static_argnums=0)
  def statistics(frozen):
    model = Model(frozen_norm=frozen, **options)
    return model.apply(variables, image, train=True, mutable=['batch_stats'])[1]

  def same(new):
    return jax.tree.map(np.array_equal, new.get('batch_stats', {}), variables['batch_stats'])

  assert jax.tree.all(same(statistics(True))) and not any(jax.tree.leaves(same(statistics(False))))
