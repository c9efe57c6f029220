"""A ready config for a user's own folder: the data decide everything that training needs to know.

The rules, so that they can be argued with. The network is a same-padding U-Net with batch norm. Its
crop is the median image, at most 512 pixels a side (128 without an accelerator), rounded down to what
the network takes; where that is less than half of the shorter side, images are halved first, so that
a crop shows enough around a pixel. The depth keeps four pixels or more at the bottom. The batch is
the largest power of two, at most 16 (8 without an accelerator) and at most the training images,
whose step fits half of the device's memory; where one image does not fit, the crop is halved.
Training sees as many pixels as 100 epochs hold, in at least 200 steps and at most 20,000 (1,000).
Classes weigh by the square root of median frequency, cut to 0.1 .. 10: of few images the full
weights drown the common classes (20 CamVid frames, 200 steps: mean IoU 0.25 with them, 0.30 so).
"""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.data import image_files, statistics, threads
from jaxseg.data.archives import data_root
from jaxseg.datasets import folder
from jaxseg.prepare.recipe import Machine, Recipe, machine, make_recipe
from jaxseg.prepare.survey import survey
from jaxseg.types import UserError

_WEIGHT_LIMITS = (0.1, 10.0)
_SHOWN = 6  # ids in a warning


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything that the written config says; `options` are of the dataset, mean and std in 0..255."""

  folder: Path
  options: dict[str, Any]
  images: int
  held_out: int
  sizes: str
  class_names: tuple[str, ...]
  weights: tuple[float, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  machine: Machine
  recipe: Recipe


def plan(source_folder: str | Path, output: str | Path, *, overwrite: bool = False) -> Plan:
  """Looks at a folder of images and masks and writes a config file that trains on it as it is.

  Args:
    source_folder: DIR/{train,val}/{images,masks} or DIR/{images,masks} (see datasets.folder).
    output: the new Python file.
    overwrite: whether a file that is there may be replaced.

  Returns:
    What was written.

  Raises:
    UserError: the folder cannot be used, or the file cannot be written.
  """
  file = Path(output).expanduser()
  if file.exists() and not overwrite:
    raise UserError(f'--output={output} exists: choose another name, or add --overwrite')
  if file.suffix != '.py' or not file.absolute().parent.is_dir():
    raise UserError(f'--output={output}: give a name ending in .py in a folder that exists')
  made = make_plan(data_root(source_folder).absolute(), machine())
  try:
    with files.whole_file(file) as part:
      part.write_text(config_text(made, file), encoding='utf-8')
  except OSError as error:
    raise UserError(f'--output={output}: {error.strerror}; choose another folder') from None
  print(_description(made), *doubts(made.folder), sep='\n')
  print(f'written to {file}; look at it, then\n  {_command(file)}')
  return made


def make_plan(root: Path, device: Machine) -> Plan:
  """Derives the plan for a folder on a device; see the module's text for the rules."""
  for split in ('train', 'val'):
    folder.list_pairs(root, split)  # what is missing is said before anything is read
  options = _options(root)
  source = folder.source('train', data_dir=root, **options)
  train = survey(source, 'reading train')
  if not train.histogram.counts.any():
    raise UserError(f'all masks of {root} are void (255): nothing can be learnt')
  mean, std = statistics.moments(train.channels)
  weights = np.sqrt(statistics.median_frequency_weights(train.histogram))
  weights = np.where(weights > 0, np.clip(weights, *_WEIGHT_LIMITS), 0.0)
  return Plan(
    folder=root,
    options=options,
    images=len(source),
    held_out=len(folder.list_pairs(root, 'val')),
    sizes=train.sizes_text(),
    class_names=source.class_names,
    weights=tuple(round(float(w), 4) for w in weights),
    mean=tuple(round(float(v), 2) for v in mean),
    std=tuple(round(max(float(v), 1.0), 2) for v in std),
    machine=device,
    recipe=make_recipe(train, device),
  )


