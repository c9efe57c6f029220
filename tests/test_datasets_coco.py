"""COCO: a miniature archive in the published layout, its objects worked out by hand."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import coco
from jaxseg.metrics.coco import Score
from jaxseg.types import VOID, Detections, UserError

SIZE = (6, 8)
SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]  # columns and rows 1 to 3


def annotation(number, image, category, segmentation, area, box, crowd=0):
  return dict(
    id=number,
    image_id=image,
    category_id=category,
    segmentation=segmentation,
    area=area,
    bbox=box,
    iscrowd=crowd,
  )


# Run lengths go down the columns, background first: column 5 rows 0 to 5, column 6 rows 0 and 1.
CROWD = {'size': list(SIZE), 'counts': [30, 8, 10]}
# A person in a square, a toothbrush (id 90) over its corner, a crowd of dogs (id 18).
TRAIN = [
  annotation(7, 30, 1, SQUARE, 9.0, [1, 1, 3, 3]),
  annotation(9, 30, 90, [[3, 3, 5, 3, 5, 5, 3, 5]], 4.0, [3, 3, 2, 2]),
  annotation(8, 30, 18, CROWD, 8.0, [5, 0, 2, 6], crowd=1),
  annotation(5, 4, 18, CROWD, 8.0, [5, 0, 2, 6], crowd=1),
]


def write(folder, split, images, annotations, size=SIZE):
  for part in ('annotations', f'{split}2017'):
    (folder / part).mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  listed = []
  for i in images:
    name = f'{i:012d}.jpg'
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f'{split}2017' / name)
    listed.append(dict(id=i, file_name=name, height=size[0], width=size[1]))
  told = dict(images=listed, annotations=annotations, categories=[])
  (folder / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(told))


@pytest.fixture
def data(tmp_path):
  folder = tmp_path / 'coco'
  write(folder, 'train', [30, 4, 12], TRAIN)
  write(folder, 'val', [30, 4, 12], TRAIN)
  return tmp_path


def source(data, split, name='cache'):
  return coco.source(split, data_dir=data, cache_dir=data / name)


def test_facts():
  assert (coco.NUM_CLASSES, len(set(coco.PALETTE))) == (81, 81)
  assert coco.CLASS_NAMES[:3] == ('background', 'person', 'bicycle')
  ids = dict(zip(coco.CLASS_NAMES, coco.CATEGORY_IDS, strict=True))
  # both ends, and both sides of gaps, as instances_val2017.json has them
  known = {'person': 1, 'fire hydrant': 11, 'stop sign': 13, 'dog': 18, 'backpack': 27, 'tv': 72}
  known |= {'wine glass': 46, 'dining table': 67, 'toilet': 70, 'book': 84, 'toothbrush': 90}
  assert known.items() <= ids.items()


def test_objects_by_hand(data):
  (example,) = source(data, 'train')  # the other images show no object, or a crowd alone
  assert example['file_name'] == '000000000030.jpg'
  assert example['instance_classes'].tolist() == [1, 80, coco.CLASS_NAMES.index('dog')]
  assert example['crowd'].tolist() == [False, False, True]
  assert example['area'].tolist() == [9, 4, 8]
  assert example['instance_boxes'].tolist() == [[1, 1, 4, 4], [3, 3, 5, 5], [5, 0, 7, 6]]
  first = [
    [0, 0, 0, 0, 0, 3, 3, 0],
    [0, 1, 1, 1, 0, 3, 3, 0],
    [0, 1, 1, 1, 0, 3, 0, 0],
    [0, 1, 1, 1, 0, 3, 0, 0],
    [0, 0, 0, 0, 0, 3, 0, 0],
    [0, 0, 0, 0, 0, 3, 0, 0],
  ]
  second = np.zeros(SIZE, int)
  second[3:5, 3:5] = 2  # it shares row 3, column 3 with the person
  np.testing.assert_array_equal(example['instances'], np.stack([first, second], axis=-1))
  label = np.array([0, 1, 0, VOID])[np.array(first)]
  label[3:5, 3:5] = 80
  np.testing.assert_array_equal(example['label'], label)


def test_validation_has_every_image(data):
  val = source(data, 'val')
  assert [e['file_name'] for e in val] == [f'{i:012d}.jpg' for i in (4, 12, 30)]
  empty = val[1]
  assert empty['instances'].shape == (*SIZE, 1) and not empty['instances'].any()
  assert empty['instance_classes'].shape == (0,) and empty['instance_boxes'].shape == (0, 4)
  assert val[0]['crowd'].tolist() == [True]


def test_compressed_run_lengths_are_the_same(data, tmp_path):
  """Files have the same runs as text too, for crowds and for results."""
  from pycocotools import mask as rle_masks

  code = rle_masks.frPyObjects(CROWD, *SIZE)
  text = {'size': list(SIZE), 'counts': code['counts'].decode()}
  write(tmp_path / 'other' / 'coco', 'val', [3], [annotation(1, 3, 18, text, 8.0, [5, 0, 2, 6], 1)])
  example = source(tmp_path / 'other', 'val')[0]
  np.testing.assert_array_equal(example['instances'], source(data, 'val')[0]['instances'])


def test_zipped_as_published(data):
  folder = data / 'coco'
  parts = {'annotations': 'annotations_trainval2017', 'val2017': 'val2017'}
  expected = source(data, 'val')[2]
  for part, name in parts.items():
    with zipfile.ZipFile(folder / f'{name}.zip', 'w') as file:
      for path in sorted((folder / part).iterdir()):
        file.write(path, f'{part}/{path.name}')
    (folder / part).rename(data / f'gone_{part}')
  example = source(data, 'val', 'other')[2]
  for key, values in expected.items():
    np.testing.assert_array_equal(example[key], values)


def test_scored_against_itself(data):
  """The truth as detections is perfect, for masks and for the annotators' boxes."""
  example = source(data, 'train')[0]
  layers = np.moveaxis(example['instances'], -1, 0)
  masks = np.array([(layers == i).any(axis=0) for i in (1, 2)])
  found = Detections(
    example['instance_boxes'][:2], np.array([0.9, 0.8]), example['instance_classes'][:2], masks
  )
  score = Score(coco.CLASS_NAMES)
  score.add(example, {'detections': found})
  summary = score.compute()
  assert summary['mask_ap'] == summary['box_ap'] == pytest.approx(1)
  assert summary['per_class_ap']['dog'] is None  # only as a crowd


