"""Published namings, written out as the source writes them, into our networks without surprise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxseg import pretrained
from jaxseg.models import fcn, segnet
from jaxseg.nn import backbones
from jaxseg.nn.backbones import VGG16
from jaxseg.pretrained.names import sources
from jaxseg.types import UserError
from tests.test_pretrained_caffe_file import blob, net

WIDTH = 2
VGG = {
  f'conv{stage}_{i}': (WIDTH * multiple, WIDTH * (multiple if i > 1 else before))
  for stage, (count, multiple, before) in enumerate(
    ((2, 1, 0), (2, 2, 1), (3, 4, 2), (3, 8, 4), (3, 8, 8)), start=1
  )
  for i in range(1, count + 1)
} | {'conv1_1': (WIDTH, 3)}
VGG_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_BN_FEATURES = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
RANDOM = np.random.default_rng(0)


def normal(*shape):
  return RANDOM.normal(size=shape).astype(np.float32)


def load_file(variables, path, allow_new=()):
  """Variables from a file, as launch/train.py loads them; the report, and what is known of the file."""
  found = pretrained.open_weights(path, variables)
  options = dict(allow_new=allow_new, allow_unused=found.optional)
  return *pretrained.load_into(variables, found.tensors, **options), found


def zeros_of(model, **arguments):
  """Variables of the model, all zero."""
  image = jnp.zeros((1, 64, 64, 3))
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  made = jax.eval_shape(lambda: model.init(keys, image, train=False, **arguments))
  made = {name: tree for name, tree in made.items() if name in ('params', 'batch_stats')}
  return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), made)


def vgg_weights(classes=10):
  """PyTorch's and Caffe's axes by Caffe's names: layer -> (weight, bias)."""
  shapes = {name: (*channels, 3, 3) for name, channels in VGG.items()}
  wide = 64 * WIDTH
  shapes |= {'fc6': (wide, 49 * 8 * WIDTH), 'fc7': (wide, wide), 'fc8': (classes, wide)}
  return {name: (normal(*shape), normal(shape[0])) for name, shape in shapes.items()}


def as_torchvision(weights, features=VGG_FEATURES):
  modules = dict(zip(VGG, (f'features.{i}' for i in features), strict=True))
  modules |= {'fc6': 'classifier.0', 'fc7': 'classifier.3', 'fc8': 'classifier.6'}
  out = {}
  for name, (weight, bias) in weights.items():
    out |= {f'{modules[name]}.weight': weight, f'{modules[name]}.bias': bias}
  return out


def as_caffe(weights):
  return {f'{n}/{i}': values for n, pair in weights.items() for i, values in enumerate(pair)}


def as_old_caffe(weights):
  """V1: four axes, always."""
  return {name: v.reshape((1,) * (4 - v.ndim) + v.shape) for name, v in as_caffe(weights).items()}


def as_keras(weights, kernel='W_1:0', bias='b_1:0'):
  out = {}
  for name, (weight, values) in weights.items():
    layer = {'fc6': 'fc1', 'fc7': 'fc2', 'fc8': 'predictions'}.get(name)
    layer = layer or 'block{}_conv{}'.format(*name.removeprefix('conv').split('_'))
    if name == 'fc6':  # c, h, w -> h, w, c
      weight = weight.reshape(len(weight), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(weight))
    else:
      weight = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
    out |= {f'{layer}/{layer}_{kernel}': weight, f'{layer}/{layer}_{bias}': values}
  return out


def test_one_vgg16_in_every_naming():
  weights = vgg_weights()
  namings = {
    'torchvision vgg16': (as_torchvision(weights), sources.TORCHVISION),
    'Caffe VGG_ILSVRC_16_layers': (as_caffe(weights), sources.CAFFE),
    'Keras vgg16': (as_keras(weights), sources.CAFFE),
  }
  variables = zeros_of(VGG16(num_classes=10, width=WIDTH))
  fc6 = weights['fc6'][0].reshape(-1, 8 * WIDTH, 7, 7)
  for source, (tensors, record) in namings.items():
    converted = pretrained.convert(tensors)
    assert (converted.source, converted.preprocessing) == (source, record)
    loaded, report = pretrained.load_into(variables, converted.tensors)
    assert not report.new and not report.unused
    params = loaded['params']
    conv = weights['conv3_1'][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params['conv3_1']['kernel'], conv)
    np.testing.assert_array_equal(params['fc6']['kernel'], fc6.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params['fc8']['kernel'][0, 0], weights['fc8'][0].T)
    np.testing.assert_array_equal(params['fc7']['bias'], weights['fc7'][1])
  for alike in (as_old_caffe(weights), as_keras(weights, 'kernel:0', 'bias:0')):
    again, _ = pretrained.load_into(variables, pretrained.convert(alike).tensors)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, loaded))
  parallel = {f'module.{name}': v for name, v in as_torchvision(weights).items()}
  assert pretrained.convert(parallel).source == 'torchvision vgg16'


