"""Which true object an anchor or a proposal stands for (arXiv:1506.01497, 3.1.2)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxseg.detection import boxes as box
from jaxseg.types import Array

CROWD_SHARE = 0.7  # of a box that lies on a crowd: it is no background (Detectron's threshold)


def match(
  candidates: Array,
  truth: Array,
  valid: Array,
  *,
  foreground: float,
  background: float,
  best_of_each: bool = False,
) -> tuple[Array, Array, Array]:
  """Matches boxes to true boxes by intersection over union.

  Args:
    candidates: float32 [r, 4].
    truth: float32 [n, 4].
    valid: bool [n]; the other rows are padding.
    foreground: overlap from which a candidate stands for its best true box.
    background: overlap below which it stands for none; between the two it counts as neither.
    best_of_each: for every true box the candidates that overlap it most are foreground too, ties
      included, whatever the overlap; each still stands for the box that it overlaps most itself.

  Returns:
    index int32 [r], row of `truth` that a candidate overlaps most; positive and negative, bool [r].
  """
  overlap = jnp.where(valid[:, None], box.iou(truth, candidates), 0.0)
  index = jnp.argmax(overlap, axis=0).astype(jnp.int32)
  largest = jnp.max(overlap, axis=0)
  positive = largest >= foreground
  if best_of_each:
    most = jnp.max(overlap, axis=1, keepdims=True)
    positive |= jnp.any((overlap == most) & (most > 0), axis=0)
  return index, positive, ~positive & (largest < background)


def on_crowd(candidates: Array, truth: Array, crowd: Array) -> Array:
  """Returns bool [r]: whether most of a box [r, 4] lies on one of the true boxes marked [n] crowd."""
  shared = jnp.where(crowd[:, None], box.intersection(truth, candidates), 0.0)
  share = jnp.max(shared, axis=0) / jnp.maximum(box.area(candidates), 1e-6)
  return share > CROWD_SHARE
