"""Exports a trained run as files that do not need our code: programs, weights, a card and a loader.

FOLDER/
  any_size.jax_export   any batch, height and width (if JAX can prove every shape), for cpu, cuda, tpu
  360x480.jax_export    one image of the evaluation's size, or of a given one
  360x480.mlirbc        the same as StableHLO for one platform: for IREE and other compilers
  any_size.onnx, 360x480.onnx   on request: weights inside, for ONNX Runtime and others
  weights.safetensors   'params/conv1_1/kernel' and so on; config.init_from accepts it too
  run.py                loads any of them
  card.json             arguments, classes, colours, sizes, scores, versions, how long it is guaranteed to load

A program maps weights and images [b,h,w,c] of the run's dtype to the task's predictions, such as
{'classes': uint8 [b,h,w], 'probabilities': float32 [b,h,w,k]}, including padding, scaling and
normalisation. docs/export.md shows how to use each; the card describes each output.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from jaxseg import files
from jaxseg.console import say
from jaxseg.data import contrast, geometry, threads
from jaxseg.export import trial
from jaxseg.export.card import PLATFORMS, make_card, read_metrics
from jaxseg.export.folder import replacing
from jaxseg.export.programs import write_programs
from jaxseg.export.read import read_export
from jaxseg.predict.averages import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.predict.temperature import fitted
from jaxseg.pretrained import flatten
from jaxseg.train import build
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes, load_classes
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError

CHECKED = 4  # images of the evaluation split


@dataclasses.dataclass(frozen=True)
class Forms:
  """What to export besides the programs for JAX and the MLIR.

  Attributes:
    onnx: ONNX models, checked in ONNX Runtime.
    iree: whether to compile and check the MLIR with IREE.
    size: (height, width) of the fixed-size programs; None: that of the first image.
    python: interpreter with ONNX Runtime and IREE, for the checks; '': this one.
    temperature: of the probabilities; 0: the one fitted to the run.
  """

  onnx: bool = False
  iree: bool = False
  size: tuple[int, int] | None = None
  python: str = ''
  temperature: float = 1.0

  @property
  def runtimes(self) -> dict[str, str]:
    """Runtimes that check the programs, with their interpreters."""
    others = {'onnx': self.onnx, 'iree': self.iree}
    python = self.python or sys.executable
    return {'jax': sys.executable} | {runtime: python for runtime, on in others.items() if on}


def export_workdir(
  workdir: str | Path, output: str | Path, *, step: str = 'best', forms: Forms | None = None
) -> dict[str, Any]:
  """Exports a run's checkpoint, checks it in fresh processes, prints a summary, returns the card.

  Args:
    workdir: written by training.
    output: a new folder, or one that holds only an earlier export.
    step: 'best' | 'latest' | a number.
    forms: what to write.

  Raises:
    UserError: no run or checkpoint, a folder that holds something else, or a program whose result
      differs from the network's by more than the tolerance; then nothing is left behind, and an
      earlier export is kept.
  """
  experiment, forms = build.load_experiment(workdir), forms or Forms()
  if forms.temperature != 1 and not experiment.task.maps:
    raise UserError(f'config.task={experiment.settings.task} has no probabilities: no temperature')
  data, split = experiment.data, experiment.settings.eval_split
  with replacing(output) as folder, _on_cpu():
    variables, step = load_variables(workdir, step)
    temperature = forms.temperature or fitted(workdir, step)
    predictor = _predictor(experiment, variables, load_classes(workdir), temperature)
    source = experiment.source(split)
    indices = sorted({int(i) for i in np.linspace(0, len(source) - 1, CHECKED)})
    examples = threads.examples(source, indices, timeout=data.timeout)
    images = {str(e['file_name']): _resized(experiment, np.asarray(e['image'])) for e in examples}
    trained = {'dataset': data.name, 'split': data.train_split, 'step': step}
    card = {'trained': trained, 'metrics': read_metrics(files.to_path(workdir))}
    card = write_export(folder, predictor, images, card, forms)
  _report(files.to_path(output), card)
  return card


def renew(folder: str | Path, forms: Forms) -> dict[str, Any]:
  """Rebuilds an export from its own weights and card; prints and returns the card.

  The run is not needed. The programs are checked on noise, in the sizes of the earlier check.

  Args:
    folder: of an export; it is replaced.
    forms: what to write in addition to its present forms.

  Raises:
    UserError: it is not an export of ours; then it is left unchanged.
  """
  old, place = read_export(folder, forms.size), files.to_path(folder)
  with replacing(folder) as new, _on_cpu():
    forms = dataclasses.replace(forms, onnx=forms.onnx or old.onnx, size=old.size)
    predictor = _predictor(old.experiment, old.variables, old.classes, old.temperature)
    images = {'noise': _noise(old.experiment, old.size)}
    card = write_export(new, predictor, images, old.kept, forms)
  _report(place, card)
  return card


def _predictor(
  experiment: Experiment, variables: Any, classes: Classes, temperature: float
) -> Predictor:
  """Without tiles and with minimal padding, as in a program."""
  options = Options(max_pixels=sys.maxsize, multiple=1, temperature=temperature)
  return Predictor(experiment, variables, classes, options)


def _noise(experiment: Experiment, size: tuple[int, int]) -> np.ndarray:
  """Returns a noise image of `size` with the run's mean and standard deviation."""
  preprocess, rng = experiment.preprocess, np.random.default_rng(0)
  values = rng.normal(preprocess.mean, preprocess.std, (*size, experiment.channels))
  if np.issubdtype(experiment.data.dtype, np.integer):
    limits = np.iinfo(experiment.data.dtype)
    values = np.clip(np.round(values), limits.min, limits.max)
  return values.astype(experiment.data.dtype)


