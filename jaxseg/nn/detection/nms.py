"""Non-maximum suppression, proposals (arXiv:1506.01497) and detections.

Suppression is exact greedy NMS, computed by fixed-point iteration on the matrix of overlaps: a box is
kept if no kept box of higher score overlaps it. This rule has a unique solution, and repeating it from
"keep all" reaches it: after k rounds every box whose chain of suppressors is shorter than k is decided.
Real boxes need a handful of rounds; a loop would need one for each box.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.types import Array


def suppress(boxes: Array, scores: Array, threshold: float, groups: Array | None = None) -> Array:
  """Returns bool [n], the boxes that survive NMS.

  Args:
    boxes: float32 [n, 4], sorted by descending score.
    scores: float32 [n]; -inf marks padding, which neither survives nor suppresses.
    threshold: IoU above which the box of lower score is suppressed.
    groups: integers [n], such as classes; only boxes of the same group suppress each other. None: all.
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
  """Returns the rows int32 [count] of the best kept scores [n], and the scores, -inf in unused rows."""
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
  """Selects the best boxes of one image's pyramid, with NMS in each level.

  Args:
    anchors, logits, deltas: one entry per level: [a, 4], [a] and [a, 4].
    extent: float32 [4], x0, y0, x1, y1 of the image; boxes are clipped to it before suppression.
    candidates: number of anchors of each level, by logit, that enter NMS.
    count: number of proposals, the best of all levels.
    threshold: see suppress.
    smallest: boxes with a smaller side, in pixels, are dropped.

  Returns:
    boxes float32 [count, 4] and logits float32 [count], descending; -inf in unused rows.
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
  """Selects one image's detections; boxes of different classes do not suppress each other.

  Args:
    proposals: float32 [r, 4]; valid: bool [r].
    logits: [r, c], background first. deltas: [r, c - 1, 4], for each class but background.
    extent: float32 [4], x0, y0, x1, y1 of the image; boxes are clipped to it before suppression.
    weights: see boxes.decode.
    candidates: number of (proposal, class) pairs, by probability, that enter NMS. The papers' code
      has no such limit; here the least likely pairs beyond it are lost.
    score: probability above which a pair is a candidate.
    threshold, smallest: see suppress and propose.

  Returns:
    boxes float32 [count, 4]; scores float32 [count], descending; classes int32 [count], from 1; unused
    rows are 0.
  """
  classes = logits.shape[1] - 1
  probability = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:]
  probability = jnp.where(valid[:, None] & (probability > score), probability, -jnp.inf).reshape(-1)
  probability, pairs = jax.lax.top_k(probability, min(candidates, len(probability)))
  row, class_index = pairs // classes, pairs % classes
  boxes = box.clip(box.decode(deltas[row, class_index], proposals[row], weights), extent)
  probability = jnp.where(box.are_large(boxes, smallest), probability, -jnp.inf)
  rows, scores = best(suppress(boxes, probability, threshold, class_index), probability, count)
  used = scores > -jnp.inf
  return (
    jnp.where(used[:, None], boxes[rows], 0.0),
    jnp.where(used, scores, 0.0),
    jnp.where(used, class_index[rows] + 1, 0).astype(jnp.int32),
  )
