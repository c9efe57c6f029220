"""SEG of the Cell Tracking Challenge on objects of a few pixels."""

import numpy as np
import pytest

from jaxseg.metrics import seg, seg_field
from jaxseg.types import UserError

TRUTH = np.array([[1, 1, 1, 1, 0, 7, 7, 7, 7, 0, 9]])


def test_a_perfect_prediction_scores_one_an_object():
  assert seg.seg_score(TRUTH, TRUTH * 3) == (3.0, 3)


def test_seg_by_hand():
  prediction = np.array([[5, 5, 5, 0, 0, 2, 2, 3, 3, 0, 8]])
  # Object 1: 3 of 4, union 4. Object 7: exactly half twice, no match. Object 9: 1.
  assert seg.seg_score(TRUTH, prediction) == (3 / 4 + 0 + 1, 3)


def test_a_merged_pair_matches_by_majority_of_each_truth():
  prediction = (TRUTH > 0) * 4
  prediction[0, 4] = 4  # one object of 10 pixels holds all of them
  np.testing.assert_allclose(seg.seg_score(TRUTH, prediction)[0], 4 / 10 + 4 / 10 + 1 / 10)


def test_false_objects_cost_nothing_and_empty_images_count_nothing():
  empty = np.zeros((2, 3), np.uint16)
  assert seg.seg_score(empty, empty + 1) == (0.0, 0)
  assert seg.seg_score(empty + 1, empty) == (0.0, 1)
  noise = TRUTH.copy()
  noise[0, 4] = 50
  assert seg.seg_score(TRUTH, noise) == (3.0, 3)


def test_components_join_through_corners():
  assert seg.components(np.array([[1, 0], [0, 1]], bool)).max() == 1


def test_score_by_hand():
  """One object is covered by two thirds, one not by half; ids of a prediction are taken as they are."""
  example = {'instances': np.array([[4, 4, 4, 0, 9, 9, 9]])}
  score = seg.Score(('background', 'cell'))
  score.add(example, {'mask': np.array([[1, 1, 0, 0, 1, 0, 0]], np.uint8)})
  assert score.compute() == {'seg': pytest.approx((2 / 3 + 0) / 2)}
  touching = {'instances': np.array([[4, 4, 9, 9]])}
  ids = np.array([[1, 1, 2, 2]])
  score.add(touching, {'mask': (ids > 0).astype(np.uint8), 'ids': ids})
  assert score.compute() == {'seg': pytest.approx((2 / 3 + 0 + 1 + 1) / 4)}
  assert seg.Score(('background', 'cell')).compute() == {'seg': None}
  with pytest.raises(UserError, match='needs data that number their objects'):
    score.add({'label': ids}, {'mask': ids})


def test_field_and_least_area_by_hand():
  ids = np.array([[1, 1, 1, 2, 2, 3]])
  assert seg_field.without_small(ids, 2).tolist() == [[1, 1, 1, 2, 2, 0]]
  frame = np.zeros((5, 5), int)
  frame[0, :4], frame[1:3, 4], frame[4, 4], frame[3, 3] = 7, 8, 9, 9
  kept = seg_field.in_field(frame, 1)  # the field is rows and columns 1 to 3
  assert set(kept.ravel()) == {0, 9} and (kept == 9).sum() == 2


def test_score_of_the_field():
  truth, mask = np.zeros((120, 130), int), np.zeros((120, 130), np.uint8)
  truth[55:65, 55:65] = 1  # inside: found with half of another
  mask[55:65, 55:70] = 1
  truth[0:20, 0:20] = 2  # in the strip of 50: not asked for
  truth[40:52, 100:112] = 3  # in the strip
  truth[60:66, 75:85] = 4  # inside, but what is found of it, four fifths, has 48 pixels
  mask[60:66, 75:83] = 1
  score = seg_field.Score(('background', 'cell'))
  score.add({'instances': truth}, {'mask': mask})
  assert score.compute() == {'seg_field': pytest.approx((100 / 150 + 0) / 2)}
  with pytest.raises(UserError, match='needs data that number their objects'):
    score.add({'label': mask}, {'mask': mask})


def test_shapes_must_agree():
  with pytest.raises(UserError, match='one shape'):
    seg.seg_score(TRUTH, TRUTH.T)


def test_void_is_neither_true_nor_false():
  """A crowd (3) is no object; what is predicted in void is unknown, unless it has found a true object."""
  label = np.array([[1, 1, 0, 255, 255, 255, 255, 1, 0]])
  truth = np.array([[1, 1, 0, 3, 3, 3, 3, 2, 0]])
  ids = np.array([[5, 5, 8, 8, 8, 7, 7, 7, 0]])  # 8 leaves a pixel of the ground, 7 has found 2
  example = {'label': label, 'instances': truth[..., None]}
  found = seg.objects(example, {'mask': ids > 0, 'ids': ids}, 'seg')
  np.testing.assert_array_equal(found[0], [[1, 1, 0, 0, 0, 0, 0, 2, 0]])
  np.testing.assert_array_equal(found[1], [[5, 5, 0, 0, 0, 0, 0, 7, 0]])


def test_layers_are_joined_where_no_objects_overlap():
  layers = np.zeros((1, 4, 2), np.uint16)
  layers[0, :2, 0], layers[0, 3, 1] = 1, 2
  prediction = {'mask': np.zeros((1, 4), np.uint8)}
  truth, _ = seg.objects({'instances': layers}, prediction, 'seg')
  np.testing.assert_array_equal(truth, [[1, 1, 0, 2]])
  assert not seg.objects({'instances': layers[..., :0]}, prediction, 'seg')[0].any()
  layers[0, 1, 1] = 2
  with pytest.raises(UserError, match='in these data objects overlap'):
    seg.objects({'instances': layers}, prediction, 'seg')
