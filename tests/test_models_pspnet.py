"""PSPNet: numbers of parameters, sizes, what the pyramid is, published weights, two steps anywhere."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from jaxseg import config as configs
from jaxseg import pretrained
from jaxseg.models.pspnet import Model
from jaxseg.nn.layers import BatchNorm
from jaxseg.tasks.semantic import Task
from jaxseg.train import build, initial
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests.networks import abstract, draw, size
from tests.test_parallel import PREPROCESS, assert_same, batch_of, wrappers

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(width=2, stage_sizes=(1, 1, 1, 1))


@pytest.mark.parametrize(
  'backbone, classes, inference, training',
  [
    ('resnet50', 150, 46_782_550, 49_180_908),
    ('resnet50', 21, 46_716_373, 49_081_578),
    ('resnet50', 19, 46_715_347, 49_080_038),
    ('resnet101', 150, 65_774_678, 68_173_036),
    ('resnet101', 21, 65_708_501, 68_073_706),
    ('resnet101', 19, 65_707_475, 68_072_166),
  ],
)
def test_parameter_counts(backbone, classes, inference, training):
  params = abstract(Model(classes, backbone=backbone), (1, 473, 473, 3))[1]['params']
  assert size(params) == training
  assert size({k: v for k, v in params.items() if k[:3] != 'aux'}) == inference


def test_parameter_counts_of_inference_and_of_the_7x7_stem():
  model = Model(150)
  assert size(abstract(model.clone(aux=False), (1, 73, 73, 3))[1]['params']) == 46_782_550
  seven = model.clone(deep_stem=False)
  assert size(abstract(seven, (1, 73, 73, 3))[1]['params']) == 49_180_908 - 123_776


def test_names_are_the_releases():
  params = abstract(Model(150), (1, 73, 73, 3))[1]['params']
  levels = {f'ppm_features_{level}_{part}' for level in range(4) for part in (1, 2)}
  heads = {f'{head}_{part}' for head in ('cls', 'aux') for part in (0, 1, 4)}
  assert set(params) == {'backbone', *levels, *heads}
  assert params['ppm_features_3_1']['kernel'].shape == (1, 1, 2048, 512)
  assert params['cls_0']['kernel'].shape == (3, 3, 4096, 512)
  assert params['aux_0']['kernel'].shape == (3, 3, 1024, 256)
  assert params['backbone']['conv3']['kernel'].shape == (3, 3, 64, 128)
  assert params['backbone']['layer1_0_conv1']['kernel'].shape == (1, 1, 128, 64)


@pytest.mark.parametrize('side, features', [(473, 60), (713, 90), (9, 2)])
def test_sizes(side, features):
  outputs, variables = abstract(
    Model(5, backbone='resnet101'), (1, side, 57, 3), capture_intermediates=True
  )
  assert outputs['logits'].shape == outputs['aux_logits'].shape == (1, side, 57, 5)
  inner = variables['intermediates']
  assert inner['cls_0']['__call__'][0].shape == (1, features, 8, 512)
  shapes = [inner[f'ppm_features_{i}_1']['__call__'][0].shape for i in range(4)]
  assert shapes == [(1, bins, bins, 512) for bins in (1, 2, 3, 6)]


def test_sizes_without_aligned_corners():
  outputs, variables = abstract(
    Model(5, align_corners=False), (1, 704, 64, 3), capture_intermediates=True
  )
  assert outputs['logits'].shape == (1, 704, 64, 5)
  assert variables['intermediates']['cls_0']['__call__'][0].shape == (1, 88, 8, 512)


def test_what_it_refuses():
  for options, side, message in (
    (dict(align_corners=False), 65, 'sizes are 8 n, at least 8; .*to 64 or 72'),
    (dict(), 64, '8 n [+] 1, at least 1; .*to 57 or 65'),
    (dict(bins=(1, 2, 3)), 65, '2048 channels'),
  ):
    with pytest.raises(UserError, match=message):
      abstract(Model(2, **options), (1, side, 65, 3))


def test_the_pyramid_is_averages_beside_the_features():
  """Level 0 is the mean everywhere; a corner of level 3 is that of its 6x6 bins (aligned)."""
  model = Model(3, **TINY)
  image = np.random.default_rng(1).normal(size=(1, 89, 65, 3)).astype('f')  # features 12 x 9
  variables = draw(model, image.shape)

  @jax.jit
  def run(variables):
    outputs, state = model.apply(variables, image, train=False, capture_intermediates=True)
    return outputs['logits'], state['intermediates']

  logits, inner = run(variables)
  features = np.asarray(inner['backbone']['__call__'][0]['stage4'])[0]
  assert features.shape == (12, 9, 64)

  def level(i, mean):
    kernel = variables['params'][f'ppm_features_{i}_1']['kernel'][0, 0]
    norm, stats = (variables[k][f'ppm_features_{i}_2'] for k in ('params', 'batch_stats'))
    unit = (mean @ kernel - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
    return np.maximum(unit * norm['scale'] + norm['bias'], 0)

  found = [np.asarray(inner[f'ppm_features_{i}_upsampled'][0])[0] for i in range(4)]
  whole = np.broadcast_to(level(0, features.mean((0, 1))), (12, 9, 16))
  np.testing.assert_allclose(found[0], whole, rtol=1e-4, atol=1e-5)
  corner = level(3, features[10:12, 7:9].mean((0, 1)))  # of 9 columns, the last bin has 7 and 8
  np.testing.assert_allclose(found[3][11, 8], corner, rtol=1e-4, atol=1e-5)
  scores = np.asarray(inner['cls_4']['__call__'][0])[0]
  np.testing.assert_allclose(logits[0, ::8, ::8], scores, atol=1e-4 * np.abs(scores).max())


def test_heads_dropout_and_the_auxiliary_head_are_separate():
  model = Model(2, **TINY, dropout_rate=0.5)
  image = np.ones((1, 17, 17, 3), 'f')
  variables = draw(model, image.shape)
  plain = {k: {n: v for n, v in t.items() if n[:3] != 'aux'} for k, t in variables.items()}

  @jax.jit
  def run(key):
    dropped, state = model.apply(
      variables, image, train=False, dropout=True, rngs={'dropout': key}, capture_intermediates=True
    )
    without = model.clone(aux=False).apply(plain, image, train=False)
    kept = state['intermediates']['cls_3']['__call__'][0], state['intermediates']['cls_1']
    return dropped, model.apply(variables, image, train=False), without, kept

  dropped, outputs, without, (kept, before) = run(jax.random.key(0))
  assert set(without) == {'logits'}
  np.testing.assert_array_equal(outputs['logits'], without['logits'])
  assert np.abs(dropped['logits'] - outputs['logits']).max() > 1e-3
  active = np.maximum(before['__call__'][0], 0)[0]
  ratio = np.asarray(kept)[0][active > 0] / active[active > 0]
  assert set(np.round(ratio, 4)) == {0, 2}
  channels = np.asarray(kept)[0].any((0, 1)) == active.any((0, 1))
  assert 0 < channels.sum() < len(channels)
  whole = np.asarray(kept)[0][..., channels]
  np.testing.assert_allclose(whole, 2 * active[..., channels], rtol=1e-6)  # whole channels


# --- published weights


def torchvision_resnet(width=2, classes=1000):
  """A state_dict of one bottleneck a stage, named and shaped as torchvision's resnet50 is."""
  rng, tensors = np.random.default_rng(0), {}

  def conv_bn(conv, norm, outputs, inputs, side):
    tensors[f'{conv}.weight'] = rng.normal(size=(outputs, inputs, side, side))
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      tensors[f'{norm}.{part}'] = rng.uniform(0.5, 1.5, outputs)

  conv_bn('conv1', 'bn1', width, 3, 7)
  channels = width
  for stage in range(1, 5):
    name, features = f'layer{stage}.0', width * 2 ** (stage - 1)
    conv_bn(f'{name}.conv1', f'{name}.bn1', features, channels, 1)
    conv_bn(f'{name}.conv2', f'{name}.bn2', features, features, 3)
    conv_bn(f'{name}.conv3', f'{name}.bn3', 4 * features, features, 1)
    conv_bn(f'{name}.downsample.0', f'{name}.downsample.1', 4 * features, channels, 1)
    channels = 4 * features
  tensors |= {'fc.weight': rng.normal(size=(classes, channels)), 'fc.bias': np.zeros(classes)}
  return {name: values.astype(np.float32) for name, values in tensors.items()}


