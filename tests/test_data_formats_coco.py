"""COCO's JSON: read as meant, told, or refused in one line."""

import json

import numpy as np
import pytest

from jaxseg.data import outlines
from jaxseg.data.formats import coco as coco_files
from jaxseg.datasets import coco, objects
from jaxseg.types import UserError
from tests.annotated_folders import (
  HEIGHT,
  WIDTH,
  entry,
  opened,
  photo,
  write_coco,
)


def test_coco_optional_keys_follow_from_the_outline(root):
  write_coco(root, [entry(1), entry(2, category=1, area=7.5, bbox=[1, 1, 3, 3], iscrowd=0)])
  source = opened(root)
  assert source.class_names == ('background', 'cat', 'dog') and source.category_ids == (0, 3, 1)
  first, empty = source
  assert first['instance_classes'].tolist() == [1, 2] and not first['crowd'].any()
  assert first['area'].tolist() == [9, 7.5]
  assert first['instance_boxes'].tolist() == [[1, 1, 4, 4]] * 2
  assert empty['instance_classes'].shape == (0,) and not empty['label'].any()


def test_coco_a_spike_thinner_than_a_pixel_belongs_to_the_box(root):
  spike = [2, 2, 6, 2, 6, 4, 11, 4.05, 6, 4.1, 6, 6, 2, 6]
  write_coco(root, [entry(1, segmentation=[spike], bbox=[2, 2, 9, 4], area=16.25)])
  [box] = opened(root)[0]['instance_boxes'].tolist()
  assert box == [2, 2, 11, 6]
  assert outlines.extent([spike], (8, 12)) == ((2, 2, 11, 6), pytest.approx(16.25))


def test_coco_matches_and_tells(root, capsys):
  odd = [entry(1, image='1', category='3'), entry(1, image=2.0, category=3.0), entry(5, image=9)]
  write_coco(root, odd)
  photo(root / 'images' / 'other.jpg')
  source = opened(root)
  assert [len(example['area']) for example in source] == [1, 1]
  assert source[0]['instance_classes'].tolist() == source[1]['instance_classes'].tolist() == [1]
  told = capsys.readouterr().err
  assert '1 annotations name their image by text where its id is a number' in told
  assert '1 annotation ids stand for several objects, all of them read: 1' in told
  assert 'left out: the first is annotation 5 of image 9' in told
  assert 'images: 1 images are in no list and left out: other.jpg' in told


WRONG_COCO = {
  'annotation 1 of 1.jpg: category 7 is none of the 2 listed': dict(category=7),
  'annotation 1 of 1.jpg: category None is none': dict(category=...),
  r'annotation 1 of 1.jpg: it reaches to x = 1e\+09': dict(segmentation=[[1, 1, 1e9, 1, 4, 4]]),
  'annotation 1 of 1.jpg: its outline is str': dict(segmentation='abc'),
  "annotation 1 of 1.jpg: it has no 'segmentation'": dict(segmentation=...),
  'annotation 1 of 1.jpg: it has no .segmentation.: a box alone': dict(segmentation=[]),
  'annotation 1 of 1.jpg: its area is -4, below 0': dict(area=-4),
  'annotation 1 of 1.jpg: its area is no list of numbers': dict(area='nine'),
  'annotation 1 of 1.jpg: its bbox is .1, 1, 3.: x, y, width': dict(bbox=[1, 1, 3]),
  'annotation 1 of 1.jpg: its box is .1.0, 1.0, -2.0': dict(bbox=[1, 1, -3, 3]),
  'annotation 1 of 1.jpg: it reaches to x = 41': dict(bbox=[1, 1, 40, 3]),
  'annotation 1 of 1.jpg: its box is no list of numbers': dict(bbox=['1', '1', '3', '3']),
  'annotation 1 of 1.jpg: its iscrowd is 2': dict(iscrowd=2),
  "annotation 1 has no 'image_id'": dict(image_id=...),
}


