"""Matched objects on rows of a few pixels."""

import numpy as np
import pytest

from jaxseg.metrics import matching
from jaxseg.types import UserError

CLASSES = ('background', 'nucleus')


def scored(*images):
  score = matching.Score(CLASSES)
  for truth, ids in images:
    ids = np.array([ids])
    score.add({'instances': np.array([truth])}, {'mask': np.uint8(ids > 0), 'ids': ids})
  return score


def test_scores_by_hand():
  truth = [1, 1, 1, 1, 0, 7, 7, 7, 7, 0, 9, 9]
  found = [5, 5, 5, 0, 0, 2, 2, 3, 3, 4, 0, 0]
  # 1 with 5: IoU 3/4. 7 with 2 or 3: 1/2 each, only one of them. 9 is missed, one of 2 and 3 and 4 made up.
  result = scored((truth, found)).compute()
  assert (result['precision'], result['recall']) == (2 / 4, 2 / 3)
  assert result['f1'] == pytest.approx(4 / 7)
  assert result['accuracy_of_objects'] == pytest.approx(2 / 5)
  assert result['panoptic_quality'] == pytest.approx((3 / 4 + 1 / 2) / 3.5)
  at = result['by_iou']
  assert [at[t]['f1'] for t in ('0.5', '0.7', '0.8')] == [result['f1'], pytest.approx(2 / 7), 0]


def test_counts_are_added_before_they_are_divided():
  one, three = ([1, 1], [2, 2]), ([1, 2, 3], [0, 0, 4])
  result = scored(one, three).compute()
  assert result['recall'] == 2 / 4 and result['precision'] == 1  # not the mean of 1 and 1/3
  halves = scored(one)
  halves.merge(scored(three))
  assert halves.compute() == result


def test_as_many_as_possible_match_not_the_best_first():
  iou = np.array([[0.6, 0.9], [0.0, 0.6]])  # the pair of 0.9 would leave both others alone
  assert matching.counts(iou, 0.5) == (2, 0, 0, pytest.approx(1.2))
  assert matching.counts(iou, 0.7) == (1, 1, 1, pytest.approx(0.9))


def test_images_of_nothing():
  nothing = ([0, 0], [0, 0])
  assert scored(nothing).compute()['f1'] is None
  assert scored(nothing, ([0, 3], [0, 0])).compute()['f1'] == 0
  result = scored(nothing, ([0, 0], [0, 3])).compute()
  assert (result['precision'], result['recall']) == (0, None)


def test_a_mask_counts_by_its_components():
  score = matching.Score(CLASSES)
  score.add({'instances': np.array([[1, 0, 2]])}, {'mask': np.array([[1, 0, 1]], np.uint8)})
  assert score.compute()['f1'] == 1
  with pytest.raises(UserError, match='the score matching needs data that number their objects'):
    score.add({'label': np.zeros((1, 3))}, {'mask': np.zeros((1, 3), np.uint8)})
