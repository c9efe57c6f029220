"""Data Science Bowl 2018: nuclei from many microscopes, images of many sizes.

Caicedo et al., Nature Methods 2019 (BBBC038). Two layouts: images/ID.png with 16-bit instance maps
labels/ID.png and index.csv (id, split, ...), and the published
stage1_train/ID/{images,masks}/*.png, or stage1_train.zip.
Validation is the images with int(ID[:8], 16) % 5 == 0, in both. fluorescence_train and fluorescence_val
are 380 and 67 images of grey nuclei on dark background, listed in dsb2018_fluorescence.txt.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxseg.data import archives, image_files, mask_files, raw_files, records
from jaxseg.data.border_weight import balancing_weights, foreground
from jaxseg.data.problems import check_choice, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import UserError

CLASS_NAMES = ('background', 'nucleus')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((0, 0, 0), (250, 170, 30))
SPLITS = ('train', 'val', 'fluorescence_train', 'fluorescence_val')
CLASS_WEIGHTS = balancing_weights(
  (0.8571, 0.1429)
)  # fractions of all pixels, with touching nuclei separated


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  border_weight: bool = True,
  separate: bool | None = None,
  channels: int = 3,
) -> Source:
  """Returns one of SPLITS with instances uint16 and, by default, weight float32.

  Args:
    border_weight: adds the U-Net weight map as 'weight', computed with gaps between touching nuclei.
    separate: whether the label too has a gap of background between touching nuclei, as in U-Net's
      training; by default only for training, so that validation is on the published labels.
      `instances` are never changed.
    channels: 3, or 1 for grey.
  """
  check_split('dsb2018', split, SPLITS)
  check_choice('dsb2018', 'channels', channels, (1, 3))
  separate = split.endswith('train') if separate is None else separate
  entries = ('instances', 'weight') if border_weight else ('instances',)
  return records.open_source(
    DatasetInfo('dsb2018', CLASS_NAMES, PALETTE, channels, entries),
    split,
    _list_images(split, data_dir, cache_dir),
    read,
    cache_dir,
    options={'channels': channels, 'weigh': border_weight, 'separate': separate},
  )


def read(raw: records.Raw, *, channels: int, **options: bool) -> records.Example:
  """Reads an image and its nuclei; for other options see border_weight.foreground."""
  image = image_files.encode_image(raw.image, channels=channels)
  if raw.extra is None:
    instances = mask_files.read_ids(raw.label).astype(np.uint16)
  else:
    instances = join_masks(raw.extra, (image.height, image.width))
  label, weight = foreground(instances, class_weights=CLASS_WEIGHTS, **options)
  return records.Example(image, label, weight, instances)


def _list_images(split: str, data_dir: str | None, cache_dir: str | None) -> list[records.Raw]:
  """Lists a split's images in any layout, by id."""
  folder = archives.data_root(data_dir) / 'dsb2018'
  if (folder / 'index.csv').is_file():
    rows = raw_files.read_table(folder / 'index.csv')
    if not rows or not {'id', 'split'} <= set(rows[0]):
      raise UserError(f"{folder / 'index.csv'} has no columns 'id' and 'split': restore the file")
    ids = _of(split, {row['id']: row['split'] for row in rows})
    images, labels = folder / 'images', folder / 'labels'
    return [records.Raw(images / f'{i}.png', labels / f'{i}.png', f'{i}.png') for i in ids]
  find = archives.finder(['dsb2018'], data_dir, cache_dir)
  stage = find(['stage1_train'], ['stage1_train.zip'], flat=True)
  ids = sorted(p.name for p in stage.iterdir() if p.is_dir() and not p.name.startswith(('.', '_')))
  return [_published(stage / i) for i in _of(split, {i: split_of(i) for i in ids})]


def _of(split: str, splits: Mapping[str, str]) -> list[str]:
  """Returns the ids of a split, given those of 'train' and 'val'."""
  if split in ('train', 'val'):
    return [i for i, name in splits.items() if name == split]
  listed = (Path(__file__).with_name('dsb2018_fluorescence.txt')).read_text(encoding='utf-8')
  _, chosen = listed.split(f'{split}: ')
  chosen = chosen.split('\n\n')[0].split()[1:]
  known = {i[:8]: i for i in splits}
  missing = [i for i in chosen if i not in known]
  if missing:
    raise UserError(
      f'dsb2018: {len(missing)} of the {len(chosen)} images of {split} are missing, as {missing[0]}...: '
      'fetch the published set'
    )
  return [known[i] for i in chosen]


def split_of(identifier: str) -> str:
  """Returns the split of an image by its id, a hexadecimal hash."""
  try:
    return 'val' if int(identifier[:8], 16) % 5 == 0 else 'train'
  except ValueError:
    raise UserError(f'dsb2018: {identifier!r} is no image id (hexadecimal); remove it') from None


def _published(folder: Path) -> records.Raw:
  masks = tuple(raw_files.list_images(folder / 'masks', ('.png',)))  # empty: no nuclei in the image
  image = folder / 'images' / f'{folder.name}.png'
  return records.Raw(image, folder / 'masks', image.name, extra=masks)


def join_masks(paths: tuple[Path, ...], size: tuple[int, int]) -> np.ndarray:
  """Merges mask files, one per nucleus, to ids 1..n uint16 [h, w]; overlaps go to the smaller mask."""
  masks = [mask_files.read_ids(path) > 0 for path in paths]
  for path, mask in zip(paths, masks, strict=True):
    if mask.shape != size:
      raise UserError(
        f'{path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}: they '
        'must have one size'
      )
  instances = np.zeros(size, np.uint16)
  for i in sorted(range(len(masks)), key=lambda i: -np.count_nonzero(masks[i])):
    instances[masks[i]] = i + 1
  return instances
