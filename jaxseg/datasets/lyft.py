"""Lyft-Udacity challenge: street scenes rendered by CARLA, 600 x 800, 13 classes, 1000 per folder.

The data of the Lyft perception challenge of 2018; no licence is stated. Reads two layouts, in
lyft/, lyft-udacity-challenge/ or data_dir itself, unpacked or not:

  data{A,B,C,D,E}/data{A,...}/{CameraRGB,CameraSeg}/*.png  Kaggle's copy: lyft-udacity-challenge.zip
  Train/{CameraRGB,CameraSeg}/*.png                        the challenge's own: lyft_training_data.tar.gz

A label is a colour PNG whose red channel is the class (index 2 in OpenCV). There is no published split:
'val' is the last folder, E of Kaggle's, or the last fifth of a single folder's names; not random, as
neighbouring frames are similar.
"""

from pathlib import Path

import numpy as np

from jaxseg.data import archives, image_files, mask_files, raw_files, records
from jaxseg.data.problems import check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import UserError

_CLASSES = {
  'None': (0, 0, 0),
  'Buildings': (70, 70, 70),
  'Fences': (190, 153, 153),
  'Other': (72, 0, 90),
  'Pedestrians': (220, 20, 60),
  'Poles': (153, 153, 153),
  'RoadLines': (157, 234, 50),
  'Roads': (128, 64, 128),
  'Sidewalks': (244, 35, 232),
  'Vegetation': (107, 142, 35),
  'Vehicles': (0, 0, 255),
  'Walls': (102, 102, 156),
  'TrafficSigns': (220, 220, 0),
}
CLASS_NAMES, PALETTE = tuple(_CLASSES), tuple(_CLASSES.values())
NUM_CLASSES = len(CLASS_NAMES)
SPLITS = ('train', 'val', 'all')
HOOD_ROW = 496  # from this row on, vehicle pixels are the hood of the car with the camera
NONE, ROAD_LINES, ROADS, VEHICLES = (
  CLASS_NAMES.index(name) for name in ('None', 'RoadLines', 'Roads', 'Vehicles')
)
_ARCHIVES = ('lyft-udacity-challenge.zip', 'lyft_training_data.tar.gz')
_FOLDERS = tuple(f'data{letter}' for letter in 'ABCDE')
_HELD_OUT = 5  # of a single folder the last one in so many is 'val'
_TABLE = {i: i for i in range(NUM_CLASSES)}


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  remove_hood: bool = False,
  merge_lanes: bool = False,
) -> Source:
  """Returns 'train', 'val' or 'all'; see the module's docstring for the split.

  The challenge's scores of road (with its lines) and vehicles (without the hood) need both options.

  Args:
    remove_hood: whether vehicle pixels from row 496 on become 'None'.
    merge_lanes: whether 'RoadLines' become 'Roads'; the class stays in the list but never occurs.
  """
  check_split('lyft', split, SPLITS)
  raws = [_list_folder(folder) for folder in _find_folders(data_dir, cache_dir)]
  return records.open_source(
    DatasetInfo('lyft', CLASS_NAMES, PALETTE),
    split,
    [raw for folder in raws for raw in folder],
    read,
    cache_dir,
    options={'remove_hood': remove_hood, 'merge_lanes': merge_lanes},
    indices=part([len(folder) for folder in raws], split),
  )


def read(raw: records.Raw, *, remove_hood: bool, merge_lanes: bool) -> records.Example:
  """Reads an image and its colour PNG; for the options see source."""
  label = mask_files.map_ids(_read_red(raw.label), _TABLE, raw.label)
  if remove_hood:
    below = label[HOOD_ROW:]
    below[below == VEHICLES] = NONE
  if merge_lanes:
    label[label == ROAD_LINES] = ROADS
  return records.Example(image_files.encode_image(raw.image), label)


def _find_folders(data_dir: str | None, cache_dir: str | None) -> list[Path]:
  """Returns the folders with CameraRGB/ and CameraSeg/: dataA ... dataE, or Train."""
  find = archives.finder(['lyft', 'lyft-udacity-challenge'], data_dir, cache_dir)
  first = find(['Train', *(f'{name}/{name}' for name in _FOLDERS), *_FOLDERS], _ARCHIVES)
  if first.name == 'Train':
    return [first]
  base = first.parent.parent if first.parent.name == first.name else first.parent
  places = ((base / name / name, base / name) for name in _FOLDERS)
  return [p for pair in places if (p := next((f for f in pair if f.is_dir()), None))]


def part(counts: list[int], split: str) -> list[int]:
  """Returns the indices of a split among all examples, in folders of `counts` examples."""
  total = sum(counts)
  held_out = counts[-1] if len(counts) > 1 else total // _HELD_OUT
  first = total - held_out
  return list({'train': range(first), 'val': range(first, total), 'all': range(total)}[split])


def _read_red(path: Path) -> np.ndarray:
  """Reads the red channel of a colour PNG, uint8 [h, w]."""
  mask = mask_files.read(path)
  if mask.pixels is None:
    raise UserError(
      f'{path} is a mask of one channel: labels are colour PNGs with the class in the red channel; '
      'restore the file'
    )
  return np.ascontiguousarray(mask.pixels[..., 0])


def _list_folder(folder: Path) -> list[records.Raw]:
  images = raw_files.list_images(folder / 'CameraRGB', ('.png',))
  labels = folder / 'CameraSeg'
  return [records.Raw(path, labels / path.name, f'{folder.name}_{path.name}') for path in images]
