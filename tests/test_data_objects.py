"""Rows of objects for a training step, written out by hand, and maps in layers that move as one."""

import numpy as np
import pytest

from jaxseg.data import geometry, transforms
from jaxseg.data.copy_paste import CopyPaste
from jaxseg.data.loader import train_batches
from jaxseg.data.objects import CELLS, Objects, measure
from jaxseg.datasets import shapes
from jaxseg.nn.detection.masks import crop
from jaxseg.types import UserError

MAP = np.array(
  [
    [1, 0, 0, 0, 0],
    [0, 0, 3, 3, 0],
    [0, 3, 3, 0, 0],
    [0, 0, 0, 0, 5],
  ],
  np.uint16,
)  # 2 and 4 have no pixel left
CLASSES = np.array([2, 1, 1, 1, 2], np.uint8)


def example_of(instances=MAP, **tables):
  image = np.zeros((*instances.shape[:2], 3), np.uint8)
  label = np.zeros(instances.shape[:2], np.uint8)
  example = {'image': image, 'label': label, 'instances': instances, 'file_name': 'a.png'}
  return {**example, 'instance_classes': CLASSES, **tables}


def test_rows_by_hand():
  made = Objects(4)(example_of(), None)
  assert made['boxes'].tolist() == [[0, 0, 1, 1], [1, 1, 4, 3], [4, 3, 5, 4], [0, 0, 0, 0]]
  assert made['classes'].tolist() == [2, 1, 2, 0]
  assert made['crowd'].tolist() == [False] * 4
  np.testing.assert_array_equal(made['mask_boxes'], made['boxes'])
  assert made['extent'].tolist() == [0, 0, 5, 4]
  kinds = {'boxes': 'f4', 'classes': 'i4', 'crowd': 'b1', 'masks': 'u1', 'mask_boxes': 'f4'}
  assert {key: made[key].dtype for key in Objects.makes} == kinds | {'extent': 'f4'}
  assert made['masks'].shape == (4, CELLS, CELLS) and not made['masks'][3].any()
  # of 3 x 2 pixels the second and third of the first row, the first and second of the other
  corners = made['masks'][1][[9, 9, 46, 46], [9, 46, 9, 46]] > 127
  assert corners.tolist() == [False, True, True, False]


def test_small_objects_have_no_row():
  made = Objects(2, min_area=2)(example_of(), None)
  assert (made['boxes'][0].tolist(), made['classes'].tolist()) == ([1, 1, 4, 3], [1, 0])


def test_a_crowd_has_a_box_and_no_class():
  crowd = np.array([False, False, True, False, False])
  made = Objects(3)(example_of(crowd=crowd), None)
  assert made['crowd'].tolist() == [False, True, False]
  assert made['classes'].tolist() == [2, 0, 2]
  assert made['boxes'][1].tolist() == [1, 1, 4, 3]


def test_layers_beyond_the_last_are_painted_over_it():
  other = np.zeros_like(MAP)
  other[0, :3] = 2
  third = np.zeros_like(MAP)
  third[0, 2:4] = 4
  layered = np.stack([MAP, other, third], axis=-1)
  made = Objects(5, max_layers=4)(example_of(layered), None)
  assert made['boxes'][1].tolist() == [0, 0, 3, 1]
  made = Objects(5, max_layers=2)(example_of(layered), None)
  assert made['boxes'][1].tolist() == [0, 0, 2, 1]  # of what is left of it
  assert made['boxes'][3].tolist() == [2, 0, 4, 1]


