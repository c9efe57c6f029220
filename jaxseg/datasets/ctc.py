"""Cell Tracking Challenge, two of U-Net's datasets: PhC-C2DH-U373 and DIC-C2DH-HeLa, grey images.

Maska et al., Bioinformatics 2014; Ulman et al., Nature Methods 2017; arXiv:1505.04597, table 2.
In ctc/, or data_dir itself, as published, unpacked or not:

  PhC-C2DH-U373/{01,02}/t000.tif ...                 PhC-C2DH-U373.zip
  PhC-C2DH-U373/{01,02}_GT/SEG/man_seg000.tif ...    16-bit ids of cells, a few frames (gold)
  PhC-C2DH-U373/{01,02}_ST/SEG/man_seg000.tif ...    the same for all frames, computed (silver)
  PhC-C2DH-U373/{01,02}_ERR_SEG/mask000.tif ...      the same, with errors typical of algorithms

and DIC-C2DH-HeLa likewise. The gold frames may lack cells (the paper says "partially annotated"), which
then are background. Releases differ in their number of frames; all with a mask are read. There is no
published split of the two labelled sequences: 'train' is 01, 'val' 02. The challenge's test labels are
hidden.
"""

import re
from pathlib import Path

import numpy as np

from jaxseg.data import archives, image_files, mask_files, raw_files, records
from jaxseg.data.border_weight import foreground
from jaxseg.data.problems import check_choice, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import UserError

CLASS_NAMES = ('background', 'cell')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((0, 0, 0), (120, 220, 140))
SPLITS = ('train', 'val', 'all')

_CELLS = {'u373': 'PhC-C2DH-U373', 'hela': 'DIC-C2DH-HeLa'}
# annotation: suffix of its folder after the sequence's number, its files
_ANNOTATIONS = {
  'GT': ('_GT/SEG', r'man_seg(\d+)'),
  'ST': ('_ST/SEG', r'man_seg(\d+)'),
  'ERR_SEG': ('_ERR_SEG', r'mask(\d+)'),
}


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  cells: str = 'u373',
  annotation: str = 'GT',
  border_weight: bool = False,
  separate: bool | None = None,
) -> Source:
  """Returns the annotated frames of a split: images uint8 [h, w, 1], instances uint16 [h, w].

  Args:
    split: 'train' (sequence 01), 'val' (sequence 02) or 'all'.
    cells: 'u373' (520 x 696 pixels) or 'hela' (512 x 512).
    annotation: 'GT', 'ST' or 'ERR_SEG'; see the module's docstring.
    border_weight: adds the U-Net weight map as 'weight', computed with gaps between touching cells;
      classes are balanced per image.
    separate: whether the label too has a gap of background between touching cells, as in the paper's
      training; by default only in 'train', so that 'val' is scored on the published labels.
      `instances` are never changed.
  """
  check_split('ctc', split, SPLITS)
  check_choice('ctc', 'cells', cells, _CELLS)
  check_choice('ctc', 'annotation', annotation, _ANNOTATIONS)
  name = _CELLS[cells]
  folder = archives.finder(['ctc'], data_dir, cache_dir)([name], [f'{name}.zip'])
  sequences = {'train': ['01'], 'val': ['02'], 'all': ['01', '02']}[split]
  separate = split == 'train' if separate is None else separate
  entries = ('instances', 'weight') if border_weight else ('instances',)
  return records.open_source(
    DatasetInfo('ctc', CLASS_NAMES, PALETTE, 1, entries),
    split,
    [raw for sequence in sequences for raw in _list_frames(folder, sequence, annotation)],
    read,
    cache_dir,
    options={'weigh': border_weight, 'separate': separate},
  )


def read(raw: records.Raw, **options: bool) -> records.Example:
  """Reads a frame and its mask; for the options see border_weight.foreground."""
  instances = mask_files.read_ids(raw.label).astype(np.uint16)
  label, weight = foreground(instances, **options)
  return records.Example(image_files.encode_image(raw.image, channels=1), label, weight, instances)


def _list_frames(folder: Path, sequence: str, annotation: str) -> list[records.Raw]:
  """Lists the frames of a sequence that have a mask, in order of time."""
  suffix, pattern = _ANNOTATIONS[annotation]
  raws = []
  for mask in raw_files.list_images(folder / f'{sequence}{suffix}', ('.tif',)):
    if number := re.fullmatch(pattern, mask.stem):
      image = folder / sequence / f't{number[1]}.tif'
      raws.append(records.Raw(image, mask, f'{sequence}_{image.name}'))
  if not raws:
    raise UserError(f'no masks in {folder / (sequence + suffix)}: restore them')
  return raws
