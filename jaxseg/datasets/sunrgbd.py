"""SUN RGB-D: rooms seen by four depth cameras, colour only, 37 classes, 5285 / 5050 images.

Song et al., CVPR 2015. SUN RGB-D's own labels are one MATLAB file that takes 64 GB to open, so what
everybody reads, and what is read here, is A. Handa's export of it (sunrgbd-meta-data) and of the
images. Below sunrgbd/, or data_dir itself, unpacked or not:

  SUNRGBD-train_images/img-000001.jpg ... img-005285.jpg       SUNRGBD-train_images.tgz
  SUNRGBD-test_images/img-000001.jpg ... img-005050.jpg        SUNRGBD-test_images.tgz
  sunrgbd_train_test_labels/img-000001.png ... img-010335.png  sunrgbd_train_test_labels.tar.gz

The labels are numbered through, test first: training image i has label 5050 + i. Label 0 is void, 1
to 37 are the first 37 classes of the 40 of NYUDv2, in its spelling. The cameras' images differ in
size; SegNet (arXiv:1511.00561) resizes all to 360 x 480.
"""

from __future__ import annotations

import re
from pathlib import Path

import tensorflow_datasets as tfds

from jaxseg.data import archives, classlist, image_files, records
from jaxseg.datasets import data_root
from jaxseg.types import VOID, UserError

CLASS_NAMES = (
  'wall',
  'floor',
  'cabinet',
  'bed',
  'chair',
  'sofa',
  'table',
  'door',
  'window',
  'bookshelf',
  'picture',
  'counter',
  'blinds',
  'desk',
  'shelves',
  'curtain',
  'dresser',
  'pillow',
  'mirror',
  'floor-mat',
  'clothes',
  'ceiling',
  'books',
  'refridgerator',
  'television',
  'paper',
  'towel',
  'shower-curtain',
  'box',
  'whiteboard',
  'person',
  'night-stand',
  'toilet',
  'sink',
  'lamp',
  'bathtub',
  'bag',
)
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = classlist.voc_palette(NUM_CLASSES + 1)[1:]  # none is published; black stays for void
SPLITS = ('train', 'test')
CHANNELS = 3
NUM_TEST = 5050  # labels of test images that come before those of training images

_TABLE = {0: VOID, **{i + 1: i for i in range(NUM_CLASSES)}}


class SunRgbd(records.Builder, skip_registration=True):
  """SUN RGB-D, colour images, 37 classes."""

  name = 'sunrgbd'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    label = image_files.map_ids(image_files.read_mask(raw.label), _TABLE, raw.label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns 'train' or 'test', at the images' own sizes.

  Args:
    split: the split.
    data_dir: the folder that holds sunrgbd/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split, a missing or damaged file, or image and label of two sizes.
  """
  if split not in SPLITS:
    raise UserError(f"sunrgbd has no split '{split}': use one of {', '.join(SPLITS)}")
  root = data_root(data_dir)
  facts = records.Facts('sunrgbd', CLASS_NAMES, PALETTE, CHANNELS)
  raws = list_images((root / 'sunrgbd', root), split, cache_dir)
  return records.open_source(SunRgbd, facts, split, raws, cache_dir=cache_dir, progress=progress)


def list_images(roots, split: str, cache_dir=None) -> list[records.Raw]:
  """Pairs a split's images with their labels, by number."""

  def find(name: str, archive: str) -> Path:
    return archives.find(roots, (name,), (archive,), cache_dir=cache_dir, flat=True)

  images = find(f'SUNRGBD-{split}_images', f'SUNRGBD-{split}_images.tgz')
  labels = find('sunrgbd_train_test_labels', 'sunrgbd_train_test_labels.tar.gz')
  first = NUM_TEST if split == 'train' else 0
  return [
    records.Raw(path, labels / f'img-{number_of(path) + first:06d}.png', path.name)
    for path in image_files.list_images(images, ('.jpg',))
  ]


def number_of(path: Path) -> int:
  """Returns 17 for img-000017.jpg."""
  found = re.fullmatch(r'img-(\d+)', path.stem)
  if not found:
    raise UserError(f'sunrgbd: {path} is not named img-NUMBER.jpg: restore its name or remove it')
  return int(found[1])
