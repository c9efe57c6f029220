"""A trained run as files that need none of our code: StableHLO programs, weights and a card.

FOLDER/
  any_size.jax_export   batch, height and width free (where jax.export can prove every shape)
  360x480.jax_export    one image of the evaluation's size: for compilers that want fixed shapes
  weights.safetensors   'params/conv1_1/kernel' and so on; config.init_from takes it too
  card.json             classes, colours, sizes, scores, versions, how long it is promised to load

A program maps (weights, uint8 image [b,h,w,c]) to what the task predicts, such as {'classes': uint8
[b,h,w], 'probabilities': float32 [b,h,w,k]}, on cpu, cuda and tpu; padding, scale and normalisation
are inside. The card says what each output means.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from safetensors.numpy import save_file

from jaxseg import files
from jaxseg.data import geometry, threads
from jaxseg.export.card import PLATFORMS, describe_outputs, make_card, read_metrics
from jaxseg.export.folder import replacing
from jaxseg.export.program import in_image, make_program
from jaxseg.predict.averages import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.pretrained import flatten
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.initial import load_variables
from jaxseg.train.run_folder import load_classes
from jaxseg.types import UserError

CHECKED = 4  # images of the evaluation split


def export_workdir(
  workdir: str | Path, output: str | Path, *, step: str = 'best'
) -> dict[str, Any]:
  """Exports a run's checkpoint, checks it in a fresh process, prints what there is, returns the card.

  Args:
    workdir: written by training.
    output: a new folder, or one that holds an earlier export and nothing else.
    step: 'best' | 'latest' | a number.

  Raises:
    UserError: no run or checkpoint, a folder that holds something else, or a program whose result
      differs from the network's by more than the tolerance; then nothing is left behind, and an
      earlier export stays.
  """
  experiment = load_experiment(workdir)
  data, split = experiment.data, experiment.settings.eval_split
  with replacing(output) as folder, _on_cpu():
    variables, step = load_variables(workdir, step)
    # A program never cuts an image into tiles, and pads it no more than it must.
    options = Options(max_pixels=sys.maxsize, multiple=1)
    predictor = Predictor(experiment, variables, load_classes(workdir), options)
    source = experiment.source(split)
    indices = sorted({int(i) for i in np.linspace(0, len(source) - 1, CHECKED)})
    examples = threads.examples(source, indices, timeout=data.timeout)
    trained = {'dataset': data.name, 'split': data.train_split, 'step': step}
    card = {'trained': trained, 'metrics': read_metrics(files.place(workdir))}
    card = write_export(folder, predictor, examples, card)
  _report(Path(output).expanduser(), card)
  return card


def write_export(
  folder: Path, predictor: Predictor, examples: Iterable[Mapping[str, Any]], card: Mapping[str, Any]
) -> dict[str, Any]:
  """Makes a folder of weights, programs and card, checks them in a fresh process, returns the card.

  Args:
    folder: its name.
    predictor: of the run; what it says is expected of the programs.
    examples: real images; the first one's size is that of the program with a fixed size.
    card: what else the card is to say.
  """
  folder.mkdir()
  experiment = predictor.experiment
  weights = {k: np.asarray(v, order='C') for k, v in flatten(predictor.variables).items()}
  save_file(weights, folder / 'weights.safetensors')
  (folder / 'weights.safetensors').chmod(0o644)  # safetensors makes it private
  images = {str(e['file_name']): _resized(experiment, np.asarray(e['image'])) for e in examples}
  size = next(iter(images.values())).shape[:2]
  card = make_card(experiment, predictor.classes) | dict(card)
  parameters = sum(v.size for k, v in weights.items() if k.startswith('params/'))
  card['model'] = {**card['model'], 'parameters': parameters}
  card |= write_programs(experiment, weights, size, folder)
  _write_card(folder, card)  # the check reads it
  card['check'] = _check(folder, predictor, images)
  _write_card(folder, card)
  return card


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
  (folder / 'card.json').write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


def _resized(experiment: Experiment, image: np.ndarray) -> np.ndarray:
  """Resizes an image that a program is not to resize; see the card's 'resize'."""
  short, longest = experiment.eval.short_side, experiment.eval.long_side
  if not short:
    return image
  return geometry.resize_image(image, geometry.by_short_side(image.shape[:2], short, longest))


def write_programs(
  experiment: Experiment, weights: Mapping[str, np.ndarray], size: tuple[int, int], folder: Path
) -> dict[str, Any]:
  """Writes the program with free sizes, if there is one, and the one for images of `size`.

  Returns:
    The card's 'programs'; 'refused', why freer forms than those written were; and 'output'.
  """
  program, channels = jax.jit(make_program(experiment)), experiment.channels
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  n = max(experiment.model().size_rule.multiple, 32)
  free = {'any_size': 'b, h, w', f'multiples_of_{n}': f'b, {n}*h, {n}*w'}
  entries, refused = [], []
  for stem, symbols in {} if experiment.data.image_size else free.items():
    shape = jax_export.symbolic_shape(f'{symbols}, {channels}')
    try:
      entries.append(_write_program(program, shapes, shape, folder / f'{stem}.jax_export'))
      break
    except Exception as e:  # JAX raises TypeError, ValueError and other kinds
      reason = (str(e).splitlines() or [''])[0][:300]  # a trace may follow
      refused.append(f'({", ".join(map(str, shape))}): {type(e).__name__}: {reason}')
  shape = (1, *size, channels)
  file = folder / f'{size[0]}x{size[1]}.jax_export'
  entries.append(_write_program(program, shapes, shape, file))
  rows = jax.eval_shape(program, shapes, jax.ShapeDtypeStruct(shape, np.uint8))
  return {'programs': entries, 'refused': refused, 'output': describe_outputs(rows, size)}


