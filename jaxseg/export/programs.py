"""One function of weights and image in three forms: for JAX, for compilers of StableHLO, as ONNX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from jaxseg.export.card import PLATFORMS, describe_outputs
from jaxseg.export.program import make_program
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def write_programs(
  experiment: Experiment,
  weights: Mapping[str, np.ndarray],
  size: tuple[int, int],
  folder: Path,
  *,
  onnx: bool = False,
  temperature: float = 1.0,
) -> dict[str, Any]:
  """Writes the programs for images of any size, where possible, and those for images of `size`.

  Args:
    experiment: the run's.
    weights: by name, as in `program.make_program`.
    size: (height, width) of the fixed-size ones.
    folder: to write to.
    onnx: also write ONNX, which needs the package onnx.
    temperature: of the probabilities.

  Returns:
    The card's 'programs'; 'refused', why more flexible forms could not be written; and 'output'.
  """
  program, channels = jax.jit(make_program(experiment, temperature)), experiment.channels
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  image = jax.ShapeDtypeStruct((1, *size, channels), experiment.data.dtype)
  n = max(experiment.model().size_rule.multiple, 32)
  free = {'any_size': 'b, h, w', f'multiples_of_{n}': f'b, {n}*h, {n}*w'}
  forms = [lambda image, stem: _write_jax(program, shapes, image, folder / f'{stem}.jax_export')]
  if onnx:
    forms.append(lambda image, stem: _write_onnx(program, weights, image, folder / f'{stem}.onnx'))
  entries, refused = [], {}
  with _no_paths():
    for form in forms:
      for stem, symbols in {} if experiment.data.image_size else free.items():
        shape = jax_export.symbolic_shape(f'{symbols}, {channels}')
        try:
          entries.append(form(jax.ShapeDtypeStruct(shape, image.dtype), stem))
          break
        except Exception as error:  # JAX raises TypeError, ValueError and other kinds
          refused.setdefault(_reason(error), f'({", ".join(map(str, shape))})')
    stem = f'{size[0]}x{size[1]}'
    entries += [form(image, stem) for form in forms]
    entries.append(_write_mlir(program, shapes, image, folder / f'{stem}.mlirbc'))
  return {
    'programs': entries,
    'refused': [f'{shape}: {reason}' for reason, shape in refused.items()],
    'output': describe_outputs(jax.eval_shape(program, shapes, image), size),
  }


def _reason(error: Exception) -> str:
  text = (str(error).splitlines() or [''])[0][:300]  # a trace may follow
  return text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
  """Programs would otherwise contain this machine's source paths and line numbers."""
  key = 'jax_traceback_in_locations_limit'
  before = getattr(jax.config, key)
  jax.config.update(key, 0)
  try:
    yield
  finally:
    jax.config.update(key, before)


def _entry(file: Path, runtime: str, image: jax.ShapeDtypeStruct, **facts: Any) -> dict[str, Any]:
  """Returns the card's entry; a dimension of the shape is a number, a letter if free, or '32*h'."""
  shape = [side if isinstance(side, int) else str(side) for side in image.shape]
  return {'file': file.name, 'runtime': runtime, 'shape': shape, **facts}


def _write_jax(
  program: Callable, shapes: Shapes, image: jax.ShapeDtypeStruct, file: Path
) -> dict[str, Any]:
  exported = jax_export.export(program, platforms=PLATFORMS)(shapes, image)
  file.write_bytes(exported.serialize())
  return _entry(file, 'jax', image, platforms=list(PLATFORMS))


def _write_mlir(
  program: Callable, shapes: Shapes, image: jax.ShapeDtypeStruct, file: Path
) -> dict[str, Any]:
  """A single platform needs no argument that selects one; unused weights are dropped."""
  exported = jax_export.export(program, platforms=['cpu'])(shapes, image)
  file.write_bytes(exported.mlir_module_serialized)
  inputs = [*sorted(shapes.items()), ('image', image)]
  taken: Sequence[tuple[str, Any]] = [inputs[i] for i in exported.module_kept_var_idx]
  arguments = [
    {'name': name, 'shape': list(value.shape), 'dtype': str(value.dtype)} for name, value in taken
  ]
  results = sorted(jax.eval_shape(program, shapes, image))
  return _entry(file, 'iree', image, arguments=arguments, outputs=results)


def _write_onnx(
  program: Callable, weights: Mapping[str, np.ndarray], image: jax.ShapeDtypeStruct, file: Path
) -> dict[str, Any]:
  try:
    from jaxseg.export.to_onnx.graph import OPSET
    from jaxseg.export.to_onnx.jaxpr import make_model
  except ModuleNotFoundError as error:
    if error.name != 'onnx':
      raise
    raise UserError("--onnx needs packages: pip install -e '.[onnx]'") from None
  model = make_model(program, weights, image)
  file.write_bytes(model.SerializeToString())
  return _entry(file, 'onnx', image, opset=OPSET, outputs=[o.name for o in model.graph.output])
