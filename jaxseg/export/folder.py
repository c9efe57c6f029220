"""An export's folder: never deletes anything else, and replaces an earlier export only by a complete one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.types import UserError

_FORMATS = 'jaxseg export, version '
FORMAT = f'{_FORMATS}2'
_NAMES = re.compile(r'weights\.safetensors|run\.py|(any_size|\d+x\d+)\.(jax_export|mlirbc|onnx)')


@contextlib.contextmanager
def replacing(output: str | Path) -> Iterator[Path]:
  """Yields the path of a new folder, which is renamed to `output` at the end.

  Args:
    output: a folder that does not exist, is empty, or holds only an earlier export.

  Raises:
    UserError: it holds anything else, checked at the start and at the end, or it cannot be created or
      replaced; its contents are then unchanged.
  """
  if files.is_remote(output):
    raise UserError(f'--output={output} is in a bucket: choose a folder here, and copy that')
  output = Path(os.path.realpath(files.to_path(output)))
  _refuse_others(output)
  with contextlib.ExitStack() as stack:
    try:
      output.parent.mkdir(parents=True, exist_ok=True)
      scratch = stack.enter_context(files.scratch_folder(output.parent))
    except OSError as error:
      raise UserError(
        f'--output={output}: {error.strerror}; choose a folder that can be made'
      ) from None
    new, earlier = scratch / 'export', scratch / 'earlier'
    with files.explain_full_disk(output.parent):
      yield new
    _refuse_others(output)
    try:
      if output.exists():
        output.rename(earlier)
      new.rename(output)
    except OSError as error:
      if earlier.exists():
        earlier.rename(output)
      raise UserError(
        f'--output={output} cannot be replaced ({error.strerror}): choose a new folder'
      ) from None


def _refuse_others(output: Path) -> None:
  """Raises UserError if a folder holds files that no export wrote."""
  if not output.exists():
    return
  if not output.is_dir():
    raise UserError(f'--output={output} is a file: choose a new folder')
  others = {path.name for path in output.iterdir()} - _files_of_export(output)
  if others:
    raise UserError(f'--output={output} holds other files ({min(others)}): choose a new folder')


def read_card(folder: str | Path) -> dict[str, Any]:
  """Returns the card of an export. Raises UserError if there is none."""
  file = files.to_path(folder) / 'card.json'
  try:
    card = files.read_json(file)
    if card['format'].startswith(_FORMATS):
      return card
  except (OSError, LookupError, TypeError, AttributeError):
    pass
  raise UserError(f'no export in {folder} (no card.json of one): give the --output of an export')


def _files_of_export(folder: Path) -> set[str]:
  """Returns the names of an export's files according to its card; none if that is not ours.

  A card may be a stranger's: it cannot name other files than an export has.
  """
  try:
    card = read_card(folder)
    named = {card['weights'], *(entry['file'] for entry in card['programs'])}
    named |= {card['script']} if 'script' in card else set()
    own = {name for name in named if _NAMES.fullmatch(name) and (folder / name).is_file()}
  except (UserError, LookupError, TypeError):
    return set()
  compiled = [path.name for path in folder.glob('__pycache__/*')]
  only_run = all(re.fullmatch(r'run\.[^/]*\.pyc', name) for name in compiled)
  return {'card.json', *own, *(['__pycache__'] if only_run else [])}
