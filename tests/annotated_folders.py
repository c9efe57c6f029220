"""Writes small data sets of one's own, as annotation tools do: images of 12 x 8 pixels."""

import json

import numpy as np
from PIL import Image

from jaxseg.datasets import objects

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]  # columns and rows 1 to 3


WIDTH, HEIGHT = 12, 8


def photo(path, width=WIDTH, height=HEIGHT, orientation=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
  exif = Image.Exif()
  if orientation:
    exif[0x0112] = orientation
  image.save(path, exif=exif)


def opened(root, split='train', **options):
  return objects.source(split, data_dir=root, cache_dir=root.parent / 'cache', **options)


def entry(number, image=1, category=3, segmentation=SQUARE, **changes):
  told = dict(id=number, image_id=image, category_id=category, segmentation=segmentation)
  return {k: v for k, v in {**told, **changes}.items() if v is not ...}


def write_coco(root, annotations, *, count=2, orientation=None, **changes):
  """Two images, categories 3 cat and 1 dog."""
  listed = []
  for i in range(1, count + 1):
    photo(root / 'images' / f'{i}.jpg', orientation=orientation)
    listed.append(dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT))
  content = dict(images=listed, annotations=annotations)
  content['categories'] = [dict(id=3, name='cat'), dict(id=1, name='dog')]
  content |= changes
  (root / 'train.json').write_text(json.dumps(content))
  other = dict(content, images=listed[:1], annotations=[])
  (root / 'val.json').write_text(json.dumps(other))


def write_yolo(root, text, names='[cat, dog]'):
  photo(root / 'images' / 'a.jpg')
  photo(root / 'images' / 'b.jpg')
  (root / 'labels').mkdir(exist_ok=True)
  (root / 'labels' / 'a.txt').write_text(text)
  if names:
    (root / 'data.yaml').write_text(f'names: {names}\n')


def shape(label='cat', points=((1, 1), (4, 1), (4, 4), (1, 4)), kind='polygon', **more):
  return dict(label=label, points=[list(p) for p in points], shape_type=kind, **more)


def write_labelme(root, *shapes, **changes):
  for name in 'ab':
    photo(root / f'{name}.jpg')
    told = dict(shapes=list(shapes), imageWidth=WIDTH, imageHeight=HEIGHT) | changes
    (root / f'{name}.json').write_text(json.dumps(told))


def write_cvat(root, shapes, labels=('cat', 'dog')):
  listed = ''.join(f'<label><name>{name}</name></label>' for name in labels)
  images = ''
  for i, name in enumerate('ab'):
    photo(root / 'images' / f'{name}.jpg')
    images += f'<image id="{i}" name="{name}.jpg" width="12" height="8">{shapes}</image>'
  meta = f'<meta><task><labels>{listed}</labels></task></meta>'
  (root / 'annotations.xml').write_text(f'<annotations>{meta}{images}</annotations>')


def write_ids(root, ids, name='a'):
  photo(root / 'images' / f'{name}.jpg')
  (root / 'masks').mkdir(exist_ok=True)
  Image.fromarray(ids).save(root / 'masks' / f'{name}.png')


def numbered(*numbers, dtype=np.uint8):
  ids = np.zeros((HEIGHT, WIDTH), dtype)
  for i, number in enumerate(numbers):
    ids[2:4, 2 * i + 1 : 2 * i + 3] = number
  return ids


def write_files(root, name):
  """Writes an example with two objects."""
  photo(root / name / 'images' / f'{name}.png')
  (root / name / 'masks').mkdir()
  for number in (1, 2):
    mask = 255 * (numbered(1, 2) == number).astype(np.uint8)
    Image.fromarray(mask).save(root / name / 'masks' / f'{number}.png')
