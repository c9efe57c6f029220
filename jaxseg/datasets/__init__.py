"""Datasets: one file each. `load('camvid').source('train')` gives decoded examples at random."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from jaxseg import files
from jaxseg.data import threads
from jaxseg.types import UserError

_HELPERS = frozenset(
  (
    'archives',
    'border_weight',
    'cache',
    'classlist',
    'labelscan',
    'rawfiles',
    'records',
    'statistics',
  )
)


class MissingSplit(UserError):
  """A split that the dataset may have, but whose files are not there."""


class BadFiles(UserError):
  """Files that cannot be used.

  Attributes:
    problems: one line a file; the error's own text is the first and the number of the others.
  """

  def __init__(self, problems: Sequence[str]):
    self.problems = tuple(problems)
    more = len(self.problems) - 1
    listed = f' (and {more} more like it: launch/data.py check lists them)' if more else ''
    super().__init__(self.problems[0] + listed)


def names() -> list[str]:
  """Returns the names of all datasets: the modules of this package that are not helpers."""
  return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS)


def load(name: str) -> ModuleType:
  """Returns the module of a dataset by its name.

  Raises:
    UserError: there is no such dataset; the message lists those there are.
  """
  known = names()
  if name not in known:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f', did you mean {close[0]!r}?' if close else ':'
    raise UserError(f'no dataset {name!r}{hint} there are {", ".join(known)}')
  return importlib.import_module(f'{__name__}.{name}')


def data_root(data_dir: str | os.PathLike | None = None) -> Path:
  """Returns the folder that holds the datasets' folders.

  That is `data_dir` where given, else the environment variable JAXSEG_DATA, else ~/jaxseg_data.

  Raises:
    UserError: the folder does not exist.
    StuckError: its disk does not answer.
  """
  root = files.place(data_dir or os.environ.get('JAXSEG_DATA') or '~/jaxseg_data')
  [there] = threads.results(lambda folder: folder.is_dir(), [root], name=str)
  if not there:
    raise UserError(
      f'no data folder {root}: give data_dir, or set JAXSEG_DATA to the folder that holds camvid/, '
      'isbi2012/, ...'
    )
  return root
