"""Non-maximum suppression, exact and greedy, as a few rounds over the matrix of overlaps.

A box is kept if no kept box of higher score overlaps it. Which boxes are kept is the only solution of
that sentence; starting from "all" and applying it again and again reaches it: after k rounds every
box is right whose chain of suppressors is shorter than k. A handful of rounds does for real boxes,
where a loop over boxes would take as many as there are.
"""

from __future__ import annotations

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
  """Returns the places int32 [count] of the best kept scores [n], and these; -inf where none is left."""
  scores = jnp.where(keep, scores, -jnp.inf)
  if count > len(scores):
    scores = jnp.pad(scores, (0, count - len(scores)), constant_values=-jnp.inf)
  scores, places = jax.lax.top_k(scores, count)
  return jnp.minimum(places, len(keep) - 1).astype(jnp.int32), scores