def test_vgg16_bn():
  weights = vgg_weights()
  tensors = as_torchvision(weights, VGG_BN_FEATURES)
  for i, channels in zip(VGG_BN_FEATURES, VGG.values(), strict=True):
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      tensors[f'features.{i + 1}.{part}'] = normal(channels[0])
    tensors[f'features.{i + 1}.num_batches_tracked'] = np.array(5)
  converted = pretrained.convert(tensors)
  variables = zeros_of(VGG16(num_classes=10, width=WIDTH, batch_norm=True))
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert converted.source == 'torchvision vgg16_bn' and not report.unused
  np.testing.assert_array_equal(loaded['params']['bn5_3']['scale'], tensors['features.41.weight'])
  mean = tensors['features.1.running_mean']
  np.testing.assert_array_equal(loaded['batch_stats']['bn1_1']['mean'], mean)


def fcn_weights(stride, classes=5):
  """fcn{stride}s-heavy-pascal: convolutions all, and bilinear deconvolutions stored in full."""
  weights = vgg_weights()
  wide = 64 * WIDTH
  weights['fc6'] = weights['fc6'][0].reshape(wide, -1, 7, 7), weights['fc6'][1]
  weights['fc7'] = weights['fc7'][0].reshape(wide, wide, 1, 1), weights['fc7'][1]
  del weights['fc8']
  scores = {'score_fr': wide, 'score_pool4': 8 * WIDTH, 'score_pool3': 4 * WIDTH}
  for name in list(scores)[: {32: 1, 16: 2, 8: 3}[stride]]:
    weights[name] = normal(classes, scores[name], 1, 1), normal(classes)
  out = as_caffe(weights)
  ups = {32: {'upscore': 64}, 16: {'upscore2': 4, 'upscore16': 32}}
  ups[8] = {'upscore2': 4, 'upscore_pool4': 4, 'upscore8': 16}
  for name, size in ups[stride].items():
    line = 1 - np.abs(np.arange(size) - (size / 2 - 0.5)) / (size / 2)
    kernel = np.eye(classes)[:, :, None, None] * np.outer(line, line)
    out[f'{name}/0'] = kernel.astype(np.float32)
  return out


def write_caffe(path, tensors, *, v1):
  layers = {}
  for name, values in tensors.items():
    layers.setdefault(name.rsplit('/', 1)[0], []).append(blob(values, legacy=v1))
  path.write_bytes(net(layers, v1=v1))
  return path


@pytest.mark.parametrize('stride', [32, 16, 8])
def test_fcn_caffemodels(tmp_path, stride):
  tensors = fcn_weights(stride)
  path = write_caffe(tmp_path / 'fcn.caffemodel', tensors, v1=False)
  variables = zeros_of(fcn.Model(num_classes=5, width=WIDTH, stride=stride))
  loaded, report, found = load_file(variables, path)
  assert found.preprocessing == sources.FCN and found.preprocessing.channel_order == 'bgr'
  assert not report.new and all(name.startswith('params/upscore') for name in report.unused)
  assert found.source == 'Caffe FCN-32s, 16s or 8s'
  score = tensors['score_fr/0'][:, :, 0, 0].T
  np.testing.assert_array_equal(loaded['params']['score_fr']['kernel'][0, 0], score)

  learned = zeros_of(fcn.Model(num_classes=5, width=WIDTH, stride=stride, learn_upsampling=True))
  assert not load_file(learned, path)[1].unused


def test_a_learned_upsampling_is_not_dropped_silently():
  tensors = fcn_weights(32)
  tensors['upscore/0'] = tensors['upscore/0'] + 0.01
  converted = pretrained.convert(tensors)
  with pytest.raises(UserError, match='1 unknown to the network: params/upscore/kernel'):
    pretrained.load_into(
      zeros_of(fcn.Model(num_classes=5, width=WIDTH, stride=32)),
      converted.tensors,
      allow_unused=converted.optional,
    )


