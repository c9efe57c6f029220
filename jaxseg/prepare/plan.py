"""A ready config for a user's own folder, with all settings derived from the data.

The rules, open to debate: The network is a same-padding U-Net with batch norm, unless another is asked
for. Its crop is the median image, at most 512 pixels a side (128 without an accelerator), rounded down
to a size that the network takes; if that is less than half of the shorter side, images are first scaled
by a half, so that a crop shows enough context. The batch is the largest power of two, at most 16 (8
without an accelerator) and at most the number of training images, whose step fits in half of the
device's memory; if a single image does not fit, the crop is halved. Training sees the pixels of 100
epochs, in at least 200 steps and at most 20,000 (1,000). Class weights are those of survey.Survey.
Outlined objects get Mask R-CNN, by the rules of objects.py, unless another network is asked for.

Unusable files do not stop planning: they are listed, and the plan is made from the others.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from jaxseg import console, files
from jaxseg.prepare import config_text, objects, own_data
from jaxseg.prepare.config_text import Plan
from jaxseg.prepare.own_data import Request
from jaxseg.prepare.recipe import NETWORKS, OBJECTS, Machine, machine, make_recipe
from jaxseg.prepare.survey import survey
from jaxseg.types import UserError

_SHOWN = 6  # files in a list


def plan(request: Request, output: str | Path, *, overwrite: bool = False) -> Plan:
  """Inspects a folder and writes a config file that trains on it as it is.

  Args:
    request: where the data are and how to use them.
    output: the new Python file.
    overwrite: whether an existing file may be replaced.

  Returns:
    The plan that was written.

  Raises:
    UserError: the folder cannot be used, or the file cannot be written.
  """
  file = files.to_path(output)
  if file.exists() and not overwrite:
    raise UserError(f'--output={output} exists: choose another name, or add --overwrite')
  if file.suffix != '.py' or not file.absolute().parent.is_dir():
    raise UserError(f'--output={output}: give a name ending in .py in a folder that exists')
  if request.model and request.model not in NETWORKS:
    raise UserError(f'--model={request.model}: choose one of {", ".join(NETWORKS)}')
  made = make_plan(request, machine())
  files.to_utf8_path(made.data.root)  # the config, which names it, is a text in UTF-8
  command = _command(file, made)
  try:
    files.write_text(file, config_text.write(made, command), replace=overwrite)
  except OSError as error:
    raise UserError(f'--output={output}: {error.strerror}; choose another folder') from None
  console.say(*_description(made).splitlines(), *made.data.warnings, *_bad(made))
  console.say(f'written to {file}; look at it, then', f'  {command}')
  return made


def make_plan(request: Request, device: Machine) -> Plan:
  """Derives the plan for a folder on a device by the rules above."""
  data = own_data.find(request)
  source, problems = data.usable('train')
  train = survey(source, 'reading train')
  if not train.histogram.counts.any():
    raise UserError(f'all masks of {data.root} are void (255): nothing can be learnt')
  least = 1e-6 if data.pixels['dtype'] == 'float32' else 1.0
  network, counts = request.model or ('unet', OBJECTS)[data.tells_objects], ()
  if network == OBJECTS:
    recipe, counts = objects.make_recipe(source, device)
  else:
    recipe = make_recipe(train, device, network)
  return Plan(
    data=data,
    images=len(source),
    sizes=train.sizes_text(),
    class_names=source.class_names,
    weights=train.class_weights,
    mean=_rounded(train.channels.mean),
    std=_rounded(np.maximum(train.channels.std, least)),
    machine=device,
    recipe=recipe,
    counts=counts,
    folds=request.folds,
    problems=problems,
  )


def _rounded(values: np.ndarray) -> tuple[float, ...]:
  """Rounds numbers to two decimals, those below 1 to six significant digits."""
  return tuple(float(f'{v:.6g}') if abs(v) < 1 else round(v, 2) for v in values.tolist())


def _bad(made: Plan) -> list[str]:
  """Returns lines about files that training will refuse."""
  if not made.problems:
    return []
  more = len(made.problems) - _SHOWN
  lines = [f'bad       {problem}' for problem in made.problems[:_SHOWN]]
  lines += (
    [f'bad       {more} more: {console.command("data")} check lists them'] if more > 0 else []
  )
  return [*lines, 'bad       repair these files, or name them in config.data.options.without']


def _command(file: Path, made: Plan) -> str:
  fold = ':fold=0' if made.folds else ''
  config, workdir = (shlex.quote(f'{p}') for p in (f'{file}{fold}', f'{file.with_suffix("")}_run'))
  return f'{console.command("train")} --config={config} --workdir={workdir}'


def _description(made: Plan) -> str:
  recipe, device, data = made.recipe, made.machine, made.data
  seen = {1: '', 0.5: ' of halved images', 2: ' of doubled images'}.get(
    recipe.scale, f' of images at scale {recipe.scale:g}'
  )
  classes = zip(made.class_names, made.counts or made.weights, strict=True)
  classes = ', '.join(f'{name} {number:.4g}' for name, number in classes)
  options = ', '.join(f'{k} {v}' for k, v in recipe.model.items() if k != 'name')
  test = f', {data.counts["test"]} for testing' if data.counts.get('test') else ''
  size = config_text.size
  return f"""\
found     {data.words}
folder    {data.root}: {made.images} training images, {made.sizes}; {data.counts.get('val', 0)} for \
validation{test}
classes   {classes} ({'objects' if made.counts else 'weights'})
pixels    {len(made.mean)} channels of {data.pixels['dtype']}, mean {made.mean}, std {made.std}
device    {device.count} x {device.kind}, {size(device.memory)} each; a step takes about \
{size(recipe.step_bytes)}
training  {recipe.model['name']} ({options}), crop {recipe.crop}{seen}, batch {recipe.batch_size}, \
{recipe.num_steps} steps"""
