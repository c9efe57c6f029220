"""Training targets of sampled anchors and proposals: matching, labels and box deltas."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.types import VOID, Array

CROWD_SHARE = (
  0.7  # a box with more of its area on a crowd is not background (Detectron's threshold)
)


def match(
  candidates: Array,
  truth: Array,
  valid: Array,
  crowd: Array,
  *,
  foreground: float,
  background: float,
  best_of_each: bool = False,
) -> tuple[Array, Array, Array]:
  """Matches boxes to ground-truth boxes by IoU (arXiv:1506.01497, 3.1.2).

  Args:
    candidates: float32 [r, 4]; truth: float32 [n, 4].
    valid: bool [n], rows of the truth that are objects; the others are crowds or padding.
    crowd: bool [n], rows that are crowds: candidates mostly covered by one are not negative.
    foreground: IoU from which a candidate is positive.
    background: IoU below which it is negative; in between it is neither.
    best_of_each: for every true box the candidates of the largest IoU are positive too, ties
      included, however small it is; each is still matched to the box that it overlaps most itself.

  Returns:
    index int32 [r], row of `truth` that a candidate overlaps most; positive and negative, bool [r].
  """
  compare = partial(_compare, candidates)
  # An image has millions of overlaps: box by box, a CPU takes a tenth of the time.
  index, largest, best, on_crowd = jax.lax.platform_dependent(
    truth, valid, crowd, cpu=partial(compare, one_by_one=True), default=compare
  )
  positive = largest >= foreground
  if best_of_each:
    positive |= best
  share = on_crowd / jnp.maximum(box.area(candidates), 1e-6)
  return index, positive, ~positive & (largest < background) & (share <= CROWD_SHARE)


def _compare(candidates, truth, valid, crowd, one_by_one: bool = False):
  """Compares candidates with the true boxes, all at once or one by one.

  Returns:
    For each candidate: row and IoU of the valid true box that it overlaps most (the first of equals),
    whether it is the best for some true box, and its largest intersection with a crowd.
  """

  def group(state, rows):
    index, largest, best, on_crowd = state
    first, truth, valid, crowd = rows
    shared, overlap = box.intersection(truth, candidates), box.iou(truth, candidates)
    overlap = jnp.where(valid[:, None], overlap, 0.0)
    most = jnp.max(overlap, axis=1, keepdims=True)
    best |= jnp.any((overlap == most) & (most > 0), axis=0)
    largest_here = jnp.max(overlap, axis=0)
    row = first + jnp.argmax(overlap, axis=0).astype(jnp.int32)
    index = jnp.where(largest_here > largest, row, index)
    shared = jnp.max(jnp.where(crowd[:, None], shared, 0.0), axis=0)
    return (index, jnp.maximum(largest_here, largest), best, jnp.maximum(shared, on_crowd)), None

  size, count = 1 if one_by_one else len(truth), len(candidates)
  rows = [r.reshape(-1, size, *r.shape[1:]) for r in (truth, valid, crowd)]
  zeros = jnp.zeros(count)
  begin = (jnp.zeros(count, jnp.int32), zeros, jnp.zeros(count, bool), zeros)
  firsts = jnp.arange(0, len(truth), size, dtype=jnp.int32)
  return jax.lax.scan(group, begin, (firsts, *rows))[0]


def sample(
  key: Array, positive: Array, negative: Array, count: int, most_positive: int
) -> tuple[Array, Array, Array]:
  """Draws `count` rows without replacement: up to `most_positive` positives, then negatives.

  With fewer positives, negatives fill their rows (arXiv:1504.08083, 2.3).

  Args:
    positive, negative: bool [n], disjoint.
    count: at most n; most_positive: at most count.

  Returns:
    index int32 [count], positives first; is_positive bool [count]; is_valid bool [count], False in
    unused rows.
  """
  priority = jax.random.uniform(key, positive.shape)
  highest, rows = jax.lax.top_k(
    jnp.where(positive, priority, -1.0), min(most_positive, len(positive))
  )
  chosen = jnp.zeros(positive.shape, bool).at[rows].set(highest >= 0)
  rank = jnp.where(chosen, 2.0, jnp.where(negative, priority, -1.0))
  rank, index = jax.lax.top_k(rank, count)
  return index.astype(jnp.int32), rank >= 2, rank >= 0


def anchor_targets(
  key: Array,
  anchors: Array,
  truth: Mapping[str, Array],
  extent: Array,
  *,
  count: int,
  most_positive: int,
  foreground: float = 0.7,
  background: float = 0.3,
) -> dict[str, Array]:
  """Samples one image's anchors (arXiv:1506.01497, 3.1.2-3).

  Args:
    anchors: float32 [a, 4], of all levels.
    truth: 'boxes' float32 [n, 4], 'classes' int32 [n] (0: padding), 'crowd' bool [n].
    extent: float32 [4], of the image; anchors centred outside are not sampled.
    count: number of samples; most_positive: at most this many positives.
    foreground, background: IoU thresholds, see match.

  Returns:
    'index' int32 [count] into the anchors; 'labels' int32 [count]: 1 object, 0 background, VOID in
    unused rows; 'targets' float32 [count, 4], deltas to the object's box.
  """
  inside = box.centred_in(anchors, extent)
  row, positive, negative = match(
    jnp.where(inside[:, None], anchors, 0.0),  # an empty box overlaps nothing
    truth['boxes'],
    _usable(truth),
    truth['crowd'],
    foreground=foreground,
    background=background,
    best_of_each=True,
  )
  index, is_positive, valid = sample(key, positive, negative & inside, count, most_positive)
  return {
    'index': index,
    'labels': jnp.where(valid, is_positive, VOID).astype(jnp.int32),
    'targets': box.encode(truth['boxes'][row[index]], anchors[index]),
  }


def roi_targets(
  key: Array,
  proposals: Array,
  valid: Array,
  truth: Mapping[str, Array],
  *,
  count: int,
  most_positive: int,
  weights: tuple[float, float, float, float],
  foreground: float = 0.5,
) -> dict[str, Array]:
  """Samples one image's proposals together with the true boxes (arXiv:1703.06870, section 3.1).

  Args:
    proposals: float32 [r, 4]; valid: bool [r].
    truth: as in anchor_targets.
    count: number of samples; most_positive: at most this many foreground regions, which come first.
    weights: see boxes.encode.
    foreground: IoU from which a region is foreground, else background.

  Returns:
    'rois' float32 [count, 4]; 'classes' int32 [count], 0 background, VOID unused; 'rows' int32
    [count], the matched row of the truth; 'targets' float32 [count, 4], deltas to its box.
  """
  usable = _usable(truth)
  proposals = jnp.concatenate([proposals, truth['boxes']])
  valid = jnp.concatenate([valid, usable])
  thresholds = dict(foreground=foreground, background=foreground)
  row, positive, negative = match(proposals, truth['boxes'], usable, truth['crowd'], **thresholds)
  count = min(count, len(proposals))
  index, is_positive, drawn = sample(
    key, positive & valid, negative & valid, count, min(most_positive, count)
  )
  row, rois = row[index], proposals[index]
  classes = jnp.where(is_positive, truth['classes'][row], 0)
  return {
    'rois': rois,
    'classes': jnp.where(drawn, classes, VOID).astype(jnp.int32),
    'rows': row,
    'targets': box.encode(truth['boxes'][row], rois, weights),
  }


def _usable(truth: Mapping[str, Array]) -> Array:
  return (truth['classes'] > 0) & ~truth['crowd']
