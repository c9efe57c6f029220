"""Cityscapes: street scenes of 50 cities, 1024 x 2048, 19 classes, 2975 / 500 images.

Cordts et al., CVPR 2016. Below cityscapes/, or data_dir itself, as published, unpacked or not:

  leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png  leftImg8bit_trainvaltest.zip
  gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png   gtFine_trainvaltest.zip

The labelIds are mapped to the 19 trainIds here: the project's script that writes labelTrainIds is
not needed. With coarse=True the labels come from gtCoarse/ (gtCoarse.zip) and there is train_extra,
19998 further images (leftImg8bit_trainextra.zip). The labels of the 1525 test images are hidden.
The licence is non-commercial.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from jaxseg.data import archives, image_files, records
from jaxseg.datasets import MissingSplit, data_root
from jaxseg.types import VOID, UserError

# labelId: name, colour; the trainId is the place in this list
_CLASSES = {
  7: ('road', (128, 64, 128)),
  8: ('sidewalk', (244, 35, 232)),
  11: ('building', (70, 70, 70)),
  12: ('wall', (102, 102, 156)),
  13: ('fence', (190, 153, 153)),
  17: ('pole', (153, 153, 153)),
  19: ('traffic_light', (250, 170, 30)),
  20: ('traffic_sign', (220, 220, 0)),
  21: ('vegetation', (107, 142, 35)),
  22: ('terrain', (152, 251, 152)),
  23: ('sky', (70, 130, 180)),
  24: ('person', (220, 20, 60)),
  25: ('rider', (255, 0, 0)),
  26: ('car', (0, 0, 142)),
  27: ('truck', (0, 0, 70)),
  28: ('bus', (0, 60, 100)),
  31: ('train', (0, 80, 100)),
  32: ('motorcycle', (0, 0, 230)),
  33: ('bicycle', (119, 11, 32)),
}
CLASS_NAMES = tuple(name for name, _ in _CLASSES.values())
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = tuple(color for _, color in _CLASSES.values())
SPLITS = ('train', 'val', 'train_extra')
CHANNELS = 3
_NUM_IDS = 34
# The licence plate's id is -1, which 8 bits show as 255.
TRAIN_IDS = {
  **dict.fromkeys((*range(_NUM_IDS), 255), VOID),
  **{label_id: train_id for train_id, label_id in enumerate(_CLASSES)},
}


class Cityscapes(records.Builder, skip_registration=True):
  """Cityscapes, 19 classes (trainIds)."""

  name = 'cityscapes'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    label = image_files.map_ids(image_files.read_mask(raw.label), TRAIN_IDS, raw.label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  coarse: bool = False,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns 'train', 'val' or, with `coarse`, 'train_extra'; published scores are at full size.

  Args:
    split: the split.
    data_dir: the folder that holds cityscapes/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    coarse: the coarse annotation in place of the fine one.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown or hidden split, or a missing or damaged file.
  """
  if split == 'test':
    raise UserError("cityscapes: the test labels are hidden; use 'val', or predict")
  if split not in SPLITS:
    raise UserError(f"cityscapes has no split '{split}': use one of {', '.join(SPLITS)}")
  if split == 'train_extra' and not coarse:
    raise MissingSplit("cityscapes: 'train_extra' has coarse labels only: set coarse=True")
  root = data_root(data_dir)
  return records.open_source(
    Cityscapes,
    records.Facts('cityscapes', CLASS_NAMES, PALETTE, CHANNELS),
    split,
    list_images((root / 'cityscapes', root), split, 'gtCoarse' if coarse else 'gtFine', cache_dir),
    cache_dir=cache_dir,
    progress=progress,
  )


def list_images(roots, split: str, kind: str, cache_dir=None) -> list[records.Raw]:
  """Lists a split by city and name; `kind` is 'gtFine' or 'gtCoarse'."""
  trainval = 'trainextra' if split == 'train_extra' else 'trainvaltest'
  packed = 'gtFine_trainvaltest.zip' if kind == 'gtFine' else 'gtCoarse.zip'
  name = f'leftImg8bit/{split}'
  images = archives.find(roots, (name,), (f'leftImg8bit_{trainval}.zip',), cache_dir=cache_dir)
  labels = archives.find(roots, (f'{kind}/{split}',), (packed,), cache_dir=cache_dir)
  found = sorted(images.glob('*/[!.]*_leftImg8bit.png'))
  return [records.Raw(path, _label_of(path, labels, kind), path.name) for path in found]


def _label_of(image: Path, labels: Path, kind: str) -> Path:
  stem = image.name.removesuffix('_leftImg8bit.png')
  return labels / image.parent.name / f'{stem}_{kind}_labelIds.png'
