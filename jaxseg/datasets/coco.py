"""COCO 2017: objects of 80 classes in everyday scenes, 118287 / 5000 images, each object outlined.

Lin et al., arXiv:1405.0312. Below coco/, or data_dir itself, as published, unpacked or not:

  annotations/instances_{train,val}2017.json  annotations_trainval2017.zip
  train2017/000000000009.jpg ...              train2017.zip
  val2017/000000000139.jpg ...                val2017.zip

Objects overlap, so they lie in layers: each in the first where it touches none. Regions of many
objects that nobody told apart are crowds. The label shows the class of the smallest object at a
pixel, void where there is a crowd alone. 'train' leaves out images without an object, as is usual.
The annotations are CC BY 4.0; the images have the terms of Flickr. The test annotations are hidden.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from jaxseg.data import archives, classlist, image_files, records
from jaxseg.data.problems import check_split
from jaxseg.data.source import Facts, Source
from jaxseg.types import VOID, UserError

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
_CLASS_OF = {category: i for i, category in enumerate(CATEGORY_IDS) if i}


def source(split: str, *, data_dir: str | None = None, cache_dir: str | None = None) -> Source:
  """Returns 'train' or 'val'; images are of many sizes, up to 640 x 640."""
  check_split('coco', split, SPLITS, 'the test annotations are hidden')
  find, name = archives.finder(['coco'], data_dir, cache_dir), f'{split}2017'
  annotations = find(['annotations'], ['annotations_trainval2017.zip'])
  images = find([name], [f'{name}.zip'])
  return records.open_source(
    Facts('coco', CLASS_NAMES, PALETTE, entries=('instances', 'objects')),
    split,
    list_images(annotations / f'instances_{name}.json', images, everything=split != 'train'),
    read,
    cache_dir,
  )


def read(raw: records.Raw) -> records.Example:
  """Reads an image and its annotations."""
  image = image_files.encode_image(raw.image)
  size, annotations = (image.height, image.width), raw.extra
  masks = [_mask(a, size, raw) for a in annotations]
  objects = {
    'instance_classes': np.array([_class(a, raw) for a in annotations], np.uint8),
    'crowd': np.array([bool(a['iscrowd']) for a in annotations], bool),
    'area': np.array([a['area'] for a in annotations], np.float32),
    'instance_boxes': _boxes([a['bbox'] for a in annotations]),
  }
  label = paint(masks, objects['instance_classes'], objects['crowd'], size)
  return records.Example(image, label, instances=layers(masks, size), objects=objects)


def list_images(file: Path, folder: Path, *, everything: bool) -> list[records.Raw]:
  """Lists the images that a file of annotations names, by id; `extra` is an image's annotations.

  Args:
    file: instances_*.json.
    folder: of the images.
    everything: whether images without an object (crowds are none) are there too.
  """
  try:
    content = json.loads(image_files.read_text(file))
    images, annotations = content['images'], content['annotations']
    by_image: dict[int, list] = {image['id']: [] for image in images}
    for annotation in annotations:
      by_image[annotation['image_id']].append(annotation)
    chosen = sorted(images, key=lambda image: image['id'])
    names = [image['file_name'] for image in chosen]
  except (ValueError, KeyError, TypeError) as error:
    reason = f'{type(error).__name__}: {error}'
    raise UserError(f"cannot read {file} as COCO's annotations ({reason}): restore it") from None
  objects_of = [tuple(by_image[image['id']]) for image in chosen]
  return [
    records.Raw(folder / name, file, name, extra=objects)
    for name, objects in zip(names, objects_of, strict=True)
    if everything or any(not one.get('iscrowd') for one in objects)
  ]


def _mask(annotation: Mapping[str, Any], size: tuple[int, int], raw: records.Raw) -> np.ndarray:
  """Returns the pixels of an object, bool [h, w], from polygons or run lengths."""
  outline = annotation['segmentation']
  try:
    if isinstance(outline, list):
      outline = [polygon for polygon in outline if len(polygon) >= 6]
      if not outline:
        return np.zeros(size, bool)
      code = rle_masks.merge(rle_masks.frPyObjects(outline, *size))
    else:
      code = outline
      if isinstance(code['counts'], list):
        code = rle_masks.frPyObjects(code, *code['size'])
    mask = rle_masks.decode(code).astype(bool)
  except Exception as error:  # pycocotools raises many kinds
    raise UserError(f'{_where(annotation, raw)}: its outline cannot be read ({error})') from None
  if mask.shape != size:
    raise UserError(f'{_where(annotation, raw)}: a mask of {mask.shape} in an image of {size}')
  return mask


def _class(annotation: Mapping[str, Any], raw: records.Raw) -> int:
  category = annotation['category_id']
  if category not in _CLASS_OF:
    raise UserError(f'{_where(annotation, raw)}: category {category} is none of the 80 of COCO')
  return _CLASS_OF[category]


def _where(annotation: Mapping[str, Any], raw: records.Raw) -> str:
  return f'{raw.label}, annotation {annotation.get("id")} of {raw.file_name}'


def _boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
  """Turns x, y, width, height into x0, y0, x1, y1, float32 [n, 4]."""
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def layers(masks: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
  """Numbers objects from 1, uint16 [h, w, layers]: each in the first layer where it overlaps none."""
  stack = [np.zeros(size, np.uint16)]
  for number, mask in enumerate(masks, start=1):
    layer = next((one for one in stack if not one[mask].any()), None)
    if layer is None:
      layer = np.zeros(size, np.uint16)
      stack.append(layer)
    layer[mask] = number
  return np.stack(stack, axis=-1)


def paint(
  masks: Sequence[np.ndarray], classes: np.ndarray, crowd: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Returns the class of each pixel's smallest object, uint8 [h, w]; crowds are void, below all."""
  label = np.zeros(size, np.uint8)
  for i in sorted(range(len(masks)), key=lambda i: (not crowd[i], -np.count_nonzero(masks[i]))):
    label[masks[i]] = VOID if crowd[i] else classes[i]
  return label
