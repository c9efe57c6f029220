"""Oxford-IIIT Pet: cats and dogs of 37 breeds, trimaps of pet, background and border, 3680 / 3669.

Parkhi et al., Cats and Dogs, CVPR 2012; CC BY-SA 4.0. Below pet/, or data_dir itself, as published,
unpacked or not:

  images/Abyssinian_1.jpg ...                          images.tar.gz
  annotations/{trimaps/*.png,trainval.txt,test.txt}    annotations.tar.gz

In the trimaps 1 is pet, 2 background and 3 the border, which no one labelled sharply.

Why not the TFDS catalogue's oxford_iiit_pet (tried with TFDS 4.9.10): without TensorFlow it is
constructed, but it takes no manual directory, only a download; it wants the package
importlib_resources, which TFDS does not require; and it re-encodes twelve damaged images, such as
Abyssinian_34, through tf.image. With the download replaced, that package at hand and none of the
twelve, it writes array records and reads them. So the builder here is ours, and Pillow re-encodes
whatever is no plain JPEG.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from jaxseg.data import archives, image_files, records
from jaxseg.datasets import data_root
from jaxseg.types import VOID, UserError

CLASS_NAMES = ('pet', 'background', 'border')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((230, 120, 60), (40, 60, 110), (250, 230, 120))
SPLITS = ('train', 'val', 'trainval', 'test')
BORDERS = ('class', 'void')
CHANNELS = 3
_EVERY = 10  # of trainval.txt, every tenth image is held out as 'val'
_IDS = (1, 2, 3)


class Pet(records.Builder, skip_registration=True):
  """Oxford-IIIT Pet trimaps: pet, background and border."""

  name = 'pet'
  VERSION = tfds.core.Version('1.0.0')

  def read(self, raw: records.Raw) -> records.Example:
    classes = self.facts.num_classes
    table = {i: i - 1 if i <= classes else VOID for i in _IDS}
    label = image_files.map_ids(image_files.read_mask(raw.label), table, raw.label)
    return records.Example(image_files.encode_image(raw.image), label)


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  border: str = 'class',
  progress: records.Progress | None = None,
) -> records.Source:
  """Returns one of the splits; images are of many sizes.

  Args:
    split: 'trainval' or 'test', as published; or 'train' and 'val', our division of 'trainval': its
      images number 9, 19, 29, ... (from 0, in the list's order) are 'val'.
    data_dir: the folder that holds pet/; default $JAXSEG_DATA, else ~/jaxseg_data.
    cache_dir: where the records go; default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    border: 'class', the border is the third class; or 'void', it counts for nothing and there are
      two classes.
    progress: called with (done, total) while records are built.

  Raises:
    UserError: an unknown split or border, or a missing or damaged file.
  """
  if split not in SPLITS:
    raise UserError(f"pet has no split '{split}': use one of {', '.join(SPLITS)}")
  if border not in BORDERS:
    raise UserError(f"pet: got border '{border}'; use one of {', '.join(BORDERS)}")
  root = data_root(data_dir)
  published = 'test' if split == 'test' else 'trainval'
  raws = list_images((root / 'pet', root), published, cache_dir)
  count = NUM_CLASSES if border == 'class' else NUM_CLASSES - 1
  return records.open_source(
    Pet,
    records.Facts('pet', CLASS_NAMES[:count], PALETTE[:count], CHANNELS),
    published,
    raws,
    cache_dir=cache_dir,
    indices=_part(len(raws), split),
    view=split,
    progress=progress,
  )


def list_images(roots, split: str, cache_dir=None) -> list[records.Raw]:
  """Lists 'trainval' or 'test', in the order of the published file."""
  images = archives.find(roots, ('images',), ('images.tar.gz',), cache_dir=cache_dir)
  notes = archives.find(roots, ('annotations',), ('annotations.tar.gz',), cache_dir=cache_dir)
  names = read_names(notes / f'{split}.txt')
  trimaps = notes / 'trimaps'
  return [records.Raw(images / f'{n}.jpg', trimaps / f'{n}.png', f'{n}.jpg') for n in names]


def read_names(path: Path) -> list[str]:
  """Reads the names of a list: lines 'name class species breed', and remarks that start with #."""
  lines = (line.split() for line in image_files.read_text(path).splitlines())
  return [words[0] for words in lines if words and not words[0].startswith('#')]


def _part(count: int, split: str) -> list[int] | None:
  held_out = range(_EVERY - 1, count, _EVERY)
  return {
    'train': sorted(set(range(count)) - set(held_out)),
    'val': list(held_out),
  }.get(split)
