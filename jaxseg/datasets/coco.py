"""COCO 2017: instances of 80 classes in everyday scenes, 118287 / 5000 images.

Lin et al., arXiv:1405.0312. In coco/, or data_dir itself, as published, unpacked or not:

  annotations/instances_{train,val}2017.json  annotations_trainval2017.zip
  train2017/000000000009.jpg ...              train2017.zip
  val2017/000000000139.jpg ...                val2017.zip

Objects overlap, so they are in layers: each in the first where it overlaps none. Regions of many
objects that were not separated are crowds. The label is the class of the smallest object at each pixel,
void where there is only a crowd. 'train' drops images without objects, as is usual. Files with other
categories are read too, with their classes and all images (data/formats/coco.py; datasets/objects.py
also finds such files in other folders).
The annotations are CC BY 4.0; the images are under Flickr's terms. The test annotations are hidden.
"""

from functools import partial

from jaxseg.data import annotations, archives, classlist, records
from jaxseg.data.formats import coco as format_
from jaxseg.data.problems import check_choice, check_split, warn_once
from jaxseg.data.source import DatasetInfo, Source

_NAMES = """
background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball,
kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
CLASS_NAMES = tuple(' '.join(_NAMES.split()).split(', '))
NUM_CLASSES = len(CLASS_NAMES)
PALETTE = classlist.voc_palette(NUM_CLASSES)
SPLITS = ('train', 'val')
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = (0, *(i for i in range(1, 91) if i not in _UNUSED_IDS))  # of the classes, in order


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  crowds: str | None = None,
  exif: str | None = None,
) -> Source:
  """Returns 'train' or 'val'; images are of many sizes, COCO's up to 640 x 640.

  Args:
    crowds: how to read annotations with iscrowd 1: as 'regions', like COCO's, or 'objects', each a
      single object; None: 'regions', but rejects many.
    exif: see annotations.example; None: 'upright' for COCO's own classes.
  """
  check_split('coco', split, SPLITS, 'the test annotations are hidden')
  check_choice('coco', 'crowds', crowds, (None, *format_.CROWDS))
  check_choice('coco', 'exif', exif, (None, *annotations.EXIF))
  find, name = archives.finder(['coco'], data_dir, cache_dir), f'{split}2017'
  folder = find(['annotations'], ['annotations_trainval2017.zip'])
  images = find([name], [f'{name}.zip'])
  content = format_.load(folder / f'instances_{name}.json')
  warn_once(content.notes)
  names, ids = CLASS_NAMES, CATEGORY_IDS
  if content.categories:
    names, ids = format_.classes([content])
  published = set(names) == set(CLASS_NAMES)
  if not published:
    format_.check_crowds(content, crowds)
  first = next((image['file_name'] for image in content.images), '')
  beside = not (images / first).is_file() and (images.parent / first).is_file()
  raws = format_.raws(
    content, images.parent if beside else images, images.parent
  )  # 'val2017/1.jpg', or '1.jpg'
  if published and split == 'train':
    raws = [raw for raw in raws if any(not one.get('iscrowd') for one in raw.extra[1:])]
  read = partial(format_.read, classes=format_.class_numbers(ids), crowds=crowds)
  palette, entries = classlist.voc_palette(len(names)), ('instances', 'objects')
  return records.open_source(
    DatasetInfo('coco', names, palette, entries=entries, category_ids=ids),
    split,
    raws,
    partial(annotations.example, read=read),
    cache_dir,
    options={'exif': exif or ('upright' if published else None), 'key': [ids, crowds]},
  )