def write_export(
  folder: Path,
  predictor: Predictor,
  images: Mapping[str, np.ndarray],
  card: Mapping[str, Any],
  forms: Forms,
) -> dict[str, Any]:
  """Writes an export to a folder, checks it in fresh processes, returns the card.

  Args:
    folder: to create.
    predictor: of the run; gives the expected outputs.
    images: [h,w,c] by name.
    card: further entries of the card.
    forms: what to write.
  """
  folder.mkdir()
  experiment = predictor.experiment
  weights = {k: np.asarray(v, order='C') for k, v in flatten(predictor.variables).items()}
  (folder / 'weights.safetensors').write_bytes(save(weights))  # save_file hides the disk's error
  shutil.copy(Path(__file__).with_name('run.py'), folder)
  images = dict(_with_other_sizes(experiment, images, forms.size))
  if percentiles := experiment.data.percentiles:  # before the program, see the card
    images = {name: contrast.stretch(image, percentiles) for name, image in images.items()}
  size = forms.size or next(iter(images.values())).shape[:2]
  card = make_card(experiment, predictor.classes) | dict(card)
  parameters = sum(v.size for k, v in weights.items() if k.startswith('params/'))
  card['model'] = {**card['model'], 'parameters': parameters}
  temperature = predictor.options.temperature
  card |= {'temperature': temperature} if temperature != 1 else {}
  options = dict(onnx=forms.onnx, temperature=temperature)
  card |= write_programs(experiment, weights, size, folder, **options)
  _write_card(folder, card)  # read by the check
  card['check'] = trial.check(folder, predictor, images, forms.runtimes)
  _write_card(folder, card)
  return card


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
  (folder / 'card.json').write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


def _resized(experiment: Experiment, image: np.ndarray) -> np.ndarray:
  """Does the resizing that is not part of a program; see the card's 'resize'."""
  short, longest = experiment.eval.short_side, experiment.eval.long_side
  if not short:
    return image
  return geometry.resize_image(image, geometry.by_short_side(image.shape[:2], short, longest))


def _with_other_sizes(
  experiment: Experiment, images: Mapping[str, np.ndarray], size: tuple[int, int] | None
) -> Iterable[tuple[str, np.ndarray]]:
  """Yields the images, the first also with odd sides, and in size `size` if no other has it."""
  yield from images.items()
  (name, image), fixed = next(iter(images.items())), experiment.data.image_size
  if fixed and size and size != fixed:
    raise UserError(f'--size={size[0]},{size[1]}: this run takes images of {fixed[0]},{fixed[1]}')
  if not (fixed or experiment.eval.short_side):
    odd = image[: (image.shape[0] - 2) | 1, : (image.shape[1] - 4) | 1]
    yield f'{name}, cut to {odd.shape[0]}x{odd.shape[1]}', odd
  if size and all(i.shape[:2] != size for i in images.values()):
    yield f'{name}, resized to {size[0]}x{size[1]}', geometry.resize_image(image, size)


def _on_cpu():
  """Both sides of the check run on a CPU, as accelerators round float32 products."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError as e:
    raise UserError(f'the check needs the CPU backend: add cpu to JAX_PLATFORMS ({e})') from e


def _report(output: Path, card: Mapping[str, Any]) -> None:
  say(f'exported step {card["trained"]["step"]} to {output}, for {", ".join(PLATFORMS)}')
  rows = 'detections' if 'boxes' in card['output'] else 'pixels'
  check = card['check']
  for entry in card['programs']:
    result = check['programs'].get(entry['file'])
    kilobytes = (output / entry['file']).stat().st_size / 1024
    said = f'not run here (--{entry["runtime"]} checks it)'
    if result:
      said = (
        f'largest difference {result["largest_difference"]:.2g} on {result["images"]} images, '
        f'{result["changed_pixels"]} {rows} of another class'
      )
      if result['beyond']:
        said += f', {result["beyond"]:.2%} of values beyond {check["tolerance"]:g}'
    shape = ', '.join(map(str, entry['shape']))
    say(f'  {entry["file"]}  [{shape}]  {kilobytes:,.0f} KB  {said}')
  for reason in card['refused']:
    say(f'  no program for {reason}')
  own = check.get('own', {}).get('beyond', 0)
  beyond = f'; of the network itself, with rounded weights, {own:.2%} are beyond' if own else ''
  megabytes = (output / card['weights']).stat().st_size / 2**20
  say(
    f'  {card["weights"]}  {megabytes:,.1f} MB',
    f'run in fresh processes without jaxseg ({", ".join(check["runtimes"])}): largest difference '
    f'{check["largest_difference"]:.2g} (allowed {check["tolerance"]:g}{beyond})',
    f'for JAX promised to load until {card["valid_until"]["date"]} (--renew={output} prolongs it)',
  )
