"""V^Rand and V^Info of a perfect cut, a merge and a split, worked out by hand."""

import numpy as np
import pytest

from jaxseg.metrics import neurites
from jaxseg.types import VOID, UserError

TWO_CELLS = np.array([[0, 0, 0, 0, 1, 0, 0, 0, 0]], np.uint8)


def scores(membrane, label, **options):
  return neurites.summarize(neurites.count(np.asarray(membrane, np.float32), label, **options))


def test_perfect():
  assert scores(TWO_CELLS, TWO_CELLS) == {
    'pixel_error': 0.0,
    'pixel_disagreement': 0.0,
    'rand_error': 0.0,
    'v_rand': 1.0,
    'v_info': 1.0,
  }


def test_one_merge():
  found = scores(np.zeros_like(TWO_CELLS), TWO_CELLS)
  # p = 1/2, 1/2; s = 1/2, 1/2; t = 1. The proposal says nothing of S: I = 0.
  np.testing.assert_allclose(found['v_rand'], 0.5 / (0.5 / 2 + 1 / 2))
  np.testing.assert_allclose(found['rand_error'], 1 / 3)
  np.testing.assert_allclose(found['v_info'], 0, atol=1e-12)
  np.testing.assert_allclose(found['pixel_error'], 1 - 2 * 8 / (9 + 8))
  np.testing.assert_allclose(found['pixel_disagreement'], 1 / 9)


def test_one_split():
  label = np.array([[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]], np.uint8)
  membrane = label.copy()
  membrane[0, 2] = 1
  found = scores(membrane, label)
  # p = t = 2/10, 2/10, 5/10 and 1/10 for the pixel called membrane; s = 1/2, 1/2; T refines S.
  squares = 0.04 + 0.04 + 0.25 + 0.01
  np.testing.assert_allclose(found['v_rand'], squares / (0.5 / 2 + squares / 2))
  entropy = 0.4 * np.log(5) + 0.5 * np.log(2) + 0.1 * np.log(10)
  np.testing.assert_allclose(found['v_info'], 2 * np.log(2) / (np.log(2) + entropy))
  np.testing.assert_allclose(found['pixel_error'], 1 - 2 * 9 / (9 + 10))
  np.testing.assert_allclose(found['pixel_disagreement'], 1 / 11)


def test_best_of_the_ten_thresholds():
  membrane = np.where(TWO_CELLS == 1, 0.7, 0.0)
  membrane[0, 1] = 0.3
  assert scores(membrane, TWO_CELLS)['v_rand'] == 1  # 0.4 to 0.7 keep the true membrane alone
  counts = neurites.count(membrane.astype(np.float32), TWO_CELLS)
  ratio = 2 * counts['joint'] / (counts['truth'] + counts['proposed'])
  np.testing.assert_array_equal(ratio[3:7], 1)
  assert (ratio[:3] < 1).all()
  np.testing.assert_allclose(ratio[7:], 2 / 3)


def test_cells_join_through_edges_not_corners():
  np.testing.assert_array_equal(
    neurites.components(np.array([[1, 0], [0, 1]], bool)), [[1, 0], [0, 2]]
  )


def test_thinning_forgives_a_thick_membrane():
  membrane = TWO_CELLS.copy()
  membrane[0, 5] = 1
  thick = scores(membrane, TWO_CELLS)
  squares = (16 + 9 + 1) / 64
  np.testing.assert_allclose(thick['v_rand'], squares / (0.5 / 2 + squares / 2))
  thin = scores(membrane, TWO_CELLS, thin=True)
  assert thin['v_rand'] == 1 and thin['v_info'] == 1
  assert thin['pixel_error'] == thick['pixel_error'] > 0
  np.testing.assert_array_equal(
    neurites.thin_membranes(np.array([[1, 1, 0, 0, 0, 0, 2, 2]])), [[1, 1, 1, 0, 2, 2, 2, 2]]
  )
  np.testing.assert_array_equal(neurites.thin_membranes(np.array([[1, 0, 2]])), [[1, 0, 2]])


def test_void_is_left_out():
  label = np.concatenate([TWO_CELLS, np.full((1, 9), VOID, np.uint8)])
  membrane = np.concatenate([TWO_CELLS, np.ones((1, 9), np.uint8)])
  assert scores(membrane, label)['pixel_disagreement'] == 0
  assert scores(membrane, label)['v_rand'] == 1


def test_sections_add_pairs_and_average_information():
  score = neurites.Score(('cell', 'membrane'))
  for membrane in (TWO_CELLS, np.zeros_like(TWO_CELLS)):  # perfect, merged
    maps = np.stack([1 - membrane, membrane], axis=-1).astype(np.float32)
    score.add({'label': TWO_CELLS}, {'probabilities': maps})
  both = score.compute()['neurites']
  # joint 32 + 32, truth 32 + 32, found 32 + 64 ordered pairs.
  np.testing.assert_allclose(both['v_rand'], 2 * 64 / (64 + 96))
  np.testing.assert_allclose(both['v_info'], 0.5)
  assert both['v_rand_thinned'] == both['v_rand']


def test_it_knows_which_class_is_membrane():
  label = np.ones((12, 12), np.uint8)  # isbi2012: 0 membrane, 1 cell
  label[:, 5] = 0
  label[0, 0] = VOID
  right = np.stack([label == 0, label == 1], axis=-1).astype(np.float32)
  for probabilities, perfect in ((right, True), (right[..., ::-1], False)):
    score = neurites.Score(('membrane', 'cell'))
    score.add({'label': label}, {'probabilities': probabilities})
    result = score.compute()['neurites']
    assert (result['pixel_disagreement'] == 0) == perfect
    assert (result['v_rand'] == 1) == perfect == (result['v_rand_thinned'] == 1)
  with pytest.raises(UserError, match="a class named 'membrane', the classes are ground, disc"):
    neurites.Score(('ground', 'disc'))


def test_all_membrane_is_a_score_not_a_crash():
  found = scores(np.ones((2, 2)), np.zeros((2, 2), np.uint8))
  np.testing.assert_allclose(found['v_rand'], 2 * 4 / (16 + 4))
  assert scores(np.ones((2, 2)), np.ones((2, 2), np.uint8))['v_rand'] == 1
  assert scores(np.ones((2, 2)), np.ones((2, 2), np.uint8), thin=True)['v_info'] == 1
