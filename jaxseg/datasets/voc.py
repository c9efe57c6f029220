"""PASCAL VOC 2011 and 2012 segmentation with SBD's additional labels: 20 classes and background.

Everingham et al., IJCV 2010 and 2015; Hariharan et al., Semantic Contours, ICCV 2011 (SBD). In voc/, or
data_dir itself, as published, unpacked or not:

  VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets}  VOCtrainval_11-May-2012.tar
  TrainVal/VOCdevkit/VOC2011/ (or without TrainVal/)          VOCtrainval_25-May-2011.tar
  benchmark_RELEASE/dataset/{img,cls,train.txt,val.txt}       benchmark.tgz

Splits, with their number of images if complete:

  train, val, trainval  VOC's own lists: 1464, 1449 and 2913 in 2012, 1112 in 'train' of 2011.
  sbd_train             SBD's train.txt, 8498 images with SBD's labels: FCN's training set.
  seg11valid            val of VOC 2011 without the images of SBD's train.txt, 736: FCN's validation
                        set (arXiv:1605.06211). VOC's val and SBD's train overlap.
  trainaug              train of VOC 2012 with its own labels, then every other image of SBD's two
                        lists that is not in val of VOC 2012: 10582, with SBD's labels.

VOC's masks are palette PNGs, or read by VOC's colours if saved as RGB; objects have an outline of 255
(void), which SBD's lack. The labels of VOC's test images are hidden.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxseg.data import archives, classlist, image_files, mask_files, mat_files, raw_files, records
from jaxseg.data.problems import check_choice, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID, UserError

_NAMES = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog,
horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""
CLASS_NAMES = tuple(' '.join(_NAMES.split()).split(', '))
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = classlist.voc_palette(NUM_CLASSES)
SPLITS = ('train', 'val', 'trainval', 'trainaug', 'sbd_train', 'seg11valid')
YEARS = (2011, 2012)
SIZE = (500, 500)  # (height, width) of the largest

_ARCHIVES = {2011: 'VOCtrainval_25-May-2011.tar', 2012: 'VOCtrainval_11-May-2012.tar'}
_SBD_ARCHIVES = ('benchmark.tgz', 'benchmark.tar')
_TABLE = {**{i: i for i in range(NUM_CLASSES)}, VOID: VOID}
_COLORS = {**{color: i for i, color in enumerate(PALETTE)}, classlist.VOC_VOID: VOID}
_MASKS = classlist.ClassList(  # palette indices, or RGB if saved by another tool
  CLASS_NAMES, tuple(_TABLE.items()), tuple(_COLORS.items()), by='indices'
)


def source(
  split: str, *, data_dir: str | None = None, cache_dir: str | None = None, year: int = 2012
) -> Source:
  """Returns one of the splits; images are of many sizes.

  Args:
    split: one of SPLITS; see the module's docstring.
    year: 2011 or 2012, for 'train', 'val' and 'trainval'; 'seg11valid' is always of 2011 and
      'trainaug' always of 2012.
  """
  check_split('voc', split, SPLITS)
  check_choice('voc', 'year', year, YEARS)
  raws = _list_split(archives.finder(['voc'], data_dir, cache_dir), split, year)
  return records.open_source(DatasetInfo('voc', CLASS_NAMES, PALETTE), split, raws, read, cache_dir)


def read(raw: records.Raw) -> records.Example:
  """Reads an image and its label, a PNG of VOC or a .mat of SBD."""
  if raw.label.suffix == '.mat':
    label = mask_files.map_ids(_read_sbd(raw.label), _TABLE, raw.label)
  else:
    label = classlist.read_label(raw.label, _MASKS)
  return records.Example(image_files.encode_image(raw.image), label)


def _list_split(find: Callable[..., Path], split: str, year: int) -> list[records.Raw]:
  def voc(year: int) -> Path:
    names = (f'VOCdevkit/VOC{year}', f'TrainVal/VOCdevkit/VOC{year}', f'VOC{year}')
    return find(names, (_ARCHIVES[year],))

  def sbd() -> Path:
    return find(('benchmark_RELEASE/dataset',), _SBD_ARCHIVES)

  match split:
    case 'sbd_train':
      return [_of_sbd(sbd(), name) for name in _read_names(sbd() / 'train.txt')]
    case 'seg11valid':
      names = seg11valid(_read_voc_names(voc(2011), 'val'), _read_names(sbd() / 'train.txt'))
      return [_of_voc(voc(2011), name) for name in names]
    case 'trainaug':
      lists = [_read_names(sbd() / f'{part}.txt') for part in ('train', 'val')]
      own, further = trainaug(*(_read_voc_names(voc(2012), s) for s in ('train', 'val')), *lists)
      return [_of_voc(voc(2012), n) for n in own] + [_of_sbd(sbd(), n) for n in further]
    case _:
      return [_of_voc(voc(year), name) for name in _read_voc_names(voc(year), split)]


def seg11valid(voc_val: list[str], sbd_train: list[str]) -> list[str]:
  """Returns FCN's validation names: val of VOC 2011, in its order, without SBD's train."""
  taken = set(sbd_train)
  return [name for name in voc_val if name not in taken]


def trainaug(
  voc_train: list[str], voc_val: list[str], sbd_train: list[str], sbd_val: list[str]
) -> tuple[list[str], list[str]]:
  """Returns the names with VOC's labels (train), and those with SBD's, which are sorted."""
  return voc_train, sorted({*sbd_train, *sbd_val} - {*voc_train, *voc_val})


def _read_names(path: Path) -> list[str]:
  return raw_files.read_text(path).split()


def _read_voc_names(folder: Path, split: str) -> list[str]:
  return _read_names(folder / 'ImageSets' / 'Segmentation' / f'{split}.txt')


def _read_sbd(path: Path) -> np.ndarray:
  """Reads the class labels of SBD's cls/NAME.mat, uint8 [h, w]."""
  data = raw_files.read_bytes(path)
  try:
    return mat_files.read_matrix(data, ('GTcls', 'Segmentation'))
  except ValueError as error:
    raise UserError(f"cannot read {path} as SBD's GTcls: {error}; restore the file") from None


def _of_voc(folder: Path, name: str) -> records.Raw:
  image = folder / 'JPEGImages' / f'{name}.jpg'
  return records.Raw(image, folder / 'SegmentationClass' / f'{name}.png', image.name)


def _of_sbd(folder: Path, name: str) -> records.Raw:
  image = folder / 'img' / f'{name}.jpg'
  return records.Raw(image, folder / 'cls' / f'{name}.mat', image.name)
