"""launch/data.py plan for objects: sizes that follow from theirs, and a config that is built as it is."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxseg import config as configs
from jaxseg.prepare import objects, own_data, plan
from jaxseg.prepare.own_data import Request
from jaxseg.train import build
from jaxseg.types import UserError
from tests.object_layouts import LAYOUTS, Writer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))


def squares(*places, size=(96, 128), side=20):
  """Objects of classes 1 and 2 in turn, at (top, left)."""
  masks = []
  for i, (top, left) in enumerate(places):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    masks.append((i % 2 + 1, mask))
  return masks


def images():
  rng = np.random.default_rng(0)
  pixels = [rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(3)]
  truths = (squares((5, 5), (40, 60), (70, 100)), [], squares((30, 30)))
  return list(zip('abc', pixels, truths, strict=True))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_found(tmp_path, layout):
  root = tmp_path / 'own'
  for split in ('train', 'val'):
    getattr(Writer(root, ('cat', 'dog')), layout)(split, images())
  # of so few numbers nothing but the network says that they are no classes
  found = own_data.find(Request(folder=str(root), model='mask_rcnn' if layout == 'ids' else ''))
  kind = {'runs': 'coco'}.get(layout, layout)
  assert (found.dataset, found.options) == ('objects', {'format': kind}) and found.tells_objects
  assert found.counts == {'train': 3, 'val': 3}


def test_a_plan_is_a_config_whose_sizes_are_those_of_objects(tmp_path, capsys):
  root = tmp_path / 'own'
  for split in ('train', 'val'):
    Writer(root, ('cat', 'dog')).yolo(split, images())
  plan.plan(Request(folder=str(root)), tmp_path / 'mine.py')
  experiment = build.experiment(configs.load(str(tmp_path / 'mine.py')))
  assert experiment.settings.task == 'instance' and experiment.settings.num_classes == 3
  assert experiment.source('train').class_names == ('background', 'cat', 'dog')
  model = experiment.model()
  # the square root of the area is 20 for all: the middle of 7, 14, 28, 57
  assert model.anchor_sizes == (7, 14, 28, 57) and model.anchor_ratios == (0.5, 1.0, 2.0)
  crop, flip, _, rows = experiment.transforms
  assert crop.size == (96, 128) and flip.horizontal and rows.max_instances == 3
  assert experiment.settings.batch_size == 2 and experiment.eval.scales == (1.0,)
  assert 'cat 3, dog 1 (objects)' in capsys.readouterr().out


def test_the_same_data_train_a_network_of_pixels(tmp_path):
  root = tmp_path / 'own'
  for split in ('train', 'val'):
    Writer(root, ('cat', 'dog')).coco(split, images())
  plan.plan(Request(folder=str(root), model='unet'), tmp_path / 'mine.py')
  experiment = build.experiment(configs.load(str(tmp_path / 'mine.py')))
  assert experiment.settings.task == 'semantic' and experiment.task.maps
  assert experiment.source('train')[0]['label'][10, 10] == 1


def test_folds_of_objects(tmp_path):
  root = tmp_path / 'own'
  Writer(root, ('cat', 'dog')).yolo('train', images())
  plan.plan(Request(folder=str(root), folds=3, model='unet'), tmp_path / 'mine.py')
  held_out = []
  for fold in range(3):
    experiment = build.experiment(configs.load(f'{tmp_path}/mine.py:fold={fold}'))
    assert len(experiment.source('train')) == 2
    held_out += [example['file_name'] for example in experiment.source('val')]
  assert sorted(held_out) == ['a.png', 'b.png', 'c.png']


def test_scale_by_the_sides_of_objects():
  for middle, high, largest, expected in (
    (20, 60, 192, 1),
    (20, 97, 192, 0.5),  # 96 fits twice into 192
    (100, 400, 192, 0.125),
    (100, 400, 512, 0.5),
    (10, 40, 192, 2),
    (10, 60, 192, 1),  # twice as large, 60 would not fit twice
    (20, 800, 192, 0.5),  # less would leave less than 8 pixels of the median object
  ):
    assert objects.fit_scale(middle, high, largest) == expected


def test_anchors_are_centred_on_the_objects():
  assert objects.fit_anchors(10, 90) == (11, 21, 42, 85)  # sqrt(10 * 90) / 2 ** 1.5
  assert objects.fit_anchors(2, 4) == (6, 12, 24, 48)  # no smaller ones
  boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], float)
  assert objects.fit_ratios(boxes) == (0.5, 1.0, 2.0)
  assert objects.fit_ratios(np.array([[0, 0, 10, 50]] * 3, float)) == (0.5, 1.0, 5.0)
  assert objects.fit_ratios(np.array([[0, 0, 50, 10]] * 3, float)) == (0.2, 1.0, 2.0)


def test_no_window_shows_more_than_the_bound():
  rng = np.random.default_rng(0)
  for _ in range(20):
    corners = rng.uniform(0, 300, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, (60, 2))], axis=1)
    window = rng.uniform(20, 150, 2)
    bound = objects.at_most_in_window(boxes, window)
    for top, left in rng.uniform(-40, 300, (200, 2)):
      inside = (boxes[:, 0] < left + window[1]) & (boxes[:, 2] > left)
      inside &= (boxes[:, 1] < top + window[0]) & (boxes[:, 3] > top)
      assert inside.sum() <= bound <= 60
  spread = np.array([[i, i, i + 1, i + 1] for i in range(0, 1000, 10)], float)
  assert objects.at_most_in_window(spread, (20, 20)) <= 5


def test_numbers_are_told_from_classes(tmp_path):
  def saved(name, ids):
    Image.fromarray(ids).save(tmp_path / f'{name}.png')
    return tmp_path / f'{name}.png'

  def numbered(*numbers, dtype=np.uint8, twice=False):
    ids = np.zeros((20, 60), dtype)
    for i, number in enumerate(numbers):
      ids[2:6, 5 * i + 1 : 5 * i + 5] = ids[12 if twice else 2, 5 * i + 1] = number
    return ids

  counts = [range(1, n + 1) for n in (2, 3, 5)]
  assert objects.are_numbers([saved(f'n{i}', numbered(*c)) for i, c in enumerate(counts)])
  deep = [saved(f'd{i}', numbered(3, 8, 400 + i, dtype=np.uint16)) for i in range(2)]
  assert objects.are_numbers(deep)
  same = [saved(f's{i}', numbered(1, 2, 3)) for i in range(3)]  # three organs in each image
  assert not objects.are_numbers(same)
  some = [saved(f'g{i}', numbered(*c)) for i, c in enumerate([(1, 4), (2, 3, 4), (1,)])]
  assert not objects.are_numbers(some)
  many = [saved(f'm{i}', numbered(*c, twice=True)) for i, c in enumerate(counts)]
  assert not objects.are_numbers(many)
  assert objects.are_classes(many) and not objects.are_classes(same)
  assert not objects.are_classes([*many[:1], *deep])


def test_masks_of_classes_are_no_objects(tmp_path):
  for i in range(4):
    ids = np.zeros((20, 20), np.uint8)
    ids[2:8, 2:8] = ids[12:18, 2 + i : 8] = 255
    for folder, pixels in (('images', ids), ('masks', ids)):
      (tmp_path / folder).mkdir(exist_ok=True)
      Image.fromarray(pixels).save(tmp_path / folder / f'{i}.png')
  request = Request(folder=str(tmp_path), model='mask_rcnn')
  with pytest.raises(UserError, match=r'numbers that are several regions each.*format=ids takes'):
    own_data.find(request)
  taken = own_data.find(dataclasses.replace(request, options={'format': 'ids'}))
  assert taken.counts == {'train': 3, 'val': 1}


def test_a_plan_warns_of_folders_of_images_that_nothing_annotates(tmp_path):
  root = tmp_path / 'own'
  Writer(root, ('cat', 'dog')).coco('train', images())
  assert own_data.find(Request(folder=str(root))).warnings == ()
  (root / 'more/deep').mkdir(parents=True)
  Image.new('RGB', (9, 9)).save(root / 'more/deep/x.JPG')
  [warning] = own_data.find(Request(folder=str(root))).warnings
  assert (
    warning == 'warning   no image is read of more/deep: no annotation was found for any of them'
  )


def test_masks_of_classes_in_two_places_are_asked_about_also_beside_numbers(tmp_path):
  for folder in ('images', 'labels', 'masks', 'instances'):
    (tmp_path / folder).mkdir()
    for i in range(4):
      pixels = np.random.default_rng(i).integers(0, 3, (20, 20), np.uint8)
      Image.fromarray(pixels).save(tmp_path / folder / f'{i}.png')
  request = Request(folder=str(tmp_path), model='unet')
  with pytest.raises(UserError, match=r'can be read in two ways.*choose with --images and --masks'):
    own_data.find(request)


def test_images_that_happen_to_look_like_a_pair_are_still_annotated(tmp_path):
  root = tmp_path / 'own'
  named = zip(('0003', '0003_gt', 'b'), images(), strict=True)
  Writer(root, ('cat', 'dog')).labelme('train', [(name, *rest) for name, (_, *rest) in named])
  found = own_data.find(Request(folder=str(root)))
  assert found.options['format'] == 'labelme' and found.counts == {'train': 2, 'val': 1}


FILES = {
  'coco': 'annotations/train.json',
  'cvat': 'train/annotations.xml',
  'labelme': 'train/a.json',
  'yolo': 'train/labels/a.txt',
}


@pytest.mark.parametrize('further', FILES)
@pytest.mark.parametrize('layout', [*FILES, 'ids'])
def test_a_plan_warns_of_further_annotations_of_its_images(tmp_path, layout, further):
  root, file = tmp_path / 'own', tmp_path / 'other' / FILES[further]
  for where, kind in ((root, layout), (tmp_path / 'other', further)):
    getattr(Writer(where, ('cat', 'dog')), kind)('train', images())
  request = Request(folder=str(root), model='mask_rcnn' if layout == 'ids' else '')
  (root / 'deep' / 'later').mkdir(parents=True)
  for name in ('notes.json', 'notes.txt', 'notes.xml', 'a.xml'):
    (root / 'deep' / name).write_text('<a/>' if name.endswith('xml') else '[1, 2]')
  (root / 'a.txt').write_text('12.5 47.1\n')  # a place
  assert not any('further' in line for line in own_data.find(request).warnings)
  (root / 'deep' / 'later' / file.name).write_text(file.read_text())
  warning = next(line for line in own_data.find(request).warnings if 'further' in line)
  assert warning.startswith(f'warning   deep/later/{file.name}: further annotations of images')


def test_a_plan_of_marked_crowds_takes_them_for_objects_and_says_so(tmp_path):
  root = tmp_path / 'own'
  for split, sign in (('train', 1), ('val', -1)):
    shown = [(name, pixels[::sign].copy(), truth) for name, pixels, truth in images()]
    Writer(root, ('cat', 'dog')).coco(split, shown)
    file = root / 'annotations' / f'{split}.json'
    content = json.loads(file.read_text())
    for one in content['annotations']:
      one['iscrowd'] = 1
    file.write_text(json.dumps(content))
  found = own_data.find(Request(folder=str(root)))
  assert found.options == {'format': 'coco', 'crowds': 'objects'}
  [warning] = found.warnings
  assert warning.startswith('warning   ') and '4 of 4 annotations are crowds' in warning
