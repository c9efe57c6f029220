"""Lists and reads a dataset's raw files, which must exist and not be empty."""

import csv
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxseg import files
from jaxseg.types import UserError


class _Loader(yaml.SafeLoader):
  """Rejects aliases, with which a few lines expand to gigabytes, and repeated keys."""

  def compose_node(self, parent, index):
    if self.check_event(yaml.AliasEvent):
      raise yaml.YAMLError('it refers to parts of itself (*name)')
    return super().compose_node(parent, index)

  def construct_mapping(self, node, deep=False):
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if len({*keys}) < len(keys):
      raise yaml.YAMLError(f'it has the key {max(keys, key=keys.count)!r} twice')
    return super().construct_mapping(node, deep)


def list_images(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
  """Returns the files of `folder` with one of the suffixes, sorted, without hidden ones."""
  try:
    if not folder.is_dir():
      raise UserError(f'no such folder: {folder}')
    paths = [p for p in folder.iterdir() if not p.name.startswith('.')]
    for path in paths:
      if files.is_remote(folder):
        break  # a bucket has no links
      if path.suffix.lower() in suffixes and path.is_symlink() and not path.exists():
        raise UserError(f'{path} is a link that leads nowhere: repair or remove it')
    return sorted(p for p in paths if p.suffix.lower() in suffixes and p.is_file())
  except OSError as error:
    raise UserError(f'cannot read {folder}: {error.strerror or error}') from None


def read_bytes(path: Path) -> bytes:
  """Returns the content of a file that must exist and not be empty."""
  return _needed(path, files.read_bytes)


def read_text(path: Path) -> str:
  """Returns the text of a UTF-8 file that must exist and not be empty."""
  return _needed(path, files.read_text)


def cells_of(lines: Sequence[str], separator: str, path: Path) -> list[list[str]]:
  """Returns the rows of a CSV file, cells stripped. Raises UserError naming `path`."""
  try:
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
  except csv.Error as error:
    raise UserError(f'{path} cannot be read as a table: {error}') from None


def read_table(path: Path) -> list[dict[str, str]]:
  """Returns the rows of a CSV file by the names in its first line; missing cells are ''.

  Raises:
    UserError: as read_text, a row has more cells than the first line, or that repeats a column.
  """
  header, *rows = cells_of(read_text(path).splitlines(), ',', path) or [[]]
  if twice := next((name for name in header if header.count(name) > 1), None):
    raise UserError(f'{path} has the column {twice!r} twice: keep one')
  if longer := next((row for row in rows if len(row) > len(header)), None):
    raise UserError(f'{path}: {",".join(longer)!r} has more cells than the first line')
  return [dict(itertools.zip_longest(header, row, fillvalue='')) for row in rows if row]


def read_yaml(path: Path) -> Any:
  """Parses a YAML file, read by read_text. Raises UserError if it is invalid."""
  try:
    return yaml.load(read_text(path), _Loader)
  except (yaml.YAMLError, RecursionError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'{path} is no valid YAML: {reason}') from None


def _needed(path: Path, read: Callable[[Path], Any]) -> Any:
  try:
    content = read(path)
  except FileNotFoundError:
    raise UserError(f'missing file: {path}') from None
  if not content:
    raise UserError(f'{path} is empty (0 bytes): restore it or take it out of the dataset')
  return content
