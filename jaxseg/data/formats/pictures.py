"""The images of a folder, and their sizes without decoding them."""

from __future__ import annotations

from pathlib import Path

from jaxseg.data import image_files
from jaxseg.data.geometry import Size
from jaxseg.data.pairing import SUFFIXES
from jaxseg.types import UserError

_ORIENTATION = 0x0112  # EXIF's tag


def listed(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
  """Returns the files of a folder that end so, by name; none where there is no such folder."""
  return image_files.list_images(folder, suffixes) if folder.is_dir() else []


def stored_size(path: Path) -> tuple[Size, int]:
  """Returns an image's (height, width) as its file holds it, and its EXIF orientation, 1 for none."""
  try:
    with image_files.header(path) as image:
      orientation = image.getexif().get(_ORIENTATION, 1)
      return image.size[::-1], orientation if orientation in range(2, 9) else 1
  except FileNotFoundError:
    raise UserError(f'missing file: {path}') from None
  except Exception as error:  # Pillow's readers raise many types on damaged files
    raise UserError(f'cannot decode {path}: {error}; restore the file') from None


def upright_size(path: Path) -> Size:
  """Returns the size of an image as its EXIF orientation turns it."""
  size, orientation = stored_size(path)
  return size[::-1] if orientation > 4 else size
