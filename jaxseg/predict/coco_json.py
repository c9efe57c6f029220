"""detections.json: the objects of many images, in COCO's result format.

A list with an entry for each object: image_id, file_name, category_id, category, bbox [x, y, width,
height] in pixels, score, segmentation (compressed RLE) and id, its number in <stem>_instances.png
(where a better one may cover it).

.detections.jsonl beside it has a line for each finished image, so that an interrupted prediction can be
resumed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.metrics.coco import results_of
from jaxseg.predict.inputs import InputImage
from jaxseg.types import Detections, UserError

Results = list[dict[str, Any]]

NAME = 'detections.json'
_LOG = '.detections.jsonl'


class Log:
  """The objects of each image so far, in an append-only file.

  Args:
    folder: of the results.
    stems: of the input images.
    goes_on: append to an existing file; otherwise start a new one.

  Attributes:
    results: an item's stem -> its objects, as in detections.json before `write` adds to them.

  Raises:
    UserError: `goes_on`, but the folder's detections.json is of other images.
  """

  def __init__(self, folder: Path, stems: Iterable[str], *, goes_on: bool):
    path = folder / _LOG
    self.results = _read_log(path) if goes_on else {}
    others = not path.exists() or self.results.keys() - set(stems)
    if goes_on and others and (folder / NAME).exists():
      raise UserError(f'{folder / NAME} lists other images: choose another --output')
    if not goes_on:
      files.write_text(path, '')
    self._path, self._file = path, files.Appended(path)
    self._file.write(b'\n')  # ends a line that may be truncated

  def add(self, stem: str, detections: Detections) -> None:
    """Appends the objects of an image."""
    self.results[stem] = [_as_text(result) for result in results_of(detections)]
    self._file.write(_line(stem, self.results[stem]).encode())

  def __enter__(self) -> Log:
    return self

  def __exit__(self, *_) -> None:
    self._file.close()
    self.results = _read_log(self._path) | self.results  # another process may append too


def _as_text(result: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a JSON-serialisable copy of a result of metrics.coco."""
  size, counts = result['segmentation']['size'], result['segmentation']['counts']
  return {**result, 'segmentation': {'size': list(size), 'counts': counts.decode('ascii')}}


def _line(stem: str, results: Results) -> str:
  return json.dumps([stem, results]) + '\n'


def _read_log(path: Path) -> dict[str, Results]:
  """Reads the intact lines, {} without the file."""
  results = {}
  for line in files.read_bytes(path).splitlines() if path.exists() else ():
    with contextlib.suppress(ValueError, TypeError):  # a truncated line
      stem, objects = files.parsed(line)
      results[stem] = list(objects)
  return results


def write(
  folder: Path,
  items: Sequence[InputImage],
  results: Mapping[str, Results],
  class_names: Sequence[str],
  category_ids: Sequence[int | str],
) -> None:
  """Writes the file.

  Args:
    folder: of the file.
    items: the images, in order. If all are named by different numbers, as COCO's are, these are the
      image_ids, otherwise image_ids count from 1.
    results: see Log.
    class_names: background first.
    category_ids: of the classes.
  """
  numbered = all(item.stem.isdecimal() for item in items)
  numbered = numbered and len({int(item.stem) for item in items}) == len(items)  # not so 1 and 01
  lines = []
  for position, item in enumerate(items, start=1):
    for number, result in enumerate(results.get(item.stem, ()), start=1):
      kind = result['category_id']
      line = {
        'image_id': int(item.stem) if numbered else position,
        'file_name': item.file_name,
        'id': number,
        'category_id': category_ids[kind],
        'category': class_names[kind],
        **{key: result[key] for key in ('score', 'bbox', 'segmentation')},
      }
      lines.append(json.dumps(line))
  files.write_text(folder / NAME, '[' + ',\n'.join(lines) + ']\n')