def test_fcn_at_once():
  tensors = fcn_weights(8)
  scales = {'scale_pool3/0': np.array(1e-4), 'scale_pool4/0': np.array([0.01])}
  converted = pretrained.convert(tensors | scales)
  assert converted.needs == {'at_once': True}
  assert not any('scale' in name for name in converted.tensors)
  with pytest.raises(UserError, match='scale_pool3/0 is'):
    pretrained.convert(tensors | scales | {'scale_pool3/0': np.array(1.0)})


def test_vgg16_starts_an_fcn_and_a_segnet(tmp_path):
  path = write_caffe(tmp_path / 'vgg.caffemodel', as_caffe(vgg_weights()), v1=True)
  variables = zeros_of(fcn.Model(num_classes=5, width=WIDTH))
  _, report, found = load_file(variables, path, allow_new=('score_.*',))
  assert set(report.unused) == {'params/fc8/kernel', 'params/fc8/bias'}
  assert len(report.new) == 6 and found.preprocessing == sources.CAFFE
  with pytest.raises(UserError, match='the weights do not fit'):
    load_file(variables, path)
  variables = zeros_of(segnet.Model(num_classes=5, width=WIDTH))
  _, report, _ = load_file(variables, path, allow_new=('.*_bn', '.*_D'))
  assert len(report.matched) == 26 and len(report.unused) == 6


def as_caffe_segnet(variables):
  tensors = {}
  for name, leaves in variables['params'].items():
    if name.endswith('_bn'):
      shape = leaves['scale'].shape
      tensors |= {f'{name}/{i}': normal(*shape).reshape(1, -1, 1, 1) for i in (0, 1)}
    else:
      kernel = leaves['kernel'].transpose(3, 2, 0, 1)
      tensors |= {f'{name}/0': normal(*kernel.shape), f'{name}/1': normal(kernel.shape[0])}
  return tensors


def test_bayesian_segnet_basic_names_its_classifier_otherwise():
  variables = zeros_of(segnet.Model(num_classes=5, width=WIDTH, variant='basic', bayesian=True))
  tensors = as_caffe_segnet(variables)
  for number in (0, 1):
    blob = tensors.pop(f'conv_classifier/{number}')
    tensors[f'dense_softmax_inner_prod/{number}'] = blob
  converted = pretrained.convert(tensors)
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert not report.new and converted.source == 'Caffe Bayesian SegNet-Basic'
  np.testing.assert_array_equal(loaded['params']['conv_classifier']['bias'], blob)


@pytest.mark.parametrize('name', ['conv1_1_bn/2', 'conv2_1/2'])
def test_a_third_blob_of_a_caffe_layer_is_refused(name):
  tensors = as_caffe_segnet(zeros_of(segnet.Model(num_classes=5, width=WIDTH)))
  with pytest.raises(UserError, match=f'{name} is the blob number 2 of its layer'):
    pretrained.convert({**tensors, name: normal(WIDTH)})


def test_segnet_caffemodel():
  """After caffe-segnet's pass over the training set, statistics are folded into scale and shift."""
  variables = zeros_of(segnet.Model(num_classes=5, width=WIDTH))
  tensors = as_caffe_segnet(variables)
  converted = pretrained.convert(tensors)
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert not report.new and not report.unused and converted.source == 'Caffe SegNet'
  assert converted.preprocessing.mean == (0,) and converted.preprocessing.channel_order == 'bgr'
  x, at = normal(WIDTH), 'conv1_1_bn'
  params, stats = loaded['params'][at], loaded['batch_stats'][at]
  got = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-9) * params['scale'] + params['bias']
  expected = x * tensors[f'{at}/0'].ravel() + tensors[f'{at}/1'].ravel()
  np.testing.assert_allclose(got, expected, rtol=1e-6)


RESNET = (3, 4, 6, 3)


def resnet_parts():
  """(torchvision module, in, out, size) of ResNet-50 at width 2; batch norm follows each."""
  yield 'conv1', 'bn1', 3, WIDTH, 7
  channels = WIDTH
  for stage, count in enumerate(RESNET, start=1):
    narrow = WIDTH * 2 ** (stage - 1)
    for block in range(count):
      at = f'layer{stage}.{block}.'
      yield f'{at}conv1', f'{at}bn1', channels, narrow, 1
      yield f'{at}conv2', f'{at}bn2', narrow, narrow, 3
      yield f'{at}conv3', f'{at}bn3', narrow, 4 * narrow, 1
      if block == 0:
        yield f'{at}downsample.0', f'{at}downsample.1', channels, 4 * narrow, 1
      channels = 4 * narrow