def start(spec, file):
  config = configs.load(f'{ROOT}/configs/{spec}', ('model.width=2', f'init_from={file}'))
  experiment = build.experiment(config)
  shapes = abstract(experiment.model(), (1, 33, 33, 3))[1]
  sevens = jax.tree.map(lambda s: np.full(s.shape, 7, s.dtype), shapes)
  return initial.start_from(experiment, sevens)


def test_torchvisions_resnet_fills_the_backbone(tmp_path):
  tensors, file = torchvision_resnet(), tmp_path / 'resnet50.safetensors'
  save_file(tensors, file)
  variables, report = start('pspnet_ade20k.py:torchvision,smoke', file)
  # 17 convolutions and 4 arrays of each batch norm; 4 levels and 2 heads of 5, and two scores.
  assert report.startswith('init_from torchvision resnet50 or 101: 85 matched, 34 new, 2 unused, 0')
  loaded = pretrained.flatten(variables)
  kernel = loaded['params/backbone/layer3_0_conv2/kernel']
  np.testing.assert_array_equal(kernel, tensors['layer3.0.conv2.weight'].transpose(2, 3, 1, 0))
  variance = loaded['batch_stats/backbone/layer4_0_downsample_1/var']
  np.testing.assert_array_equal(variance, tensors['layer4.0.downsample.1.running_var'])
  assert (loaded['params/cls_0/kernel'] == 7).all()
  with pytest.raises(UserError, match='missing in the weights: .*backbone/bn2/bias'):
    start('pspnet_ade20k.py:smoke', file)  # it has no deep stem


