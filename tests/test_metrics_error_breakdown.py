"""Where errors lie, by a picture that is small enough to count."""

import numpy as np

from jaxseg.metrics import error_breakdown
from jaxseg.types import VOID

# A square of 2 x 2 in 6 x 6, a void corner.
LABEL = np.zeros((6, 6), np.uint8)
LABEL[1:3, 1:3] = 1
LABEL[5, 5] = VOID


def test_a_missed_square_by_hand():
  score = error_breakdown.Score(('a', 'b'))
  score.add({'label': LABEL}, {'mask': np.zeros((6, 6), np.uint8)})
  result = score.compute()
  assert result['by_object_size'] == {
    'to 2 px': {'objects': 1, 'found': 0.0, 'accuracy': 0.0},  # a side of 2
    '4 to 8 px': {'objects': 1, 'found': 1.0, 'accuracy': 1.0},  # the root of 31 pixels
  }
  # Border: 20 outermost pixels without void, 12 behind them, 3 of the square's among those; 4 in the middle.
  outer = {'share of pixels': 31 / 35, 'share of errors': 3 / 4, 'accuracy': 28 / 31}
  inner = {'share of pixels': 4 / 35, 'share of errors': 1 / 4, 'accuracy': 3 / 4}
  assert result['by_border_distance'] == {'to 2 px': outer, '2 to 4 px': inner}
  near = result['by_outline_distance']['to 2 px']
  assert near['share of errors'] == 1 and near['accuracy'] == 21 / 25


def test_distances_by_hand():
  distance = error_breakdown.outline_distance(np.array([[0, 0, 0, 1, 1]], np.uint8))
  np.testing.assert_allclose(distance, [[3, 2, 1, 1, 2]], atol=1e-5)
  assert (
    error_breakdown.outline_distance(np.zeros((4, 4), np.uint8)) > error_breakdown.EDGES[-1]
  ).all()
  border = error_breakdown.border_distance((3, 5))
  np.testing.assert_array_equal(border, [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]])


def test_objects_are_what_the_data_number_else_components():
  label = np.zeros((4, 8), np.uint8)
  label[0, 0] = label[1, 1] = label[3, 7] = 1  # two touch at a corner
  counts = [len(np.unique(numbers)) - 1 for numbers in error_breakdown.objects_of({'label': label})]
  assert counts == [1, 2]  # the ground, and the dots
  layers = np.zeros((4, 8, 2), np.uint16)
  layers[..., 0], layers[:2, :2, 1] = 1, 2
  score = error_breakdown.Score(('a', 'b'))
  score.add({'label': label, 'instances': layers}, {'mask': label})
  sizes = score.compute()['by_object_size']
  assert {row: values['objects'] for row, values in sizes.items()} == {'to 2 px': 1, '4 to 8 px': 1}


def test_crowds_are_no_objects():
  """Their pixels are void, as are those of an object under one."""
  label = np.zeros((4, 8), np.uint8)
  label[:2, :2], label[1:, 5:] = 1, VOID
  instances = np.where(label == VOID, 2, label)
  score = error_breakdown.Score(('a', 'b'))
  score.add({'label': label, 'instances': instances}, {'mask': label % VOID})
  assert score.compute()['by_object_size'] == {
    'to 2 px': {'objects': 1, 'found': 1.0, 'accuracy': 1.0}
  }
