"""Where an export goes: nothing else is lost there, and an earlier one stays until the new is whole."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxseg.types import UserError

FORMAT = 'jaxseg export, version 1'


@contextlib.contextmanager
def replacing(output: str | Path) -> Iterator[Path]:
  """Gives the name of a new folder; once that is filled, it is renamed to `output`.

  Args:
    output: a folder that is not there yet, is empty, or holds an earlier export and nothing else.

  Raises:
    UserError: it holds anything else, before and after the new folder is filled, or it cannot be
      made or replaced; what was there then stays as it is.
  """
  output = Path(os.path.realpath(Path(output).expanduser()))
  _refuse_others(output)
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(dir=output.parent, prefix='.export-')
  except OSError as error:
    raise UserError(
      f'--output={output}: {error.strerror}; choose a folder that can be made'
    ) from None
  with scratch:
    folder = Path(scratch.name) / 'export'
    yield folder
    _refuse_others(output)
    try:
      _exchange(folder, output, Path(scratch.name) / 'earlier')
    except OSError as error:
      raise UserError(
        f'--output={output} cannot be replaced ({error.strerror}): choose a new folder'
      ) from None


def _refuse_others(output: Path) -> None:
  """Raises UserError where a folder holds what no export wrote."""
  if not output.exists():
    return
  if not output.is_dir():
    raise UserError(f'--output={output} is a file: choose a new folder')
  others = {path.name for path in output.iterdir()} - _written(output / 'card.json')
  if others:
    raise UserError(f'--output={output} holds other files ({min(others)}): choose a new folder')


def _written(card: Path) -> set[str]:
  """Returns the names of the files of an export by its card, none where it is not ours."""
  try:
    told = json.loads(card.read_text(encoding='utf-8'))
    if told['format'] == FORMAT:
      return {card.name, told['weights'], *(entry['file'] for entry in told['programs'])}
  except (OSError, ValueError, LookupError, TypeError):
    pass
  return set()


def _exchange(folder: Path, output: Path, earlier: Path) -> None:
  """Renames what is there aside and the new folder in its place; where that fails, back again."""
  if not output.exists():
    folder.rename(output)
    return
  output.rename(earlier)
  try:
    folder.rename(output)
  except OSError:
    earlier.rename(output)
    raise
