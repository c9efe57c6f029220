"""Converts the configs of runs saved before: by jaxseg 0.1 all keys on one level, later options since left out."""

from collections.abc import Mapping
from typing import Any

_RENAMED = {
  'model': 'name:model',
  'data': (
    'name:dataset options:dataset_options train_split image_size mean std channel_order replacement '
    'num_threads timeout:data_timeout memory_mb:remember_mb'
  ),
  'loss': 'name:loss normalize class_weights pixel_weights aux_weight',
  'optim': (
    'name:optimizer learning_rate schedule schedule_steps schedule_factor schedule_power '
    'warmup_steps momentum weight_decay multipliers clip_norm apply_if_finite'
  ),
  'eval': 'every:eval_every batch_size:eval_batch_size scales:eval_scales population_pass',
  'init': 'new:init_new unused:init_unused ignore:init_ignore',
  'log': 'every:log_every checkpoint_every keep figures wandb',
}
_SCORE = (('absent', 'skip'), ('f_scores', {}))  # keys with their defaults
_OBJECTS = ('max_instances', 'max_layers', 'min_area')  # of the task 'instance'
_LEFT_OUT = ('label_smoothing', 'focal_gamma', 'ohem', 'tversky', 'lovasz')  # of the loss, 0 is off
_TRANSFORMS = {
  'resize': 'resize.scale',
  'short_side': 'short_side.sides',
  'long_side': 'short_side.longest',
  'elastic': 'elastic.sigma',
  'rotate': 'rotate.degrees',
  'rotate_share': 'rotate.share',
  'pad': 'pad.size',
  'pad_label': 'pad.label',
  'crop': 'crop.size',
  'scale': 'crop.scale',
  'mirror': 'crop.mirror',
  'sides': 'sides.amount',
  'flip': 'flip',
  'vertical_flip': 'flip.vertical',
  'rotate90': 'rotate90',
  'brightness': 'photometric.brightness',
  'contrast': 'photometric.contrast',
  'saturation': 'photometric.saturation',
  'shift': 'photometric.shift',
  'blur': 'blur.share',
}


def _pairs(words: str) -> list[tuple[str, str]]:
  """Reads 'new:old same' into [('new', 'old'), ('same', 'same')]."""
  return [(word.split(':')[0], word.split(':')[-1]) for word in words.split()]


_GROUPED = {group: _pairs(words) for group, words in _RENAMED.items()}
# old key -> new one, for messages
NEW_NAMES: dict[str, str] = {
  **{old: f'{group}.{new}' for group, pairs in _GROUPED.items() for new, old in pairs},
  **{old: f'augment.{new}' for old, new in _TRANSFORMS.items()},
  **{name: f'loss.{name}' for name in _OBJECTS},
  'model_options': 'model',
  'absent': 'eval.score.absent',
  'f_scores': 'eval.score.f_scores',
  'dice': "eval.scores=('dice',)",
  'seg': "eval.scores=('seg',)",
  'channels': 'given by the number of values of data.mean',
}


def is_flat(config: Mapping[str, Any]) -> bool:
  """Returns whether a config was saved with all keys on one level."""
  return 'model_options' in config


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the same config in groups.

  Args:
    flat: plain values, tuples for lists.
  """
  config: dict[str, Any] = {
    group: {new: flat[old] for new, old in pairs if old in flat}
    for group, pairs in _GROUPED.items()
  }
  config['model'] |= flat['model_options']
  config['augment'] = _steps(flat)
  if flat.get('task') == 'instance':
    config['loss'] = {name: flat[name] for name in _OBJECTS if name in flat}
    if flat.get('short_side'):
      config['eval'] |= {'short_side': flat['short_side'][-1], 'long_side': flat['long_side']}
  else:
    config['eval']['score'] = {k: flat[k] for k, off in _SCORE if flat.get(k, off) != off}
    config['eval']['scores'] = tuple(name for name in ('dice', 'seg') if flat.get(name))
    if not config['loss'].get('class_weights'):
      config['loss'].pop('class_weights', None)
  if flat.get('pad'):
    config['eval']['mirror_border'] = False
  moved = {*NEW_NAMES, 'model', 'loss'}
  return {k: v for k, v in flat.items() if k not in moved} | config


def without_left_out(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config without the loss's former options if all were off; else as it is, to be refused."""
  loss = config.get('loss')
  if not isinstance(loss, Mapping) or any(loss.get(key) for key in _LEFT_OUT):
    return dict(config)
  former = (*_LEFT_OUT, 'ohem_kept', 'tversky_prices')
  return {**config, 'loss': {k: v for k, v in loss.items() if k not in former}}


def _steps(flat: Mapping[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
  """Returns the enabled transforms, in their former fixed order."""
  steps = []

  def add(name: str, *keys: str, **more: Any) -> None:
    if any(flat.get(key) for key in keys):
      options = {_TRANSFORMS[k].partition('.')[2]: flat[k] for k in keys if flat.get(k)}
      steps.append((name, options | more))

  outwards = {'fill': None} if flat.get('mirror') else {}
  add('resize', 'resize')
  if flat.get('short_side'):
    add('short_side', 'short_side', 'long_side')
  add('elastic', 'elastic')
  if flat.get('rotate'):
    add('rotate', 'rotate', share=flat.get('rotate_share', 1.0), **outwards)
  if flat.get('pad'):
    add('pad', 'pad', label=flat.get('pad_label', 255))
  if flat.get('crop'):
    add('crop', 'crop', 'scale', 'mirror')
  elif flat.get('mirror'):
    steps.append(('mirror_border', {'pixels': flat['mirror']}))
  add('sides', 'sides')
  if flat.get('flip') or flat.get('vertical_flip'):
    horizontal, vertical = bool(flat.get('flip')), bool(flat.get('vertical_flip'))
    steps.append(('flip', {'horizontal': horizontal, 'vertical': vertical}))
  if flat.get('rotate90'):
    steps.append(('rotate90', {}))
  add('photometric', 'brightness', 'contrast', 'saturation', 'shift')
  add('blur', 'blur')
  return tuple(steps)
