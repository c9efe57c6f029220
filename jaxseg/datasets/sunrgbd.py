"""SUN RGB-D: indoor scenes of four depth cameras, colour only, 37 classes, 5285 / 5050 images.

Song et al., CVPR 2015. SUN RGB-D's own labels are one MATLAB file that needs 64 GB of memory, so the
usual source, and the one read here, is A. Handa's export of labels and images (sunrgbd-meta-data). In
sunrgbd/, or data_dir itself, unpacked or not:

  SUNRGBD-train_images/img-000001.jpg ... img-005285.jpg       SUNRGBD-train_images.tgz
  SUNRGBD-test_images/img-000001.jpg ... img-005050.jpg        SUNRGBD-test_images.tgz
  sunrgbd_train_test_labels/img-000001.png ... img-010335.png  sunrgbd_train_test_labels.tar.gz

The labels are numbered consecutively, test first: training image i has label 5050 + i. Label 0 is void,
1 to 37 are the first 37 of NYUDv2's 40 classes, in its spelling. Image sizes differ between cameras;
SegNet (arXiv:1511.00561) resizes all to 360 x 480.
"""

import re
from pathlib import Path

from jaxseg.data import archives, classlist, raw_files, records
from jaxseg.data.problems import check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID, UserError

_NAMES = """
wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds,
desk, shelves, curtain, dresser, pillow, mirror, floor-mat, clothes, ceiling, books,
refridgerator, television, paper, towel, shower-curtain, box, whiteboard, person, night-stand,
toilet, sink, lamp, bathtub, bag
"""
CLASS_NAMES = tuple(' '.join(_NAMES.split()).split(', '))
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = classlist.voc_palette(NUM_CLASSES + 1)[1:]  # none is published; black is left for void
SPLITS = ('train', 'test')
NUM_TEST = 5050  # labels of test images, which precede those of training images

_TABLE = {0: VOID, **{i + 1: i for i in range(NUM_CLASSES)}}


def source(split: str, *, data_dir: str | None = None, cache_dir: str | None = None) -> Source:
  """Returns 'train' or 'test', at the images' own sizes."""
  check_split('sunrgbd', split, SPLITS)
  find = archives.finder(['sunrgbd'], data_dir, cache_dir)
  name, labels = f'SUNRGBD-{split}_images', 'sunrgbd_train_test_labels'
  images = raw_files.list_images(find([name], [f'{name}.tgz'], flat=True), ('.jpg',))
  labels = find([labels], [f'{labels}.tar.gz'], flat=True)
  first = NUM_TEST if split == 'train' else 0
  return records.open_source(
    DatasetInfo('sunrgbd', CLASS_NAMES, PALETTE),
    split,
    [records.Raw(p, labels / f'img-{_number_of(p) + first:06d}.png', p.name) for p in images],
    records.read_ids,
    cache_dir,
    options={'table': _TABLE},
  )


def _number_of(path: Path) -> int:
  """Returns 17 for img-000017.jpg."""
  match = re.fullmatch(r'img-(\d+)', path.stem)
  if not match:
    raise UserError(f'sunrgbd: {path} is not named img-NUMBER.jpg: restore its name or remove it')
  return int(match[1])
