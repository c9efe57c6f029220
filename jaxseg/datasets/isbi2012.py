"""ISBI 2012: membranes in electron microscopy, 30 consecutive sections of 512 x 512, grey.

Cardona et al., PLoS Biology 2010; Arganda-Carreras et al., Frontiers in Neuroanatomy 2015; the
U-Net's first dataset (arXiv:1505.04597). Two layouts: train/image/00.png with train/label/00.png, and
the challenge's volumes train-volume.tif with train-labels.tif, or ISBI-2012-challenge.zip. The
challenge's 30 test labels were never published. The sections form one volume, so 'val' is its last
fifth, not a random one.
"""

import cv2
import numpy as np

from jaxseg import console
from jaxseg.data import archives, image_files, mask_files, pages, raw_files, records
from jaxseg.data import border_weight as weights
from jaxseg.data.problems import check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import UserError

CLASS_NAMES = ('membrane', 'cell')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((0, 0, 0), (240, 200, 120))
SPLITS = ('train', 'val', 'all')
SCORES = ('neurites',)
NUM_FOLDS = 5
TRAIN_SHARES = (0.2196, 0.7804)  # fractions of all pixels: membrane, cell
CLASS_WEIGHTS = weights.balancing_weights(TRAIN_SHARES)

_ARCHIVE = 'ISBI-2012-challenge.zip'
_TABLE = {0: 0, 1: 1, 255: 1}  # 1-bit copies have 1 instead of 255


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  fold: int | None = None,
  border_weight: bool = False,
) -> Source:
  """Returns a split of the 30 labelled sections; images are uint8 [h, w, 1].

  Args:
    split: 'train' (sections 0..23), 'val' (24..29) or 'all'.
    fold: 0 to 4: that fold of NVIDIA's cross-validation (DeepLearningExamples, UNet_Medical) instead
      of the contiguous split; sections are shuffled by RandomState(0), which mixes neighbours.
    border_weight: adds the U-Net weight map as 'weight', cells being the 4-connected components.
  """
  check_split('isbi2012', split, SPLITS, 'the test labels were never published')
  if fold is not None and (fold not in range(NUM_FOLDS) or split == 'all'):
    raise UserError(f"isbi2012: fold is 0..{NUM_FOLDS - 1} of 'train' or 'val', got {fold!r}")
  raws = _list_sections(data_dir, cache_dir)
  return records.open_source(
    DatasetInfo('isbi2012', CLASS_NAMES, PALETTE, 1, ('weight',) if border_weight else ()),
    split,
    raws,
    read,
    cache_dir,
    options={'border_weight': border_weight},
    indices=section_indices(len(raws), split, fold),
  )


def read(raw: records.Raw, *, border_weight: bool) -> records.Example:
  """Reads a section, which may be a page of a volume."""
  page = raw.extra or 0
  image = image_files.encode_pixels(image_files.read_image(raw.image, channels=1, page=page))
  label = mask_files.map_ids(mask_files.read_ids(raw.label, page), _TABLE, raw.label)
  if not border_weight:
    return records.Example(image, label)
  _, cells = cv2.connectedComponents(label, connectivity=4)
  weight = weights.border_weight(cells, class_weights=CLASS_WEIGHTS)
  return records.Example(image, label, weight)


def section_indices(count: int, split: str, fold: int | None = None) -> list[int]:
  """Returns the indices of a split's sections; 'val' is a fifth; see source."""
  order, held_out = np.arange(count), count // NUM_FOLDS
  if fold is not None:
    np.random.RandomState(0).shuffle(order)
    order = np.roll(order, fold * int((1 - 0.8) * count))  # NVIDIA's: 5 of 30, not 6, by rounding
  return {
    'train': order[: count - held_out],
    'val': order[count - held_out :],
    'all': order,
  }[split].tolist()


def _list_sections(data_dir: str | None, cache_dir: str | None) -> list[records.Raw]:
  """Lists the labelled sections of any layout, in the volume's order."""
  folder = archives.data_root(data_dir) / 'isbi2012'
  if (folder / _ARCHIVE).is_file() and not (folder / 'train-volume.tif').is_file():
    unpacked = archives.unpack(folder / _ARCHIVE, cache_dir)
    folder = next((path.parent for path in unpacked.rglob('train-volume.tif')), unpacked)
  volume, labels = folder / 'train-volume.tif', folder / 'train-labels.tif'
  if (folder / 'train' / 'image').is_dir():
    images = raw_files.list_images(folder / 'train' / 'image', ('.png',))
    return [records.Raw(p, folder / 'train' / 'label' / p.name, p.name) for p in images]
  if volume.is_file():
    counts = [pages.read_header(path).pages for path in (volume, labels)]
    if counts[0] != counts[1]:
      raise UserError(f'{volume} has {counts[0]} pages and {labels} {counts[1]}: they must agree')
    return [records.Raw(volume, labels, f'{i:02d}.png', extra=i) for i in range(counts[0])]
  raise UserError(
    f'no train/image/, train-volume.tif or {_ARCHIVE} in {folder}: put the dataset there, or get it with '
    f'{console.command("data")} get isbi2012'
  )
