"""Suppression against the loop that defines it, proposals and detections by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.detection import boxes as box
from jaxseg.nn.detection.nms import best, detect, propose, suppress


def rows(*values):
  return jnp.array(values, jnp.float32)


def greedy(boxes, threshold, groups):
  """The definition: from the top, a box goes where a kept one of its group overlaps it."""
  overlap, kept = np.asarray(box.iou(boxes, boxes)), []
  for i in range(len(boxes)):
    if all(overlap[i, j] <= threshold or groups[i] != groups[j] for j in kept):
      kept.append(i)
  return kept


@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('classes', [1, 3])
def test_it_is_greedy_suppression(threshold, classes):
  random = np.random.default_rng(classes)
  run = jax.jit(suppress, static_argnums=2)
  for _ in range(5):
    corner, sides = random.uniform(0, 30, (200, 2)), random.uniform(5, 20, (200, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype('f')
    groups = random.integers(0, classes, 200)
    scores = np.sort(random.random(200))[::-1].astype('f')
    kept = run(boxes, scores, threshold, groups if classes > 1 else None)
    assert np.flatnonzero(kept).tolist() == greedy(boxes, threshold, groups)


def test_a_chain_is_followed_to_its_end():
  """Each overlaps the next by two thirds: every second one stays, whatever the length."""
  left = np.arange(12) * 2.0
  boxes = np.stack([left, 0 * left, left + 10, 0 * left + 1], axis=1).astype('f')
  kept = suppress(boxes, jnp.arange(12, 0, -1.0), 0.6)
  np.testing.assert_array_equal(np.flatnonzero(kept), np.arange(0, 12, 2))


def test_padding_neither_survives_nor_suppresses():
  same = rows(*[(0, 0, 4, 4)] * 3)
  np.testing.assert_array_equal(suppress(same, rows(-jnp.inf, 2, 1), 0.5), (0, 1, 0))
  np.testing.assert_array_equal(suppress(same, jnp.full(3, -jnp.inf), 0.5), (0, 0, 0))


def test_best_fills_up_with_nothing():
  places, scores = best(jnp.array([True, False, True]), rows(1, 5, 3), 4)
  np.testing.assert_array_equal(places[:2], (2, 0))
  np.testing.assert_array_equal(scores, (3, 1, -np.inf, -np.inf))


EXTENT = jnp.array((0.0, 0, 40, 50))


def test_proposals_by_hand():
  """Level 0: the better of two alike, its neighbour moved by its delta; level 1: clipped, and empty."""
  anchors = (
    rows((0, 0, 10, 10), (0, 0, 10, 9), (20, 0, 30, 10)),
    rows((30, 30, 60, 60), (90, 0, 95, 5)),
  )
  logits = rows(2, 3, 1), rows(-1, 9)
  deltas = [jnp.zeros((3, 4)).at[2, 0].set(0.5), jnp.zeros((2, 4))]
  found, scores = propose(anchors, logits, deltas, EXTENT, candidates=3, count=4, threshold=0.7)
  np.testing.assert_array_equal(scores, (3, 1, -1, -np.inf))
  np.testing.assert_allclose(found[:3], [(0, 0, 10, 9), (25, 0, 35, 10), (30, 30, 40, 50)])
  _, scores = propose(anchors, logits, deltas, EXTENT, candidates=1, count=2, threshold=0.7)
  np.testing.assert_array_equal(scores, (3, -np.inf))  # of level 1 the best is outside


def detections(**changes):
  """Two proposals on one place, a third elsewhere; classes 1 and 2."""
  options = dict(weights=(1, 1, 1, 1), candidates=20, count=5, score=0.1, threshold=0.5) | changes
  proposals = rows((0, 0, 10, 10), (0, 0, 10, 11), (20, 20, 30, 30), (0, 0, 5, 5))
  chances = rows((0.1, 0.8, 0.1), (0.2, 0.2, 0.6), (0.7, 0.25, 0.05), (0.0, 1.0, 0.0))
  deltas = jnp.zeros((4, 2, 4)).at[2, 0, 1].set(0.1)
  valid = jnp.array([True, True, True, False])
  return detect(
    proposals, valid, jnp.log(chances + 1e-9), deltas, jnp.array((0.0, 0, 40, 40)), **options
  )


def test_detections_by_hand():
  """Of class 1 the second proposal goes; classes leave each other alone; unused rows are zero."""
  boxes, scores, classes = detections()
  np.testing.assert_allclose(scores, (0.8, 0.6, 0.25, 0, 0), rtol=1e-5)
  np.testing.assert_array_equal(classes, (1, 2, 1, 0, 0))
  expected = [(0, 0, 10, 10), (0, 0, 10, 11), (20, 21, 30, 31), (0, 0, 0, 0), (0, 0, 0, 0)]
  np.testing.assert_allclose(boxes, expected, rtol=1e-5)


def test_thresholds_and_counts_of_detections():
  assert (detections(score=0.5)[2] > 0).sum() == 2
  assert (detections(candidates=1)[2] > 0).sum() == 1
  np.testing.assert_array_equal(detections(count=2)[2], (1, 2))
  np.testing.assert_allclose(detections(threshold=0.95)[1], (0.8, 0.6, 0.25, 0.2, 0), rtol=1e-5)
