"""Runs of version 0.1: keys on one level, and by hand where each of them lies now."""

import pytest

from jaxseg.config import flat, settings

FLAT = dict(
  seed=3,
  num_steps=100,
  batch_size=4,
  num_classes=2,
  channels=1,
  eval_split='test',
  init_from='RUN',
  init_new=('score',),
  init_unused=('fc8',),
  init_ignore=('mean',),
  dataset='isbi2012',
  dataset_options={'fold': 2},
  train_split='train',
  mean=(127.5,),
  std=(63.75,),
  channel_order='bgr',
  image_size=(388, 388),
  replacement=True,
  remember_mb=64,
  data_timeout=5.0,
  model='unet',
  model_options={'width': 8, 'padding': 'same'},
  task='semantic',
  loss='softmax_dice',
  normalize='sum',
  class_weights=(1.5, 1.0),
  pixel_weights=True,
  aux_weight=0.3,
  absent='zero',
  dice=True,
  seg=False,
  f_scores={'cell': 2.0},
  max_instances=100,
  max_layers=4,
  min_area=1,
  optimizer='sgd',
  learning_rate=0.01,
  momentum=0.99,
  multipliers=(('/bias', 2.0, 0.0),),
  eval_every=50,
  eval_batch_size=2,
  eval_scales=(0.5,),
  population_pass=True,
  log_every=5,
  checkpoint_every=25,
  figures=0,
)
NESTED = dict(
  seed=3,
  num_steps=100,
  batch_size=4,
  num_classes=2,
  eval_split='test',
  init_from='RUN',
  task='semantic',
  model=dict(name='unet', width=8, padding='same'),
  data=dict(
    name='isbi2012',
    options={'fold': 2},
    train_split='train',
    mean=(127.5,),
    std=(63.75,),
    channel_order='bgr',
    image_size=(388, 388),
    replacement=True,
    memory_mb=64,
    timeout=5.0,
  ),
  augment=(),
  loss=dict(
    name='softmax_dice',
    normalize='sum',
    class_weights=(1.5, 1.0),
    pixel_weights=True,
    aux_weight=0.3,
  ),
  optim=dict(name='sgd', learning_rate=0.01, momentum=0.99, multipliers=(('/bias', 2.0, 0.0),)),
  eval=dict(
    every=50,
    batch_size=2,
    scales=(0.5,),
    population_pass=True,
    score=dict(absent='zero', f_scores={'cell': 2.0}),
    scores=('dice',),
  ),
  init=dict(new=('score',), unused=('fc8',), ignore=('mean',)),
  log=dict(every=5, checkpoint_every=25, figures=0),
)


def test_semantic():
  assert flat.is_flat(FLAT) and not flat.is_flat(NESTED)
  assert flat.nested(FLAT) == NESTED
  assert settings(flat.nested(FLAT)).seed == 3  # no key is left on top that is none


def test_what_was_off_is_left_to_the_defaults():
  off = dict(class_weights=(), absent='skip', f_scores={}, dice=False)
  config = flat.nested(FLAT | off)
  assert 'class_weights' not in config['loss']
  assert config['eval']['score'] == {} and config['eval']['scores'] == ()


def test_instance():
  """Evaluation takes the last of the short sides."""
  more = dict(task='instance', max_instances=9, min_area=4, short_side=(64, 80), long_side=133)
  config = flat.nested(FLAT | more)
  assert config['loss'] == dict(max_instances=9, max_layers=4, min_area=4)
  assert config['augment'] == (('short_side', dict(sides=(64, 80), longest=133)),)
  assert config['eval'] == dict(
    every=50, batch_size=2, scales=(0.5,), population_pass=True, short_side=80, long_side=133
  )


def test_every_transform_in_the_order_of_version_01():
  on = dict(
    blur=0.5,
    shift=0.1,
    saturation=0.2,
    contrast=0.3,
    brightness=0.4,
    rotate90=True,
    vertical_flip=True,
    flip=True,
    sides=0.3,
    crop=(64, 48),
    scale=(0.5, 2.0),
    pad=(96, 96),
    pad_label=0,
    rotate=10.0,
    rotate_share=0.5,
    elastic=8.0,
    resize=0.5,
  )
  config = flat.nested(FLAT | on)
  assert config['augment'] == (
    ('resize', dict(scale=0.5)),
    ('elastic', dict(sigma=8.0)),
    ('rotate', dict(degrees=10.0, share=0.5)),
    ('pad', dict(size=(96, 96), label=0)),
    ('crop', dict(size=(64, 48), scale=(0.5, 2.0))),
    ('sides', dict(amount=0.3)),
    ('flip', dict(horizontal=True, vertical=True)),
    ('rotate90', {}),
    ('photometric', dict(brightness=0.4, contrast=0.3, saturation=0.2, shift=0.1)),
    ('blur', dict(share=0.5)),
  )
  assert config['eval']['mirror_border'] is False  # a canvas of one colour, at evaluation too


@pytest.mark.parametrize(
  ('on', 'steps'),
  [
    (
      dict(mirror=92, rotate=180.0, crop=(572, 572)),
      (
        ('rotate', dict(degrees=180.0, share=1.0, fill=None)),
        ('crop', dict(size=(572, 572), mirror=92)),
      ),
    ),
    (dict(mirror=20), (('mirror_border', dict(pixels=20)),)),
    (dict(vertical_flip=True), (('flip', dict(horizontal=False, vertical=True)),)),
    (dict(rotate=0.0, rotate_share=0.5, scale=(), crop=(), pad=(), pad_label=0), ()),
  ],
)
def test_transforms_that_depend_on_one_another(on, steps):
  assert flat.nested(FLAT | on)['augment'] == steps


def test_options_since_left_out_matter_only_if_a_run_used_them():
  off = {
    'name': 'softmax',
    'ohem': 0.0,
    'ohem_kept': 0.0625,
    'tversky_prices': (0.3, 0.7),
    'lovasz': 0.0,
  }
  assert flat.without_left_out({'loss': off, 'seed': 1}) == {'loss': {'name': 'softmax'}, 'seed': 1}
  used = {'seed': 1, 'loss': {**off, 'ohem': 0.7}}
  assert flat.without_left_out(used) == used
