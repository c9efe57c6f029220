"""Oxford-IIIT Pet: cats and dogs of 37 breeds, trimaps of pet, background and border, 3680 / 3669.

Parkhi et al., Cats and Dogs, CVPR 2012; CC BY-SA 4.0. In pet/, or data_dir itself, as published,
unpacked or not:

  images/Abyssinian_1.jpg ...                          images.tar.gz
  annotations/{trimaps/*.png,trainval.txt,test.txt}    annotations.tar.gz

In the trimaps 1 is pet, 2 background and 3 the ambiguous border.

Not TFDS's oxford_iiit_pet: it (4.9.10) only downloads, cannot read a folder, and needs TensorFlow for
twelve damaged images such as Abyssinian_34, which Pillow reads.
"""

from pathlib import Path

from jaxseg.data import archives, raw_files, records
from jaxseg.data.problems import check_choice, check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID

CLASS_NAMES = ('pet', 'background', 'border')
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = ((230, 120, 60), (40, 60, 110), (250, 230, 120))
SPLITS = ('train', 'val', 'trainval', 'test')
_EVERY = 10  # every tenth image of trainval.txt is held out as 'val'


def source(
  split: str, *, data_dir: str | None = None, cache_dir: str | None = None, border: str = 'class'
) -> Source:
  """Returns one of the splits; images are of many sizes.

  Args:
    split: 'trainval' or 'test', as published; or 'train' and 'val', our split of 'trainval': its
      images 9, 19, 29, ... (from 0, in the list's order) are 'val'.
    border: 'class': the border is the third class; 'void': it is ignored, leaving two classes.
  """
  check_split('pet', split, SPLITS)
  check_choice('pet', 'border', border, ('class', 'void'))
  find = archives.finder(['pet'], data_dir, cache_dir)
  images = find(['images'], ['images.tar.gz'])
  annotations = find(['annotations'], ['annotations.tar.gz'])
  names = _read_names(annotations / ('test.txt' if split == 'test' else 'trainval.txt'))
  labels = annotations / 'trimaps'
  held_out = range(_EVERY - 1, len(names), _EVERY)
  parts = {'train': sorted({*range(len(names))} - {*held_out}), 'val': list(held_out)}
  count = NUM_CLASSES if border == 'class' else NUM_CLASSES - 1
  return records.open_source(
    DatasetInfo('pet', CLASS_NAMES[:count], PALETTE[:count]),
    split,
    [records.Raw(images / f'{n}.jpg', labels / f'{n}.png', f'{n}.jpg') for n in names],
    records.read_ids,
    cache_dir,
    options={'table': {1: 0, 2: 1, 3: 2 if border == 'class' else VOID}},
    indices=parts.get(split),
  )


def _read_names(path: Path) -> list[str]:
  """Reads the names of a list: lines 'name class species breed', and comments with #."""
  lines = (line.split() for line in raw_files.read_text(path).splitlines())
  return [words[0] for words in lines if words and not words[0].startswith('#')]
