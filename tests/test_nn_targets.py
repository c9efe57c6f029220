"""Matching, sampling and the targets made of them, written out."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.nn.detection.targets import _compare, anchor_targets, match, roi_targets, sample
from jaxseg.types import VOID

BACK, FRONT = dict(foreground=0.7, background=0.3), dict(foreground=0.5, background=0.5)


def rows(*values):
  return jnp.array(values, jnp.float32)


TRUTH = rows((0, 0, 10, 10), (20, 0, 30, 10), (0, 0, 0, 0))
EXTENT = jnp.array((0.0, 0, 100, 100))
VALID, NO_CROWD = jnp.array([True, True, False]), jnp.zeros(3, bool)
# overlaps: 1 with the first; .8; .4 with the first; .5 with the second (its best); none
CANDIDATES = rows((0, 0, 10, 10), (0, 0, 8, 10), (0, 0, 4, 10), (20, 0, 25, 10), (50, 50, 60, 60))


def test_match_by_hand():
  index, positive, negative = match(CANDIDATES, TRUTH, VALID, NO_CROWD, **BACK)
  np.testing.assert_array_equal(index[:4], (0, 0, 0, 1))
  np.testing.assert_array_equal(positive, (1, 1, 0, 0, 0))
  np.testing.assert_array_equal(negative, (0, 0, 0, 0, 1))  # .4 and .5 are neither
  _, positive, negative = match(CANDIDATES, TRUTH, VALID, NO_CROWD, **FRONT)
  np.testing.assert_array_equal(positive, (1, 1, 0, 1, 0))
  np.testing.assert_array_equal(negative, (0, 0, 1, 0, 1))


def test_the_best_of_each_true_box_is_foreground_ties_included():
  twice = jnp.concatenate([CANDIDATES, rows((25, 0, 30, 10))])  # the second one's other half
  index, positive, _ = match(twice, TRUTH, VALID, NO_CROWD, best_of_each=True, **BACK)
  np.testing.assert_array_equal(positive, (1, 1, 0, 1, 0, 1))
  np.testing.assert_array_equal(index[jnp.array([3, 5])], (1, 1))


def test_padding_and_objects_that_nothing_overlaps_match_nothing():
  far = rows((90, 90, 95, 95))
  for truth, valid in ((TRUTH, jnp.zeros(3, bool)), (far, jnp.array([True]))):
    _, positive, negative = match(
      CANDIDATES, truth, valid, jnp.zeros_like(valid), best_of_each=True, **BACK
    )
    assert not positive.any() and negative.all()


def test_on_a_crowd_counts_the_boxs_own_area():
  """A small box inside a large crowd is not background; its neighbour and a large box are."""
  crowd = rows((0, 0, 100, 100), (200, 0, 210, 10))
  boxes = rows((5, 5, 9, 9), (90, 0, 110, 10), (0, 0, 100, 200), (200, 0, 210, 10))
  valid, marked = jnp.zeros(2, bool), jnp.array([True, False])
  _, positive, negative = match(boxes, crowd, valid, marked, **FRONT)
  np.testing.assert_array_equal(negative, (0, 1, 1, 1))
  assert not positive.any()


def test_one_by_one_is_as_all_at_once():
  """Equal overlaps among them: boxes on a coarse grid, some twice."""
  random = np.random.default_rng(0)
  corner, sides = random.integers(0, 9, (60, 2)), random.integers(1, 4, (60, 2))
  boxes = jnp.array(np.concatenate([corner, corner + sides], axis=1), jnp.float32)
  truth, valid, crowd = boxes[:12], jnp.arange(12) < 8, jnp.arange(12) > 9
  together = jax.jit(_compare)(boxes, truth, valid, crowd)
  found = jax.jit(_compare, static_argnums=4)(boxes, truth, valid, crowd, True)
  for a, b in zip(found, together, strict=True):
    np.testing.assert_array_equal(a, b)
  assert all(np.unique(part).size > 1 for part in together)


def test_a_sample_takes_positives_first_and_at_most_their_share():
  positive = jnp.arange(20) < 10
  run = jax.jit(sample, static_argnums=(3, 4))
  seen = set()
  for seed in range(20):
    index, is_positive, valid = run(jax.random.key(seed), positive, ~positive, 8, 3)
    np.testing.assert_array_equal(is_positive, (1, 1, 1, 0, 0, 0, 0, 0))
    assert valid.all() and len(set(index.tolist())) == 8
    np.testing.assert_array_equal(positive[index], is_positive)
    seen |= set(index.tolist())
  assert seen == set(range(20))  # everything is drawn sometimes


def test_negatives_fill_up_and_what_is_missing_is_not_valid():
  positive, negative = jnp.arange(6) == 4, (jnp.arange(6) == 1) | (jnp.arange(6) == 5)
  index, is_positive, valid = sample(jax.random.key(0), positive, negative, 5, 2)
  np.testing.assert_array_equal(is_positive, (1, 0, 0, 0, 0))
  np.testing.assert_array_equal(valid, (1, 1, 1, 0, 0))
  assert index[0] == 4 and set(index[1:3].tolist()) == {1, 5}
  *_, valid = sample(jax.random.key(0), positive, jnp.zeros(6, bool), 3, 3)
  np.testing.assert_array_equal(valid, (1, 0, 0))


def truth(**changes):
  return dict(boxes=TRUTH, classes=jnp.array([2, 1, 0]), crowd=jnp.zeros(3, bool)) | {
    name: jnp.array(values) for name, values in changes.items()
  }


def test_anchor_targets_by_hand():
  """All five are sampled: two foreground, one background and two places left empty."""
  found = anchor_targets(jax.random.key(0), CANDIDATES, truth(), EXTENT, count=5, most_positive=4)
  labels = dict(zip(found['index'].tolist(), found['labels'].tolist(), strict=True))
  assert labels[0] == labels[1] == labels[3] == 1 and labels[4] == 0 and labels[2] == VOID
  at = found['index'].tolist().index(1)
  np.testing.assert_allclose(found['targets'][at], (1 / 8, 0, np.log(10 / 8), 0), atol=1e-6)


def test_anchors_beyond_the_image_stand_for_nothing():
  """Centres: (5, 5), (4, 5), (2, 5), (22.5, 5) and (55, 55); the image ends at 22 x 50."""
  extent = jnp.array((0.0, 0, 22, 50))
  options = dict(count=5, most_positive=4)
  found = anchor_targets(jax.random.key(0), CANDIDATES, truth(), extent, **options)
  labels = dict(zip(found['index'].tolist(), found['labels'].tolist(), strict=True))
  assert labels[0] == labels[1] == 1 and labels[2] == labels[3] == labels[4] == VOID
  # the next best of the second object, .1 of it, is in its place
  more = jnp.concatenate([CANDIDATES, rows((19, 0, 21, 10))])
  found = anchor_targets(jax.random.key(0), more, truth(), extent, count=6, most_positive=4)
  labels = dict(zip(found['index'].tolist(), found['labels'].tolist(), strict=True))
  assert labels[5] == 1 and labels[3] == VOID


def test_anchors_on_a_crowd_are_not_background():
  crowd = truth(boxes=TRUTH.at[2].set(jnp.array((40, 40, 80, 80))), crowd=[False, False, True])
  found = anchor_targets(jax.random.key(0), CANDIDATES, crowd, EXTENT, count=5, most_positive=4)
  labels = dict(zip(found['index'].tolist(), found['labels'].tolist(), strict=True))
  assert labels[4] == VOID


def test_roi_targets_by_hand():
  """The true boxes are proposals as well; a padded one, an invalid one and the crowd are not."""
  valid = jnp.array([False, True, True, True, True])
  options = dict(count=8, most_positive=5, weights=(10, 10, 5, 5))
  found = roi_targets(jax.random.key(0), CANDIDATES, valid, truth(), **options)
  drawn = [
    (tuple(box), kind, number)
    for box, kind, number in zip(
      np.asarray(found['rois']).tolist(),
      found['classes'].tolist(),
      found['rows'].tolist(),
      strict=True,
    )
    if kind != VOID
  ]
  positive = [((0, 0, 8, 10), 2, 0), ((20, 0, 25, 10), 1, 1)]
  positive += [((0, 0, 10, 10), 2, 0), ((20, 0, 30, 10), 1, 1)]
  assert drawn[:4] == positive
  rest = [(box, kind) for box, kind, _ in drawn[4:]]
  assert sorted(rest) == [((0, 0, 4, 10), 0), ((50, 50, 60, 60), 0)]
  at = [tuple(box) for box, *_ in drawn].index((20, 0, 25, 10))
  expected = (10 * 2.5 / 5, 0, 5 * np.log(2), 0)
  np.testing.assert_allclose(found['targets'][at], expected, atol=1e-5)


def test_a_crowd_has_no_positive_regions():
  found = roi_targets(
    jax.random.key(0),
    CANDIDATES,
    jnp.ones(5, bool),
    truth(crowd=[True, False, False]),
    count=8,
    most_positive=8,
    weights=(1, 1, 1, 1),
  )
  assert set(found['classes'].tolist()) == {0, 1, VOID}
  kept = np.asarray(found['rois'])[np.asarray(found['classes']) == 0].tolist()
  assert kept == [[50, 50, 60, 60]]  # those inside of the crowd are not background either
