"""The files of a prediction: which images are meant, how they are read, and where results go."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.data import image_files, pages, raw_files
from jaxseg.types import UserError

IN_THE_WAY = 'is there already: choose another --output, or give --skip_existing or --overwrite'


@dataclasses.dataclass(frozen=True)
class Item:
  """One image to predict.

  Attributes:
    path: its file.
    stem: names its results, with the folders that they keep.
    page: of a TIFF with several.
    pages: how many the file has.
  """

  path: Path
  stem: str
  page: int = 0
  pages: int = 1

  @property
  def name(self) -> str:
    """What to call it in a message."""
    return f'{self.path}, page {self.page}' if self.pages > 1 else str(self.path)

  @property
  def file_name(self) -> str:
    """The file's name, with the folders that results keep."""
    return (PurePosixPath(self.stem).parent / self.path.name).as_posix()


def list_items(source: str | Path, results: str | Path | None = None) -> list[Item]:
  """Lists the images that are meant, by name.

  Args:
    source: an image; a folder, with all below it; a pattern such as 'DIR/**/*.tif'; a .txt file with
      a path a line, relative to its own folder; a file that it names twice is taken once. Results
      keep the folders below the folder, or below the fixed part of the pattern. Of a TIFF with
      several pages each is an image, <stem>_00 and so on.
    results: a folder for these; what lies there, below the source, is no input.

  Raises:
    UserError: no such file, or no image in it.
  """
  source = files.place(source)
  if source.is_dir():
    found, base = _below(source), source
    allowed = f'an image ends in {", ".join(pages.SUFFIXES)}'
  elif not source.exists() and glob.has_magic(str(source)):
    found = [Path(p) for p in sorted(glob.glob(str(source), recursive=True))]
    found, base = [p for p in found if not p.is_dir()], _fixed_part(source)
    allowed = 'no file fits the pattern'
  elif source.suffix.lower() == '.txt':
    lines = (line.strip() for line in raw_files.read_text(source).splitlines())
    named = [_beside(source, line) for line in lines if line]
    found = list({_resolved(path.parent) / path.name: path for path in named}.values())
    base, results, allowed = None, None, 'one path a line, relative to its folder'
  else:
    if not source.exists():
      raise UserError(f'no such file or folder: {source}')
    found, base, results, allowed = [source], None, None, ''
  if results is not None and (results := files.place(results)) != base:
    found = [path for path in found if not path.is_relative_to(results)]
  if not found:
    raise UserError(f'{source} holds no image: {allowed}')
  return [item for path in found for item in _pages(path, base or path.parent)]


def _below(folder: Path) -> list[Path]:
  """Returns the images below a folder, by name, but for hidden ones."""
  try:
    paths = sorted(folder / name for name in files.walk(folder))
  except OSError as error:
    raise UserError(f'cannot read {error.filename}: {error.strerror or error}') from None
  return [path for path in paths if path.suffix.lower() in pages.SUFFIXES]


def _fixed_part(pattern: Path) -> Path:
  """Returns the folders of a pattern before the first that may be several."""
  fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
  return Path(*fixed)


def _beside(source: Path, line: str) -> Path:
  """Returns the path that a list names; one that is not absolute begins at the list's folder."""
  return files.place(line) if files.is_remote(line) else source.parent / files.place(line)


def _pages(path: Path, base: Path) -> list[Item]:
  count, stem = 1, path.relative_to(base).with_suffix('').as_posix()
  if path.suffix.lower() in ('.tif', '.tiff'):
    # Whoever reads a damaged file says what is wrong.
    with contextlib.suppress(UserError):
      count = pages.read_header(path).pages
  if count == 1:
    return [Item(path, stem)]
  digits = max(2, len(str(count - 1)))
  return [Item(path, f'{stem}_{i:0{digits}d}', i, count) for i in range(count)]


def plan_outputs(
  items: Sequence[Item],
  folder: str | Path,
  endings: Sequence[str],
  *,
  shared: Sequence[str] = (),
  overwrite: bool = False,
  keep: bool = False,
) -> None:
  """Makes the output folder, after checking that nothing will be lost in it.

  Args:
    items: the inputs; each writes <stem><ending>.
    folder: for the results.
    endings: such as '.png' and '_overlay.png'.
    shared: names of files that all of them write together.
    overwrite: whether files that are there may be replaced; inputs never are.
    keep: whether they may be there because they will be left as they are.

  Raises:
    UserError: two inputs would write one file, a file is in the way (the first is named), or the
      folder cannot be written.
  """
  folder = files.place(folder)
  inputs = {_resolved(item.path) for item in items}
  outputs: dict[Path, Item | None] = {folder / name: None for name in shared}
  for item in items:
    for file in (folder / f'{item.stem}{ending}' for ending in endings):
      if file in outputs:
        raise UserError(
          f'{outputs[file].name} and {item.name} would both write {file.name}: '
          'rename one, or predict them into two folders'
        )
      outputs[file] = item
  for file in outputs:
    if _resolved(file) in inputs:
      raise UserError(f'{file} is an input and would be replaced: choose another --output')
    if not (overwrite or keep) and file.exists():
      raise UserError(f'{file} {IN_THE_WAY}')
  try:
    for place in {file.parent for file in outputs}:
      place.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--output={folder}: {error.strerror}; choose a folder that can be made'
    ) from None
  if not files.is_remote(folder) and not os.access(folder, os.W_OK):
    raise UserError(f'--output={folder} cannot be written: choose another')


def _resolved(path: Path) -> Path:
  """Returns the file that a path leads to; links in a loop, which Path.resolve refuses, stay."""
  return path if files.is_remote(path) else Path(os.path.realpath(path))


def header_size(item: Item) -> tuple[int, int] | None:
  """Returns an image's height and width without decoding it, None where that fails."""
  try:
    return pages.read_header(item.path, item.page).upright_size
  except UserError:  # whoever reads the image says what is wrong
    return None


def read_image(item: Item, *, channels: int, dtype: str = 'uint8') -> np.ndarray:
  """Reads an image as training's records hold it, [h, w, channels] of `dtype`, upright."""
  page = item.page if item.pages > 1 else None
  return image_files.read_image(item.path, channels=channels, dtype=dtype, page=page)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
  """Turns what a disk says while a file is written into a UserError."""
  try:
    yield
  except OSError as error:
    raise UserError(f'cannot write {error.filename or path}: {error.strerror or error}') from error


@contextlib.contextmanager
def any_size() -> Iterator[None]:
  """Lifts Pillow's limit of pixels: a user's own large images are what tiles are for."""
  limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
  try:
    yield
  finally:
    Image.MAX_IMAGE_PIXELS = limit
