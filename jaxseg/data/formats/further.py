"""Finds annotation files that are not read, of images that are: what only they show would be background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from jaxseg import files
from jaxseg.data import records
from jaxseg.data.formats import coco, cvat, labelme, yolo
from jaxseg.data.pairing import list_files
from jaxseg.types import UserError

_TRIED = 32  # files of a folder to open that are not named after an image
_ALIKE = 3  # and of those that are


def find(root: Path, raws: Iterable[records.Raw]) -> list[str]:
  """Returns the relative paths of such files below a folder; of a file per image one a folder."""
  used, names = {str(raw.label) for raw in raws}, {raw.image.name for raw in raws}
  stems = {PurePosixPath(name).stem for name in names}
  found: list[str] = []
  tried: Counter[tuple[PurePosixPath, str, bool]] = Counter()
  for path in map(PurePosixPath, list_files(root)):
    alone, kind = path.stem in stems, path.suffix.lower()
    place = path.parent, kind, alone
    if kind not in ('.json', '.xml', '.txt') or str(root / path) in used:
      continue
    if tried[place] < (_ALIKE if alone else _TRIED) and _annotates(root / path, names, alone):
      found.append(str(path))
      tried[place] += _ALIKE if alone else 0
    tried[place] += 1
  return found


def _annotates(file: Path, names: set[str], alone: bool) -> bool:
  """Whether a file is of images of these names; `alone`: it is named after one of them."""
  try:
    match file.suffix.lower():
      case '.txt':
        return alone and yolo.is_label(file, least=5)
      case '.xml':
        return bool(cvat.names_in(file) & names)
      case _:
        content = files.read_json(file)
        return alone and labelme.is_labelme(content) or bool(_coco_names(content) & names)
  except UserError:  # it is something else
    return False


def _coco_names(content: Any) -> set[str]:
  listed = content['images'] if coco.has_objects(content) else ()
  told = (image.get('file_name') for image in listed if isinstance(image, dict))
  return {str(name).replace('\\', '/').rpartition('/')[2] for name in told}
