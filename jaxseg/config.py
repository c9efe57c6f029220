"""Configs: one flat Python file per baseline, variants after a colon, overrides, one-line errors.

    python launch/train.py --config=configs/segnet_camvid.py:basic,small --config.batch_size=4

A config file defines `get_config(variant)`. It starts from `base()`, which lists every key with its
meaning, and sets what its paper says. The result is locked: a key that does not exist is an error.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import math
import numbers
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from jaxseg.types import UserError

# Keys that may differ when a run is resumed: none of them changes what is computed.
FREE_KEYS = frozenset(
  'data_dir cache_dir parallel mesh cpu_devices num_threads data_timeout init_from init_new init_unused init_ignore log_every eval_every eval_split '
  'eval_batch_size eval_scales dice seg f_scores checkpoint_every keep compile_cache paper remember_mb figures wandb'.split()
)


def base() -> ConfigDict:
  """Returns every key that a config has, with its default; unlocked until `load` has run it."""
  return ConfigDict(
    dict(
      # run
      seed=0,  # weights, order, augmentation and dropout all follow from it
      num_steps=1000,  # optimiser updates
      batch_size=8,  # images per update, over all devices and micro-batches
      accumulate=1,  # micro-batches per update: batch_size / accumulate images are in memory at once
      dtype='float32',  # compute type, 'float32' | 'bfloat16'; parameters are always float32
      parallel='pmap',  # 'pmap' over local devices | 'mesh': one jit-compiled program on a mesh
      cpu_devices=0,  # parts that a CPU is split into, each with a share of the batch; 0 = its cores
      mesh='',  # with parallel='mesh': 'data:2,spatial:4' (rows); '' = as many as divide the batch
      deterministic=False,  # refuse operations whose result depends on timing (matters on GPUs)
      compile_cache='~/.cache/jaxseg/xla',  # compiled programs are kept here; '' = nowhere
      init_from='',  # start from this workdir's or weights file's parameters
      init_new=(),  # patterns of names that start anew; anything else must be in init_from
      init_unused=(),  # patterns of names in init_from that this network may do without
      init_ignore=(),  # may differ from the weights': 'mean', 'std', 'channel_order', 'network'
      # data
      dataset='shapes',  # a module of jaxseg.datasets
      dataset_options=dict(),  # keyword arguments of its source()
      data_dir='',  # folder that holds camvid/, isbi2012/, ...; '' = $JAXSEG_DATA or ~/jaxseg_data
      cache_dir='',  # built records; '' = $JAXSEG_CACHE or ~/.cache/jaxseg
      train_split='train',
      eval_split='val',
      num_classes=2,
      channels=3,  # of the image
      mean=(
        127.5,
        127.5,
        127.5,
      ),  # subtracted from the image, one value a channel, 0..255, in RGB order
      std=(127.5, 127.5, 127.5),  # then divided by
      channel_order='rgb',  # 'bgr' where Caffe's weights want it
      remember_mb=4096,  # a set whose decoded examples fit in this many MB is decoded once
      num_threads=2,  # that decode and augment
      data_timeout=60.0,  # seconds without any example finished until a run stops; 0 = it waits for ever
      replacement=False,  # draw every image at random with replacement (FCN's recipe), not by epochs
      image_size=(),  # (height, width): every image and label, training and evaluation, is resized
      # augmentation, in this order; 0, () or False switches one off
      resize=0.0,  # factor on every training image (evaluation: eval_scales)
      short_side=(),  # for task='instance': the shorter side becomes one of these, drawn at random, and
      # at most long_side the longer; evaluation and prediction take the last, and give back own sizes
      long_side=1333,
      mirror=0,  # pixels of mirrored border around the image, for networks with valid convolutions
      elastic=0.0,  # U-Net's elastic deformation: standard deviation of the coarse grid, in pixels
      rotate=0.0,  # degrees, uniform in +-
      rotate_share=1.0,  # share of the images that are rotated
      scale=(),  # (low, high): random resize before the crop
      pad=(),  # (height, width): a canvas around the image, its colour the mean; evaluation too
      pad_label=255,  # of that canvas: void, or a class
      crop=(),  # (height, width); () = the image as it is
      sides=0.0,  # each side moves in by up to this share, then back to the size before
      flip=False,  # left-right
      vertical_flip=False,
      rotate90=False,  # random quarter turns
      brightness=0.0,  # relative change, uniform in +-
      contrast=0.0,
      saturation=0.0,
      shift=0.0,  # added, a share of the range 0..255, uniform in +-
      blur=0.0,  # share of the images that a 5x5 Gaussian softens
      # model and task
      model='unet',  # a module of jaxseg.models
      model_options=dict(),  # fields of its Model
      task='semantic',  # a module of jaxseg.tasks: 'semantic' | 'instance'
      max_instances=100,  # for task='instance': objects of a training image; more are an error
      max_layers=4,  # for task='instance': of a map of overlapping objects; the rest is merged into the last
      min_area=1,  # for task='instance': pixels that an object must have to be learnt after cropping
      loss='softmax',  # 'softmax' | 'sigmoid' (two classes, one output) | 'softmax_dice'
      normalize='weights',  # what the summed loss is divided by: 'weights' | 'pixels' | 'sum' (nothing)
      class_weights=(),  # one a class; or 'median_frequency': computed from the training labels
      pixel_weights=False,  # use the weight map that the dataset carries (U-Net's border weight)
      aux_weight=0.4,  # of the auxiliary head's loss, where the model has one
      absent='skip',  # classes that never occur: 'skip' them in the means (FCN) | 'zero' (SegNet)
      # optimiser
      optimizer='adam',  # 'sgd' | 'caffe_sgd' | 'adam' | 'adamw'
      learning_rate=1e-3,
      schedule='constant',  # 'constant' | 'step' | 'poly' | 'cosine'
      schedule_steps=(),  # for 'step': where the rate is multiplied by schedule_factor
      schedule_factor=0.1,
      schedule_power=0.9,  # for 'poly'
      warmup_steps=0,  # linear from 0
      momentum=0.9,
      weight_decay=0.0,
      multipliers=(),  # (pattern of the parameter's name, rate multiplier, decay multiplier), first match
      clip_norm=0.0,  # of the gradient; 0 = off
      apply_if_finite=0,  # steps in a row with a loss or gradient of NaN or infinity that are skipped
      # before the run stops; 0 = it stops at the first
      # evaluation and records of the run
      eval_every=500,
      eval_batch_size=0,  # 0 = batch_size
      eval_scales=(
        1.0,
      ),  # the network sees images of this size; scores are at the labels' own size
      dice=False,  # also score the soft DICE of NVIDIA's U-Net (jaxseg.metrics.dice)
      seg=False,  # also score SEG of the Cell Tracking Challenge, where the data number their objects
      f_scores=dict(),  # class -> beta: also score these F-measures (Lyft's: Roads 0.5, Vehicles 2)
      population_pass=False,  # recompute BN's population statistics over the training set (SegNet)
      log_every=20,
      checkpoint_every=500,
      keep=2,  # newest checkpoints kept, beside the best
      wandb='',  # project of Weights & Biases that gets metrics and pictures too (extra 'wandb'); '' = off
      figures=6,  # validation images drawn at every evaluation
      paper=None,  # what was published: dict(params=..., mean_iou=..., source='arXiv:..., table ...')
    ),
    type_safe=False,  # class_weights is a tuple or a word; overrides are checked in `override`
  )


def variants(argument: str | None, **defaults: Any) -> SimpleNamespace:
  """Parses what stands after the config's colon.

  Args:
    argument: for example 'basic,small' or 'nvidia,fold=3'; None or '' is the bare config.
    **defaults: the variants that exist; a bool is switched on by its bare name, others by name=value.

  Returns:
    A namespace with a value for every default.

  Raises:
    UserError: an unknown variant, naming those that exist.
  """
  chosen = dict(defaults)
  for item in filter(None, (argument or '').split(',')):
    name, equals, value = item.strip().partition('=')
    if name not in defaults or bool(equals) == isinstance(defaults[name], bool):
      allowed = ', '.join(k if isinstance(v, bool) else f'{k}=...' for k, v in defaults.items())
      raise UserError(
        f'unknown variant {item!r}; this config has: {allowed}{_did_you_mean(name, defaults)}'
      )
    chosen[name] = _parse(name, value, defaults[name]) if equals else True
  return SimpleNamespace(**chosen)


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """Reads `path/to/config.py[:variant]`, applies 'key=value' overrides and locks the result.

  Raises:
    UserError: no such file, variant or key, or a value of the wrong type.
  """
  path, _, argument = spec.partition(':')
  if not Path(path).is_file():
    near = sorted(str(p) for p in Path(path).parent.glob('*.py'))
    raise UserError(f'no config file {path!r}{_did_you_mean(path, near)}')
  module_spec = importlib.util.spec_from_file_location(f'jaxseg_config_{Path(path).stem}', path)
  module = importlib.util.module_from_spec(module_spec)
  try:
    module_spec.loader.exec_module(module)
    config = module.get_config(argument or None)
  except UserError as e:
    raise UserError(f'{path}: {e}') from None
  except Exception as e:  # it is the user's own code
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == path]
    where = f'{path}, line {lines[-1]}' if lines else path
    raise UserError(f'{where}: {type(e).__name__}: {" ".join(str(e).split())}') from e
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'{path}: get_config returned {config!r}: return what jaxseg.config.base() gave'
    )
  for assignment in overrides:
    override(config, assignment)
  return validate(config).lock()


def override(config: ConfigDict, assignment: str) -> None:
  """Applies one 'key=value' or 'options.key=value', converted to the type that the key has.

  Raises:
    UserError: an unknown key, or a value that does not fit.
  """
  key, equals, text = assignment.partition('=')
  if not equals:
    raise UserError(f'--config.{key} needs a value: --config.{key}=...')
  *groups, name = key.split('.')
  target = config
  for group in groups:
    if group not in target or not isinstance(target[group], ConfigDict):
      raise UserError(f'unknown config key {key!r}{_did_you_mean(group, list(target))}')
    target = target[group]
  open_group = bool(groups)  # options are checked by what they are passed to
  if name not in target and not open_group:
    raise UserError(f'unknown config key {key!r}{_did_you_mean(name, list(target))}')
  if name in target and isinstance(target[name], ConfigDict):
    raise UserError(f'{key!r} is a group: set one of its keys, --config.{key}.NAME=value')
  like = base().get(name) if not groups else target.get(name)  # a file may hold a word for a tuple
  value = _parse(key, text, like)
  target[name] = value


def _parse(key: str, text: str, like: Any) -> Any:
  """Converts text to the type of `like`; None means "whatever Python reads it as"."""
  try:
    if isinstance(like, bool):
      return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if isinstance(like, int):
      return int(text)
    if isinstance(like, float):
      return float(text)
    if isinstance(like, str):
      return text
    try:
      value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
      value = text
    if key in _NAMES and isinstance(value, str):
      return tuple(filter(None, value.split(',')))
    if isinstance(like, (tuple, list)) and not isinstance(value, str):
      return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value
  except (KeyError, ValueError):
    kind = 'true or false' if isinstance(like, bool) else f'a value of type {type(like).__name__}'
    raise UserError(f'--config.{key}={text}: expected {kind}, as in {like!r}') from None


_CHOICES = dict(
  dtype=('float32', 'bfloat16'),
  parallel=('pmap', 'mesh'),
  channel_order=('rgb', 'bgr'),
  loss=('softmax', 'sigmoid', 'softmax_dice'),
  normalize=('weights', 'pixels', 'sum'),
  absent=('skip', 'zero'),
  optimizer=('sgd', 'caffe_sgd', 'adam', 'adamw'),
  schedule=('constant', 'step', 'poly', 'cosine'),
)
_NAMES = ('init_new', 'init_unused', 'init_ignore')  # tuples of words: a,b
_NUMBERS = 'mean std crop scale eval_scales short_side schedule_steps class_weights'.split()
_NOT_NEGATIVE = (
  'seed learning_rate momentum weight_decay clip_norm warmup_steps aux_weight eval_batch_size '
  'remember_mb figures apply_if_finite data_timeout'
)
_POSITIVE = 'num_steps batch_size accumulate num_classes channels log_every eval_every checkpoint_every keep num_threads max_instances max_layers min_area long_side'


def validate(config: ConfigDict) -> ConfigDict:
  """Checks what can be checked without data. Raises UserError naming the key and what it may be."""
  unknown = sorted(set(config) - set(base()))
  if unknown:
    raise UserError(f'unknown config key {unknown[0]!r}{_did_you_mean(unknown[0], list(base()))}')
  _check_types(config)
  for key, allowed in _CHOICES.items():
    if config[key] not in allowed:
      raise UserError(f'config.{key}={config[key]!r}: choose one of {", ".join(allowed)}')
  for key in _POSITIVE.split():
    if config[key] < 1:
      raise UserError(f'config.{key}={config[key]}: must be at least 1')
  for key in _NOT_NEGATIVE.split():
    if config[key] < 0:
      raise UserError(f'config.{key}={config[key]}: must not be negative')
  if min(config.std) <= 0:
    raise UserError(f'config.std={config.std}: every value must be above 0')
  if not config.eval_scales or min(config.eval_scales) <= 0:
    raise UserError(f'config.eval_scales={config.eval_scales}: one or more factors above 0')
  if config.batch_size % config.accumulate:
    raise UserError(
      f'config.batch_size={config.batch_size} does not divide into accumulate={config.accumulate} parts'
    )
  for key in ('mean', 'std'):
    if len(config[key]) != config.channels:
      raise UserError(
        f'config.{key}={config[key]}: one value for each of {config.channels} channels'
      )
  if not set(config.init_ignore) <= {'mean', 'std', 'channel_order', 'network'}:
    known = 'some of mean, std, channel_order, network'
    raise UserError(f'config.init_ignore={config.init_ignore}: {known}')
  if config.crop and (len(config.crop) != 2 or min(config.crop) < 1):
    raise UserError(f'config.crop={config.crop}: (height, width) in pixels, or () for whole images')
  for key in ('image_size', 'pad'):
    if config[key] and (len(config[key]) != 2 or min(config[key]) < 1):
      raise UserError(f'config.{key}={config[key]}: (height, width) in pixels, or () for none')
  if config.image_size and config.resize:
    raise UserError(f'config.image_size={config.image_size}: set resize=0, sizes are fixed already')
  if config.short_side and (config.task != 'instance' or config.resize or config.image_size):
    raise UserError(
      f"config.short_side={config.short_side}: only for task='instance', without resize or image_size"
    )
  if config.short_side and (
    min(config.short_side) < 1 or max(config.short_side) > config.long_side
  ):
    raise UserError(
      f'config.short_side={config.short_side}: sides from 1 to config.long_side={config.long_side}'
    )
  weights = config.class_weights
  if weights and not isinstance(weights, str) and (min(weights) < 0 or not any(weights)):
    raise UserError(f'config.class_weights={weights}: none below 0, and not all 0')
  if isinstance(weights, str):
    if weights != 'median_frequency':
      raise UserError(f"config.class_weights={weights!r}: a tuple of numbers or 'median_frequency'")
  elif weights and len(weights) != config.num_classes:
    raise UserError(
      f'config.class_weights has {len(weights)} values for {config.num_classes} classes'
    )
  if config.loss == 'sigmoid' and config.num_classes != 2:
    raise UserError(
      f"config.loss='sigmoid' is for 2 classes, not {config.num_classes}: use 'softmax'"
    )
  return config


def _check_types(config: ConfigDict) -> None:
  """Refuses values of another type than the key's default; a config file may hold any."""
  for key, default in base().items():
    if key not in config:
      raise UserError(f'the config has no key {key!r}: start from jaxseg.config.base()')
    value = config[key]
    if key == 'class_weights' and isinstance(value, str):
      continue  # a word, checked by `validate`
    if default is None or isinstance(default, ConfigDict):
      fits = isinstance(value, ConfigDict) or value is default
    elif isinstance(default, (bool, str)):
      fits = isinstance(value, type(default))
    elif isinstance(default, tuple):
      fits = isinstance(value, (tuple, list))
    else:
      kind = numbers.Integral if isinstance(default, int) else numbers.Real
      fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if fits and key in _NUMBERS:
      fits = all(isinstance(v, numbers.Real) and math.isfinite(v) for v in value)
    if not fits:
      kind = (
        'a tuple of numbers' if key in _NUMBERS else f'a value of type {type(default).__name__}'
      )
      raise UserError(f'config.{key}={value!r}: expected {kind}, as in {default!r}')


def to_json(config: ConfigDict) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ConfigDict:
  """Reads what `to_json` wrote; keys added to the project since then get their defaults."""
  config = base()
  for key, value in json.loads(text).items():
    config[key] = ConfigDict(_tuples(value)) if isinstance(value, dict) else _tuples(value)
  return config.lock()


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Returns {key: (old, new)} for the keys that matter to a run and differ."""
  a, b = (json.loads(to_json(c)) for c in (old, new))
  keys = set(a) | set(b)
  found = {k: (a.get(k), b.get(k)) for k in sorted(keys - FREE_KEYS) if a.get(k) != b.get(k)}
  if set(found) == {'num_steps'} and new.schedule == 'constant':
    return {}  # longer or shorter, every step that both take is the same
  return found


def _tuples(value: Any) -> Any:
  if isinstance(value, list):
    return tuple(_tuples(v) for v in value)
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  return value


def _did_you_mean(name: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f'; did you mean {close[0]!r}?' if close else ''
