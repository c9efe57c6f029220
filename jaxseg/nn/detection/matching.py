"""Which true object an anchor or a proposal stands for (arXiv:1506.01497, 3.1.2).

Overlaps are [true boxes, candidates], millions for one image. A CPU goes through the true boxes one
by one instead, and keeps what is known of each candidate: a tenth of the time.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.types import Array

CROWD_SHARE = 0.7  # of a box that lies on a crowd: it is no background (Detectron's threshold)


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
  """Matches boxes to true boxes by intersection over union.

  Args:
    candidates: float32 [r, 4].
    truth: float32 [n, 4].
    valid: bool [n], which of them are objects; the other rows are crowds or padding.
    crowd: bool [n], which are crowds: a candidate that lies on one, for the most part of its own
      area, is not negative.
    foreground: overlap from which a candidate stands for its best true box.
    background: overlap below which it stands for none; between the two it counts as neither.
    best_of_each: for every true box the candidates that overlap it most are foreground too, ties
      included, whatever the overlap; each still stands for the box that it overlaps most itself.

  Returns:
    index int32 [r], row of `truth` that a candidate overlaps most; positive and negative, bool [r].
  """
  compare = partial(_compare, candidates)
  index, largest, best, on_crowd = jax.lax.platform_dependent(
    truth, valid, crowd, cpu=partial(compare, one_by_one=True), default=compare
  )
  positive = largest >= foreground
  if best_of_each:
    positive |= best
  share = on_crowd / jnp.maximum(box.area(candidates), 1e-6)
  return index, positive, ~positive & (largest < background) & (share <= CROWD_SHARE)


def _compare(candidates, truth, valid, crowd, one_by_one: bool = False):
  """Goes through the true boxes, all at once or one by one.

  Returns:
    Of each candidate: row and overlap of the valid true box that it overlaps most, whether it is the
    best of one of them, and the largest area that it shares with a crowd.
  """

  def group(seen, rows):
    index, largest, best, on_crowd = seen
    first, truth, valid, crowd = rows
    shared, overlap = box.intersection(truth, candidates), box.iou(truth, candidates)
    overlap = jnp.where(valid[:, None], overlap, 0.0)
    most = jnp.max(overlap, axis=1, keepdims=True)
    best |= jnp.any((overlap == most) & (most > 0), axis=0)
    here = jnp.max(overlap, axis=0)
    index = jnp.where(
      here > largest, first + jnp.argmax(overlap, axis=0).astype(jnp.int32), index
    )  # the first wins
    shared = jnp.max(jnp.where(crowd[:, None], shared, 0.0), axis=0)
    return (index, jnp.maximum(here, largest), best, jnp.maximum(shared, on_crowd)), None

  size, count = 1 if one_by_one else len(truth), len(candidates)
  rows = (truth, valid, crowd)
  rows = [r.reshape(-1, size, *r.shape[1:]) for r in rows]
  zeros = jnp.zeros(count)
  begin = (jnp.zeros(count, jnp.int32), zeros, jnp.zeros(count, bool), zeros)
  firsts = jnp.arange(0, len(truth), size, dtype=jnp.int32)
  return jax.lax.scan(group, begin, (firsts, *rows))[0]
