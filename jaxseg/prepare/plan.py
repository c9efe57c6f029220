"""A ready config for a user's own folder: the data decide everything that training needs to know.

The rules, so that they can be argued with. The network is a same-padding U-Net with batch norm. Its
crop is the median image, at most 512 pixels a side (128 without an accelerator), rounded down to what
the network takes; where that is less than half of the shorter side, images are halved first, so that
a crop shows enough around a pixel. The depth keeps four pixels or more at the bottom. The batch is
the largest power of two, at most 16 (8 without an accelerator) and at most the training images,
whose step fits half of the device's memory; where one image does not fit, the crop is halved.
Training sees as many pixels as 100 epochs hold, in at least 200 steps and at most 20,000 (1,000).
Classes weigh by the square root of median frequency, cut to 0.1 .. 10: of few images the whole
weights drown the common classes (20 CamVid frames, 200 steps: mean IoU 0.25 with them, 0.30 so).
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import cache, image_files, statistics, threads
from jaxseg.datasets import data_root, folder
from jaxseg.models import unet
from jaxseg.prepare import check
from jaxseg.types import SizeRule, UserError

_SHARE = 0.5  # of the device's memory that a step may take
_WORKSPACE = 1.5  # gradients of activations and the compiler's buffers, beside what is kept
_STATES = 4  # float32 copies of the parameters: themselves, gradient, two of Adam's
_WEIGHT_LIMITS = (0.1, 10.0)


@dataclasses.dataclass(frozen=True)
class Machine:
  """What the plan needs to know of the device: its kind, count and memory in bytes (of one)."""

  kind: str
  count: int
  memory: int
  is_accelerator: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything that the written config says; sizes in pixels, mean and std in 0..255."""

  folder: Path
  machine: Machine
  images: int
  held_out: int
  sizes: str
  options: dict[str, Any]
  num_classes: int
  class_names: tuple[str, ...]
  channels: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  weights: tuple[float, ...]
  width: int
  depth: int
  resize: float
  crop: tuple[int, int]
  batch_size: int
  eval_batch_size: int
  num_steps: int
  step_bytes: int


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
  text = config_text(made, file)
  try:
    cache.write_text(file, text)
  except OSError as error:
    raise UserError(f'--output={output}: {error.strerror}; choose another folder') from None
  for line in (*_described(made), *doubts(made.folder)):
    print(line)
  print(f'written to {file}; look at it, then\n  {_command(file)}')
  return made


def machine() -> Machine:
  """Returns this process's devices; without an accelerator the memory is the system's."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return Machine('CPU', 1, memory, is_accelerator=False)
  memory = (device.memory_stats() or {}).get('bytes_limit', 16 << 30)
  return Machine(device.device_kind, jax.local_device_count(), memory, is_accelerator=True)


def make_plan(root: Path, device: Machine) -> Plan:
  """Derives the plan for a folder on a device; see the module's text for the rules."""
  for split in ('train', 'val'):
    folder.list_pairs(root, split)  # told at once, before anything is read
  options = _options(root)
  source = folder.source('train', data_dir=root, **options)
  found = check.survey(source, 'reading train')
  if not found.histogram.counts.any():
    raise UserError(f'all masks of {root} are void (255): nothing can be learnt')
  mean, std = statistics.moments(found.channels)
  weights = np.sqrt(statistics.median_frequency_weights(found.histogram))
  width = 32 if device.is_accelerator else 16
  largest = 512 if device.is_accelerator else 128
  sides = [float(v) for v in np.median([*found.sizes.elements()], axis=0)]
  resize = 0.5 if min(sides) > 2 * largest else 1.0
  sides = [resize * side for side in sides]
  images = found.histogram.num_images
  most = min(16 if device.is_accelerator else 8, max(images, 1))
  while True:
    depth, crop = fit_crop(sides, largest)
    model = unet.Model(source.num_classes, width=width, depth=depth, padding='same')
    fixed, each = step_bytes(model, crop, source.channels)
    budget = _SHARE * device.memory
    batch = _power_of_two(min(most, (budget - fixed) / each * device.count))
    if batch >= 1 or largest <= 32:
      break
    largest //= 2
  batch = max(batch, 1)
  biggest = max(h * w for h, w in found.sizes) * resize**2
  crops = images * max(math.prod(sides) / math.prod(crop), 1)  # that cover all images once
  whole = each * biggest / (crop[0] * crop[1]) / 2  # evaluation keeps nothing for a gradient
  return Plan(
    folder=root,
    machine=device,
    images=images,
    held_out=len(folder.list_pairs(root, 'val')),
    sizes=check.sizes_text(found.sizes),
    options=options,
    num_classes=source.num_classes,
    class_names=source.class_names,
    channels=source.channels,
    mean=tuple(round(float(v), 2) for v in mean),
    std=tuple(round(max(float(v), 1.0), 2) for v in std),
    weights=tuple(round(float(w), 4) if w else 0.0 for w in _cut(weights)),
    width=width,
    depth=depth,
    resize=resize,
    crop=crop,
    batch_size=batch,
    eval_batch_size=max(1, _power_of_two(min(batch, budget / whole))),
    num_steps=count_steps(crops, batch, is_accelerator=device.is_accelerator),
    step_bytes=int(fixed + each * batch / device.count),
  )