def config_text(made: Plan, file: Path) -> str:
  """Returns the text of the config file."""
  recipe, device = made.recipe, made.machine
  options = ', '.join(f'{k}={v!r}' for k, v in made.options.items())
  every, resize, scales = max(recipe.num_steps // 4, 1), '', ')'
  if recipe.scale != 1:
    resize = (
      f"\n    ('resize', dict(scale={recipe.scale})),  # the network sees images of this scale,"
    )
    scales = f', scales=({recipe.scale},))  # also to predict; masks have the size of the images'
  return f'''"""A U-Net on {_quotable(made.folder)}: {made.images} training images, {len(made.class_names)} classes.

    {_quotable(_command(file))}

Written by launch/data.py plan for {device.count} x {device.kind}. Images (height x width):
{made.sizes}. Classes: {_quotable(', '.join(made.class_names))}.
Every option is explained where it is received; jaxseg/config/__init__.py lists the places.
"""

from jaxseg.config import base, variants


def get_config(variant=None):
  variants(variant)
  config = base()
  config.data_dir = {str(made.folder)!r}
  config.num_classes = {len(made.class_names)}
  config.num_steps = {recipe.num_steps}
  config.batch_size = {recipe.batch_size}  # a step takes about {_size(recipe.step_bytes)}

  config.data = dict(
    name='folder',
    options=dict({options}),
    mean={made.mean},  # of the training images
    std={made.std},
  )
  config.augment = ({resize}
    ('crop', dict(size={recipe.crop}, scale=(0.75, 1.5))),
    ('flip', {{}}),  # left-right: leave it out where it changes the meaning, as with letters
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model = dict(
    name='unet', width={recipe.width}, depth={recipe.depth}, padding='same', batch_norm=True, dropout_rate=0.2
  )
  config.loss = dict(class_weights={made.weights})  # roots of median frequency
  config.optim = dict(
    name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps={min(50, recipe.num_steps // 10)}
  )
  config.eval = dict(every={every}, batch_size={recipe.eval_batch_size}{scales}
  config.log = dict(checkpoint_every={every})
  return config
'''


def _options(root: Path) -> dict[str, Any]:
  """Returns the options of the folder dataset that say what its files do not say by themselves."""
  options: dict[str, Any] = {}
  known = folder.resolve_classes(root)
  if not (root / 'classes.txt').is_file():
    options['classes'] = known.names
  if (255, 1) in known.ids:
    options['binary'] = True
  raws = [raw for split in folder.present_splits(root) for raw in folder.list_pairs(root, split)]
  modes = list(threads.results(image_files.mode, [raw.image for raw in raws], name=str))
  if all(mode in ('1', 'L', 'LA') or mode.startswith('I') for mode in modes):
    options['channels'] = 1
  deep = [raw.image for raw, mode in zip(raws, modes, strict=True) if mode.startswith('I')]
  if deep:
    brightest = threads.results(
      lambda p: np.asarray(image_files.open_image(p)).max(), deep, name=str
    )
    white = (1 << max(int(max(brightest)), 1).bit_length()) - 1
    options['white'] = min(max(white, 255), 65535)
  return options


def doubts(root: Path) -> list[str]:
  """Returns warnings about mask ids that look like slips, where nothing lists the classes."""
  ids_of = {} if (root / 'classes.txt').is_file() else folder.scan_ids(root)
  counts = Counter(i for ids in ids_of.values() for i in ids)
  if counts.keys() <= {0, 255}:
    return []
  classes = sorted(counts.keys() - {255})
  absent = [str(k) for k in range(classes[-1]) if k not in counts]
  files_of = {i: file for file, ids in ids_of.items() for i in ids}
  once = [f'{k} ({files_of[k]})' for k in classes if counts[k] == 1]
  return [
    f'warning   {what}: {", ".join(ids[:_SHOWN])}{", ..." * (len(ids) > _SHOWN)}; correct slips and '
    'plan again'
    for what, ids in (('ids in no mask, below others', absent), ('ids in one mask only', once))
    if ids
  ]


def _size(count: int) -> str:
  return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{max(count / 1e6, 1):.0f} MB'


def _command(file: Path) -> str:
  config, workdir = (shlex.quote(str(p)) for p in (file, f'{file.with_suffix("")}_run'))
  return f'python launch/train.py --config={config} --workdir={workdir}'


def _quotable(text: Any) -> str:
  """Returns what stands for the text inside a triple-quoted string."""
  return str(text).replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')


def _description(made: Plan) -> str:
  recipe, device, classes = (
    made.recipe,
    made.machine,
    zip(made.class_names, made.weights, strict=True),
  )
  halved = ' of halved images' if recipe.scale != 1 else ''
  return f"""\
folder    {made.folder}: {made.images} training images, {made.sizes}; {made.held_out} for validation
classes   {', '.join(f'{name} {weight:.3g}' for name, weight in classes)} (weights)
pixels    {len(made.mean)} channels, mean {made.mean}, std {made.std}
device    {device.count} x {device.kind}, {_size(device.memory)} each; a step takes about {_size(recipe.step_bytes)}
training  U-Net of width {recipe.width} and depth {recipe.depth}, crop {recipe.crop}{halved}, \
batch {recipe.batch_size}, {recipe.num_steps} steps"""
