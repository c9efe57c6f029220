"""PASCAL VOC 2011 and 2012 segmentation with SBD's further labels: 20 objects and background.

Everingham et al., IJCV 2010 and 2015; Hariharan et al., Semantic Contours, ICCV 2011 (SBD). Below
voc/, or data_dir itself, as published, unpacked or not:

  VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets}  VOCtrainval_11-May-2012.tar
  TrainVal/VOCdevkit/VOC2011/ (or without TrainVal/)          VOCtrainval_25-May-2011.tar
  benchmark_RELEASE/dataset/{img,cls,train.txt,val.txt}       benchmark.tgz

Splits, with their number of images where everything is complete:

  train, val, trainval  VOC's own lists: 1464, 1449 and 2913 in 2012, 1112 in 'train' of 2011.
  sbd_train             SBD's train.txt, 8498 images with SBD's labels: FCN's training set.
  seg11valid            val of VOC 2011 without the images of SBD's train.txt, 736: FCN's validation
                        set (arXiv:1605.06211). VOC's val and SBD's train overlap.
  trainaug              train of VOC 2012 with its own labels, then every other image of SBD's two
                        lists that is not in val of VOC 2012: 10582, with SBD's labels.

VOC's masks have a ring of 255 (void) around objects, SBD's have none. The labels of VOC's test
images are hidden.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from jaxseg.data import archives, classlist, image_files, records
from jaxseg.datasets import data_root
from jaxseg.types import VOID, UserError

CLASS_NAMES = (
  'background',
  'aeroplane',
  'bicycle',
  'bird',
  'boat',
  'bottle',
  'bus',
  'car',
  'cat',
  'chair',
  'cow',
  'diningtable',
  'dog',
  'horse',
  'motorbike',
  'person',
  'pottedplant',
  'sheep',
  'sofa',
  'train',
  'tvmonitor',
)
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = classlist.voc_palette(NUM_CLASSES)
SPLITS = ('train', 'val', 'trainval', 'trainaug', 'sbd_train', 'seg11valid')
YEARS = (2011, 2012)
CHANNELS = 3

_ARCHIVES = {2011: 'VOCtrainval_25-May-2011.tar', 2012: 'VOCtrainval_11-May-2012.tar'}
_SBD_ARCHIVES = ('benchmark.tgz', 'benchmark.tar')
_TABLE = {**{i: i for i in range(NUM_CLASSES)}, VOID: VOID}


class Voc(records.Builder, skip_registration=True):
  """PASCAL VOC segmentation, 21 classes, with SBD's labels."""

  name = 'voc'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    read = read_sbd if raw.label.suffix == '.mat' else image_files.read_mask
    label = image_files.map_ids(read(raw.label), _TABLE, raw.label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  year: int = 2012,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns one of the splits; images are of many sizes.

  Args:
    split: one of SPLITS; see the module's docstring.
    data_dir: the folder that holds voc/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    year: 2011 or 2012, of 'train', 'val' and 'trainval'; 'seg11valid' is always of 2011 and
      'trainaug' always of 2012.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split or year, or a missing or damaged file.
  """
  if split not in SPLITS:
    raise UserError(f"voc has no split '{split}': use one of {', '.join(SPLITS)}")
  if year not in YEARS:
    raise UserError(f'voc: got year {year!r}; use 2011 or 2012')
  root = data_root(data_dir)
  raws = list_split((root / 'voc', root), split, year, cache_dir)
  facts = records.Facts('voc', CLASS_NAMES, PALETTE, CHANNELS)
  stored = f'{split}_{year}' if split in ('train', 'val', 'trainval') else split
  return records.open_source(
    Voc, facts, stored, raws, cache_dir=cache_dir, view=split, progress=progress
  )


def list_split(roots, split: str, year: int, cache_dir=None) -> list[records.Raw]:
  """Lists a split; `roots` are the folders to look in."""

  def voc(year: int) -> Path:
    names = (f'VOCdevkit/VOC{year}', f'TrainVal/VOCdevkit/VOC{year}', f'VOC{year}')
    return archives.find(roots, names, (_ARCHIVES[year],), cache_dir=cache_dir)

  def sbd() -> Path:
    return archives.find(roots, ('benchmark_RELEASE/dataset',), _SBD_ARCHIVES, cache_dir=cache_dir)

  match split:
    case 'sbd_train':
      return [_of_sbd(sbd(), name) for name in read_names(sbd() / 'train.txt')]
    case 'seg11valid':
      names = seg11valid(read_voc_names(voc(2011), 'val'), read_names(sbd() / 'train.txt'))
      return [_of_voc(voc(2011), name) for name in names]
    case 'trainaug':
      lists = [read_names(sbd() / f'{part}.txt') for part in ('train', 'val')]
      own, further = trainaug(*(read_voc_names(voc(2012), s) for s in ('train', 'val')), *lists)
      return [_of_voc(voc(2012), n) for n in own] + [_of_sbd(sbd(), n) for n in further]
    case _:
      return [_of_voc(voc(year), name) for name in read_voc_names(voc(year), split)]


def seg11valid(voc_val: list[str], sbd_train: list[str]) -> list[str]:
  """Returns FCN's validation names: val of VOC 2011, in its order, without SBD's train."""
  taken = set(sbd_train)
  return [name for name in voc_val if name not in taken]


def trainaug(
  voc_train: list[str], voc_val: list[str], sbd_train: list[str], sbd_val: list[str]
) -> tuple[list[str], list[str]]:
  """Returns the names with VOC's labels (train), and those with SBD's, sorted."""
  return voc_train, sorted({*sbd_train, *sbd_val} - {*voc_train, *voc_val})


def read_names(path: Path) -> list[str]:
  """Reads a list with one image name a line."""
  return image_files.read_text(path).split()


def read_voc_names(folder: Path, split: str) -> list[str]:
  return read_names(folder / 'ImageSets' / 'Segmentation' / f'{split}.txt')


def read_sbd(path: Path) -> np.ndarray:
  """Reads the class labels of SBD's cls/NAME.mat, uint8 [h, w]."""
  data = image_files.read_bytes(path)
  try:
    return scipy.io.loadmat(io.BytesIO(data))['GTcls'][0]['Segmentation'][0]
  except Exception as error:  # scipy raises many types on damaged files
    raise UserError(f"cannot read {path} as SBD's GTcls: {error}; restore the file") from None


def _of_voc(folder: Path, name: str) -> records.Raw:
  image = folder / 'JPEGImages' / f'{name}.jpg'
  return records.Raw(image, folder / 'SegmentationClass' / f'{name}.png', image.name)


def _of_sbd(folder: Path, name: str) -> records.Raw:
  image = folder / 'img' / f'{name}.jpg'
  return records.Raw(image, folder / 'cls' / f'{name}.mat', image.name)