def torchvision_resnet():
  tensors = {'fc.weight': normal(10, 32 * WIDTH), 'fc.bias': normal(10)}
  for conv, norm, inputs, outputs, size in resnet_parts():
    tensors[f'{conv}.weight'] = normal(outputs, inputs, size, size)
    for part in ('weight', 'bias', 'running_mean'):
      tensors[f'{norm}.{part}'] = normal(outputs)
    tensors[f'{norm}.running_var'] = np.abs(normal(outputs))
    tensors[f'{norm}.num_batches_tracked'] = np.array(1)
  return tensors


def test_torchvision_resnet(tmp_path):
  tensors = torchvision_resnet()
  path = tmp_path / 'resnet.bin'
  safetensors.numpy.save_file(tensors, path)
  variables = zeros_of(backbones.build('resnet50', width=WIDTH, num_classes=10))
  loaded, report, found = load_file(variables, path)
  assert not report.new and not report.unused and found.preprocessing == sources.TORCHVISION
  np.testing.assert_array_equal(loaded['params']['fc']['kernel'], tensors['fc.weight'].T)

  variables = zeros_of(fcn.Model(num_classes=5, width=WIDTH, backbone='resnet50', head='light'))
  loaded, report, _ = load_file(variables, path, allow_new=('score_.*',))
  expected = {'params/backbone/fc/kernel', 'params/backbone/fc/bias'}
  assert set(report.unused) == expected and len(report.new) == 6
  mean = loaded['batch_stats']['backbone']['layer4_2_bn3']['mean']
  np.testing.assert_array_equal(mean, tensors['layer4.2.bn3.running_mean'])


def test_torchvision_fcn_resnet50():
  tensors = {f'backbone.{n}': v for n, v in torchvision_resnet().items() if n[:3] != 'fc.'}
  for head, channels in (('classifier', 32 * WIDTH), ('aux_classifier', 16 * WIDTH)):
    narrow = channels // 4
    tensors |= {f'{head}.0.weight': normal(narrow, channels, 3, 3)}
    tensors |= {f'{head}.4.weight': normal(5, narrow, 1, 1), f'{head}.4.bias': normal(5)}
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      tensors[f'{head}.1.{part}'] = normal(narrow)
  converted = pretrained.convert(tensors)
  options = dict(num_classes=5, width=WIDTH, backbone='resnet50', head='torchvision')
  _, report = pretrained.load_into(zeros_of(fcn.Model(aux=True, **options)), converted.tensors)
  assert not report.new and not report.unused
  model = fcn.Model(**options)
  _, report = pretrained.load_into(
    zeros_of(model), converted.tensors, allow_unused=converted.optional
  )
  assert len(report.unused) == 7


def keras_resnet_names(conv, old):
  """torchvision's module -> Keras' convolution and batch norm."""
  if conv == 'conv1':
    return ('conv1', 'bn_conv1') if old else ('conv1_conv', 'conv1_bn')
  layer, block, part = conv.split('.')[:3]
  stage, number = int(layer[-1]) + 1, 0 if part == 'downsample' else int(part[-1])
  if old:
    branch = f'{stage}{"abcdef"[int(block)]}_branch{("1", "2a", "2b", "2c")[number]}'
    return f'res{branch}', f'bn{branch}'
  at = f'conv{stage}_block{int(block) + 1}_{number}'
  return f'{at}_conv', f'{at}_bn'


@pytest.mark.parametrize('old', [False, True])
def test_keras_resnet_folds_biases_and_epsilon(old):
  tensors, checks = {}, []
  for conv, norm, inputs, outputs, size in resnet_parts():
    layer, norm_layer = keras_resnet_names(conv, old)
    kernel, bias = normal(size, size, inputs, outputs), normal(outputs)
    names = ('W:0', 'b:0') if old else ('kernel:0', 'bias:0')
    join = f'{layer}_' if old else f'{layer}/'
    tensors |= {f'{layer}/{join}{names[0]}': kernel, f'{layer}/{join}{names[1]}': bias}
    parts = ('gamma', 'beta', 'running_mean', 'running_std')
    parts = parts if old else ('gamma', 'beta', 'moving_mean', 'moving_variance')
    values = normal(outputs), normal(outputs), normal(outputs), np.abs(normal(outputs)) * 1e-4
    join = f'{norm_layer}_' if old else f'{norm_layer}/'
    for part, value in zip(parts, values, strict=True):
      tensors[f'{norm_layer}/{join}{part}:0'] = value
    checks.append((conv.replace('.', '_'), norm.replace('.', '_'), kernel, bias, values))
  top = 'fc1000' if old else 'predictions'
  tensors |= {f'{top}/{top}/kernel:0': normal(32 * WIDTH, 10), f'{top}/{top}/bias:0': normal(10)}
  converted = pretrained.convert(tensors)
  assert converted.source == 'Keras resnet50' and converted.needs == {'backbone': 'resnet50_v1'}
  variables = zeros_of(backbones.build('resnet50_v1', width=WIDTH, num_classes=10))
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert not report.new and not report.unused
  for conv, norm, kernel, bias, (gamma, beta, mean, var) in checks:
    x = normal(*bias.shape)  # what the convolution gives before its bias
    expected = (x + bias - mean) / np.sqrt(var + 1.001e-5) * gamma + beta
    params, stats = loaded['params'][norm], loaded['batch_stats'][norm]
    got = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(loaded['params'][conv]['kernel'], kernel)