def test_the_releases_own_names():
  names = 'layer0.0 layer0.3 layer0.6 layer4.2.downsample.0 ppm.features.0.1 cls.4 aux.0'.split()
  zeros = {f'module.{name}.weight': np.zeros((1, 1, 3, 3), 'f') for name in names}
  converted = pretrained.convert(zeros)
  assert converted.source == 'semseg pspnet50 or 101' and converted.optional == ('aux_.*',)
  assert list(converted.tensors) == [
    f'params/{name}/kernel'
    for name in (
      'backbone/conv1', 'backbone/conv2', 'backbone/conv3', 'backbone/layer4_2_downsample_0',
      'ppm_features_0_1', 'cls_4', 'aux_0',
    )
  ]  # fmt: skip


# --- the step


def two_steps(wrapper):
  model = Model(3, **TINY, dropout_rate=0.0, norm=partial(BatchNorm, axis_name=wrapper.axis_name))
  tx = optax.sgd(0.01, momentum=0.9)
  shape = (1, 17, 17, 3)
  state = jax.eval_shape(make_init(model.clone(norm=BatchNorm), tx, shape), jax.random.key(0))
  zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state)
  variables = draw(model.clone(norm=BatchNorm), shape)
  state = wrapper.place_state(zeros.replace(**variables))
  step = wrapper.wrap_train(
    make_train_step(model, Task(num_classes=3), tx, PREPROCESS, axis_name=wrapper.axis_name)
  )
  losses = []
  for i in range(2):
    state, metrics = step(state, wrapper.place_batch(batch_of(i, side=17)), jax.random.key(1))
    losses.append([float(metrics[k]) for k in ('loss', 'loss/xent', 'loss/aux/xent')])
  return jax.device_get(state), losses


def test_one_device_and_pmap_agree():
  """On a mesh of data x spatial: tests/test_spatial.py."""
  one, eight, _ = wrappers()
  (state, losses), (other, theirs) = two_steps(one), two_steps(eight)
  assert len(eight.devices) == 8
  assert all(total == pytest.approx(main + aux) for total, main, aux in losses)
  np.testing.assert_allclose(theirs, losses, rtol=1e-5)
  assert_same((state.params, state.batch_stats), (other.params, other.batch_stats))


@pytest.mark.parametrize('release, kept', [('semseg', 0.9), ('caffe', 0.95)])
def test_what_the_running_averages_of_a_release_keep(release, kept):
  seen = set()

  def note(call, args, options, context):
    if isinstance(context.module, BatchNorm):
      seen.add(context.module.momentum)
    return call(*args, **options)

  with nn.intercept_methods(note):
    abstract(Model(2, release=release, **TINY), (2, 17, 17, 3))
  assert seen == {kept}
