"""An export's card, in JSON: its files, how to use them and until when they load."""

from __future__ import annotations

import calendar
import datetime
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import __version__
from jaxseg.export.folder import FORMAT
from jaxseg.predict import result_file
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes
from jaxseg.types import VOID, Array

PLATFORMS = ('cpu', 'cuda', 'tpu')
BACKWARD_MONTHS = 6  # https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees
_MEANINGS = {
  'boxes': 'x0, y0, x1, y1 in pixels of the image; clip them to it last',
  'scores': 'falling; 0: nothing in this row',
  'masks': 'probabilities inside of the box: resize to it, cut at 0.5',
}


def make_card(experiment: Experiment, classes: Classes) -> dict[str, Any]:
  """Returns the entries that do not depend on checkpoint and programs."""
  preprocess, data, options = experiment.preprocess, experiment.data, experiment.eval
  resize = 'to {} x {}'.format(*data.image_size) if data.image_size else ''
  if options.short_side:
    resize = f'shorter side {options.short_side}, longer at most {options.long_side}'
  entries = zip(classes.names, classes.palette, strict=True)
  rule = experiment.model().size_rule
  mirrored = rule.margin > 0 if options.mirror_border is None else options.mirror_border
  versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
  return {
    'format': FORMAT,
    'model': experiment.config['model'],
    'weights': 'weights.safetensors',
    'script': 'run.py',
    'input': {
      'dtype': data.dtype,
      'layout': 'batch, height, width, channels',
      'channels': data.channels,
    }
    | ({'channel_order': 'rgb'} if data.channels == 3 else {})
    | (_contrast(data.percentiles) if data.percentiles else {})
    | ({'resize': f'before the program: {resize} pixels, bilinear'} if resize else {}),
    'classes': [
      {'index': i, 'name': n, 'color': list(c)} | ({'id': classes.ids[i]} if classes.ids else {})
      for i, (n, c) in enumerate(entries)
    ],
    'void': VOID,
    'preprocessing': {
      'where': 'inside the programs: give the image as it is',
      'units': 'mean, std and border: those of the image',
      'mean': list(preprocess.mean),
      'std': list(preprocess.std),
      'network_channel_order': preprocess.channel_order,
      'scales': list(options.scales),
      'border': 'mirrored' if mirrored else f'colour {list(preprocess.fill)}',
      'network_sizes': vars(rule) | {'meaning': 'offset + multiple n, at least minimum'},
    },
    'paper': experiment.settings.paper,
    'config': _without_places(experiment.config),
    'versions': {'jaxseg': __version__} | versions,
    **_validity(datetime.date.today(), versions['jaxlib']),
  }


def _contrast(percentiles: tuple[float, float]) -> dict[str, Any]:
  how = 'before the program, by run.py: these percentiles of an image become 0 and the maximum of its dtype'
  return {
    'percentiles': list(percentiles),
    'contrast': how + ' (of float32: 1), values beyond are clipped',
  }


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parts of the config that define the network, without this machine's paths."""
  places = {key: '' for key in ('data_dir', 'cache_dir', 'mirror', 'init_from', 'compile_cache')}
  return {**config, **places, 'init': {}, 'log': {}, 'data': {**config['data'], 'options': {}}}


def _validity(today: datetime.date, jaxlib: str) -> dict[str, Any]:
  return {
    'exported': today.isoformat(),
    'valid_until': {
      'date': months_later(today, BACKWARD_MONTHS).isoformat(),
      'how': f'day of export + {BACKWARD_MONTHS} months. jax.export promises that a JAX built up to '
      f'{BACKWARD_MONTHS} months after the exporting jaxlib ({jaxlib}) runs the programs; a wheel '
      'does not tell when it was built, so where an older jaxlib exported, its release day + 6 months '
      'counts. Weights, ONNX and MLIR do not expire: launch/export.py --renew=FOLDER exports again.',
    },
  }


def months_later(day: datetime.date, months: int) -> datetime.date:
  """Returns the same day of a later month, or its last one: 31 August + 6 months is 28 February."""
  years, month = divmod(day.month - 1 + months, 12)
  year, month = day.year + years, month + 1
  return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def describe_outputs(rows: Mapping[str, Array], size: tuple[int, int]) -> dict[str, str]:
  """Describes the outputs for images of `size`: dtype, shape and meaning."""
  described = {}
  for name, row in rows.items():
    is_map = row.shape[1:3] == tuple(size)
    sides = ['batch', *(('height', 'width') if is_map else row.shape[1:3]), *row.shape[3:]]
    meaning = f', {_MEANINGS[name]}' if name in _MEANINGS else ''
    described[name] = f'{row.dtype} [{", ".join(map(str, sides))}]{meaning}'
  return described


def read_metrics(workdir: Path) -> dict[str, Any]:
  """Returns the scores of every eval/<split>.json, without the confusion matrices."""
  metrics = {}
  for name, result in result_file.read_all(workdir).items():
    metrics[name] = {k: v for k, v in result.items() if k not in ('confusion', 'split')}
  return metrics
