"""The JSON file of a measurement; a file that is there already is never replaced."""

import json
from typing import Any

from jaxseg import files
from jaxseg.types import UserError


def check_is_new(path: str | None, flag: str = 'json') -> None:
  """Raises UserError if there is such a file, before anything is measured."""
  if path and files.to_path(path).exists():
    raise UserError(f'--{flag}={path} exists: choose another name, or remove it')


def write(path: str | None, figures: Any) -> None:
  """Writes what was measured; nothing without a path."""
  if path:
    files.write_text(files.to_path(path), json.dumps(figures, indent=2) + '\n', replace=False)