@pytest.mark.parametrize('words', WRONG_COCO)
def test_coco_refuses_an_annotation(root, words):
  write_coco(root, [entry(1, **WRONG_COCO[words])])
  with pytest.raises(UserError, match=f'train.json.*{words}') as refused:
    opened(root)
  assert '\n' not in str(refused.value)


FILES = {
  "'annotations' must be a list of objects": dict(annotations={}),
  "'images' must be a list of objects": dict(images=[1]),
  'two of its images have the id 1': dict(images=[dict(id=1, file_name='1.jpg')] * 2),
  'two of its categories have the id 3': dict(categories=[dict(id=3, name='cat')] * 2),
  'names of categories must differ': dict(categories=[dict(id=i, name='cat') for i in (1, 3)]),
  '0 categories; 1 to 253 are allowed': dict(categories=[]),
  "no 'file_name' or no 'id'": dict(images=[dict(id=1)]),
  'a category is named None': dict(categories=[dict(id=3, name=None)]),
  'which lie in none of': dict(images=[dict(id=1, file_name='gone.jpg')]),
  "the size 'wide' x 8": dict(images=[dict(id=1, file_name='1.jpg', width='wide', height=8)]),
  '1.jpg is 12 x 8 pixels, but its annotations are of 24 x 16': dict(
    images=[dict(id=1, file_name='1.jpg', width=24, height=16)]
  ),
}


@pytest.mark.parametrize('words', FILES)
def test_coco_refuses_a_file(root, words):
  write_coco(root, **{'annotations': [entry(1)], **FILES[words]})
  (root / 'val.json').unlink()
  with pytest.raises(UserError, match=words):
    opened(root)


@pytest.mark.parametrize('number', ['NaN', '-Infinity', '1e999', f'{"9" * 400}.0'])
def test_json_has_no_numbers_that_are_not_finite(root, number):
  write_coco(root, [entry(1, area=0.125)])
  text = (root / 'train.json').read_text()
  (root / 'train.json').rename(root / 'instances_train.json').write_text(
    text.replace('0.125', number)
  )
  with pytest.raises(
    UserError, match='instances_train.json cannot be read as JSON: .*: line 1 column'
  ):
    opened(root)


def test_images_that_lie_in_two_folders_are_asked_about(root):
  write_coco(root, [entry(1)])
  (root / '1.jpg').symlink_to(root / 'images/1.jpg')
  (root / '2.jpg').symlink_to(root / 'images/2.jpg')
  assert len(opened(root)) == 2  # the same ones
  (root / '2.jpg').unlink()
  photo(root / '2.jpg')
  with pytest.raises(
    UserError, match=r'train.json lists 2.jpg, and there are .*2.jpg and .*2.jpg: keep'
  ):
    opened(root)
  photo(root / 'train/1.jpg')
  photo(root / 'train/2.jpg')
  (root / 'val.json').unlink()
  [raws] = coco_files.find(root).splits.values()  # the split's own folder
  assert {raw.image.parent.name for raw in raws} == {'train'}


def test_coco_crowds_are_asked_about(root):
  write_coco(root, [entry(1), entry(2, iscrowd=1), entry(3, image=2, iscrowd=1)])
  with pytest.raises(UserError, match='2 of 3 annotations are crowds.*options.crowds=objects if'):
    opened(root)
  for reading, expected in (('objects', [False, False]), ('regions', [False, True])):
    assert opened(root, crowds=reading)[0]['crowd'].tolist() == expected


def test_coco_a_few_crowds_are_told(root, capsys):
  write_coco(root, [entry(i, iscrowd=int(i == 1)) for i in range(1, 21)])
  assert opened(root)[0]['crowd'].tolist() == [True] + [False] * 19
  told = '1 of 20 annotations are crowds (iscrowd 1), which are never trained on'
  assert told in capsys.readouterr().err


