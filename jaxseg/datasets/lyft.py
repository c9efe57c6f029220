"""Lyft-Udacity challenge: street scenes rendered by CARLA, 600 x 800, 13 classes, 1000 a folder.

The data of the Lyft perception challenge of 2018; no licence is stated. Two layouts are read, below
lyft/, lyft-udacity-challenge/ or data_dir itself, unpacked or not:

  data{A,B,C,D,E}/data{A,...}/{CameraRGB,CameraSeg}/*.png  Kaggle's copy: lyft-udacity-challenge.zip
  Train/{CameraRGB,CameraSeg}/*.png                        the challenge's own: lyft_training_data.tar.gz

A label is a colour PNG whose red channel holds the class (index 2 for those who read with OpenCV).
There is no published division: 'val' is the last folder, E of Kaggle's, or where there is only one
folder the last fifth of its names: neighbouring frames look alike, so nothing is drawn at random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import archives, image_files, records
from jaxseg.datasets import data_root
from jaxseg.types import UserError

CLASS_NAMES = (
  'None',
  'Buildings',
  'Fences',
  'Other',
  'Pedestrians',
  'Poles',
  'RoadLines',
  'Roads',
  'Sidewalks',
  'Vegetation',
  'Vehicles',
  'Walls',
  'TrafficSigns',
)
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = (
  (0, 0, 0),
  (70, 70, 70),
  (190, 153, 153),
  (72, 0, 90),
  (220, 20, 60),
  (153, 153, 153),
  (157, 234, 50),
  (128, 64, 128),
  (244, 35, 232),
  (107, 142, 35),
  (0, 0, 255),
  (102, 102, 156),
  (220, 220, 0),
)
SPLITS = ('train', 'val', 'all')
CHANNELS = 3
HOOD_ROW = 496  # from this row on, vehicle pixels are the camera car's own hood
NONE, ROAD_LINES, ROADS, VEHICLES = (
  CLASS_NAMES.index(name) for name in ('None', 'RoadLines', 'Roads', 'Vehicles')
)
_ARCHIVES = ('lyft-udacity-challenge.zip', 'lyft_training_data.tar.gz')
_FOLDERS = tuple(f'data{letter}' for letter in 'ABCDE')
_HELD_OUT = 5  # a single folder gives one in so many to 'val'
_TABLE = {i: i for i in range(NUM_CLASSES)}


class Lyft(records.Builder, skip_registration=True):
  """Lyft-Udacity challenge, 13 classes."""

  name = 'lyft'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    label = image_files.map_ids(read_red(raw.label), _TABLE, raw.label)
    if self.options['remove_hood']:
      label = remove_hood(label)
    if self.options['merge_lanes']:
      label = np.where(label == ROAD_LINES, np.uint8(ROADS), label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  remove_hood: bool = False,
  merge_lanes: bool = False,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns 'train', 'val' or 'all'; see the module's docstring for the division.

  The challenge scores road (with its lines) and vehicles (without the hood): there both options
  are on.

  Args:
    split: the split.
    data_dir: the folder that holds lyft/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    remove_hood: vehicle pixels from row 496 on become 'None'.
    merge_lanes: 'RoadLines' become 'Roads'; the class stays in the list and never occurs.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split, a missing or damaged file, or a red value above 12.
  """
  if split not in SPLITS:
    raise UserError(f"lyft has no split '{split}': use one of {', '.join(SPLITS)}")
  root = data_root(data_dir)
  roots = (root / 'lyft', root / 'lyft-udacity-challenge', root)
  folders = [_list_folder(folder) for folder in find_folders(roots, cache_dir)]
  return records.open_source(
    Lyft,
    records.Facts('lyft', CLASS_NAMES, PALETTE, CHANNELS),
    'labelled',  # TFDS keeps the name 'all' to itself
    [raw for folder in folders for raw in folder],
    cache_dir=cache_dir,
    options={'remove_hood': bool(remove_hood), 'merge_lanes': bool(merge_lanes)},
    indices=part([len(folder) for folder in folders], split),
    view=split,
    progress=progress,
  )


def find_folders(roots, cache_dir=None) -> list[Path]:
  """Returns the folders that hold CameraRGB/ and CameraSeg/: dataA ... dataE, or Train."""
  place = archives.find(
    roots,
    ('Train', *(f'{name}/{name}' for name in _FOLDERS), *_FOLDERS),
    _ARCHIVES,
    cache_dir=cache_dir,
  )
  if place.name == 'Train':
    return [place]
  base = place.parent.parent if place.parent.name == place.name else place.parent
  places = ((base / name / name, base / name) for name in _FOLDERS)
  return [p for pair in places if (p := next((f for f in pair if f.is_dir()), None))]


def part(counts: list[int], split: str) -> list[int]:
  """Returns the places of a split among examples in folders of `counts` examples."""
  total = sum(counts)
  held_out = counts[-1] if len(counts) > 1 else total // _HELD_OUT
  first = total - held_out
  return list({'train': range(first), 'val': range(first, total), 'all': range(total)}[split])


def read_red(path: Path) -> np.ndarray:
  """Reads the red channel of a colour PNG, uint8 [h, w]."""
  image = image_files.open_image(path)
  if image.format == 'JPEG' or image.mode not in ('RGB', 'RGBA'):
    raise UserError(
      f'{path} is a {image.format} of mode {image.mode}: labels are colour PNGs with the class in '
      'the red channel; restore the file'
    )
  return np.ascontiguousarray(np.asarray(image)[..., 0])


def remove_hood(label: np.ndarray) -> np.ndarray:
  """Returns the label with the vehicle pixels of rows 496 and below (in the picture) as None."""
  label = label.copy()
  below = label[HOOD_ROW:]
  below[below == VEHICLES] = NONE
  return label


def _list_folder(folder: Path) -> list[records.Raw]:
  images = image_files.list_images(folder / 'CameraRGB', ('.png',))
  labels = folder / 'CameraSeg'
  return [records.Raw(path, labels / path.name, f'{folder.name}_{path.name}') for path in images]