def fit_crop(sides: list[float], largest: int) -> tuple[int, tuple[int, int]]:
  """Returns the U-Net's depth and a crop (height, width) near `sides` that it takes."""
  limits = [min(int(side), largest) for side in sides]
  depth = min(max(int(math.log2(max(min(limits), 1) / 4)), 1), 4)
  rule = unet.Model(2, depth=depth, padding='same').size_rule
  return depth, tuple(_at_most(rule, side) for side in limits)


def count_steps(crops: float, batch_size: int, *, is_accelerator: bool) -> int:
  """Returns the steps of 100 epochs of crops in tens, within the limits of the module's text."""
  tens = round(10 * crops / batch_size)
  return min(max(10 * tens, 200), 20_000 if is_accelerator else 1000)


def step_bytes(model, crop: tuple[int, int], channels: int) -> tuple[int, int]:
  """Returns an estimate of a training step's memory: bytes whatever the batch, and for each image.

  The first are the parameters, their gradient and Adam's moments. The second is what JAX keeps of
  the forward pass for the backward pass (the residuals of jax.vjp, of shapes alone: nothing is
  computed), half as much again for gradients and buffers.
  """

  def residuals(batch: int) -> int:
    image = jax.ShapeDtypeStruct((batch, *crop, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def backward(variables, image):
      def forward(params):
        rngs = {'dropout': jax.random.key(0)}
        outputs, _ = model.apply(
          {**variables, 'params': params}, image, train=True, rngs=rngs, mutable=['batch_stats']
        )
        return outputs['logits']

      return jax.vjp(forward, variables['params'])[1]

    return _bytes(jax.eval_shape(backward, variables, image)), _bytes(variables['params'])

  (one, params), (two, _) = residuals(1), residuals(2)
  return _STATES * params, int(_WORKSPACE * (two - one))


def config_text(made: Plan, file: Path) -> str:
  """Returns the text of the config file."""
  options = ', '.join(f'{k}={v!r}' for k, v in made.options.items())
  names = _quotable(', '.join(made.class_names))
  every = max(made.num_steps // 4, 1)
  shrink = ''
  if made.resize != 1:
    shrink = f"""
  config.resize = {made.resize}  # the network sees images of this scale: to train on,
  config.eval_scales = ({made.resize},)  # and to predict; masks have the images' own size"""
  return f'''"""A U-Net on {_quotable(made.folder)}: {made.images} training images, {made.num_classes} classes.

    {_quotable(_command(file))}

Written by launch/data.py plan for {made.machine.count} x {made.machine.kind}. Images (height x width):
{made.sizes}. Classes: {names}.
Every key is explained in jaxseg/config.py.
"""

from jaxseg.config import base, variants


def get_config(variant=None):
  variants(variant)
  config = base()

  config.dataset = 'folder'
  config.data_dir = {str(made.folder)!r}
  config.dataset_options = dict({options})
  config.num_classes = {made.num_classes}
  config.channels = {made.channels}
  config.mean = {made.mean}  # of the training images
  config.std = {made.std}
  config.class_weights = {made.weights}  # roots of median frequency

  config.model = 'unet'
  config.model_options = dict(
    width={made.width}, depth={made.depth}, padding='same', batch_norm=True, dropout_rate=0.2
  ){shrink}
  config.crop = {made.crop}
  config.scale = (0.75, 1.5)
  config.flip = True  # left-right: switch it off where it changes the meaning, as with letters
  config.brightness = config.contrast = 0.2

  config.batch_size = {made.batch_size}  # a step takes about {_size(made.step_bytes)}
  config.eval_batch_size = {made.eval_batch_size}
  config.num_steps = {made.num_steps}
  config.optimizer = 'adam'
  config.learning_rate = 1e-3
  config.schedule = 'cosine'
  config.warmup_steps = {min(50, made.num_steps // 10)}
  config.eval_every = config.checkpoint_every = {every}
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
    highest = max(
      threads.results(lambda p: int(np.asarray(image_files.open_image(p)).max()), deep, name=str)
    )
    white = (1 << max(highest, 1).bit_length()) - 1
    options['white'] = min(max(white, 255), 65535)
  return options


def doubts(root: Path) -> list[str]:
  """Returns warnings about mask ids that look like slips, where nothing lists the classes."""
  found = {} if (root / 'classes.txt').is_file() else folder.scan_ids(root)
  counts = Counter(i for ids in found.values() for i in ids)
  if counts.keys() <= {0, 255}:
    return []
  classes = sorted(counts.keys() - {255})
  absent = [str(k) for k in range(classes[-1]) if k not in counts]
  once = [k for k in classes if counts[k] == 1]
  files = (next(file for file, ids in found.items() if k in ids) for k in once)
  named = [f'{k} ({file})' for k, file in zip(once, files, strict=True)]
  return [
    f'warning   {what}: {", ".join(ids[:6])}{", ..." * (len(ids) > 6)}; correct slips and plan again'
    for what, ids in (('ids in no mask, below others', absent), ('ids in one mask only', named))
    if ids
  ]


def _at_most(rule: SizeRule, size: int) -> int:
  """Returns the largest size that the rule allows and that is not above `size`, else its smallest."""
  return max(size - (size - rule.offset) % rule.multiple, rule.at_least(1))


def _power_of_two(number: float) -> int:
  return 1 << int(math.log2(number)) if number >= 1 else 0


def _cut(weights: np.ndarray) -> np.ndarray:
  return np.where(weights > 0, np.clip(weights, *_WEIGHT_LIMITS), 0.0)


def _bytes(tree) -> int:
  return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _size(count: int) -> str:
  return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{max(count / 1e6, 1):.0f} MB'


def _command(file: Path) -> str:
  config, workdir = (shlex.quote(str(p)) for p in (file, f'{file.with_suffix("")}_run'))
  return f'python launch/train.py --config={config} --workdir={workdir}'


def _quotable(text: Any) -> str:
  """Returns what stands for the text inside a triple-quoted string."""
  return str(text).replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')


def _described(made: Plan):
  weighted = zip(made.class_names, made.weights, strict=True)
  yield (
    f'folder    {made.folder}: {made.images} training images, {made.sizes}; {made.held_out} for '
    'validation'
  )
  yield f'classes   {", ".join(f"{n} {w:.3g}" for n, w in weighted)} (weights)'
  yield f'pixels    {made.channels} channels, mean {made.mean}, std {made.std}'
  yield (
    f'device    {made.machine.count} x {made.machine.kind}, {_size(made.machine.memory)} each; '
    f'a step takes about {_size(made.step_bytes)}'
  )
  yield (
    f'training  U-Net of width {made.width} and depth {made.depth}, crop {made.crop}'
    f'{" of halved images" * (made.resize != 1)}, batch {made.batch_size}, {made.num_steps} steps'
  )
