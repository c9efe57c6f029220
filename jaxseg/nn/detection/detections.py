"""From classified proposals to the detections of an image: decode, threshold, suppress, rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.nn.detection import nms
from jaxseg.types import Array


def detect(
  proposals: Array,
  valid: Array,
  logits: Array,
  deltas: Array,
  size: tuple[int, int],
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
    size: (height, width) of the image; boxes are clipped to it.
    weights: see boxes.decode.
    candidates: the likeliest pairs of proposal and class enter suppression. The papers' programs let
      every pair above `score` enter; with more of them than this, the least likely are lost.
    count: of detections.
    score: probability above which a pair is a candidate.
    threshold: overlap above which the lower of two boxes of a class is suppressed.
    smallest: side of a box, in pixels, below which it is dropped.

  Returns:
    boxes float32 [count, 4]; scores float32 [count], falling; classes int32 [count], from 1; unused
    rows are 0 throughout.
  """
  classes = logits.shape[1] - 1
  chance = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:]
  chance = jnp.where(valid[:, None] & (chance > score), chance, -jnp.inf).reshape(-1)
  chance, pairs = jax.lax.top_k(chance, min(candidates, len(chance)))
  row, kind = pairs // classes, pairs % classes
  found = box.clip(box.decode(deltas[row, kind], proposals[row], weights), size)
  large = jnp.min(found[:, 2:] - found[:, :2], axis=1) >= smallest
  chance = jnp.where(large, chance, -jnp.inf)
  places, scores = nms.best(nms.suppress(found, chance, threshold, kind), chance, count)
  used = scores > -jnp.inf
  return (
    jnp.where(used[:, None], found[places], 0.0),
    jnp.where(used, scores, 0.0),
    jnp.where(used, kind[places] + 1, 0).astype(jnp.int32),
  )
