"""Cityscapes: street scenes of 50 cities, 1024 x 2048, 19 classes, 2975 / 500 images.

Cordts et al., CVPR 2016. In cityscapes/, or data_dir itself, as published, unpacked or not:

  leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png  leftImg8bit_trainvaltest.zip
  gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png   gtFine_trainvaltest.zip

The labelIds are mapped to the 19 trainIds here, without Cityscapes' script for labelTrainIds. With
coarse=True the labels come from gtCoarse/ (gtCoarse.zip) and there is train_extra, 19998 further images
(leftImg8bit_trainextra.zip). The labels of the 1525 test images are hidden. The licence is
non-commercial.
"""

from jaxseg.data import archives, records
from jaxseg.data.problems import MissingSplit, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID

# labelId: name, colour; the trainId is the index in this list
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
# The licence plate's id is -1, which is 255 in 8 bits.
TRAIN_IDS = {
  **dict.fromkeys((*range(34), 255), VOID),
  **{label_id: train_id for train_id, label_id in enumerate(_CLASSES)},
}


def source(
  split: str, *, data_dir: str | None = None, cache_dir: str | None = None, coarse: bool = False
) -> Source:
  """Returns 'train', 'val' or, with `coarse`, 'train_extra'; published scores are at full size.

  Args:
    coarse: the coarse annotations instead of the fine ones.
  """
  check_split('cityscapes', split, SPLITS, 'the test labels are hidden')
  if split == 'train_extra' and not coarse:
    raise MissingSplit("cityscapes: 'train_extra' has coarse labels only: set coarse=True")
  find = archives.finder(['cityscapes'], data_dir, cache_dir)
  packed = 'trainextra' if split == 'train_extra' else 'trainvaltest'
  kind = 'gtCoarse' if coarse else 'gtFine'
  images = find([f'leftImg8bit/{split}'], [f'leftImg8bit_{packed}.zip'])
  labels = find([f'{kind}/{split}'], ['gtCoarse.zip' if coarse else 'gtFine_trainvaltest.zip'])
  raws = []
  for path in sorted(images.glob('*/[!.]*_leftImg8bit.png')):  # by city
    label = f'{path.name.removesuffix("_leftImg8bit.png")}_{kind}_labelIds.png'
    raws.append(records.Raw(path, labels / path.parent.name / label, path.name))
  return records.open_source(
    DatasetInfo('cityscapes', CLASS_NAMES, PALETTE),
    split,
    raws,
    records.read_ids,
    cache_dir,
    options={'table': TRAIN_IDS},
  )
