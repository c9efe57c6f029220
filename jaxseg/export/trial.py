"""Checks that the exported programs reproduce the network, each in a fresh process on real images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg.export.check import compare
from jaxseg.export.program import in_image
from jaxseg.predict.predictor import Predictor
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

DRAWS = 8
MOST_BEYOND = 0.05  # share of values that may differ by more than the tolerance
NEEDS = {  # packages of each runtime besides NumPy
  'jax': 'jax flatbuffers safetensors',
  'onnx': 'onnxruntime',
  'iree': 'iree-base-compiler iree-base-runtime safetensors',
}


def check(
  folder: Path, predictor: Predictor, images: Mapping[str, np.ndarray], runtimes: Mapping[str, str]
) -> dict[str, Any]:
  """Compares an export's programs with the predictor; returns the card's 'check'.

  Args:
    folder: with all files of the export except this part of the card.
    predictor: of the run.
    images: [h,w,c] each, by name; each program takes those that fit it.
    runtimes: keys of NEEDS -> interpreter in which it is installed.

  Raises:
    UserError: a runtime that is not installed, or a program that exceeds the tolerance at more than twice
      as many values as the network with perturbed weights, see `_own`.
  """
  allowed = tolerance(predictor.experiment)
  examples = [{'image': image, **_expected(predictor, image)} for image in images.values()]
  results = {}
  for runtime, python in runtimes.items():
    results |= _run_alone(python, folder, runtime, examples, allowed)
  file = max(results, key=lambda f: results[f]['beyond'])
  worst = float(np.max([result['largest_difference'] for result in results.values()]))
  facts = {'images': list(images), 'tolerance': allowed, 'largest_difference': worst}
  if beyond := results[file]['beyond']:
    own = facts['own'] = _own(predictor, examples, allowed)
    if beyond > min(2 * own['beyond'], MOST_BEYOND):
      raise UserError(
        f'the exported programs differ from the network by {worst:.2g}, {beyond:.2%} of the values by '
        f'more than the allowed {allowed:g} ({file}): nothing was written; please report the config '
        'and the versions of jax and jaxlib'
      )
  return facts | {'runtimes': list(runtimes), 'programs': results}


def _own(
  predictor: Predictor, examples: Sequence[Mapping[str, np.ndarray]], allowed: float
) -> dict[str, float]:
  """Returns how much the network's outputs change if its weights change in the last two bits.

  Another order of summation has the same effect. It usually stays far below the tolerance; but the argmax
  of two nearly equal values moves SegNet's value by a pixel, and detections may swap places. Returns the
  worst of DRAWS draws: 'largest_difference' and the share of values 'beyond' the tolerance.
  """
  variables, rng = predictor.variables, np.random.default_rng(0)

  def moved(values):
    values = np.asarray(values)
    return (values * (1 + rng.uniform(-1, 1, values.shape) * 2.0**-21)).astype(values.dtype)

  def predict(images):
    return {name: values[None] for name, values in _expected(predictor, images[0]).items()}

  draws = []
  try:
    for _ in range(DRAWS):
      predictor.variables = jax.tree.map(moved, variables)
      draws.append(compare(predict, examples, allowed))
  finally:
    predictor.variables = variables
  return {k: max(draw[k] for draw in draws) for k in ('largest_difference', 'beyond')}


def _expected(predictor: Predictor, image: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the outputs that a program should have for an image [h,w,c], by the predictor."""
  if predictor.experiment.task.maps:
    prediction = predictor.predict(image, maps=True)
    return {'classes': prediction['mask'], 'probabilities': prediction['probabilities']}
  size, frame = image.shape[:2], predictor.frame()
  rows = {name: row[None] for name, row in predictor.row(image).items()}
  outputs = in_image(rows, size, frame.canvas(size), frame.output(size))
  return {name: np.asarray(row[0]) for name, row in outputs.items()}


def _run_alone(
  python: str,
  folder: Path,
  runtime: str,
  examples: Sequence[Mapping[str, np.ndarray]],
  allowed: float,
) -> dict[str, dict[str, Any]]:
  """Returns check.py's results for each program of a runtime."""
  with tempfile.TemporaryDirectory() as scratch:  # so that none of our modules is beside the script
    script = shutil.copy(Path(__file__).with_name('check.py'), scratch)
    arrays = {f'{i} {k}': v for i, example in enumerate(examples) for k, v in example.items()}
    np.savez(f'{scratch}/expected.npz', **arrays)
    process = subprocess.run(
      [python, '-I', script, str(folder), runtime, f'{scratch}/expected.npz', str(allowed)],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      cwd=scratch,
      capture_output=True,
      text=True,
    )
  if process.returncode:
    reason = (process.stderr.strip().splitlines() or ['no message'])[-1]
    if reason.startswith('ModuleNotFoundError'):
      raise UserError(f'the check in {runtime} needs: {python} -m pip install {NEEDS[runtime]}')
    raise UserError(
      f'the programs for {runtime} do not run in a fresh process, nothing was written: {reason}'
    )
  return json.loads(process.stdout.strip().splitlines()[-1])


def tolerance(experiment: Experiment) -> float:
  """Returns the largest accepted difference of a probability.

  Float32 programs differ only in the order of summation. bfloat16 rounds after every layer, and scales
  other than a half, one and two may change a resized image by a grey level (see program.py).
  """
  exact_scales = set(experiment.eval.scales) <= {0.5, 1.0, 2.0}
  return 1e-4 if exact_scales and experiment.settings.dtype == 'float32' else 5e-2
