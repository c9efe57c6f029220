"""A trained run as files that need none of our code: StableHLO programs, weights and a card.

FOLDER/
  any_size.jax_export   batch, height and width free (where jax.export can prove every shape)
  360x480.jax_export    one image of the evaluation's size: for compilers that want fixed shapes
  weights.safetensors   'params/conv1_1/kernel' and so on; config.init_from takes it too
  card.json             classes, colours, sizes, scores, versions, how long it is promised to load

A program maps (weights, uint8 image [b,h,w,c]) to {'classes': uint8 [b,h,w], 'probabilities':
float32 [b,h,w,k]} on cpu, cuda and tpu; padding, scale and normalisation are inside. That of a
network of instances gives {'boxes', 'scores', 'classes', 'masks'}; the card says how to read them.
"""

from __future__ import annotations

import calendar
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
from jax import export as jax_export
from safetensors.numpy import save_file

from jaxseg import __version__, files
from jaxseg.data import geometry, threads
from jaxseg.export.folder import FORMAT, replacing
from jaxseg.export.program import make_instance_program, make_program
from jaxseg.predict.predictor import Options, load_variables, make_predictor
from jaxseg.pretrained import flatten
from jaxseg.train import build
from jaxseg.train.run_folder import Classes, load_classes, load_config
from jaxseg.types import VOID, UserError

PLATFORMS = ('cpu', 'cuda', 'tpu')
CHECKED = 4  # images of the evaluation split
_RESIZE = 'before the program: shorter side {0.short_side[-1]}, longer at most {0.long_side} pixels, bilinear'
_INSTANCES = {
  'boxes': 'float32 [batch, found, 4], x0, y0, x1, y1 in pixels of the image; clip them to it last',
  'scores': 'float32 [batch, found], falling; 0: nothing in this row',
  'classes': 'uint8 [batch, found]',
  'masks': 'float32 [batch, found, 28, 28], probabilities inside of the box: resize to it, cut at 0.5',
}
BACKWARD_MONTHS = 6  # https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees


def export_workdir(
  workdir: str | Path, output: str | Path, *, step: str = 'best'
) -> dict[str, Any]:
  """Exports a run's checkpoint, checks the result in a fresh process and prints what there is.

  Args:
    workdir: written by jaxseg.train.train.train.
    output: a new folder, or one that holds an earlier export and nothing else.
    step: 'best' | 'latest' | a number.

  Returns:
    The card.

  Raises:
    UserError: no run or checkpoint, a folder that holds something else, or a program whose result
      differs from the network's by more than the tolerance; then nothing is left behind, and an
      earlier export stays.
  """
  config = load_config(workdir)
  with replacing(output) as folder, _on_cpu():
    variables, step = load_variables(workdir, step)
    source = build.source_from(config, config.eval_split)
    places = sorted({int(i) for i in np.linspace(0, len(source) - 1, CHECKED)})
    read = threads.examples(source, places, timeout=config.data_timeout)
    examples = [_as_seen(config, example) for example in read]
    card = write_export(folder, config, variables, load_classes(workdir), examples)
    card['trained'] = {'dataset': config.dataset, 'split': config.train_split, 'step': step}
    card['metrics'] = read_metrics(files.place(workdir))
    _write(folder / 'card.json', card)
  _report(Path(output).expanduser(), card)
  return card


def write_export(
  folder: Path, config, variables, classes: Classes, examples: list[dict]
) -> dict[str, Any]:
  """Writes weights, programs and card to a new folder and checks them in a fresh process.

  Args:
    folder: made here.
    config: of the run.
    variables: {'params': ..., 'batch_stats': ...}, numpy arrays.
    classes: names and colours.
    examples: real images; the first one's size is that of the program with a fixed size.

  Returns:
    The card, which is also in the folder.
  """
  folder.mkdir()
  weights = {k: np.ascontiguousarray(v) for k, v in flatten(variables).items()}
  save_file(weights, folder / 'weights.safetensors')
  (folder / 'weights.safetensors').chmod(0o644)  # safetensors makes it private
  size = examples[0]['image'].shape[:2]
  programs, refused = write_programs(config, weights, size, folder)
  count = sum(int(np.size(v)) for v in jax.tree.leaves(variables['params']))
  card = make_card(config, classes, count, programs, refused)
  _write(folder / 'card.json', card)
  # A program never cuts an image into tiles, and pads it no more than it must.
  whole = Options(max_pixels=sys.maxsize, multiple=1)
  predictor = make_predictor(config, variables, classes, whole)
  card['check'] = _check(folder, predictor, examples, tolerance(config))
  _write(folder / 'card.json', card)
  return card


