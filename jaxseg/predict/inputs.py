"""The files of a prediction: which images are meant, how they are read, and where results go."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    stem: names its results.
    page: of a TIFF with several.
    pages: how many the file has.
  """

  path: Path
  stem: str
  page: int = 0
  pages: int = 1

  @property
  def name(self) -> str:
    """Returns what to call it in a message."""
    return f'{self.path}, page {self.page}' if self.pages > 1 else str(self.path)


def list_items(source: str | Path) -> list[Item]:
  """Lists the images that are meant.

  Args:
    source: an image; a folder, whose images are taken by name; a .txt file with a path a line,
      relative to its own folder; a file that it names twice is taken once. Of a TIFF with several
      pages each is an image, <stem>_00 and so on.

  Raises:
    UserError: no such file, or no image in it.
  """
  source = files.place(source)
  if source.is_dir():
    try:
      paths = sorted(p for p in source.iterdir() if p.suffix.lower() in pages.SUFFIXES)
    except OSError as error:
      raise UserError(f'cannot read {source}: {error.strerror or error}') from None
    paths = [p for p in paths if not p.name.startswith('.') and not p.is_dir()]
    allowed = f'an image ends in {", ".join(pages.SUFFIXES)}'
  elif source.suffix.lower() == '.txt':
    lines = (line.strip() for line in raw_files.read_text(source).splitlines())
    named = [_beside(source, line) for line in lines if line]
    paths = list({_resolved(path.parent) / path.name: path for path in named}.values())
    allowed = 'one path a line, relative to its folder'
  else:
    if not source.exists():
      raise UserError(f'no such file or folder: {source}')
    paths, allowed = [source], ''
  if not paths:
    raise UserError(f'{source} holds no image: {allowed}')
  return [item for path in paths for item in _pages(path)]


def _beside(source: Path, line: str) -> Path:
  """Returns the path that a list names; one that is not absolute begins at the list's folder."""
  return files.place(line) if files.is_remote(line) else source.parent / files.place(line)


def _pages(path: Path) -> list[Item]:
  count = 1
  if path.suffix.lower() in ('.tif', '.tiff'):
    # Whoever reads a damaged file says what is wrong.
    with contextlib.suppress(UserError):
      count = pages.read_header(path).pages
  if count == 1:
    return [Item(path, path.stem)]
  digits = max(2, len(str(count - 1)))
  return [Item(path, f'{path.stem}_{i:0{digits}d}', i, count) for i in range(count)]


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
    folder.mkdir(parents=True, exist_ok=True)
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
