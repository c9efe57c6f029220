"""detections.json: what was found in many images, in the result format of COCO's tools.

A list with an entry for each instance: image_id, file_name, category_id, category, bbox [x, y, width,
height] in pixels, score, segmentation (compressed run lengths) and id, its number in
<stem>_instances.png (where a better instance may cover it).

.detections.jsonl beside it has a line for each image that is done, so that a prediction that was
interrupted can go on.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxseg import datasets, files
from jaxseg.predict.inputs import THERE, Item
from jaxseg.types import UserError

NAME = 'detections.json'
_LOG = '.detections.jsonl'


def refuse_present(folder: Path, *, overwrite: bool) -> None:
  """Raises UserError where the file is there already and may not be replaced."""
  if not overwrite and (folder / NAME).exists():
    raise UserError(f'{folder / NAME} is there already: {THERE}')


class Log:
  """What was found in each image so far, kept in a file that grows.

  Args:
    folder: of the results.
    stems: of the images that are meant.
    goes_on: whether the file that is there is read and added to; else it is begun anew.

  Attributes:
    found: an item's stem -> metrics.coco.results_of.

  Raises:
    UserError: it goes on, and the folder's detections.json tells of other images too.
  """

  def __init__(self, folder: Path, stems: Iterable[str], *, goes_on: bool):
    path = folder / _LOG
    self.found = _read_log(path) if goes_on else {}
    others = not path.exists() or self.found.keys() - set(stems)
    if goes_on and others and (folder / NAME).exists():
      raise UserError(f'{folder / NAME} tells of other images: choose another --output')
    lines = map(_log_line, self.found, self.found.values())
    files.write_text(path, ''.join(lines))  # without a line that was cut short
    self._file = files.Appended(path)

  def add(self, stem: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Notes what was found in an image."""
    self.found[stem] = results
    self._file.write(_log_line(stem, results).encode())

  def __enter__(self) -> Log:
    return self

  def __exit__(self, *_) -> None:
    self._file.close()


def _log_line(stem: str, results: Sequence[Mapping[str, Any]]) -> str:
  return json.dumps([stem, [{**one, 'segmentation': _as_text(one)} for one in results]]) + '\n'


def _as_text(one: Mapping[str, Any]) -> dict[str, Any]:
  mask = one['segmentation']
  return {'size': list(mask['size']), 'counts': mask['counts'].decode('ascii')}


def _read_log(path: Path) -> dict[str, list[dict[str, Any]]]:
  """Returns what the whole lines say, {} where there is no file."""
  lines = path.read_text(encoding='utf-8').splitlines(keepends=True) if path.exists() else []
  found = dict(json.loads(line) for line in lines if line.endswith('\n'))
  for one in itertools.chain.from_iterable(found.values()):
    one['segmentation']['counts'] = one['segmentation']['counts'].encode('ascii')
  return found


def write(
  folder: Path,
  config: ConfigDict,
  items: Sequence[Item],
  found: Mapping[str, Sequence[Mapping[str, Any]]],
  class_names: Sequence[str],
) -> None:
  """Writes the file.

  Args:
    folder: where.
    config: of the run; of COCO's own data its category ids are used, elsewhere the classes' places.
    items: the images, in order. One named by a number, as COCO's are, has that for its image_id,
      others their place from 1.
    found: an item's stem -> metrics.coco.results_of.
    class_names: background first.
  """
  ids = getattr(datasets.load(config.dataset), 'CATEGORY_IDS', range(len(class_names)))
  numbered = all(item.stem.isdecimal() for item in items)
  lines = []
  for place, item in enumerate(items, start=1):
    image = int(item.stem) if numbered else place
    for number, one in enumerate(found.get(item.stem, ()), start=1):
      kind = one['category_id']
      line = {
        'image_id': image,
        'file_name': item.path.name,
        'id': number,
        'category_id': ids[kind],
        'category': class_names[kind],
        'score': one['score'],
        'bbox': one['bbox'],
        'segmentation': _as_text(one),
      }
      lines.append(json.dumps(line))
  files.write_text(folder / NAME, '[' + ',\n'.join(lines) + ']\n')