def write_programs(
  config, weights: dict[str, np.ndarray], size: tuple[int, int], folder: Path
) -> tuple[list[dict[str, Any]], list[str]]:
  """Writes the program with free sizes, if there is one, and the one for images of `size`.

  Returns:
    Entries for the card, and why freer forms than those written were refused.
  """
  program = _program(config)
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  multiple = max(build.model_from(config).size_rule.multiple, 32)
  refused, entries = [], []
  for rule, stem in (('any', 'any_size'), (f'{multiple}*', f'multiples_of_{multiple}')):
    symbols = ('h', 'w') if rule == 'any' else (f'{rule}h', f'{rule}w')
    shape = jax_export.symbolic_shape(f'b, {symbols[0]}, {symbols[1]}, {config.channels}')
    try:
      entry = _write_program(program, shapes, shape, folder / f'{stem}.jax_export')
    except Exception as e:  # JAX raises TypeError, ValueError and kinds of its own here
      reason = ' '.join(str(e).split())[:300]
      refused.append(f'({", ".join(map(str, shape))}): {type(e).__name__}: {reason}')
      continue
    sides = ('any', 'any') if rule == 'any' else symbols
    entries.append({**entry, 'batch': 'any', 'height': sides[0], 'width': sides[1]})
    break
  file = folder / f'{size[0]}x{size[1]}.jax_export'
  entry = _write_program(program, shapes, (1, *size, config.channels), file)
  entries.append({**entry, 'batch': 1, 'height': size[0], 'width': size[1]})
  return entries, refused


def _program(config):
  model, preprocess = build.model_from(config), build.preprocessing_from(config)
  if config.task == 'instance':
    return make_instance_program(model, preprocess, float(config.eval_scales[0]))
  return make_program(model, build.task_from(config), preprocess, config.eval_scales)


def _write_program(program, weights, shape, file: Path) -> dict[str, Any]:
  image = jax.ShapeDtypeStruct(shape, np.uint8)
  exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(weights, image)
  file.write_bytes(exported.serialize())
  return {'file': file.name, 'shape': [n if isinstance(n, int) else str(n) for n in shape]}


def make_card(config, classes: Classes, parameters: int, programs, refused) -> dict[str, Any]:
  """Says in JSON what is in the folder and how it is used."""
  rule, preprocess = build.model_from(config).size_rule, build.preprocessing_from(config)
  today = datetime.date.today()
  return {
    'format': FORMAT,
    'model': {'name': config.model, **config.model_options.to_dict(), 'parameters': parameters},
    'weights': 'weights.safetensors',
    'programs': programs,
    'refused': refused,
    'platforms': list(PLATFORMS),
    'input': {
      'dtype': 'uint8',
      'layout': 'batch, height, width, channels',
      'channels': config.channels,
      'white_of_16_bits': config.dataset_options.get('white', 65535),
    }
    | ({'channel_order': 'rgb'} if config.channels == 3 else {})
    | ({'resize': _RESIZE.format(config)} if config.short_side else {}),
    'output': _INSTANCES
    if config.task == 'instance'
    else {
      'classes': 'uint8 [batch, height, width]',
      'probabilities': f'float32 [batch, height, width, {config.num_classes}]',
    },
    'classes': [
      {'index': i, 'name': name, 'color': list(color)}
      for i, (name, color) in enumerate(zip(classes.names, classes.palette, strict=True))
    ],
    'void': VOID,
    'preprocessing': {
      'where': 'inside the programs: give the image as it is',
      'mean': list(preprocess.mean),
      'std': list(preprocess.std),
      'network_channel_order': preprocess.channel_order,
      'scales': list(config.eval_scales),
      'border': 'mirrored' if rule.margin else f'colour {list(preprocess.fill)}',
      'network_sizes': vars(rule) | {'meaning': 'offset + multiple n, at least minimum'},
    },
    'paper': config.paper.to_dict() if config.paper else None,
    'versions': {
      'jaxseg': __version__,
      'jax': jax.__version__,
      'jaxlib': jaxlib.__version__,
      'flax': flax.__version__,
    },
    'exported': today.isoformat(),
    'valid_until': {
      'date': months_later(today, BACKWARD_MONTHS).isoformat(),
      'how': f'day of export + {BACKWARD_MONTHS} months. jax.export promises that a JAX built up to '
      f'{BACKWARD_MONTHS} months after the exporting jaxlib ({jaxlib.__version__}) runs the programs; '
      'a wheel does not tell when it was built, so where an older jaxlib exported, its release '
      'day + 6 months counts. The weights do not expire: export again from the workdir.',
    },
  }


