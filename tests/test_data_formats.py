"""What the readers of annotation tools' files make of odd ones: read as meant, told, or refused in one line."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import annotations, outlines
from jaxseg.data.formats import coco as coco_files
from jaxseg.datasets import coco, objects
from jaxseg.types import UserError

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


@pytest.fixture
def root(tmp_path):
  return tmp_path / 'own'


# COCO's JSON


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


@pytest.mark.parametrize('name', ['../outside.jpg', '{}/outside.jpg', 'images/../../outside.jpg'])
def test_names_that_lead_out_of_the_data_are_refused(root, tmp_path, name):
  photo(tmp_path / 'outside.jpg')
  write_coco(root, [entry(1)])
  content = json.loads((root / 'train.json').read_text())
  content['images'] = [dict(id=1, file_name=name.format(tmp_path))]
  (root / 'train.json').write_text(json.dumps(content))
  with pytest.raises(UserError, match='outside.jpg is named by a file of .*own, and lies outside'):
    opened(root)
  content['images'][0]['file_name'] = 'images/../images/1.jpg'
  (root / 'train.json').write_text(json.dumps(content))
  assert opened(root)[0]['instance_classes'].tolist() == [1]
  (root / 'train.json').unlink()
  (root / 'val.json').unlink()
  write_cvat(root, '')
  file = root / 'annotations.xml'
  file.write_text(file.read_text().replace('"a.jpg"', f'"{name.format(tmp_path)}"'))
  with pytest.raises(UserError, match='outside.jpg is named by a file of .*own, and lies outside'):
    opened(root)


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


# YOLO


def write_yolo(root, text, names='[cat, dog]'):
  photo(root / 'images' / 'a.jpg')
  photo(root / 'images' / 'b.jpg')
  (root / 'labels').mkdir(exist_ok=True)
  (root / 'labels' / 'a.txt').write_text(text)
  if names:
    (root / 'data.yaml').write_text(f'names: {names}\n')


def test_yolo_by_hand(root, capsys):
  """x is a share of 12, y one of 8."""
  write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n\n', names='{0: cat, 1: dog}')
  examples = [*opened(root, 'train'), *opened(root, 'val')]
  [example] = [e for e in examples if e['file_name'] == 'a.jpg']
  assert example['instance_boxes'].tolist() == [[3, 2, 6, 4]]
  assert example['instance_classes'].tolist() == [2]
  assert '1 images have no label file, so no objects: b.jpg' in capsys.readouterr().err
  inner = root / 'inner'
  inner.mkdir()
  for part in ('images', 'labels'):
    (root / part).rename(inner / part)
  (root / 'data.yaml').write_text('path: inner\nnames: [cat, dog]\n')
  assert len(opened(root)) == len(opened(root, 'val')) == 1
  for part in ('images', 'labels'):
    (inner / part).rename(root / part)
  (root / 'data.yaml').unlink()
  (root / 'classes.txt').write_text('cat\ndog\n')
  assert opened(root).class_names == ('background', 'cat', 'dog')


WRONG_YOLO = {
  'line 1: class 2 is none of the 2': '2 0 0 1 0 1 1',
  'line 1: class 0.5 is none': '0.5 0 0 1 0 1 1',
  'line 2: 4 numbers are a box, no outline': '0 0 0 1 0 1 1\n0 0.5 0.5 0.1 0.1',
  'as shares of the image from 0 to 1; got 6 numbers up to 120': '0 0 0 120 0 12 8',
  'got 7 numbers': '0 0 0 1 0 1 1 1',
  "'0 a b' are not numbers": '0 a b',
  "'0 0 0 nan 0 1 1' are not numbers": '0 0 0 nan 0 1 1',
  "'nan 0 0 1 0 1 1' are not": 'nan 0 0 1 0 1 1',
}


@pytest.mark.parametrize('words', WRONG_YOLO)
def test_yolo_refuses(root, words):
  write_yolo(root, WRONG_YOLO[words])
  photo(root / 'images' / 'c.jpg')
  with pytest.raises(UserError, match=words):
    [opened(root, split) for split in ('train', 'val')]


def test_yolo_folders_that_yaml_gives_to_other_splits_are_told(root, capsys):
  for split in ('train', 'val'):
    write_yolo(root / split, '', names='')
  lines = 'names: [cat, dog]\ntrain: ../train/images\nval: [/there/{}/images, train/images]\n'
  (root / 'data.yaml').write_text(lines.format('val'))
  opened(root)
  assert 'by its name' not in capsys.readouterr().err
  (root / 'data.yaml').write_text(lines.format('other') + 'test: val/images\n')
  opened(root)
  told = capsys.readouterr().err
  assert "data.yaml's test is" in told and 'val/images, which counts as val by its name' in told


def test_yolo_folders_that_differ_in_capitals_are_refused(root):
  write_yolo(root, '')
  (root / 'Labels').mkdir()
  if len(list(root.iterdir())) > 3:  # a disk that tells them apart
    with pytest.raises(UserError, match='labels and Labels|Labels and labels'):
      opened(root)


def test_yolo_refuses_a_folder(root):
  write_yolo(
    root, '0 0.5 0.5 0.4 0.4 0.45 0.42 0.55 0.44 0.5 0.6', names='[person]\nkpt_shape: [3, 2]'
  )
  with pytest.raises(UserError, match='announces keypoints .kpt_shape., which are no outlines'):
    opened(root)
  write_yolo(root, '', names='{1: cat, 2: dog}')
  with pytest.raises(UserError, match='numbered 1, 2; 0, 1, 2'):
    opened(root)
  (root / 'data.yaml').write_text('names: [cat, cat]')
  with pytest.raises(UserError, match='a list of different words'):
    opened(root)
  (root / 'data.yaml').write_text('names: [cat\n')
  with pytest.raises(UserError, match='data.yaml is no valid YAML'):
    opened(root)
  references = 'a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n'
  (root / 'data.yaml').write_text(references)
  with pytest.raises(UserError, match='no valid YAML: it refers to parts of itself'):
    opened(root)
  (root / 'data.yaml').unlink()
  with pytest.raises(UserError, match='nothing names the classes'):
    opened(root)
  (root / 'labels' / 'z.txt').write_text('')
  with pytest.raises(UserError, match='1 label files without an image of their name: z.txt'):
    opened(root)


# labelme


def shape(label='cat', points=((1, 1), (4, 1), (4, 4), (1, 4)), kind='polygon', **more):
  return dict(label=label, points=[list(p) for p in points], shape_type=kind, **more)


def write_labelme(root, *shapes, **changes):
  for name in 'ab':
    photo(root / f'{name}.jpg')
    told = dict(shapes=list(shapes), imageWidth=WIDTH, imageHeight=HEIGHT) | changes
    (root / f'{name}.json').write_text(json.dumps(told))


def picture(mask):
  data = io.BytesIO()
  Image.fromarray(mask).save(data, 'PNG')
  return base64.b64encode(data.getvalue()).decode()


@pytest.mark.parametrize('place', ['json/a.json', 'images/c.json'])
def test_labelme_in_two_places_is_asked_about(root, place):
  write_labelme(root, shape())
  photo(root / 'images/c.jpg')
  assert len(opened(root)) == 1
  (root / place).parent.mkdir(exist_ok=True)
  (root / place).write_text((root / 'a.json').read_text())
  with pytest.raises(UserError, match=f"a.json and .*{place} are labelme's in two places: put all"):
    opened(root)


def test_labelme_by_hand(root, capsys):
  drawn = np.zeros((2, 3), np.uint8)
  drawn[0] = 1
  write_labelme(
    root,
    shape('_background_'),
    shape('dog'),
    shape('cat', [(5, 0), (8, 2)], 'rectangle'),
    shape('cat', [(8, 6), (10, 8)], 'mask', mask=picture(drawn)),
    shape('__ignore__', [(9, 0), (12, 3)], 'rectangle'),
    shape('dog', [(5, 5), (6, 5), (6, 8), (5, 8)], group_id=1),
    shape('dog', [(7, 5), (8, 5), (8, 8), (7, 8)], group_id=1),
  )
  photo(root / 'c.jpg')
  example = opened(root)[0]
  assert opened(root).class_names == ('background', 'cat', 'dog')
  assert example['instance_classes'].tolist() == [2, 1, 1, 1, 2]
  assert example['crowd'].tolist() == [False, False, False, True, False]
  boxes = [[1, 1, 4, 4], [5, 0, 8, 2], [8, 6, 11, 7], [9, 0, 12, 3], [5, 5, 8, 8]]
  assert example['instance_boxes'].tolist() == boxes
  assert example['area'].tolist() == [9, 6, 3, 9, 6]
  assert example['label'][0, 9:].tolist() == [255] * 3
  assert '1 images have no JSON and are left out: c.jpg' in capsys.readouterr().err


def test_labelme_parts_of_one_object_may_be_drawn_in_two_ways(root):
  brush = picture(np.ones((2, 3), np.uint8))
  write_labelme(
    root,
    shape('cat', [(5, 1), (7, 2)], 'mask', mask=brush, group_id=1),
    shape('cat', group_id=1),
  )
  example = opened(root)[0]
  assert example['instance_boxes'].tolist() == [[1, 1, 8, 4]] and example['area'].tolist() == [15]


@pytest.mark.parametrize(('label', 'inside'), [('_background_', 0), ('__ignore__', 255)])
def test_labelme_what_is_no_object_cuts_what_is_drawn_before(root, label, inside):
  """As in the masks that labelme exports, which are painted in the order of the shapes."""
  small = [(2, 2), (3, 2), (3, 4), (2, 4)]
  drawn = [shape('cat'), shape(label, small), shape('dog', [(2, 2), (3, 3)], 'rectangle')]
  write_labelme(root, *drawn)
  example = opened(root)[0]
  assert example['label'][1:4, 1:4].tolist() == [[1, 1, 1], [1, 2, 1], [1, inside, 1]]
  objects_ = ~example['crowd']
  assert example['instance_classes'][objects_].tolist() == [1, 2]
  assert example['area'][objects_].tolist() == [7, 1]
  write_labelme(root, *drawn, imageWidth=None)
  with pytest.raises(UserError, match='shape 2: .* imageHeight and imageWidth alone, which are'):
    [opened(root, split) for split in ('train', 'val')]


def test_labelme_shapes_that_are_covered_whole(root):
  write_labelme(root, shape(), shape('dog', [(6, 5), (8, 7)], 'rectangle'), shape('__ignore__'))
  example = opened(root)[0]
  assert example['label'][2, 2] == 255 and example['instance_classes'].tolist() == [2, 1]
  write_labelme(root, shape(), shape('_background_'))
  with pytest.raises(UserError, match='a.json, shape 2: _background_ covers all of shape 1'):
    [opened(root, split) for split in ('train', 'val')]


def test_labelme_circles_are_round(root):
  write_labelme(root, shape('cat', [(6, 4), (9, 4)], 'circle'))
  example = opened(root)[0]
  assert example['area'][0] == pytest.approx(np.pi * 9, abs=4)


WRONG_LABELME = {
  'a line of 2 points is no object with a mask': shape(points=[(1, 1), (2, 2)], kind='line'),
  'a polygon of 2 points is no object': shape(points=[(1, 1), (2, 2)]),
  "its 'label' is None": shape(label=None),
  "'points' must be pairs of x and y": shape(points=[(1, 1, 1)]),
  "its 'points' is no list of numbers": shape(points=[('a', 1), (2, 2), (3, 3)]),
  'it reaches to x = 400': shape(points=[(1, 1), (400, 1), (4, 4)]),
  "its 'mask' is no picture in base 64": shape(points=[(1, 1), (2, 2)], kind='mask', mask='?'),
  'its mask of 9 x 9 at 1, 1 is not inside': shape(
    points=[(1, 1), (2, 2)], kind='mask', mask=picture(np.ones((9, 9), np.uint8))
  ),
}


@pytest.mark.parametrize('words', WRONG_LABELME)
def test_labelme_refuses(root, words):
  write_labelme(root, WRONG_LABELME[words])
  with pytest.raises(UserError, match=f'[ab].json, shape 1.*{words}'):
    opened(root)


def test_labelme_refuses_other_sizes_and_unlisted_labels(root):
  write_labelme(root, shape(), imageWidth=2 * WIDTH, imageHeight=2 * HEIGHT)
  with pytest.raises(UserError, match='12 x 8 pixels, but its annotations are of 24 x 16'):
    opened(root)
  write_labelme(root, shape())
  (root / 'labels.txt').write_text('__ignore__\n_background_\ndog\n')
  with pytest.raises(UserError, match="shape 1: 'cat' is none of the classes dog"):
    opened(root)


# CVAT


def write_cvat(root, shapes, labels=('cat', 'dog')):
  listed = ''.join(f'<label><name>{name}</name></label>' for name in labels)
  images = ''
  for i, name in enumerate('ab'):
    photo(root / 'images' / f'{name}.jpg')
    images += f'<image id="{i}" name="{name}.jpg" width="12" height="8">{shapes}</image>'
  meta = f'<meta><task><labels>{listed}</labels></task></meta>'
  (root / 'annotations.xml').write_text(f'<annotations>{meta}{images}</annotations>')


def test_cvat_images_that_lie_in_two_folders_are_asked_about(root):
  write_cvat(root, '<polygon label="dog" points="1,1;4,1;4,4;1,4"/>')
  photo(root / 'b.jpg')
  with pytest.raises(UserError, match=r'annotations.xml lists b.jpg, and there are .*b.jpg and '):
    opened(root)


def test_cvat_by_hand(root):
  write_cvat(
    root,
    '<polygon label="dog" points="1,1;4,1;4,4;1,4"/>'
    '<box label="cat" xtl="5" ytl="0" xbr="8" ybr="2"/>'
    '<mask label="cat" left="8" top="6" width="3" height="2" rle="0, 3, 3"/>'
    '<tag label="cat"/>',
  )
  source = opened(root)
  assert source.class_names == ('background', 'cat', 'dog')
  example = source[0]
  assert example['instance_classes'].tolist() == [2, 1, 1]
  assert example['instance_boxes'].tolist() == [[1, 1, 4, 4], [5, 0, 8, 2], [8, 6, 11, 7]]


WRONG_CVAT = {
  "its label 'bird' is none of cat, dog": '<polygon label="bird" points="1,1;4,1;4,4"/>',
  "its points are no 'x,y;x,y;...'": '<polygon label="cat" points="1,1;b"/>',
  r'reaches to x = 1e\+09': '<polygon label="cat" points="1,1;1e9,1;4,4"/>',
  'not finite': '<polygon label="cat" points="1,1;nan,1;4,4"/>',
  "its xbr is 'wide'": '<box label="cat" xtl="5" ytl="0" xbr="wide" ybr="2"/>',
  'add up to 5 of 6 pixels': '<mask label="cat" left="8" top="6" width="3" height="2" rle="5"/>',
  'are not inside': '<mask label="cat" left="8" top="6" width="30" height="2" rle="60"/>',
  'a polyline is no object with a mask': '<polyline label="cat" points="1,1;2,2"/>',
}


@pytest.mark.parametrize('words', WRONG_CVAT)
def test_cvat_refuses(root, words):
  write_cvat(root, WRONG_CVAT[words])
  with pytest.raises(UserError, match=f'annotations.xml.*{words}'):
    opened(root)


def test_xml_that_declares_entities_is_refused(root):
  write_cvat(root, '')
  file = root / 'annotations.xml'
  file.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + file.read_text())
  with pytest.raises(UserError, match='declares a document type'):
    opened(root)


# Masks


def write_ids(root, ids, name='a'):
  photo(root / 'images' / f'{name}.jpg')
  (root / 'masks').mkdir(exist_ok=True)
  Image.fromarray(ids).save(root / 'masks' / f'{name}.png')


def numbered(*numbers, dtype=np.uint8):
  ids = np.zeros((HEIGHT, WIDTH), dtype)
  for i, number in enumerate(numbers):
    ids[2:4, 2 * i + 1 : 2 * i + 3] = number
  return ids


def test_maps_of_numbers(root):
  for name, dtype in (('a', np.uint8), ('b', np.uint16)):
    write_ids(root, numbered(4, 9, dtype=dtype), name)
  examples = [*opened(root, 'train'), *opened(root, 'val')]
  for example in examples:
    assert example['instance_boxes'].tolist() == [[1, 2, 3, 4], [3, 2, 5, 4]]
    assert example['instance_classes'].tolist() == [1, 1]
  assert opened(root).class_names == ('background', 'object')


def test_numbers_that_hold_their_class(root):
  """Cityscapes: 2001 is the first of class 2; 2 without a number is a region, not an object."""
  for name in 'ab':
    write_ids(root, numbered(2001, 1000, 2, dtype=np.uint16), name)
  (root / 'classes.txt').write_text('background\ncar\nrider\n')
  with pytest.raises(UserError, match='nothing says which of 2 classes object'):
    opened(root)
  assert opened(root, divisor=1000)[0]['instance_classes'].tolist() == [1, 2]
  for divisor in (0, -3, 1 << 60):
    with pytest.raises(UserError, match=f'got divisor {divisor}; 2 to'):
      opened(root, divisor=divisor)
  write_ids(root, numbered(5001, dtype=np.uint16), 'c')
  with pytest.raises(UserError, match='object 5001 is of class 5; 1 to 2 are named'):
    [opened(root, split, divisor=1000) for split in ('train', 'val')]


@pytest.mark.parametrize(('last', 'dtype'), [(255, np.uint8), (255, np.uint16), (65535, np.uint16)])
def test_the_last_number_beside_few_is_asked_about(root, last, dtype):
  for name in 'ab':
    write_ids(root, numbered(1, last, dtype=dtype), name)
  with pytest.raises(
    UserError, match=f'options.void={last} if it is a region to ignore, or void=-1'
  ):
    opened(root)
  assert opened(root, void=last)[0]['crowd'].tolist() == [False, True]
  assert opened(root, void=-1)[0]['crowd'].tolist() == [False, False]


def test_255_is_an_object_among_numbers_of_16_bits_with_gaps(root):
  for name in 'ab':
    write_ids(root, numbered(12, 255, dtype=np.uint16), name)
  assert opened(root)[0]['crowd'].tolist() == [False, False]


def test_an_empty_folder_of_masks_is_an_image_without_objects(root):
  for name in 'ab':
    photo(root / name / 'images' / f'{name}.png')
    (root / name / 'masks').mkdir()
  Image.fromarray(255 * numbered(1)).save(root / 'a' / 'masks' / '0.png')
  found = {e['file_name']: len(e['area']) for s in ('train', 'val') for e in opened(root, s)}
  assert found == {'a.png': 1, 'b.png': 0}


def write_files(root, name):
  """Writes an example with two objects."""
  photo(root / name / 'images' / f'{name}.png')
  (root / name / 'masks').mkdir()
  for number in (1, 2):
    mask = 255 * (numbered(1, 2) == number).astype(np.uint8)
    Image.fromarray(mask).save(root / name / 'masks' / f'{number}.png')


SPLIT_WRITERS = {
  'files': lambda root, split: write_files(root / split, split),
  'yolo': lambda root, split: write_yolo(root / split, '1 0.25 0.25 0.5 0.25 0.5 0.5', names=''),
  'labelme': lambda root, split: write_labelme(root / split, shape('dog')),
  'cvat': lambda root, split: write_cvat(
    root / split, '<polygon label="dog" points="1,1;4,1;4,4"/>'
  ),
}


@pytest.mark.parametrize('kind', SPLIT_WRITERS)
def test_folders_of_one_split_are_read_together(root, kind):
  for split in ('train', 'train2', 'training', 'valid'):
    SPLIT_WRITERS[kind](root, split)
  (root / 'data.yaml').write_text('names: [cat, dog]\n')
  splits = objects.layout_of(root, kind)[1].splits
  found = {s: [raw.image.relative_to(root).parts[0] for raw in of] for s, of in splits.items()}
  assert {s: list(dict.fromkeys(of)) for s, of in found.items()} == {
    'train': ['train', 'train2', 'training'],
    'val': ['valid'],
  }


def test_folders_that_are_no_example_are_named(root, capsys):
  for name in 'abcd':
    write_files(root, name)
  photo(root / 'b' / 'images' / 'b_overlay.png')
  (root / 'c' / 'masks').rename(root / 'c' / 'mask')
  photo(root / 'x' / 'e' / 'images' / 'e.png')
  assert sorted(e['file_name'] for s in ('train', 'val') for e in opened(root, s)) == [
    'a.png',
    'd.png',
  ]
  told = capsys.readouterr().err
  assert '4 folders lack images/ with one image, or masks/, and are left out: b, c, c/mask' in told
  for name in ('a', 'd'):  # as many folders of several images: of a site each
    photo(root / name / 'images' / 'further.png')
    write_files(root, f'{name}2')
  with pytest.raises(UserError, match='no annotated objects of the format files'):
    opened(root, format='files')


def test_masks_in_folders_within_masks_are_refused(root):
  for name in 'ab':
    write_files(root, name)
  (root / 'a' / 'masks' / 'cat').mkdir()
  (root / 'a' / 'masks' / '2.png').rename(root / 'a' / 'masks' / 'cat' / '2.png')
  with pytest.raises(UserError, match='a/masks/cat holds masks that would be left out'):
    opened(root)


def test_files_begin_with_their_class_if_some_do(root):
  for name in 'ab':
    write_files(root, name)
  (root / 'classes.txt').write_text('background\ncat\n')
  assert opened(root)[0]['instance_classes'].tolist() == [1, 1]
  for name in 'ab':
    for number, word in ((1, 'cat'), (2, 'dog')):
      file = root / name / 'masks' / f'{number}.png'
      file.rename(file.with_name(f'{word}_{number}.png'))
  with pytest.raises(UserError, match='dog_2.png begins with none of the classes cat, as others'):
    [opened(root, split) for split in ('train', 'val')]


def test_images_of_one_name_are_left_out_one_by_one(root):
  for split in ('train', 'val'):
    write_labelme(root / split, shape('dog'))
  for path in ('val/a.jpg', (root / 'val' / 'a.jpg').as_posix()):
    assert len(opened(root, 'train', without=(path,))) == 2
    assert [e['file_name'] for e in opened(root, 'val', without=(path,))] == ['b.jpg']
  with pytest.raises(UserError, match='without names a.jpg, as are .*train/a.jpg and .*val/a.jpg'):
    opened(root, without=('a.jpg',))


@pytest.mark.parametrize('name', ['masks/2.npy', 'masks/2.TGA', 'images/a.heic'])
def test_files_of_an_example_in_other_formats_are_refused(root, name):
  for stem in 'ab':
    write_files(root, stem)
  (root / 'a' / 'masks' / '2.png').rename(root / 'a' / name)
  with pytest.raises(UserError, match=f'a/{name} would be left out: save it as one of .png'):
    opened(root)


def test_what_is_no_map_of_numbers_is_named(root, capsys):
  for split in ('train', 'train2', 'val'):
    write_ids(root / split, numbered(1, 2), split)
  assert len(opened(root, format='ids')) == len(opened(root, 'val', format='ids')) == 1
  told = 'left out are 2 other files (train2/images/train2.jpg, train2/masks/train2.png)'
  assert f'{root}: {told}' in capsys.readouterr().err
  (root / 'train' / 'masks' / 'b.pgm').write_bytes(b'')
  with pytest.raises(UserError, match='masks/b.pgm would be left out: save it as one of'):
    opened(root, format='ids')


def test_images_of_other_formats_beside_annotated_ones_are_named(root, capsys):
  write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5')
  (root / 'images' / 'c.heic').write_bytes(b'')
  assert len(opened(root)) == 1
  assert '1 files of other formats are left out: c.heic' in capsys.readouterr().err


def test_a_folder_of_something_else_is_told(root, tmp_path):
  photo(root / 'a.jpg')
  with pytest.raises(UserError, match='has no annotated objects of any of the formats coco, cvat'):
    opened(root)
  with pytest.raises(UserError, match='no annotated objects of the format yolo'):
    opened(root, format='yolo')
  with pytest.raises(UserError, match="has no format 'voc': use one of None, coco"):
    opened(root, format='voc')
  write_yolo(root, '')
  with pytest.raises(UserError, match='of the format yolo, which takes no crowds'):
    opened(root, crowds='objects')


WRITERS = {
  'train.json': lambda root: write_coco(root, [entry(1), entry(2, image=2, area=4.0)]),
  'labels/a.txt': lambda root: write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'),
  'data.yaml': lambda root: write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'),
  'a.json': lambda root: write_labelme(root, shape('dog'), shape('cat')),
  'annotations.xml': lambda root: write_cvat(root, '<polygon label="dog" points="1,1;4,1;4,4"/>'),
}
PARTS = (
  b'NaN',
  b'1e999',
  b'[',
  b'{',
  b'null',
  b'-1',
  b'""',
  b'1e9',
  b'true',
  b'9' * 30,
  b'\xff',
  b'',
)


@pytest.mark.slow
@pytest.mark.parametrize('file', WRITERS)
def test_mutated_files_end_in_one_line(root, file):
  """A piece is replaced by what is odd: it is read, or refused by a UserError of one line."""
  WRITERS[file](root)
  whole, rng = (root / file).read_bytes(), np.random.default_rng(0)
  refused = 0
  for _ in range(250):
    start, length = int(rng.integers(len(whole))), int(rng.integers(1, 12))
    part = PARTS[int(rng.integers(len(PARTS)))]
    (root / file).write_bytes(whole[:start] + part + whole[start + length :])
    try:
      found, layout = objects.layout_of(root)
      for raws in layout.splits.values():
        for raw in raws:
          annotations.example(raw, read=layout.read, exif='upright')
    except UserError as error:
      assert '\n' not in str(error)
      refused += 1
  assert refused > 50
