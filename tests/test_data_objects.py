"""Rows of objects for a training step, written out by hand, and maps in layers that move as one."""

import numpy as np
import pytest

from jaxseg.data import transforms
from jaxseg.data.loader import train_batches
from jaxseg.data.objects import Objects, measure
from jaxseg.datasets import shapes
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
  assert made['ids'].tolist() == [1, 3, 5, 0]
  assert made['crowd'].tolist() == [False] * 4
  kinds = {'boxes': 'f4', 'classes': 'i4', 'ids': 'i4', 'crowd': 'b1', 'instances': 'u2'}
  assert {key: made[key].dtype for key in Objects.makes} == kinds
  np.testing.assert_array_equal(made['instances'], MAP[..., None])


def test_small_objects_have_no_row_but_stay_in_the_map():
  made = Objects(2, min_area=2)(example_of(), None)
  assert (made['ids'].tolist(), made['classes'].tolist()) == ([3, 0], [1, 0])
  np.testing.assert_array_equal(made['instances'], MAP[..., None])


def test_a_crowd_has_a_box_and_no_class():
  crowd = np.array([False, False, True, False, False])
  made = Objects(3)(example_of(crowd=crowd), None)
  assert made['crowd'].tolist() == [False, True, False]
  assert made['classes'].tolist() == [2, 0, 2]
  assert made['boxes'][1].tolist() == [1, 1, 4, 3]


def test_layers_are_of_a_fixed_number():
  other = np.zeros_like(MAP)
  other[0, :3] = 2
  third = np.zeros_like(MAP)
  third[0, 2:4] = 4
  layered = np.stack([MAP, other, third], axis=-1)
  made = Objects(5, max_layers=4)(example_of(layered), None)
  np.testing.assert_array_equal(made['instances'][..., :3], layered)
  assert made['instances'].shape == (4, 5, 4) and not made['instances'][..., 3].any()
  made = Objects(5, max_layers=2)(example_of(layered), None)
  np.testing.assert_array_equal(made['instances'][..., 0], MAP)
  assert made['instances'][0, :, 1].tolist() == [2, 2, 4, 4, 0]  # 4 lies over 2
  assert made['ids'].tolist() == [1, 2, 3, 4, 5]
  assert made['boxes'][1].tolist() == [0, 0, 2, 1]  # of what is left of it


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
  with pytest.raises(UserError, match=r'config.loss.max_layers=0: must be at least 1'):
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
  assert batch['boxes'].shape == (3, 7, 4) and batch['instances'].shape == (3, 32, 32, 1)
  for boxes, ids, classes, layers, label in zip(
    *(batch[k] for k in ('boxes', 'ids', 'classes', 'instances', 'label')), strict=True
  ):
    for box, i, kind in zip(boxes, ids, classes, strict=True):
      assert (i == 0) == (kind == 0)
      if i:
        rows, columns = np.nonzero(layers[..., 0] == i)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert set(label[rows, columns]) <= {kind, 255}
