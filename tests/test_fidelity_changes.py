"""One changed layer, rule or initialiser is found, and the launcher says so with its exit status."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxseg.models import fcn, segnet
from jaxseg.nn.layers.roi_align import roi_align
from jaxseg.tools import fidelity
from jaxseg.tools.fidelity.initial import describe_initializer
from jaxseg.tools.fidelity.trace import _probe_align, _probe_double
from tests.test_fidelity import ROOT, load
from tests.test_launch import launch


def differing(config):
  return {
    (p.ours or p.paper).name: p.differences for p in fidelity.compare(config) if p.differences
  }


@pytest.mark.parametrize(
  ('spec', 'overrides', 'expected'),
  [
    ('fcn_camvid.py:32s', ['model_options.dropout_rate=.4'], {'drop6': ('kernel',), 'drop7': ('kernel',)}),
    ('fcn_camvid.py:32s', ['init_new=score_fr,fc7'], {'fc7': ('initial',)}),
    ('segnet_camvid.py:basic', ['model_options.dropout_rate=.4'], {}),  # there is none to change
    ('mask_rcnn_coco.py:torchvision', [], {'align7': ('kernel',), 'align14': ('kernel',)}),
    ('unet_isbi2012.py', ['num_classes=3'], {}),  # the paper's net for three classes
  ],
)  # fmt: skip
def test_one_option(spec, overrides, expected):
  assert differing(load(spec, *overrides)) == expected


def test_one_multiplier():
  found = differing(
    load('fcn_camvid.py:32s', 'multipliers=(("score_fr/bias",1.,0.),("/bias",2.,0.))')
  )
  assert found == {'score_fr': ('rate',)}


def test_learned_upsampling_is_seen():
  changes = 'model_options.learn_upsampling=True', 'init_new=score_fr,upscore'
  found = differing(load('fcn_camvid.py:32s', *changes))
  assert found == {'upscore': ('parameters', 'rate', 'decay')}


def test_one_crop(monkeypatch):
  monkeypatch.setitem(fcn._LAST, 32, ('upscore', 18))
  assert differing(load('fcn_camvid.py:32s')) == {'upscore crop': ('kernel',)}


def test_one_scale(monkeypatch):
  (first, second) = fcn._SKIPS
  monkeypatch.setattr(fcn, '_SKIPS', (first, (*second[:-1], 1e-3)))
  assert differing(load('fcn_camvid.py')) == {'pool3 times': ('kernel',)}


def test_a_relu_too_many(monkeypatch):
  convolve = segnet.Model._convolve

  def with_relu(self, x, name, features, train):
    x = convolve(self, x, name, features, train)
    return nn.relu(x) if name == 'conv_decode2' else x

  monkeypatch.setattr(segnet.Model, '_convolve', with_relu)
  assert differing(load('segnet_camvid.py:basic')) == {'conv_decode2_bn': ('after',)}


def test_indices_of_another_pooling(monkeypatch):
  """Two poolings' places swapped would still have the right sizes in a smaller net."""
  unpool = segnet.max_unpool
  monkeypatch.setattr(segnet, 'max_unpool', lambda x, index, size: unpool(x, index + 0, size))
  assert set(differing(load('segnet_camvid.py:basic'))) >= {f'unpool{i}' for i in range(1, 5)}


def test_memory_saving_is_no_difference():
  assert not differing(load('segnet_camvid.py:basic', 'model_options.remat=True'))


def test_what_is_measured_of_roi_align_and_of_doubling():
  assert _probe_align(roi_align, 7, {}) == 'align 7x7, 2x2 points, shift 0.5'
  options = dict(samples=4, aligned=False)
  assert _probe_align(roi_align, 14, options) == 'align 14x14, 4x4 points, shift 0'
  for method, expected in (('nearest', 'nearest'), ('linear', 'blended')):
    double = functools.partial(jax.image.resize, shape=(1, 2, 4, 1), method=method)
    assert _probe_double(double) == expected


# --- the initialisers


@pytest.mark.parametrize(
  ('initializer', 'shape', 'expected'),
  [
    (nn.initializers.zeros_init(), (3, 3, 8, 8), '0'),
    (nn.initializers.zeros_init(), (1, 1, 4, 7), '0'),
    (nn.initializers.constant(0.001), (64,), '0.001'),
    (nn.initializers.he_normal(), (3, 3, 8, 8), 'normal 2/in'),
    (nn.initializers.variance_scaling(2.0, 'fan_in', 'normal'), (1, 1, 8, 8), 'normal 2/in'),
    (nn.initializers.lecun_normal(), (3, 3, 8, 9), 'normal 1/in'),
    (nn.initializers.glorot_uniform(), (3, 3, 8, 9), 'uniform 1/avg'),
    (nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'), (1, 1, 8, 9), 'uniform 1/3/in'),
    (nn.initializers.normal(0.01), (3, 3, 8, 9), 'normal sd 0.01'),
    (nn.initializers.normal(0.001), (7, 9), 'normal sd 0.001'),
    (nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform'), (7, 9), 'uniform 1/in'),
    (lambda key, shape, dtype: jnp.arange(shape[0]), (3,), 'not constant'),
    (fcn._bilinear_init, (4, 4, 5, 5), 'bilinear'),
  ],
)
def test_initializers_are_told_by_their_samples(initializer, shape, expected):
  assert describe_initializer(initializer, shape) == expected


# --- the launcher


def test_the_launcher_ends_with_0_where_all_is_equal(capsys):
  with pytest.raises(SystemExit) as stop:
    launch('fidelity', f'--config={ROOT}/configs/segnet_camvid.py:basic')
  out = capsys.readouterr().out.splitlines()
  assert stop.value.code == 0
  assert out[-1] == 'SegNet-Basic: 26 layers, 1,416,587 parameters: all equal'
  ours, paper = next((a, b) for a, b in zip(out, out[1:], strict=False) if a.startswith('conv1 '))
  words = '7x7 1 3 360x480x64 9,472 normal 2/in, 0 1, 2 1, 0'.split()
  assert ours.split() == ['conv1', *words, 'ours', '='] and paper.split() == [*words, 'paper']


def test_the_launcher_ends_with_2_where_not(capsys):
  with pytest.raises(SystemExit) as stop:
    launch('fidelity', f'--config={ROOT}/configs/segnet_camvid.py:basic', '--config.multipliers=()')
  out = capsys.readouterr().out.splitlines()
  assert stop.value.code == 2 and 'DIFFERENT' in '\n'.join(out)
  assert out[-1].startswith('SegNet-Basic: 9 of 26 layers differ: conv1 (rate, decay), ')


def test_layers_that_nobody_published(capsys):
  with pytest.raises(SystemExit) as stop:
    launch('fidelity', f'--config={ROOT}/configs/fcn_camvid.py', '--config.model_options.head=light',
           '--config.model_options.at_once=False')  # fmt: skip
  error = capsys.readouterr().err
  assert stop.value.code == 2 and 'no published table for this fcn' in error
