"""A plan, and the config file generated from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxseg.prepare.own_data import OwnData
from jaxseg.prepare.recipe import Machine, Recipe

_WIDTH = 96


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything that the generated config states.

  Attributes:
    data: the dataset and its options.
    images: number of training images.
    sizes: of these images, in words.
    class_names, weights: one per class.
    mean, std: one per channel, in the images' units.
    counts: training objects of each class; () for semantic segmentation.
    folds: see own_data.Request.
    problems: a line for each unusable file.
  """

  data: OwnData
  images: int
  sizes: str
  class_names: tuple[str, ...]
  weights: tuple[float, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  machine: Machine
  recipe: Recipe
  counts: tuple[int, ...] = ()
  folds: int = 0
  problems: tuple[str, ...] = ()


def write(made: Plan, command: str) -> str:
  """Returns the file's text; `command` is the command that trains with it."""
  recipe = made.recipe
  lines = [
    '"""' + '\n'.join(_about(made, command)),
    '"""',
    '',
    'from jaxseg.config import base, variants',
    '',
    '',
    'def get_config(variant=None):',
    '  chosen = variants(variant, fold=0)' if made.folds else '  variants(variant)',
    '  config = base()',
    *["  config.task = 'instance'"] * bool(recipe.objects),
    f'  config.data_dir = {str(made.data.root)!r}',
    f'  config.num_classes = {len(made.class_names)}',
    f'  config.num_steps = {recipe.num_steps}',
    f'  config.batch_size = {recipe.batch_size}  # a step takes about {size(recipe.step_bytes)}',
    '',
    *_assigned('data', _data(made)),
    '  config.augment = (',
    *_transforms(recipe),
    '  )',
    *(line for name, group in _groups(made).items() for line in _assigned(name, group)),
    '  return config',
    '',
  ]
  return '\n'.join(lines)


def _about(made: Plan, command: str) -> list[str]:
  """Returns the lines of the file's docstring."""
  device, count = made.machine, len(made.class_names)
  lines = [
    f'{made.recipe.model["name"]} on {_quotable(made.data.root)}: {made.images} training images, '
    f'{count} classes.',
    '',
    f'    {_quotable(command)}',
    '',
  ]
  if made.folds:
    lines += [f':fold=K  part K of {made.folds} is held out, from 0 to {made.folds - 1}.', '']
  return [
    *lines,
    f'Written by launch/data.py plan for {device.count} x {device.kind}: {_quotable(made.data.words)}.',
    f'Images (height x width): {made.sizes}. Classes: {_quotable(", ".join(made.class_names))}.',
    'Every option is explained where it is received; jaxseg/config/__init__.py lists the places.',
  ]


def _data(made: Plan) -> dict[str, Any]:
  options = made.data.options | ({'fold': _Code('chosen.fold')} if made.folds else {})
  dtype = {'dtype': made.data.pixels['dtype']} if made.data.pixels['dtype'] != 'uint8' else {}
  return {
    'name': made.data.dataset,
    'options': options,
    **dtype,
    'mean': made.mean,
    'std': made.std,
  }


def _transforms(recipe: Recipe) -> list[str]:
  steps = [
    ('crop', {'size': recipe.crop, 'scale': (0.75, 1.5)}, ''),
    ('flip', {}, _FLIP),
    ('photometric', {'brightness': 0.2, 'contrast': 0.2}, ''),
  ]
  if recipe.scale != 1:
    steps.insert(0, ('resize', {'scale': recipe.scale}, 'the network sees images of this scale,'))
  return [f'    ({n!r}, {_dict(g)}),{f"  # {note}" if note else ""}' for n, g, note in steps]


def _groups(made: Plan) -> dict[str, dict[str, Any]]:
  recipe = made.recipe
  every = max(recipe.num_steps // 4, 1)
  evaluation = {'every': every, 'batch_size': recipe.eval_batch_size}
  if recipe.scale != 1:  # also to predict; masks have the size of the images
    evaluation['scales'] = (recipe.scale,)
  if recipe.score:
    evaluation['score'] = recipe.score
  return {
    'model': recipe.model,
    'loss': recipe.objects or {'class_weights': made.weights},
    'optim': {
      'name': 'adam',
      'learning_rate': recipe.learning_rate,
      'schedule': 'cosine',
      'warmup_steps': min(50, recipe.num_steps // 10),
    }
    | recipe.optim,
    'eval': evaluation,
    'log': {'checkpoint_every': every},
  }


_FLIP = 'left-right: leave it out where it changes the meaning, as with letters'


class _Code(str):
  """Source code that is written to the file verbatim."""

  def __repr__(self) -> str:
    return str(self)


def _assigned(name: str, group: Mapping[str, Any]) -> list[str]:
  """Returns the lines that set a group, one key per line if a single line would be too long."""
  line = f'  config.{name} = {_dict(group)}'
  if len(line) <= _WIDTH:
    return [line]
  keys = (f'    {key}={_value(value)},' for key, value in group.items())
  return [f'  config.{name} = dict(', *keys, '  )']


def _dict(values: Mapping[str, Any]) -> str:
  return f'dict({", ".join(f"{k}={_value(v)}" for k, v in values.items())})' if values else '{}'


def _value(value: Any) -> str:
  return _dict(value) if isinstance(value, Mapping) else repr(value)


def size(count: int) -> str:
  """Returns a number of bytes as text such as '1.5 GB'."""
  return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{max(count / 1e6, 1):.0f} MB'


def _quotable(text: Any) -> str:
  """Escapes text for a triple-quoted string."""
  return str(text).replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')
