"""The files of a prediction: lists and reads the input images, and plans the output files."""

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
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

IN_THE_WAY = 'already exists: choose another --output, or give --skip_existing or --overwrite'


@dataclasses.dataclass(frozen=True)
class InputImage:
  """One image to predict.

  Attributes:
    path: its file.
    stem: base of its results' names, with their sub-folders.
    page: index in a multi-page TIFF.
    pages: number of pages of the file.
  """

  path: Path
  stem: str
  page: int = 0
  pages: int = 1

  @property
  def name(self) -> str:
    """Its name in messages."""
    return f'{self.path}, page {self.page}' if self.pages > 1 else str(self.path)

  @property
  def file_name(self) -> str:
    """The file's name, with the results' sub-folders."""
    return (PurePosixPath(self.stem).parent / self.path.name).as_posix()


def list_items(source: str | Path, results: str | Path | None = None) -> list[InputImage]:
  """Lists the input images, by name.

  Args:
    source: an image; a folder, searched recursively; a pattern such as 'DIR/**/*.tif'; or a .txt file
      with one path per line, relative to its folder, duplicates dropped. Results keep the sub-folders
      below the folder, or below the fixed part of the pattern. Each page of a TIFF is an image,
      <stem>_00 and so on.
    results: the output folder; files in it are not inputs, even below the source.

  Raises:
    UserError: no such file, or no image in it.
  """
  source = files.to_path(source)
  if source.is_dir():
    paths, base = _below(source), source
    allowed = f'an image ends in {", ".join(pages.SUFFIXES)}'
  elif not source.exists() and glob.has_magic(str(source)):
    paths = [Path(p) for p in sorted(glob.glob(str(source), recursive=True))]
    paths, base = [p for p in paths if not p.is_dir()], _fixed_part(source)
    if '..' in source.relative_to(base).parts:
      raise UserError(f'{source}: .. behind a wildcard would leave --output: write it before')
    allowed = 'no file fits the pattern'
  elif source.suffix.lower() == '.txt':
    lines = (line.strip() for line in raw_files.read_text(source).splitlines())
    named = [_listed_path(source, line) for line in lines if line]
    paths = list({_resolved(path.parent) / path.name: path for path in named}.values())
    base, results, allowed = None, None, 'one path a line, relative to its folder'
  else:
    if not source.exists():
      raise UserError(f'no such file or folder: {source}')
    paths, base, results, allowed = [source], None, None, ''
  if results is not None and (results := files.to_path(results)) != base:
    paths = [path for path in paths if not path.is_relative_to(results)]
  if source.is_dir():
    left = [str(p.relative_to(source)) for p in paths if p.suffix.lower() in pages.UNREAD]
    paths = [path for path in paths if path.suffix.lower() in pages.SUFFIXES]
    if left:
      warn_once(
        [f'{source}: {len(left)} files of other formats are left out: {abbreviate(left, 3)}']
      )
  if not paths:
    raise UserError(f'{source} holds no image: {allowed}')
  return [item for path in paths for item in _pages(path, base or path.parent)]


def _below(folder: Path) -> list[Path]:
  """Returns the images below a folder, by name, and pictures of other formats, without hidden ones."""
  try:
    paths = sorted(folder / name for name in files.walk(folder))
  except OSError as error:
    raise UserError(f'cannot read {error.filename}: {error.strerror or error}') from None
  return [path for path in paths if path.suffix.lower() in (*pages.SUFFIXES, *pages.UNREAD)]


def _fixed_part(pattern: Path) -> Path:
  """Returns the leading folders of a pattern that contain no wildcard."""
  fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
  return Path(*fixed)


def _listed_path(source: Path, line: str) -> Path:
  """Returns the path on a line of a list; relative paths start at the list's folder."""
  return files.to_path(line) if files.is_remote(line) else source.parent / files.to_path(line)


def _pages(path: Path, base: Path) -> list[InputImage]:
  count, stem = 1, path.relative_to(base).with_suffix('').as_posix()
  if path.suffix.lower() in ('.tif', '.tiff'):
    # A damaged file is reported when it is read.
    with contextlib.suppress(UserError):
      count = pages.read_header(path).pages
  if count == 1:
    return [InputImage(path, stem)]
  digits = max(2, len(str(count - 1)))
  return [InputImage(path, f'{stem}_{i:0{digits}d}', i, count) for i in range(count)]


def plan_outputs(
  items: Sequence[InputImage],
  folder: str | Path,
  endings: Sequence[str],
  *,
  shared: Sequence[str] = (),
  overwrite: bool = False,
  keep: bool = False,
) -> None:
  """Creates the output folder, after checking that no file in it will be lost.

  Args:
    items: the inputs; each writes <stem><ending>.
    folder: for the results.
    endings: such as '.png' and '_overlay.png'.
    shared: names of files with the results of all inputs.
    overwrite: existing files may be replaced; inputs never are.
    keep: existing files are allowed and left as they are.

  Raises:
    UserError: two inputs would write one file, a file exists (the first is named), or the folder
      cannot be written.
  """
  folder = files.to_path(folder)
  inputs = {_resolved(item.path) for item in items}
  outputs: dict[Path, InputImage | None] = {folder / name: None for name in shared}
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
    for parent in sorted({parent for file in outputs for parent in file.parents}):
      if parent.is_relative_to(folder) and parent != folder:
        files.own_folder(parent)
  except OSError as error:
    raise UserError(
      f'--output={folder}: {error.strerror}; choose a folder that can be made'
    ) from None
  if not files.is_remote(folder) and not os.access(folder, os.W_OK):
    raise UserError(f'--output={folder} cannot be written: choose another')


def _resolved(path: Path) -> Path:
  """Resolves links; unlike Path.resolve, leaves those in a loop."""
  return path if files.is_remote(path) else Path(os.path.realpath(path))


def header_size(item: InputImage) -> tuple[int, int] | None:
  """Returns an image's height and width without decoding it, None where that fails."""
  try:
    return pages.read_header(item.path, item.page).upright_size
  except UserError:  # reported when the image is read
    return None


def read_image(item: InputImage, *, channels: int, dtype: str = 'uint8') -> np.ndarray:
  """Reads an image as in training, [h, w, channels] of `dtype`, upright."""
  page = item.page if item.pages > 1 else None
  return image_files.read_image(item.path, channels=channels, dtype=dtype, page=page)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
  """Turns an OSError while a file is written into a UserError."""
  try:
    yield
  except OSError as error:
    raise UserError(f'cannot write {error.filename or path}: {error.strerror or error}') from error


@contextlib.contextmanager
def any_size() -> Iterator[None]:
  """Lifts Pillow's pixel limit: tiles are made for large images."""
  limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
  try:
    yield
  finally:
    Image.MAX_IMAGE_PIXELS = limit