def test_json_of_something_else_is_not_read(root):
  write_coco(root, [entry(1)])
  (root / '.vscode').mkdir()
  texts = {'.vscode/settings': '{"images": 1, // mine\n}', 'notes': '', 'tasks': '{,}'}
  for name, text in texts.items():
    (root / f'{name}.json').write_text(text)
  assert len(opened(root)) == 2
  for name, text in {'more': '{"images": [], "anno', 'test': ''}.items():  # may be cut short
    (root / f'{name}.json').write_text(text)
    with pytest.raises(UserError, match=rf'{name}\.json'):
      opened(root)
    (root / f'{name}.json').unlink()


def test_coco_a_split_may_be_empty(root):
  write_coco(root, [entry(1)])
  content = json.loads((root / 'val.json').read_text())
  (root / 'test.json').write_text(json.dumps(content | dict(images=[])))
  assert objects.layout_of(root)[1].splits.keys() == {'train', 'val'}


def test_images_of_no_split_beside_others_are_told(root, capsys):
  write_coco(root, [entry(1)])
  (root / 'val.json').rename(root / 'TestSet.json')
  assert len(opened(root)) == len(opened(root, 'test')) == 1
  assert 'after a split' not in capsys.readouterr().err
  (root / 'TestSet.json').rename(root / 'holdout.json')
  with pytest.raises(UserError):
    opened(root, 'test')
  assert '1 images are in no file or folder named after a split' in capsys.readouterr().err


def test_files_that_disagree_on_the_categories_are_refused(root):
  write_coco(root, [entry(1)])
  content = json.loads((root / 'val.json').read_text())
  content['categories'].reverse()
  (root / 'val.json').write_text(json.dumps(content))
  assert opened(root).class_names == ('background', 'cat', 'dog')  # another order alone is none
  content['categories'][0]['name'] = 'wolf'
  (root / 'val.json').write_text(json.dumps(content))
  with pytest.raises(UserError, match='list different categories'):
    opened(root)


# Images that are turned by EXIF: 6 is a quarter to the right.


@pytest.mark.parametrize(
  ('told', 'box'), [((WIDTH, HEIGHT), [4, 1, 7, 4]), ((HEIGHT, WIDTH), [1, 1, 4, 4])]
)
def test_the_annotated_size_tells_which_way_up(root, told, box):
  """Of an image stored as 12 x 8: columns and rows 1 to 3 there, or of it turned."""
  images = [dict(id=1, file_name='1.jpg', width=told[0], height=told[1])]
  write_coco(root, [entry(1, bbox=[1, 1, 3, 3])], orientation=6, count=1)
  content = json.loads((root / 'train.json').read_text())
  (root / 'train.json').write_text(json.dumps({**content, 'images': images}))
  (root / 'val.json').unlink()
  example = opened(root, 'train')[0]
  assert example['image'].shape == (WIDTH, HEIGHT, 3)
  assert example['instance_boxes'].tolist() == [box]
  rows, columns = np.nonzero(example['label'])
  assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box


def test_a_half_turn_cannot_be_told_by_the_size(root):
  write_coco(root, [entry(1)], orientation=3)
  with pytest.raises(UserError, match='EXIF orientation 3, .*options.exif=upright if so'):
    opened(root)
  boxes = {
    exif: opened(root, exif=exif)[0]['instance_boxes'].tolist() for exif in ('upright', 'stored')
  }
  assert boxes == {'upright': [[1, 1, 4, 4]], 'stored': [[8, 4, 11, 7]]}


def test_coco_itself_takes_other_categories(tmp_path):
  for split in ('train', 'val'):
    root = tmp_path / 'coco'
    write_coco(root, [entry(1)])
    (root / 'annotations').mkdir(exist_ok=True)
    (root / 'images').rename(root / f'{split}2017')
    (root / 'train.json').rename(root / 'annotations' / f'instances_{split}2017.json')
  source = coco.source('train', data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  assert (
    source.class_names == ('background', 'cat', 'dog') and len(source) == 2
  )  # one without objects