def _write_program(program: Callable, weights, shape: Sequence[Any], file: Path) -> dict[str, Any]:
  """Returns the card's entry; a side is a number, 'any' or '32*h'."""
  image = jax.ShapeDtypeStruct(shape, np.uint8)
  file.write_bytes(jax_export.export(program, platforms=PLATFORMS)(weights, image).serialize())
  shape = [side if isinstance(side, int) else str(side) for side in shape]
  sides = ['any' if side in ('b', 'h', 'w') else side for side in shape[:3]]
  entry = dict(zip(('batch', 'height', 'width'), sides, strict=True))
  return {'file': file.name, 'shape': shape, **entry}


def _check(folder: Path, predictor: Predictor, images: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Compares the programs, run in a fresh process without jaxseg, with the predictor."""
  name, image = next(iter(images.items()))
  experiment = predictor.experiment
  if not (experiment.data.image_size or experiment.eval.short_side):
    odd = image[: (image.shape[0] - 2) | 1, : (image.shape[1] - 4) | 1]
    images = {**images, f'{name}, cut to {odd.shape[0]}x{odd.shape[1]}': odd}
  arrays = {}
  for i, image in enumerate(images.values()):
    expected = {'image': image, **_expected(predictor, image)}
    arrays |= {f'{i} {name}': values for name, values in expected.items()}
  results = _run_alone(folder, arrays)
  worst = float(np.max([result['largest_difference'] for result in results.values()]))
  allowed = tolerance(experiment)
  if not worst <= allowed:  # nan fails too
    raise UserError(
      f'the exported programs differ from the network by {worst:.2g}, allowed is '
      f'{allowed:g}: nothing was written; please report the config and the versions of jax and jaxlib'
    )
  facts = {'images': list(images), 'tolerance': allowed, 'largest_difference': worst}
  return facts | {'programs': results}


def _expected(predictor: Predictor, image: np.ndarray) -> dict[str, np.ndarray]:
  """Returns a program's outputs for an image [h,w,c] as the predictor has them."""
  if predictor.experiment.task.maps:
    prediction = predictor.predict(image, maps=True)
    return {'classes': prediction['mask'], 'probabilities': prediction['probabilities']}
  size, frame = image.shape[:2], predictor.frame()
  rows = {name: row[None] for name, row in predictor.row(image).items()}
  outputs = in_image(rows, size, frame.canvas(size), frame.output(size))
  return {name: np.asarray(row[0]) for name, row in outputs.items()}


def _run_alone(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Returns what check.py says of each program."""
  with tempfile.TemporaryDirectory() as scratch:  # nothing of ours lies beside the script
    script = shutil.copy(Path(__file__).with_name('check.py'), scratch)
    np.savez(f'{scratch}/expected.npz', **arrays)
    process = subprocess.run(
      [sys.executable, '-I', script, str(folder), f'{scratch}/expected.npz'],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      cwd=scratch,
      capture_output=True,
      text=True,
    )
  if process.returncode:
    reason = (process.stderr.strip().splitlines() or ['no message'])[-1]
    raise UserError(f'the exported programs do not load in a fresh process: {reason}')
  return json.loads(process.stdout.strip().splitlines()[-1])


def tolerance(experiment: Experiment) -> float:
  """Returns the largest difference of a probability that counts as equal.

  Float32 programs differ in the order of sums only. bfloat16 rounds after every layer; and scales
  other than a half, one and two may resize an image to a neighbouring grey level (see program.py).
  """
  exact_scales = set(experiment.eval.scales) <= {0.5, 1.0, 2.0}
  return 1e-4 if exact_scales and experiment.settings.dtype == 'float32' else 5e-2


def _on_cpu():
  """Both sides of the check run on a CPU: accelerators round products of float32."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError as e:
    raise UserError(f'the check needs the CPU backend: add cpu to JAX_PLATFORMS ({e})') from e


def _report(output: Path, card: Mapping[str, Any]) -> None:
  print(f'exported step {card["trained"]["step"]} to {output}, for {", ".join(PLATFORMS)}')
  rows = 'detections' if 'boxes' in card['output'] else 'pixels'
  for entry in card['programs']:
    result = card['check']['programs'][entry['file']]
    kilobytes = (output / entry['file']).stat().st_size / 1024
    print(
      f'  {entry["file"]}  [{", ".join(map(str, entry["shape"]))}]  {kilobytes:,.0f} KB  largest '
      f'difference {result["largest_difference"]:.2g} on {result["images"]} images, '
      f'{result["changed_pixels"]} {rows} of another class'
    )
  for reason in card['refused']:
    print(f'  no program for {reason}')
  megabytes = (output / card['weights']).stat().st_size / 2**20
  print(
    f'  {card["weights"]}  {megabytes:,.1f} MB\n'
    'reloaded in a fresh process without jaxseg: largest difference '
    f'{card["check"]["largest_difference"]:.2g} (allowed {card["check"]["tolerance"]:g})\n'
    f'promised to load until {card["valid_until"]["date"]} (see card.json)'
  )
