"""detections.json: what was found in many images, in the result format of COCO's tools.

A list with an entry for each instance: image_id, file_name, category_id, category, bbox [x, y, width,
height] in pixels, score, segmentation (compressed run lengths) and id, its number in
<stem>_instances.png (where a better instance may cover it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxseg import datasets, storage
from jaxseg.imagefiles import Item
from jaxseg.types import UserError

NAME = 'detections.json'


def refuse_present(folder: Path, *, overwrite: bool) -> None:
  """Raises UserError where the file is there already and may not be replaced."""
  if not overwrite and (folder / NAME).exists():
    raise UserError(
      f'{folder / NAME} is there already: choose another --output, or give --overwrite'
    )


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
    found: item name -> metrics.coco.results_of.
    class_names: background first.
  """
  ids = getattr(datasets.load(config.dataset), 'CATEGORY_IDS', range(len(class_names)))
  numbered = all(item.stem.isdecimal() for item in items)
  lines = []
  for place, item in enumerate(items, start=1):
    image = int(item.stem) if numbered else place
    for number, one in enumerate(found.get(item.name, ()), start=1):
      kind, mask = one['category_id'], one['segmentation']
      line = {
        'image_id': image,
        'file_name': item.path.name,
        'id': number,
        'category_id': ids[kind],
        'category': class_names[kind],
        'score': one['score'],
        'bbox': one['bbox'],
        'segmentation': {'size': list(mask['size']), 'counts': mask['counts'].decode('ascii')},
      }
      lines.append(json.dumps(line))
  storage.write_text(folder / NAME, '[' + ',\n'.join(lines) + ']\n')
