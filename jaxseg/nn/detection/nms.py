"""Which boxes stay: non-maximum suppression, proposals (arXiv:1506.01497) and detections.

Suppression is exact and greedy, as a few rounds over the matrix of overlaps. A box is kept if no kept
box of higher score overlaps it. Which boxes are kept is the only solution of that sentence; starting
from "all" and applying it again and again reaches it: after k rounds every box is right whose chain of
suppressors is shorter than k. A handful of rounds does for real boxes, where a loop over boxes would
take as many as there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.types import Array


def suppress(boxes: Array, scores: Array, threshold: float, groups: Array | None = None) -> Array:
  """Tells which boxes survive.

  Args:
    boxes: float32 [n, 4], sorted by falling score.
    scores: float32 [n]; -inf marks padding, which neither survives nor suppresses.
    threshold: overlap (intersection over union) above which the lower box goes.
    groups: integers [n]; only boxes of one group suppress each other (classes). None: all do.

  Returns:
    bool [n].
  """
  valid = scores > -jnp.inf
  rank = jnp.arange(len(boxes))
  over = (box.iou(boxes, boxes) > threshold) & (rank[:, None] < rank[None]) & valid[:, None]
  if groups is not None:
    over &= groups[:, None] == groups[None]

  def again(state):
    kept, _ = state
    new = valid & ~jnp.any(over & kept[:, None], axis=0)
    return new, jnp.any(new != kept)

  kept, _ = jax.lax.while_loop(lambda state: state[1], again, (valid, jnp.array(True)))
  return kept


def best(keep: Array, scores: Array, count: int) -> tuple[Array, Array]:
  """Returns the rows int32 [count] of the best kept scores [n], and these; -inf where none is left."""
  scores = jnp.where(keep, scores, -jnp.inf)
  if count > len(scores):
    scores = jnp.pad(scores, (0, count - len(scores)), constant_values=-jnp.inf)
  scores, rows = jax.lax.top_k(scores, count)
  return jnp.minimum(rows, len(keep) - 1).astype(jnp.int32), scores


def propose(
  anchors: Sequence[Array],
  logits: Sequence[Array],
  deltas: Sequence[Array],
  extent: Array,
  *,
  candidates: int,
  count: int,
  threshold: float,
  smallest: float = 1e-3,
) -> tuple[Array, Array]:
  """Keeps the best boxes of one image's pyramid, each level thinned out for itself.

  Args:
    anchors, logits, deltas: one entry a level: [a, 4], [a] and [a, 4].
    extent: float32 [4], x0, y0, x1, y1 of the image; boxes are clipped to it before suppression.
    candidates: of each level, those with the highest logits, enter its suppression.
    count: of proposals, the best of all levels.
    threshold: see suppress.
    smallest: side of a box, in pixels, below which it is dropped.

  Returns:
    boxes float32 [count, 4] and logits float32 [count], falling; -inf where there was no more.
  """

  def thin_out(anchors, logits, deltas):
    logits, rows = jax.lax.top_k(logits.astype(jnp.float32), min(candidates, len(logits)))
    boxes = box.clip(box.decode(deltas[rows], anchors[rows]), extent)
    scores = jnp.where(box.are_large(boxes, smallest), logits, -jnp.inf)
    return boxes, jnp.where(suppress(boxes, scores, threshold), scores, -jnp.inf)

  levels = [thin_out(*level) for level in zip(anchors, logits, deltas, strict=True)]
  boxes, scores = (jnp.concatenate(parts) for parts in zip(*levels, strict=True))
  rows, scores = best(scores > -jnp.inf, scores, count)
  return boxes[rows], scores


def detect(
  proposals: Array,
  valid: Array,
  logits: Array,
  deltas: Array,
  extent: Array,
  *,
  weights: tuple[float, float, float, float],
  candidates: int,
  count: int,
  score: float,
  threshold: float,
  smallest: float = 1e-2,
) -> tuple[Array, Array, Array]:
  """Picks one image's detections; boxes of different classes do not suppress each other.

  Args:
    proposals: float32 [r, 4]; valid: bool [r].
    logits: [r, c], background first. deltas: [r, c - 1, 4], of each class but background.
    extent: float32 [4], x0, y0, x1, y1 of the image; boxes are clipped to it before suppression.
    weights: see boxes.decode.
    candidates: the likeliest pairs of proposal and class enter suppression. The papers' programs let
      every pair above `score` enter; with more of them than this, the least likely are lost.
    score: probability above which a pair is a candidate.
    threshold, smallest: see suppress and propose.

  Returns:
    boxes float32 [count, 4]; scores float32 [count], falling; classes int32 [count], from 1; unused
    rows are 0 throughout.
  """
  classes = logits.shape[1] - 1
  chance = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:]
  chance = jnp.where(valid[:, None] & (chance > score), chance, -jnp.inf).reshape(-1)
  chance, pairs = jax.lax.top_k(chance, min(candidates, len(chance)))
  row, kind = pairs // classes, pairs % classes
  boxes = box.clip(box.decode(deltas[row, kind], proposals[row], weights), extent)
  chance = jnp.where(box.are_large(boxes, smallest), chance, -jnp.inf)
  rows, scores = best(suppress(boxes, chance, threshold, kind), chance, count)
  used = scores > -jnp.inf
  return (
    jnp.where(used[:, None], boxes[rows], 0.0),
    jnp.where(used, scores, 0.0),
    jnp.where(used, kind[rows] + 1, 0).astype(jnp.int32),
  )
