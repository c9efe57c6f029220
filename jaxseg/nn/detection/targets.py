"""What a sample of anchors and of proposals should have said: their labels and box offsets."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from jaxseg.nn.detection import boxes as box
from jaxseg.nn.detection.matching import match
from jaxseg.nn.detection.sampling import sample
from jaxseg.types import VOID, Array


def anchor_targets(
  key: Array,
  anchors: Array,
  truth: Mapping[str, Array],
  *,
  count: int,
  most_positive: int,
  foreground: float = 0.7,
  background: float = 0.3,
) -> dict[str, Array]:
  """Samples one image's anchors (arXiv:1506.01497, 3.1.2-3).

  Args:
    key: of the sample.
    anchors: float32 [a, 4], of all levels.
    truth: 'boxes' float32 [n, 4], 'classes' int32 [n] (0: padding), 'crowd' bool [n].
    count: of anchors; most_positive: at most so many stand for an object.
    foreground, background: overlaps, see matching.match.

  Returns:
    'index' int32 [count] into the anchors; 'labels' int32 [count]: 1 object, 0 background, VOID where
    there was nothing left to sample; 'targets' float32 [count, 4], deltas to the object's box.
  """
  row, positive, negative = match(
    anchors,
    truth['boxes'],
    _usable(truth),
    truth['crowd'],
    foreground=foreground,
    background=background,
    best_of_each=True,
  )
  index, is_positive, valid = sample(key, positive, negative, count, most_positive)
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
  """Samples one image's proposals, the true boxes among them (arXiv:1703.06870, section 3.1).

  Args:
    key: of the sample.
    proposals: float32 [r, 4]; valid: bool [r].
    truth: as in anchor_targets, and 'ids' int32 [n].
    count: of regions; most_positive: at most so many are foreground, and these come first.
    weights: see boxes.encode.
    foreground: overlap from which a region stands for an object; below, it is background.

  Returns:
    'rois' float32 [count, 4]; 'classes' int32 [count], 0 background, VOID unused; 'ids' int32
    [count], 0 where no object; 'targets' float32 [count, 4], deltas to the object's box.
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
    'ids': jnp.where(is_positive, truth['ids'][row], 0).astype(jnp.int32),
    'targets': box.encode(truth['boxes'][row], rois, weights),
  }


def _usable(truth: Mapping[str, Array]) -> Array:
  return (truth['classes'] > 0) & ~truth['crowd']