def inverse(variables, rule):
  """Names each leaf of a network as a source does: rule(layer, role, shape) -> (name, shape)."""
  flat = pretrained.flatten(variables)
  made = (rule(*name.split('/')[1:], values.shape) for name, values in flat.items())
  return {name: normal(*shape) for name, shape in made}


def test_torchvision_mobilenet_v2():
  variables = zeros_of(backbones.build('mobilenet_v2', width=16, num_classes=10))

  def rule(layer, role, shape):
    part = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}.get(role, f'running_{role}')
    shape = {4: lambda: (shape[3], shape[2], *shape[:2]), 2: lambda: shape[::-1]}.get(
      len(shape), lambda: shape
    )()
    return f'{layer.replace("_", ".")}.{part}', shape

  tensors = inverse(variables, rule)
  assert 'features.2.conv.1.1.running_mean' in tensors and 'classifier.1.weight' in tensors
  converted = pretrained.convert(tensors)
  assert converted.source == 'torchvision mobilenet_v2'
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert not report.new and not report.unused
  kernel = loaded['params']['features_2_conv_1_0']['kernel']  # depthwise
  weight = tensors['features.2.conv.1.0.weight']
  np.testing.assert_array_equal(kernel[:, :, 0, 3], weight[3, 0])


def test_keras_mobilenet():
  variables = zeros_of(backbones.build('mobilenet_v1', width=8, num_classes=10))
  norms = {'scale': 'gamma', 'bias': 'beta', 'mean': 'moving_mean', 'var': 'moving_variance'}

  def rule(layer, role, shape):
    part = norms[role] if layer.endswith('_bn') else role
    if '_dw_' in layer and role == 'kernel':
      part, shape = 'depthwise_kernel', (*shape[:2], shape[3], shape[2])
    return f'{layer}/{layer}/{part}:0', shape

  tensors = inverse(variables, rule)
  converted = pretrained.convert(tensors)
  assert converted.preprocessing.mean == (127.5,) and converted.source == 'Keras mobilenet'
  loaded, report = pretrained.load_into(variables, converted.tensors)
  assert not report.new and not report.unused
  kernel = loaded['params']['conv_dw_3']['kernel']
  depthwise = tensors['conv_dw_3/conv_dw_3/depthwise_kernel:0']
  np.testing.assert_array_equal(kernel[:, :, 0, 2], depthwise[:, :, 2, 0])


def test_our_own_weights_come_back(tmp_path):
  variables = jax.tree.map(
    lambda a: normal(*a.shape), zeros_of(fcn.Model(num_classes=5, width=WIDTH))
  )
  path = tmp_path / 'weights.safetensors'
  safetensors.numpy.save_file(pretrained.flatten(variables), path)
  loaded, report, found = load_file(variables, path)
  assert found.preprocessing is None and found.source == 'jaxseg' and report.num_problems == 0
  assert jax.tree.all(jax.tree.map(np.array_equal, loaded, variables))


def test_unknown_and_contradictory_weights():
  with pytest.raises(
    UserError, match='names a.weight ... are of no known naming; known are jaxseg'
  ):
    pretrained.convert({'a.weight': normal(2)})
  with pytest.raises(UserError, match='no known naming'):
    pretrained.convert({})
  tensors = as_torchvision(vgg_weights())
  tensors['classifier.0.weight'] = normal(4, 50)
  with pytest.raises(
    UserError, match='those of torchvision vgg16, but a tensor is of another kind'
  ):
    pretrained.convert(tensors)
