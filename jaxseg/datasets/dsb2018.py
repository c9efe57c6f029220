"""Data Science Bowl 2018: nuclei under many microscopes, images of many sizes.

Caicedo et al., Nature Methods 2019 (BBBC038). Two layouts: images/ID.png with 16-bit instance maps
labels/ID.png and index.csv (id, split, ...), and the published
stage1_train/ID/{images,masks}/*.png.
Validation is the images with int(ID[:8], 16) % 5 == 0, in both.
"""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import border_weight as weights
from jaxseg.data import image_files, records
from jaxseg.datasets import data_root
from jaxseg.types import UserError

CLASS_NAMES = ('background', 'nucleus')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((0, 0, 0), (250, 170, 30))
SPLITS = ('train', 'val')
CHANNELS = 3
TRAIN_SHARES = (0.8571, 0.1429)  # of all pixels, touching nuclei separated
CLASS_WEIGHTS = weights.balancing_weights(TRAIN_SHARES)


class Dsb2018(records.Builder, skip_registration=True):
  """Data Science Bowl 2018: background and nucleus, with instances."""

  name = 'dsb2018'
  VERSION = tfds.core.Version('1.0.0')
  has_instances = True

  @property
  def has_weight(self) -> bool:
    return self.options['border_weight']

  def read(self, raw: records.Raw) -> records.Example:
    image = image_files.encode_image(raw.image, channels=self.facts.channels)
    instances = read_masks(raw.extra) if raw.extra else _read_instances(raw.label)
    apart = instances
    if self.has_weight or self.options['separate']:
      apart = weights.separate_touching(instances)
    weight = None
    if self.has_weight:
      weight = weights.border_weight(apart, class_weights=CLASS_WEIGHTS)
    shown = apart if self.options['separate'] else instances
    return records.Example(image, (shown > 0).astype(np.uint8), weight, instances)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  border_weight: bool = True,
  separate: bool | None = None,
  channels: int = CHANNELS,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns the 'train' or 'val' split with instances uint16 and, by default, weight float32.

  Args:
    split: the split.
    data_dir: the folder that holds dsb2018/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    border_weight: adds the U-Net weight map as 'weight', touching nuclei separated beforehand.
    separate: whether the label too shows a gap of background between touching nuclei, as the paper
      trains; by default only in 'train', so that 'val' is scored on the published truth.
      `instances` are never changed.
    channels: 3, or 1 for grey.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split, a missing or damaged file, or masks of another size.
  """
  if split not in SPLITS:
    raise UserError(f"dsb2018 has no split '{split}': use one of {', '.join(SPLITS)}")
  if channels not in (1, 3):
    raise UserError(f'dsb2018: got channels {channels}; 1 and 3 exist')
  separate = split == 'train' if separate is None else bool(separate)
  folder = data_root(data_dir) / 'dsb2018'
  return records.open_source(
    Dsb2018,
    records.Facts('dsb2018', CLASS_NAMES, PALETTE, channels),
    split,
    list_images(folder, split),
    cache_dir=cache_dir,
    options={'border_weight': bool(border_weight), 'separate': separate},
    progress=progress,
  )


def list_images(folder: Path, split: str) -> list[records.Raw]:
  """Lists a split's images in either layout, by id."""
  if (folder / 'index.csv').is_file():
    rows = list(csv.DictReader(io.StringIO(image_files.read_text(folder / 'index.csv'))))
    if not rows or not {'id', 'split'} <= set(rows[0]):
      raise UserError(f"{folder / 'index.csv'} has no columns 'id' and 'split': restore the file")
    ids = [row['id'] for row in rows if row['split'] == split]
    place = folder / 'images', folder / 'labels'
    return [records.Raw(place[0] / f'{i}.png', place[1] / f'{i}.png', f'{i}.png') for i in ids]
  stage = folder / 'stage1_train'
  if stage.is_dir():
    ids = sorted(p.name for p in stage.iterdir() if p.is_dir() and not p.name.startswith('.'))
    return [_published(stage / i) for i in ids if split_of(i) == split]
  raise UserError(f'no index.csv and no stage1_train/ in {folder}: put the dataset there')


def split_of(identifier: str) -> str:
  """Returns the split of an image by its id, a hexadecimal hash."""
  try:
    return 'val' if int(identifier[:8], 16) % 5 == 0 else 'train'
  except ValueError:
    raise UserError(f'dsb2018: {identifier!r} is no image id (hexadecimal); remove it') from None


def _published(folder: Path) -> records.Raw:
  masks = tuple(image_files.list_images(folder / 'masks', ('.png',)))
  if not masks:
    raise UserError(f'no masks in {folder / "masks"}: restore them or remove {folder}')
  image = folder / 'images' / f'{folder.name}.png'
  return records.Raw(image, folder / 'masks', image.name, extra=masks)


def _read_instances(path: Path) -> np.ndarray:
  return image_files.read_mask(path).astype(np.uint16)


def read_masks(paths: tuple[Path, ...]) -> np.ndarray:
  """Reads one mask file a nucleus into ids 1..n uint16 [h, w]; overlaps go to the smaller mask."""
  masks = [image_files.read_mask(path) > 0 for path in paths]
  for path, mask in zip(paths, masks, strict=True):
    if mask.shape != masks[0].shape:
      raise UserError(f'{path} is not of the size of {paths[0]}: masks must have one size')
  order = sorted(range(len(masks)), key=lambda i: -np.count_nonzero(masks[i]))
  return functools.reduce(
    lambda instances, i: np.where(masks[i], np.uint16(i + 1), instances),
    order,
    np.zeros(masks[0].shape, np.uint16),
  )
