"""Files of annotation tools by which classes or images would be swapped without a word: asked about."""

import json
import shutil

import pytest

from jaxseg.types import UserError
from tests.annotated_folders import (
  entry,
  opened,
  photo,
  shape,
  write_coco,
  write_cvat,
  write_labelme,
  write_yolo,
)

TRIANGLE = '1 0.25 0.25 0.5 0.25 0.5 0.5'


@pytest.mark.parametrize(
  ('first', 'second', 'words'),
  [
    (dict(id=1, name='cat'), dict(id='1', name='dog'), "categories have the id '1'"),
    (dict(id=1, name='caf\u00e9'), dict(id=2, name='cafe\u0301'), '2 classes are named caf'),
    (dict(id=1, name='cat'), dict(id=2, name='cat\u200b'), '2 classes are named cat'),
    (dict(id=1, name='cat'), dict(id=2, name=' '), 'is empty'),
  ],
)
def test_coco_categories_that_are_one(root, first, second, words):
  write_coco(root, [entry(1, category=1)], categories=[first, second])
  with pytest.raises(UserError, match=words):
    opened(root)


def test_an_image_in_two_splits_is_told(root, capsys):
  write_coco(root, [entry(1)])
  opened(root)
  assert '1 images are in two splits, such as 1.jpg' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('names', 'words'),
  [
    ('[cat, dog]\nnc: 3', 'nc is 3, but 2 classes'),
    ('[cat, no]', 'one of the names as False: put it between quotation marks'),
    ('{0: cat, 1: 1.5}', 'one of the names as 1.5'),
    ('\n  0: cat\n  1: dog\n  1: cow', "it has the key '1' twice"),
  ],
)
def test_yolo_names_that_yaml_reads_otherwise(root, names, words):
  write_yolo(root, TRIANGLE, names)
  with pytest.raises(UserError, match=words):
    opened(root)


@pytest.mark.parametrize('text', ['1: dog\n0: cat\n', '# mine\ncat\n\ndog\n', '0 cat\n1 dog\n'])
def test_yolo_lists_say_which_is_which(root, text):
  write_yolo(root, TRIANGLE, None)
  (root / 'classes.txt').write_text(text)
  source = opened(root)
  assert source.class_names == ('background', 'cat', 'dog')


def test_yolo_lists_that_differ(root):
  write_yolo(root, TRIANGLE)
  (root / 'classes.txt').write_text('dog\ncat\n')
  with pytest.raises(UserError, match='classes.txt names other classes than data.yaml'):
    opened(root)
  (root / 'classes.txt').write_text('2 dog\n1 cat\n')
  with pytest.raises(UserError, match='the classes are numbered 2, 1; 0, 1, 2'):
    opened(root)
  (root / 'classes.txt').write_text('cat\ndog\n')
  (root / 'dataset.yaml').write_text('names: [dog, cat]\n')
  with pytest.raises(UserError, match='data.yaml and dataset.yaml'):
    opened(root)


def test_yolo_lists_of_splits_that_differ(root):
  write_yolo(root, TRIANGLE)
  for part in ('images', 'labels'):
    shutil.copytree(root / part, root / 'valid' / part)
    (root / 'train').mkdir(exist_ok=True)
    (root / part).rename(root / 'train' / part)
  for place in ('valid/classes.txt', 'valid/labels/classes.txt'):
    (root / place).write_text('dog\ncat\n')
    with pytest.raises(UserError, match=f'{place} names other classes than data.yaml'):
      opened(root)
    (root / place).unlink()
  (root / 'valid' / 'data.yaml').write_text('names: [dog, cat]\n')
  with pytest.raises(UserError, match='valid names other classes than data.yaml'):
    opened(root)
  (root / 'valid' / 'data.yaml').write_text('names: {0: cat, 1: dog}\n')
  assert opened(root).class_names == ('background', 'cat', 'dog')


def test_yolo_yaml_of_any_name(root):
  write_yolo(root, TRIANGLE)
  (root / 'args.yaml').write_text('mode: train\n')
  (root / 'compose.yaml').write_text('a: &a [1]\nb: *a\n')
  assert opened(root).class_names == ('background', 'cat', 'dog')
  (root / 'data.yaml').rename(root / 'mine.yaml')
  assert opened(root).class_names == ('background', 'cat', 'dog')
  (root / 'coco.yaml').write_text('names: [dog, cat]\n')
  with pytest.raises(UserError, match='coco.yaml and mine.yaml name different classes'):
    opened(root)


def test_yolo_a_box_before_the_outline(root):
  write_yolo(root, '0 0.5 0.375 0.5 0.25 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5')
  photo(root / 'images' / 'c.jpg')
  with pytest.raises(UserError, match='its first four numbers are the box of the others'):
    [opened(root, split) for split in ('train', 'val')]


def test_labelme_files_that_mean_another_image(root):
  write_labelme(root, shape(), imagePath='b.jpg')
  with pytest.raises(
    UserError, match=r'a\.json has the name of a\.jpg, but its imagePath is b\.jpg'
  ):
    [opened(root, split) for split in ('train', 'val')]
  write_labelme(root, shape(), imagePath='C:\\photos\\old.jpg')  # that is not there
  assert len(opened(root)) == 1
  photo(root / 'a.png')
  with pytest.raises(UserError, match='several images for one JSON: a.jpg, a.png'):
    opened(root)


def test_labelme_two_files_of_one_image(root):
  photo(root / 'a.jpg')
  for name in ('one', 'two'):
    (root / f'{name}.json').write_text(json.dumps(dict(shapes=[shape()], imagePath='a.jpg')))
  with pytest.raises(UserError, match='two.json are both of a.jpg|one.json are both of a.jpg'):
    opened(root)


def test_labelme_sizes_are_numbers(root):
  write_labelme(root, shape(), imageWidth='24')
  with pytest.raises(UserError, match="imageHeight and imageWidth are .8, '24'."):
    [opened(root, split) for split in ('train', 'val')]


@pytest.mark.parametrize(
  ('drawn', 'words'),
  [
    ('<polygon label="cat" points="1,5,1,5;4,5,1,5;4,5,4,5"/>', 'its points are no'),
    ('<mask label="cat" left="1.5" top="1" width="2" height="1" rle="0,2"/>', 'no whole numbers'),
  ],
)
def test_cvat_numbers_with_commas_or_parts(root, drawn, words):
  write_cvat(root, drawn)
  with pytest.raises(UserError, match=words):
    opened(root)
