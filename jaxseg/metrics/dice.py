"""The DICE that NVIDIA's U-Net for ISBI 2012 is published by (DeepLearningExamples, UNet_Medical).

It is soft: probabilities p are not turned into a mask. For each image and each class, background
too, with the one-hot truth t,

  DICE = (2 sum p t + 1e-6) / (sum (p^2 + t^2) + 1e-6)

over the pixels, and the score is the mean over images and classes. A sure and right network has 1;
an unsure one is punished even where its mask is right.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from jaxseg.types import VOID, Array

EPSILON = 1e-6


def dice(probability: Array, label: Array) -> tuple[Array, Array]:
  """Returns the sum of DICE over images and classes, and how many there are: divide once, at the end.

  Args:
    probability: float [b, h, w, c], summing to 1 over the last axis.
    label: integers [b, h, w]; VOID and all else outside [0, c) is left out of both sums.

  Returns:
    float32 scalars: the sum, and c for each image that has a pixel which counts.
  """
  chex.assert_rank(probability, 4)
  chex.assert_shape(label, probability.shape[:-1])
  num_classes = probability.shape[-1]
  label = label.astype(jnp.int32)
  counted = (label != VOID) & (label >= 0) & (label < num_classes)
  channel = jnp.arange(num_classes, dtype=jnp.int32)[None, None, None]
  truth = (label[..., None] == channel) & counted[..., None]
  probability = jnp.where(counted[..., None], probability.astype(jnp.float32), 0.0)
  shared = jnp.sum(jnp.where(truth, probability, 0.0), axis=(1, 2))
  total = jnp.sum(jnp.square(probability) + truth, axis=(1, 2))
  score = (2 * shared + EPSILON) / (total + EPSILON)
  whole = jnp.any(counted, axis=(1, 2))
  images = jnp.sum(whole, dtype=jnp.float32)
  return jnp.sum(jnp.where(whole[:, None], score, 0.0)), num_classes * images
