"""The precision of a network's float32 convolutions on devices that would round their inputs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax


def at_precision(model: nn.Module, precision: str) -> nn.Module:
  """Returns the network with convolutions and dense layers that multiply float32 in this precision.

  By default float32 is rounded to the type of the matrix units, bfloat16 on a TPU and TF32 on a GPU.
  Everything but these layers (coordinates, interpolation, boxes, counts) is exact in any case. bfloat16
  inputs are not affected, and a CPU is always exact.

  Args:
    model: any Flax module; parameters keep their names.
    precision: 'highest', float32; 'high', TF32 on a GPU and three products of bfloat16 on a TPU;
      'default', one product of bfloat16 on a TPU, TF32 on a GPU.
  """
  cls = _precise(type(model), precision)
  names = {field.name for field in dataclasses.fields(model) if field.init} - {'parent', 'name'}
  return cls(**{name: getattr(model, name) for name in names})


def chosen(precision: Any) -> Any:
  """Returns the precision, or the network's if None; call it once, for value and gradient alike."""
  return jax.config.jax_default_matmul_precision if precision is None else precision


@functools.cache
def _precise(cls: type[nn.Module], precision: str) -> type[nn.Module]:
  """Returns a subclass, cached so that equal networks stay equal."""

  def apply(self, *args, **options):
    with jax.default_matmul_precision(precision):
      return cls.apply(self, *args, **options)

  def init_with_output(self, *args, **options):
    with jax.default_matmul_precision(precision):
      return cls.init_with_output(self, *args, **options)

  return type(cls.__name__, (cls,), {'apply': apply, 'init_with_output': init_with_output})
