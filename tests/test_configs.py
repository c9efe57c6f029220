"""Every config and variant loads, builds its network, and has the paper's number of parameters."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxseg import config as configs
from jaxseg.train import build
from jaxseg.train.state import parameter_count

ROOT = Path(__file__).resolve().parent.parent
SPECS = [
  'unet_shapes.py',
  'unet_shapes.py:smoke',
  'segnet_camvid.py',
  'segnet_camvid.py:bayesian',
  'segnet_camvid.py:small',
  'segnet_camvid.py:smoke',
  'segnet_camvid.py:basic',
  'segnet_camvid.py:basic,bayesian',
  'segnet_camvid.py:basic,small',
  'segnet_camvid.py:basic,smoke',
  'fcn_camvid.py',
  'fcn_camvid.py:32s',
  'fcn_camvid.py:16s',
  'fcn_camvid.py:8s',
  'fcn_camvid.py:small',
  'fcn_camvid.py:smoke',
  'unet_isbi2012.py',
  'unet_isbi2012.py:small',
  'unet_isbi2012.py:smoke',
  'unet_isbi2012.py:fold=1',
  'unet_isbi2012.py:nvidia,fold=0',
  'unet_isbi2012.py:nvidia,smoke',
  'unet_dsb2018.py',
  'unet_dsb2018.py:small',
  'unet_dsb2018.py:smoke',
  'folder.py',
  'folder.py:small',
  'folder.py:smoke',
  'fcn_voc2011.py',
  'fcn_voc2011.py:32s',
  'fcn_voc2011.py:16s',
  'fcn_voc2011.py:8s',
  'fcn_voc2011.py:atonce',
  'fcn_voc2011.py:smoke',
  'segnet_sunrgbd.py',
  'segnet_sunrgbd.py:bayesian',
  'segnet_sunrgbd.py:smoke',
  'unet_ctc.py',
  'unet_ctc.py:u373',
  'unet_ctc.py:hela',
  'unet_ctc.py:smoke',
  'unet_lyft.py',
  'unet_lyft.py:challenge',
  'unet_lyft.py:smoke',
  *(
    f'pspnet_{name}.py{variant}'
    for name in ('ade20k', 'voc2012', 'cityscapes', 'camvid')
    for variant in ('', ':torchvision', ':smoke')
  ),
  'pspnet_cityscapes.py:spatial',
  'pspnet_camvid.py:small',
  'fcn_pet.py',
  'fcn_pet.py:resnet50',
  'fcn_pet.py:smoke',
  'mask_rcnn_coco.py',
  'mask_rcnn_coco.py:3x',
  'mask_rcnn_coco.py:resnet101',
  'mask_rcnn_coco.py:torchvision',
  'mask_rcnn_coco.py:smoke',
  'mask_rcnn_dsb2018.py',
  'mask_rcnn_dsb2018.py:small',
  'mask_rcnn_dsb2018.py:smoke',
]
SMOKE = [s for s in SPECS if s.endswith('smoke')]


def load(spec):
  return configs.load(str(ROOT / 'configs' / spec))


def parameters_of(config, size):
  model = build.model_from(config)
  image = jnp.zeros((1, *size, config.channels))
  init = lambda: model.init(jax.random.key(0), image, train=False)  # noqa: E731
  return jax.eval_shape(init)['params']


@pytest.mark.parametrize('spec', SPECS)
def test_builds(spec):
  config = load(spec)
  rule = build.model_from(config).size_rule
  params = parameters_of(config, [rule.at_least(max(64, rule.minimum))] * 2)
  assert parameter_count(params) > 1000
  if config.paper and config.paper.get('params'):
    assert parameter_count(params) == config.paper.params
  build.optimizer_from(config)[0].init(params)
  build.transforms_from(config)


def test_the_light_heads_of_the_pets():
  """Nothing is published; MobileNetV2's features have 2,223,872, ResNet-50's 23,508,032."""
  for spec, features, channels in (
    ('fcn_pet.py', 2_223_872, 32 + 96 + 1280),
    ('fcn_pet.py:resnet50', 23_508_032, 512 + 1024 + 2048),
  ):
    params = parameters_of(load(spec), (64, 64))
    assert parameter_count(params) == features + 3 * channels + 3 * 3, spec
    assert {k for k in params if k != 'backbone'} == {'score_fr', 'score_pool4', 'score_pool3'}


def test_sunrgbd_weighs_its_first_class_with_the_releases_second_number():
  weights = load('segnet_sunrgbd.py').class_weights
  assert len(weights) == 37 and weights[0] == 0.382592 and weights[-1] == 4.017548


def test_every_config_is_listed():
  listed = {spec.split(':')[0] for spec in SPECS}
  assert listed == {p.name for p in (ROOT / 'configs').glob('*.py')}


@pytest.mark.parametrize('spec', [s for s in SPECS if 'smoke' not in s])
def test_every_config_has_a_smoke_variant_on_shapes(spec):
  name, _, variant = spec.partition(':')
  keep = [v for v in variant.split(',') if v and v != 'small']
  assert load(f'{name}:{",".join([*keep, "smoke"])}').dataset == 'shapes'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.stem)
def test_the_docstring_gives_the_command(path):
  text = path.read_text(encoding='utf-8')
  assert f'python launch/train.py --config=configs/{path.name}' in text.split('"""')[1]
