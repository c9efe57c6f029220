"""The images of a folder, and their sizes without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxseg.data import pages, raw_files, records
from jaxseg.data.geometry import Size
from jaxseg.data.pages import SUFFIXES
from jaxseg.data.problems import abbreviate
from jaxseg.types import UserError


def listed(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
  """Returns the files of a folder with these suffixes, sorted; none if the folder does not exist."""
  return raw_files.list_images(folder, suffixes) if folder.is_dir() else []


def left_out(raws: Sequence[records.Raw]) -> tuple[str, ...]:
  """Returns a line about each folder that has images without annotations."""
  known = {raw.image for raw in raws}
  notes = []
  for folder in dict.fromkeys(raw.image.parent for raw in raws):
    if others := [path.name for path in listed(folder) if path not in known]:
      notes.append(
        f'{folder}: {len(others)} images are in no list and left out: {abbreviate(others, 3)}'
      )
  return tuple(notes)


def place_of(names: Sequence[str], places: Sequence[Path], file: Path) -> Path | None:
  """Returns the folder that holds images of these names, None if there is none.

  Raises:
    UserError: different images of these names lie in several folders.
  """
  found = [p for p in dict.fromkeys(places) if names and all((p / n).is_file() for n in names)]
  for name in names if len(found) > 1 else ():
    if len({(place / name).resolve() for place in found}) > 1:
      raise UserError(
        f'{file} lists {name}, and there are {found[0] / name} and {found[1] / name}: keep one, or move the others '
        'away'
      )
  return found[0] if found else None


def stored_size(path: Path) -> tuple[Size, int]:
  """Returns an image's (height, width) as stored, and its EXIF orientation, 1 for none."""
  header = pages.read_header(path)
  return header.size, header.orientation
