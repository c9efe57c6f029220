"""The images of a folder, and their sizes without decoding them."""

from __future__ import annotations

from pathlib import Path

from jaxseg.data import pages, raw_files
from jaxseg.data.geometry import Size
from jaxseg.data.pairing import SUFFIXES


def listed(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
  """Returns the files of a folder that end so, by name; none where there is no such folder."""
  return raw_files.list_images(folder, suffixes) if folder.is_dir() else []


def stored_size(path: Path) -> tuple[Size, int]:
  """Returns an image's (height, width) as its file holds it, and its EXIF orientation, 1 for none."""
  header = pages.read_header(path)
  return header.size, header.orientation


def upright_size(path: Path) -> Size:
  """Returns the size of an image as its EXIF orientation turns it."""
  return pages.read_header(path).upright_size
