"""The images of a folder, and their sizes without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxseg.data import pages, raw_files, records
from jaxseg.data.geometry import Size
from jaxseg.data.pages import SUFFIXES
from jaxseg.data.problems import some


def listed(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
  """Returns the files of a folder with these suffixes, sorted; none if the folder does not exist."""
  return raw_files.list_images(folder, suffixes) if folder.is_dir() else []


def left_out(raws: Sequence[records.Raw]) -> tuple[str, ...]:
  """Returns a line about each folder that has images without annotations."""
  known = {raw.image for raw in raws}
  notes = []
  for folder in dict.fromkeys(raw.image.parent for raw in raws):
    if others := [path.name for path in listed(folder) if path not in known]:
      notes.append(f'{folder}: {len(others)} images are in no list and left out: {some(others, 3)}')
  return tuple(notes)


def stored_size(path: Path) -> tuple[Size, int]:
  """Returns an image's (height, width) as stored, and its EXIF orientation, 1 for none."""
  header = pages.read_header(path)
  return header.size, header.orientation
