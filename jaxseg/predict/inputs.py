"""The files of a prediction: which images are meant, how they are read, and where results go."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.data import image_files
from jaxseg.types import UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp', '.gif', '.ppm', '.pgm')
IN_THE_WAY = 'is there already: choose another --output, or give --skip_existing or --overwrite'
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: values that swap height and width


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
      paths = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
      raise UserError(f'cannot read {source}: {error.strerror or error}') from None
    paths = [p for p in paths if not p.name.startswith('.') and not p.is_dir()]
    allowed = f'an image ends in {", ".join(SUFFIXES)}'
  elif source.suffix.lower() == '.txt':
    lines = (line.strip() for line in image_files.read_text(source).splitlines())
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
    with contextlib.suppress(Exception), image_files.header(path) as image:
      count = image.n_frames
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
    with image_files.header(item.path) as image:
      if item.page:
        image.seek(item.page)
      turned = image.getexif().get(_ORIENTATION) in _TURNED
      return image.size if turned else image.size[::-1]
  except Exception:  # Pillow's readers raise many types; whoever reads the image says what is wrong
    return None


def read_image(item: Item, *, channels: int, white: int = 65535) -> np.ndarray:
  """Reads an image as training's records hold it: uint8 [h, w, channels], upright.

  Args:
    item: the file and its page.
    channels: 3, or 1 to turn colour into grey.
    white: value of a 16-bit image that becomes 255.

  Raises:
    UserError: missing, damaged, or of a kind that cannot be made 8-bit.
  """
  data = image_files.read_bytes(item.path)
  image = image_files.open_image(item.path, data, item.page)
  if image.format == 'JPEG':  # records keep it as it is, and OpenCV decodes it
    data = image_files.encode_image(item.path, channels=channels, white=white).data
    return _decode(data, channels)
  try:
    pixels = image_files.to_eight_bit(image, channels=channels, white=white)
  except ValueError as error:
    raise UserError(f'{item.path}: {error}; save it as 8-bit RGB or grey') from None
  pixels = pixels[..., None] if pixels.ndim == 2 else pixels
  return np.repeat(pixels, channels, axis=-1) if pixels.shape[-1] != channels else pixels


def _decode(data: bytes, channels: int) -> np.ndarray:
  flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
  flag |= cv2.IMREAD_IGNORE_ORIENTATION
  pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
  return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if channels == 3 else pixels[..., None]


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
