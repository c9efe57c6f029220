"""Steps compiled with options of XLA that depend on the chips and on how many images each gets."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxseg.console import say

_TILE = 8  # images with which a TPU lays a batch out by itself
_WHOLE_IMAGES = {
  'xla_tpu_run_space_to_batch': False,
  'xla_tpu_run_space_to_batch_on_new_platforms': False,
}


def options(devices: Sequence[jax.Device], images: int) -> Mapping[str, Any]:
  """Returns XLA's options for `images` on each device.

  With two to seven images the TPU's compiler cuts each into strips that it treats as further images, and
  copies the strips' edges before every convolution: by its own estimate a third to a half of a training
  step (docs/benchmarks.md). It is told not to, unless the user gave it these flags in LIBTPU_INIT_ARGS. With
  one image its estimates differ less, and to compile takes many times as long without strips.
  """
  strips = devices[0].platform == 'tpu' and 1 < images < _TILE
  return _WHOLE_IMAGES if strips and not _given('run_space_to_batch') else {}


def _given(flag: str) -> bool:
  return flag in os.environ.get('LIBTPU_INIT_ARGS', '')


def with_options(step: Callable, compiler_options: Mapping[str, Any]) -> Callable:
  """Returns a pmapped or jitted step compiled with these options, once for each set of shapes.

  pmap takes no options, so it is lowered and compiled by hand. Several hosts' arrays are its own matter: there
  the step is returned as it is.
  """
  if not compiler_options or jax.process_count() > 1:
    return step
  return _Step(step, compiler_options)


def compile_with(
  lowered: jax.stages.Lowered,
  compiler_options: Mapping[str, Any],
  others: Mapping[str, Any] = MappingProxyType({}),
) -> jax.stages.Compiled:
  """Compiles with both, or with the others alone and a word if the compiler does not know all of the first."""
  try:
    return lowered.compile(compiler_options={**compiler_options, **others})
  except jax.errors.JaxRuntimeError as error:
    if not compiler_options or 'No such compile option' not in str(error):
      raise
  say(f'compiler  does not know all of {", ".join(compiler_options)}: its defaults are taken')
  return lowered.compile(compiler_options=dict(others))


class _Step:
  def __init__(self, step: Callable, compiler_options: Mapping[str, Any]):
    self.lower = step.lower
    self._options, self._compiled = compiler_options, {}

  def __call__(self, *arguments: Any) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    key = structure, *((np.shape(leaf), leaf.dtype) for leaf in leaves)
    if key not in self._compiled:
      self._compiled[key] = compile_with(self.lower(*arguments), self._options)
    return self._compiled[key](*arguments)
