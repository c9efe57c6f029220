"""labelme's JSON: read as meant, told, or refused in one line."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxseg.types import UserError
from tests.annotated_folders import (
  HEIGHT,
  WIDTH,
  opened,
  photo,
  shape,
  write_labelme,
)


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