def test_mistakes_are_told(data):
  for split, words in (('test', 'hidden'), ('minival', "no split 'minival'")):
    with pytest.raises(UserError, match=words):
      source(data, split)
  with pytest.raises(UserError, match='none of annotations/'):
    source(data / 'coco' / 'val2017', 'val')
  cases = {
    'category 12 is none of the 80': annotation(1, 3, 12, SQUARE, 9.0, [1, 1, 3, 3]),
    r'its run lengths are of size \[5, 8\] \(h, w\), its image of \(6, 8\)': annotation(
      2, 3, 1, {'size': [5, 8], 'counts': [40]}, 0.0, [0, 0, 0, 0], 1
    ),
    'its run lengths are NoneType': annotation(3, 3, 1, {'size': [6, 8]}, 0.0, [0, 0, 0, 0], 1),
  }
  for words, wrong in cases.items():
    write(data / 'wrong' / 'coco', 'val', [3], [wrong])
    with pytest.raises(UserError, match=f'annotation {wrong["id"]} of 000000000003.jpg: {words}'):
      source(data / 'wrong', 'val')
  file = data / 'coco' / 'annotations' / 'instances_val2017.json'
  file.write_text('{"images": []}')
  with pytest.raises(UserError, match="as COCO's annotations: 'annotations' must be a list"):
    source(data, 'val')
