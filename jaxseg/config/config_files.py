"""Config files: finds them by name, runs them, lists their variants and baselines."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxseg import files
from jaxseg.config.parts import did_you_mean
from jaxseg.types import UserError


class UnknownVariant(UserError):
  """A variant that a config does not have; `known` lists those it has."""

  def __init__(self, message: str, known: tuple[str, ...]):
    super().__init__(message)
    self.known = known


def config_module(name: str) -> ModuleType:
  """Returns the module of a config included in jaxseg, for settings that other configs share.

  Args:
    name: of its file, such as 'pspnet_ade20k'.
  """
  return _module(resolve(name)[0])


def run_config(path: str, argument: str) -> Any:
  """Returns the result of a config file's get_config."""
  try:
    return _module(path).get_config(argument or None)
  except UnknownVariant as e:
    raise UnknownVariant(f'{path}: {e}', e.known) from None
  except UserError as e:
    raise UserError(f'{path}: {e}') from None
  except (Exception, SystemExit) as e:  # it is the user's code
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == path]
    where = f'{path}, line {lines[-1]}' if lines else path
    raise UserError(f'{where}: {type(e).__name__}: {" ".join(str(e).split())}') from e


def shipped() -> dict[str, tuple[str, ...]]:
  """Returns the names of the configs included in jaxseg, with their variants."""
  known = {}
  for file in _shipped():
    try:
      run_config(file, '?')  # no config has it: the error lists those it has
    except UnknownVariant as e:
      known[Path(file).stem] = e.known
  return known


def baselines() -> Iterator[tuple[str, str]]:
  """Yields the spec and the config's title for every variant in an included config's BASELINES."""
  for file in _shipped():
    module = _module(file)
    heading = (module.__doc__ or '').partition('\n')[0].split(' (')[0].rstrip('.')
    for variant in getattr(module, 'BASELINES', ()):
      yield f'configs/{Path(file).name}' + (f':{variant}' if variant else ''), heading


def resolve(spec: str) -> tuple[str, str]:
  """Splits a spec into a config's file and its variants; the file's name may contain colons too.

  A name alone is that of an included config, whatever lies in the working folder.
  """
  words, known = spec.split(':'), {Path(file).stem: file for file in _shipped()}
  if words[0] in known:
    return known[words[0]], ':'.join(words[1:])
  for count in range(len(words), 0, -1):
    path, argument = ':'.join(words[:count]), ':'.join(words[count:])
    folder, name = os.path.split(path)
    shipped = known.get(name.removesuffix('.py'), '') if folder in ('', 'configs') else ''
    if file := next(filter(os.path.isfile, (path, shipped)), None):
      return file, argument
  folder = os.path.dirname(words[0]) or '.'
  beside = Path(folder).glob('*.py') if os.path.isdir(folder) else ()
  near = [*map(str, beside), *known.values(), *known]
  raise UserError(f'no config file {words[0]!r}{did_you_mean(words[0], near)}')


def _module(path: str) -> ModuleType:
  """Runs a config's text. An import would run the bytecode beside it, which may be another's or older."""
  module = ModuleType(f'jaxseg_config_{Path(path).stem}')
  module.__file__ = path
  exec(compile(files.read_bytes(Path(path)), path, 'exec'), module.__dict__)
  return module


def _shipped() -> list[str]:
  """Returns the configs included in jaxseg: next to its modules, or in a clone next to the package."""
  package = Path(__file__).resolve().parents[1]
  folders = (folder / 'configs' for folder in (package, package.parent))
  return sorted(str(file) for file in next(filter(Path.is_dir, folders), package).glob('*.py'))
