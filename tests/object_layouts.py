"""Writes the same objects in every layout that people have them in."""

import json

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle_masks

FINE = 4  # contours are traced on so many cells a pixel: they run an eighth of a pixel inside


def outline(mask):
  """Returns the corners of an object's contours, [x, y, x, y ...] each; exact for rectangles."""
  rows, columns = np.nonzero(mask)
  top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
  if mask[top:bottom, left:right].all():
    return [[float(v) for v in (left, top, right, top, right, bottom, left, bottom)]]
  fine = np.kron(mask.astype(np.uint8), np.ones((FINE, FINE), np.uint8))
  contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
  return [((c.reshape(-1, 2) + 0.5) / FINE).ravel().tolist() for c in contours if len(c) > 2]


class Writer:
  """Writes images named a, b, ... of a split; `objects` are (class from 1, mask) of each image.

  Args:
    root: a new folder.
    names: of the classes, without background.
  """

  def __init__(self, root, names):
    self.root, self.names = root, names
    root.mkdir(parents=True, exist_ok=True)

  def folder(self, *parts):
    path = self.root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path

  def save(self, folder, name, image):
    Image.fromarray(image).save(folder / f'{name}.png')

  def coco(self, split, images, *, runs=False):
    listed, annotations = [], []
    for i, (name, image, objects) in enumerate(images, start=1):
      self.save(self.folder(split), name, image)
      height, width = image.shape[:2]
      listed.append(dict(id=i, file_name=f'{name}.png', width=width, height=height))
      for kind, mask in objects:
        code = rle_masks.encode(np.asfortranarray(mask, np.uint8))
        code['counts'] = code['counts'].decode()
        shape = code if runs else outline(mask)
        number = len(annotations) + 1
        annotations.append(dict(id=number, image_id=i, category_id=10 * kind, segmentation=shape))
    categories = [dict(id=10 * i, name=n) for i, n in enumerate(self.names, start=1)]
    content = dict(images=listed, annotations=annotations, categories=categories)
    (self.folder('annotations') / f'{split}.json').write_text(json.dumps(content))

  def runs(self, split, images):
    self.coco(split, images, runs=True)

  def ids(self, split, images):
    table = self.root / 'objects.csv'
    rows = [] if table.exists() else ['image,id,class']
    for name, image, objects in images:
      self.save(self.folder(split, 'images'), name, image)
      ids = np.zeros(image.shape[:2], np.uint16)
      for number, (kind, mask) in enumerate(objects, start=1):
        ids[mask] = number
        rows.append(f'{name},{number},{self.names[kind - 1]}')
      self.save(self.folder(split, 'masks'), name, ids)
    with table.open('a') as file:
      file.write('\n'.join(rows) + '\n')

  def files(self, split, images):
    (self.root / 'classes.txt').write_text('\n'.join(('background', *self.names)))
    for name, image, objects in images:
      self.save(self.folder(split, name, 'images'), name, image)
      masks = self.folder(split, name, 'masks')
      for number, (kind, mask) in enumerate(objects):
        # in the order of the objects, whatever their class
        self.save(masks, f'{self.names[kind - 1]}_{number:04d}', 255 * mask.astype(np.uint8))

  def yolo(self, split, images):
    (self.root / 'data.yaml').write_text(f'train: train/images\nnames: {list(self.names)}\n')
    for name, image, objects in images:
      self.save(self.folder(split, 'images'), name, image)
      sides = image.shape[1::-1]
      lines = []
      for kind, mask in objects:
        for corners in outline(mask)[:1]:
          shares = (f'{v / sides[i % 2]:.9f}' for i, v in enumerate(corners))
          lines.append(' '.join([str(kind - 1), *shares]))
      (self.folder(split, 'labels') / f'{name}.txt').write_text('\n'.join(lines))

  def labelme(self, split, images):
    (self.root / 'labels.txt').write_text('\n'.join(('__ignore__', '_background_', *self.names)))
    for name, image, objects in images:
      self.save(self.folder(split), name, image)
      shapes = [
        dict(label=self.names[kind - 1], points=np.reshape(c, (-1, 2)).tolist(), group_id=number)
        for number, (kind, mask) in enumerate(objects)
        for c in outline(mask)
      ]
      content = dict(shapes=shapes, imageHeight=image.shape[0], imageWidth=image.shape[1])
      (self.folder(split) / f'{name}.json').write_text(json.dumps(content))

  def cvat(self, split, images):
    self.folder(split, 'images')
    text = ['<annotations><meta><task><labels>']
    text += [f'<label><name>{name}</name></label>' for name in self.names]
    text.append('</labels></task></meta>')
    for i, (name, image, objects) in enumerate(images):
      self.save(self.folder(split, 'images'), name, image)
      height, width = image.shape[:2]
      text.append(f'<image id="{i}" name="{name}.png" width="{width}" height="{height}">')
      for number, (kind, mask) in enumerate(objects, start=1):
        for corners in outline(mask):
          points = ';'.join(f'{x:.4f},{y:.4f}' for x, y in np.reshape(corners, (-1, 2)))
          label = self.names[kind - 1]
          text.append(f'<polygon label="{label}" points="{points}" group_id="{number}"/>')
      text.append('</image>')
    (self.folder(split) / 'annotations.xml').write_text(''.join([*text, '</annotations>']))


LAYOUTS = ('coco', 'runs', 'ids', 'files', 'yolo', 'labelme', 'cvat')