def read_metrics(workdir: Path) -> dict[str, Any]:
  """Returns the scores of every eval/<split>.json, without the confusion matrices."""
  found = {}
  for file in sorted((workdir / 'eval').glob('*.json')):
    result = json.loads(file.read_text(encoding='utf-8'))
    found[file.stem] = {k: v for k, v in result.items() if k not in ('confusion', 'split')}
  return found


def months_later(day: datetime.date, months: int) -> datetime.date:
  """Returns the same day of a later month, or its last one: 31 August + 6 months is 28 February."""
  years, month = divmod(day.month - 1 + months, 12)
  year, month = day.year + years, month + 1
  return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def tolerance(config) -> float:
  """Returns the largest difference of a probability that counts as equal.

  Float32 programs differ in the order of sums only. bfloat16 rounds after every layer; and scales
  other than a half, one and two may resize an image to a neighbouring grey level (see program.py).
  """
  exact = set(config.eval_scales) <= {0.5, 1.0, 2.0} and config.dtype == 'float32'
  return 1e-4 if exact else 5e-2


def _check(folder: Path, predictor, examples: list[dict], allowed: float) -> dict:
  """Compares the programs, run in a fresh process without jaxseg, with the predictor."""
  images = {str(e['file_name']): np.asarray(e['image']) for e in examples}
  name, image = next(iter(images.items()))
  odd = image[: (image.shape[0] - 2) | 1, : (image.shape[1] - 4) | 1]
  images[f'{name}, cut to {odd.shape[0]}x{odd.shape[1]}'] = odd
  arrays = {}
  for i, image in enumerate(images.values()):
    found = {'image': image, **_expected(predictor, image)}
    arrays |= {f'{name}{i}': array for name, array in found.items()}
  with tempfile.TemporaryDirectory() as scratch:
    file = Path(scratch) / 'images.npz'
    np.savez(file, **arrays)
    script = Path(scratch) / 'check.py'  # alone in its folder: nothing of ours beside it
    shutil.copy(Path(__file__).with_name('export_check.py'), script)
    done = subprocess.run(
      [sys.executable, '-I', str(script), str(folder), str(file)],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      cwd=scratch,
      capture_output=True,
      text=True,
    )
  if done.returncode:
    reason = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise UserError(f'the exported programs do not load in a fresh process: {reason}')
  results = json.loads(done.stdout.strip().splitlines()[-1])
  worst = float(np.max([r['largest_difference'] for r in results.values()]))
  if not worst <= allowed:  # nan fails too
    raise UserError(
      f'the exported programs differ from the network by {worst:.2g}, allowed is '
      f'{allowed:g}: nothing was written; please report the config and the versions of jax and jaxlib'
    )
  return {
    'images': list(images),
    'tolerance': allowed,
    'largest_difference': worst,
    'programs': results,
  }


def _as_seen(config, example: dict) -> dict:
  """Resizes an image that a program is not to resize; see the card's 'resize'."""
  if not config.short_side:
    return example
  size = build.network_size_from(config, example['image'].shape[:2])
  return {**example, 'image': geometry.resize_image(example['image'], size)}


def _expected(predictor, image: np.ndarray) -> dict[str, np.ndarray]:
  """Returns what the predictor has to say of an image where a program says it too."""
  if predictor.config.task == 'instance':
    return predictor.outputs(image)
  return {'probabilities': predictor.probabilities(image), 'classes': predictor(image)}


def _on_cpu():
  """Both sides of the check run on a CPU: accelerators round products of float32."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError as e:
    raise UserError(f'the check needs the CPU backend: add cpu to JAX_PLATFORMS ({e})') from e


def _write(file: Path, card: dict[str, Any]) -> None:
  file.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


def _report(output: Path, card: dict[str, Any]) -> None:
  print(f'exported step {card["trained"]["step"]} to {output}, for {", ".join(PLATFORMS)}')
  for entry in card['programs']:
    result = card['check']['programs'][entry['file']]
    kilobytes = (output / entry['file']).stat().st_size / 1024
    print(
      f'  {entry["file"]}  [{", ".join(map(str, entry["shape"]))}]  {kilobytes:,.0f} KB  largest '
      f'difference {result["largest_difference"]:.2g} on {result["images"]} images, '
      f'{result["changed_pixels"]} {"detections" if "boxes" in card["output"] else "pixels"} of '
      'another class'
    )
  for reason in card['refused']:
    print(f'  no program for {reason}')
  megabytes = (output / card['weights']).stat().st_size / 2**20
  print(f'  {card["weights"]}  {megabytes:,.1f} MB')
  print(
    f'reloaded in a fresh process without jaxseg: largest difference '
    f'{card["check"]["largest_difference"]:.2g} (allowed {card["check"]["tolerance"]:g})'
  )
  print(f'promised to load until {card["valid_until"]["date"]} (see card.json)')
