"""From anchors and the region proposal network's outputs to proposals (arXiv:1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.nn.detection import nms
from jaxseg.types import Array


def propose(
  anchors: Sequence[Array],
  logits: Sequence[Array],
  deltas: Sequence[Array],
  size: tuple[int, int],
  *,
  candidates: int,
  count: int,
  threshold: float,
  smallest: float = 1e-3,
) -> tuple[Array, Array]:
  """Keeps the best boxes of one image's pyramid, each level thinned out for itself.

  Args:
    anchors, logits, deltas: one entry a level: [a, 4], [a] and [a, 4].
    size: (height, width) of the image; boxes are clipped to it.
    candidates: of each level, those with the highest logits, enter its suppression.
    count: of proposals, the best of all levels.
    threshold: overlap above which the lower of two boxes of a level is suppressed.
    smallest: side of a box, in pixels, below which it is dropped.

  Returns:
    boxes float32 [count, 4] and logits float32 [count], falling; -inf where there was no more.
  """
  levels = [
    _thinned(*level, size, candidates, threshold, smallest)
    for level in zip(anchors, logits, deltas, strict=True)
  ]
  found, scores = (jnp.concatenate(parts) for parts in zip(*levels, strict=True))
  places, scores = nms.best(scores > -jnp.inf, scores, count)
  return found[places], scores


def _thinned(anchors, logits, deltas, size, candidates, threshold, smallest):
  logits, places = jax.lax.top_k(logits.astype(jnp.float32), min(candidates, len(logits)))
  found = box.clip(box.decode(deltas[places], anchors[places]), size)
  large = jnp.min(found[:, 2:] - found[:, :2], axis=1) >= smallest
  scores = jnp.where(large, logits, -jnp.inf)
  return found, jnp.where(nms.suppress(found, scores, threshold), scores, -jnp.inf)
