"""Cell Tracking Challenge, two of U-Net's datasets: PhC-C2DH-U373 and DIC-C2DH-HeLa, grey images.

Maska et al., Bioinformatics 2014; Ulman et al., Nature Methods 2017; arXiv:1505.04597, table 2.
Below ctc/, or data_dir itself, as published, unpacked or not:

  PhC-C2DH-U373/{01,02}/t000.tif ...                 PhC-C2DH-U373.zip
  PhC-C2DH-U373/{01,02}_GT/SEG/man_seg000.tif ...    16-bit ids of cells, a few frames (gold)
  PhC-C2DH-U373/{01,02}_ST/SEG/man_seg000.tif ...    the same for all frames, by computer (silver)
  PhC-C2DH-U373/{01,02}_ERR_SEG/mask000.tif ...      the same, with errors as computers make them

and DIC-C2DH-HeLa likewise. The gold frames may leave cells out (the paper says "partially annotated"):
what is not annotated reads as background. Releases differ in their number of frames: whatever has a
mask is read. There is no published division of the two labelled sequences: 'train' is 01, 'val' 02.
The challenge's test labels are hidden.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import archives, image_files, records
from jaxseg.data import border_weight as weights
from jaxseg.datasets import data_root
from jaxseg.types import UserError

CLASS_NAMES = ('background', 'cell')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((0, 0, 0), (120, 220, 140))
SPLITS = ('train', 'val', 'all')
CHANNELS = 1
CELLS = {'u373': 'PhC-C2DH-U373', 'hela': 'DIC-C2DH-HeLa'}
_SEQUENCES = ('01', '02')
# annotation: its folder after the sequence's number, its files
ANNOTATIONS = {
  'GT': ('_GT/SEG', r'man_seg(\d+)'),
  'ST': ('_ST/SEG', r'man_seg(\d+)'),
  'ERR_SEG': ('_ERR_SEG', r'mask(\d+)'),
}


class Ctc(records.Builder, skip_registration=True):
  """Cell Tracking Challenge: background and cell, with instances."""

  name = 'ctc'
  VERSION = tfds.core.Version('1.0.0')
  has_instances = True

  @property
  def has_weight(self) -> bool:
    return self.options['border_weight']

  def read(self, raw: records.Raw) -> records.Example:
    image = image_files.encode_image(raw.image, channels=CHANNELS)
    instances = image_files.read_mask(raw.label).astype(np.uint16)
    apart = instances
    if self.has_weight or self.options['separate']:
      apart = weights.separate_touching(instances)
    weight = weights.border_weight(apart) if self.has_weight else None
    shown = apart if self.options['separate'] else instances
    return records.Example(image, (shown > 0).astype(np.uint8), weight, instances)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  cells: str = 'u373',
  annotation: str = 'GT',
  border_weight: bool = False,
  separate: bool | None = None,
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns the annotated frames of a split: images uint8 [h, w, 1], instances uint16 [h, w].

  Args:
    split: 'train' (sequence 01), 'val' (sequence 02) or 'all'.
    data_dir: the folder that holds ctc/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    cells: 'u373' (520 x 696 pixels) or 'hela' (512 x 512).
    annotation: 'GT', 'ST' or 'ERR_SEG'; see the module's docstring.
    border_weight: adds the U-Net weight map as 'weight', touching cells separated beforehand; each
      image's two classes weigh the same.
    separate: whether the label too shows a gap of background between touching cells, as the paper
      trains; by default only in 'train', so that 'val' is scored on the published truth.
      `instances` are never changed.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split or option, a missing or damaged file, or no mask at all.
  """
  for what, value, allowed in (
    ('split', split, SPLITS),
    ('cells', cells, CELLS),
    ('annotation', annotation, ANNOTATIONS),
  ):
    if value not in allowed:
      raise UserError(f"ctc has no {what} '{value}': use one of {', '.join(allowed)}")
  root, name = data_root(data_dir), CELLS[cells]
  folder = archives.find((root / 'ctc', root), (name,), (f'{name}.zip',), cache_dir=cache_dir)
  sequences = {'train': _SEQUENCES[:1], 'val': _SEQUENCES[1:], 'all': _SEQUENCES}[split]
  separate = split == 'train' if separate is None else bool(separate)
  return records.open_source(
    Ctc,
    records.Facts('ctc', CLASS_NAMES, PALETTE, CHANNELS),
    'labelled' if split == 'all' else split,  # TFDS keeps the name 'all' to itself
    [raw for sequence in sequences for raw in list_frames(folder, sequence, annotation)],
    cache_dir=cache_dir,
    options={'border_weight': bool(border_weight), 'separate': separate},
    view=split,
    progress=progress,
  )


def list_frames(folder: Path, sequence: str, annotation: str) -> list[records.Raw]:
  """Lists the frames of a sequence that have a mask, in time."""
  place, pattern = ANNOTATIONS[annotation]
  masks = image_files.list_images(folder / f'{sequence}{place}', ('.tif',))
  numbered = ((re.fullmatch(pattern, mask.stem), mask) for mask in masks)
  raws = []
  for found, mask in numbered:
    if found:
      image = folder / sequence / f't{found[1]}.tif'
      raws.append(records.Raw(image, mask, f'{sequence}_{image.name}'))
  if not raws:
    raise UserError(f'no masks in {folder / (sequence + place)}: restore them')
  return raws
