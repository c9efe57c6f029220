"""What outputs mean: losses, predictions, metrics. One task a file; the class is always `Task`."""

from __future__ import annotations

import importlib
import pkgutil

from jaxseg.types import UserError


def load(name: str):
  """Returns the class `Task` of the module jaxseg.tasks.<name>.

  Raises:
    UserError: there is no such task; the message lists those there are.
  """
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  if name not in names:
    raise UserError(f'unknown task {name!r}; use one of {", ".join(names)}')
  return importlib.import_module(f'{__name__}.{name}').Task