DRAWN = np.array([[1.25, 0.5, 3.5, 2.75], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
ONE = np.zeros((4, 6), np.uint16)
ONE[0:3, 1:4] = 1


def annotated(transform, seed=0, **more):
  """One object of an image 6 x 4, which its annotator has outlined at 1.25, .5, 3.5, 2.75."""
  example = example_of(ONE, instance_boxes=DRAWN.astype(np.float32), **more)
  return Objects(2)(transform(example, np.random.default_rng(seed)), None)


def test_boxes_are_the_annotators_moved_as_the_image():
  moves = [
    ((2.5, 1, 7, 5.5), transforms.Resize((8, 12))),
    ((3.25, 3.5, 5.5, 5.75), transforms.Pad((10, 10))),
    ((2.5, 0.5, 4.75, 2.75), lambda e, _: geometry.flip(e, True, False)),
    ((1.25, 1.25, 3.5, 3.5), lambda e, _: geometry.flip(e, False, True)),
    ((0.5, 2.5, 2.75, 4.75), lambda e, _: geometry.rotate90(e, 1)),
    ((2.5, 1.25, 4.75, 3.5), lambda e, _: geometry.rotate90(e, 2)),
    ((1.25, 1.25, 3.5, 3.5), lambda e, _: geometry.rotate90(e, 3)),
    ((0.25, 0.5, 2.5, 2.75), lambda e, _: geometry.crop(e, 0, 1, 3, 4)),
  ]
  for box, move in moves:
    np.testing.assert_allclose(annotated(move)['boxes'][0], box, atol=1e-6)


def test_the_border_measures_what_it_cuts():
  """From column 2 on: two of three columns are left; and again where that is padded."""
  cut = lambda e, _: geometry.crop(e, 0, 2, 3, 4)  # noqa: E731
  made = annotated(cut)
  assert made['boxes'][0].tolist() == [0, 0, 2, 3] and made['mask_boxes'][0].tolist() == [
    -1,
    0,
    2,
    3,
  ]
  assert made['extent'].tolist() == [0, 0, 4, 3]
  made = annotated(lambda e, r: geometry.pad(cut(e, r), 0, 0, 5, 0))
  assert made['boxes'][0].tolist() == [5, 0, 7, 3] and made['extent'].tolist() == [5, 0, 9, 3]


def test_warps_measure_what_is_left():
  made = annotated(transforms.Elastic(0.0))
  assert made['boxes'][0].tolist() == made['mask_boxes'][0].tolist() == [1, 0, 4, 3]


@pytest.mark.parametrize('move', ['flip', 'rotate90'])
def test_masks_turn_as_the_image(move):
  shape = np.zeros((8, 8), np.uint16)
  shape[1:4, 2:7] = shape[1:7, 2] = 1  # an angle
  for a in range(4):
    moved = (
      geometry.flip(example_of(shape), bool(a & 1), bool(a & 2))
      if move == 'flip'
      else geometry.rotate90(example_of(shape), a)
    )
    made = Objects(2)(moved, None)
    plain = Objects(2)({**example_of(moved['instances'])}, None)
    np.testing.assert_array_equal(made['masks'], plain['masks'])
    np.testing.assert_array_equal(made['mask_boxes'], plain['mask_boxes'])


def test_targets_are_those_of_the_outline():
  """A disc of ten pixels, seen by the network at one and two thirds its size: 28 cells of its box."""
  cells = (np.arange(28) + 0.5) / 28 * 2 - 1
  disc = cells[:, None] ** 2 + cells[None] ** 2 <= 1
  fine = (np.arange(320) + 0.5) / 32
  covered = ((fine[:, None] - 5) ** 2 + (fine[None] - 5) ** 2 <= 25).reshape(10, 32, 10, 32)
  shape = np.pad(covered.mean(axis=(1, 3)) >= 0.5, 3).astype(np.uint16)
  box = np.array([[3, 3, 13, 13]], np.float32)
  example = example_of(shape, instance_boxes=np.repeat(box, 5, axis=0))
  made = Objects(1)(transforms.Resize((27, 27))(example, None), None)
  found = np.asarray(crop(made['masks'], made['mask_boxes'], made['boxes'], 28)[0])
  assert (found & disc).sum() / (found | disc).sum() > 0.93


def test_measure():
  boxes, areas = measure(MAP, 5)
  assert areas.tolist() == [1, 0, 4, 0, 1]
  assert boxes[1].tolist() == [0, 0, 0, 0]
  with pytest.raises(UserError, match='holds the id 5 of 4 objects'):
    measure(MAP, 4)


def test_mistakes_are_told():
  with pytest.raises(
    UserError, match=r'a.png shows 3 objects, more than config.loss.max_instances=2'
  ):
    Objects(2)(example_of(), None)
  with pytest.raises(UserError, match='a.png: its dataset does not number objects'):
    Objects(2)({'image': MAP, 'file_name': 'a.png'}, None)
  with pytest.raises(UserError, match=r'config.loss.max_layers=0: must be between 1 and 64'):
    Objects(max_layers=0)


MOVES = [
  transforms.Resize((20, 33)),
  transforms.Pad((64, 64)),
  transforms.MirrorBorder(5),
  transforms.Crop((48, 48), (0.5, 2.0)),
  transforms.Sides(0.2),
  transforms.Flip(True, True),
  transforms.Rotate90(),
  transforms.Rotate(20.0),
  transforms.Rotate(20.0, None),
  transforms.Elastic(4.0),
]


@pytest.mark.parametrize('layers', [1, 2, 3, 6])  # OpenCV takes up to four channels at once
@pytest.mark.parametrize('move', MOVES, ids=lambda m: type(m).__name__)
def test_every_layer_moves_as_if_it_were_alone(move, layers):
  rng = np.random.default_rng(0)
  stack = rng.integers(0, 900, (31, 43, layers), dtype=np.uint16)
  example = {
    'image': rng.integers(0, 256, (31, 43, 3), dtype=np.uint8),
    'label': rng.integers(0, 3, (31, 43), dtype=np.uint8),
  }
  moved = move({**example, 'instances': stack}, np.random.default_rng(1))['instances']
  assert moved.dtype == np.uint16
  for i in range(layers):
    alone = {**example, 'instances': np.ascontiguousarray(stack[..., i])}
    expected = move(alone, np.random.default_rng(1))['instances']
    np.testing.assert_array_equal(moved[..., i], expected)


def test_a_random_short_side():
  step = transforms.ShortSide((8, 10), 12)
  example = example_of()
  sizes = {step(example, np.random.default_rng(s))['instances'].shape for s in range(9)}
  assert sizes == {(8, 10), (10, 12)}  # 5 columns of 4 rows: 12.5 would be beyond 12, 9.6 rows
  made = Objects(3)(transforms.ShortSide((8,), 12)(example, np.random.default_rng(0)), None)
  np.testing.assert_array_equal(made['boxes'][0], [0, 0, 2, 2])


def test_boxes_follow_what_a_flip_does():
  """Left and right are swapped: x0, x1 become width - x1, width - x0."""
  step = transforms.Flip()
  seeds = [s for s in range(8) if np.random.default_rng(s).random(2)[0] < 0.5]
  plain = Objects(3)(example_of(), None)['boxes']
  flipped = Objects(3)(step(example_of(), np.random.default_rng(seeds[0])), None)['boxes']
  np.testing.assert_array_equal(flipped, plain[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [5, 0, 5, 0])


def test_batches_hold_what_the_transform_makes():
  source = shapes.source('train', size=48, count=6)
  options = dict(seed=0, batch_size=3, num_threads=0)
  steps = (transforms.Crop((32, 32)),)
  plain = next(train_batches(source, steps, **options))
  assert plain.keys() == {'image', 'label', 'index'}  # the map alone is not for the step
  batch = next(train_batches(source, (*steps, Objects(7)), **options))
  assert batch.keys() == {*plain, *Objects.makes}
  for key, values in plain.items():
    np.testing.assert_array_equal(batch[key], values)
  assert batch['boxes'].shape == (3, 7, 4) and batch['masks'].shape == (3, 7, 56, 56)
  for boxes, classes, masks, label in zip(
    *(batch[k] for k in ('boxes', 'classes', 'masks', 'label')), strict=True
  ):
    for box, kind, mask in zip(boxes.astype(int), classes, masks, strict=True):
      assert mask.any() == (kind > 0)
      if kind:
        inside = label[box[1] : box[3], box[0] : box[2]]
        assert kind in inside


def with_objects(value, *objects, crowd=()):
  """An image 4 x 6 of one value; object i is painted as (rows, columns, class), its label too."""
  instances, label = np.zeros((4, 6), np.uint16), np.zeros((4, 6), np.uint8)
  for i, (rows, columns, kind) in enumerate(objects, 1):
    instances[rows, columns], label[rows, columns] = i, kind
  kinds = np.array([kind for *_, kind in objects], np.uint8)
  flags = np.array([i in crowd for i in range(len(objects))])
  image = np.full((4, 6, 3), value, np.uint8)
  tables = dict(instance_classes=kinds, crowd=flags, instance_boxes=np.zeros((len(objects), 4)))
  return {'image': image, 'label': label, 'instances': instances, **tables}


TOP, ALL, ROW = slice(0, 2), slice(None), slice(3, 4)
BELOW = with_objects(10, (TOP, slice(0, 2), 1), (ROW, slice(0, 4), 2))
ABOVE = with_objects(90, (TOP, slice(1, 3), 2), (ROW, slice(1, 4), 1), (ALL, 5, 1), crowd=(2,))


class Chances:
  """A generator: first whether anything is pasted, then a chance for each object that may be."""

  def __init__(self, *chances):
    self._chances = chances

  def uniform(self, low, high):
    return 0.5

  def random(self, count):
    return np.array(self._chances[:count])


def paste(*chances, above=ABOVE, below=BELOW, **options):
  return CopyPaste(**options)(below, Chances(*chances), lambda: above)


def test_objects_are_pasted_by_hand():
  """Both are picked, the crowd is not offered: of 1 a half is left, of 2 a quarter.

  The one of the lower chance comes first: the row is 3, the square 4.
  """
  pasted = paste(0.4, 0.1, least=0.5)
  want = np.zeros((4, 6), int)
  want[TOP, 0], want[TOP, 1:3], want[3, 1:4] = 1, 4, 3
  assert pasted['instances'][..., 0].tolist() == want.tolist()
  assert pasted['instance_classes'].tolist() == [1, 2, 1, 2]
  assert pasted['crowd'].tolist() == [False] * 4 and 'instance_boxes' not in pasted
  covered = (want == 3) | (want == 4)
  np.testing.assert_array_equal(pasted['image'][..., 2], np.where(covered, 90, 10))
  np.testing.assert_array_equal(pasted['label'], np.where(covered, ABOVE['label'], BELOW['label']))
  made = Objects(4)(pasted, None)
  assert made['boxes'].tolist() == [[0, 0, 1, 2], [1, 3, 4, 4], [1, 0, 3, 2], [0, 0, 0, 0]]
  assert made['classes'].tolist() == [1, 1, 2, 0]
  np.testing.assert_array_equal(made['mask_boxes'], made['boxes'])
  assert (made['masks'][:3, 28, 28] >= 253).all()
  left = paste(0.4, 0.1, least=0.25)['instances']
  assert left[3, 0, 0] == 2


def test_what_is_pasted_moves_with_the_image():
  flipped = geometry.flip(paste(0.1, 0.9), True, False)
  assert Objects(3)(flipped, None)['boxes'].tolist() == [[5, 0, 6, 2], [2, 3, 6, 4], [3, 0, 5, 2]]


def test_no_more_is_pasted_than_there_may_be():
  assert paste(0.4, 0.1, most=3)['instance_classes'].tolist() == [1, 2, 1]
  for nothing in (paste(0.4, 0.1, most=2), paste(0.5, 0.9), paste(0.1, 0.1, share=0.5)):
    assert nothing is BELOW


def test_padding_stays_plain():
  """The image is the left two columns of its canvas: a column of the square is pasted, the row's first."""
  padded = geometry.pad(geometry.crop(BELOW, 0, 0, 4, 2), 0, 0, 0, 4, (7,))
  pasted = paste(0.1, 0.2, below=padded)
  assert (pasted['instances'][:, 2:] == 0).all() and (pasted['image'][:, 2:] == 7).all()
  assert pasted['instances'][..., 0].tolist()[0][:2] == [1, 3]
  assert Objects(4)(pasted, None)['extent'].tolist() == [0, 0, 2, 4]


def test_layers_of_both_are_kept():
  deep = {
    **ABOVE,
    'instances': np.stack([ABOVE['instances'], np.roll(ABOVE['instances'], 1, 0)], 2),
  }
  for above, below in ((deep, BELOW), (ABOVE, {**deep, 'instances': deep['instances'].copy()})):
    assert paste(0.1, 0.1, above=above, below=below)['instances'].shape == (4, 6, 2)
  shared = paste(0.1, 0.9, above=deep)['instances']
  np.testing.assert_array_equal((shared == 3).any(axis=2), (deep['instances'] == 1).any(axis=2))


def test_what_cannot_be_pasted_is_told():
  with pytest.raises(UserError, match='does not number objects, which config.augment.copy_paste'):
    paste(0.1, above={'image': ABOVE['image'], 'label': ABOVE['label']})
  with pytest.raises(UserError, match=r'crop.size=\(h, w\) before it'):
    paste(0.1, 0.1, above=geometry.crop(ABOVE, 0, 0, 3, 6))
