"""Replaces our functions and layers by others while a network is traced."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import flax.linen as nn

_HOLDERS = ('jaxseg.models.', 'jaxseg.nn.backbones.', 'jaxseg.tasks.')


@contextlib.contextmanager
def stand_ins(functions: Mapping[Callable, Callable]) -> Iterator[None]:
  """Replaces functions and classes in the namespaces of models, backbones, tasks and Flax."""
  modules = [module for name, module in sys.modules.items() if name.startswith(_HOLDERS)]
  with contextlib.ExitStack() as stack:
    for module in (*modules, nn):
      for name, value in list(vars(module).items()):
        if callable(value) and value in functions:
          stack.enter_context(mock.patch.object(module, name, functions[value]))
    yield
