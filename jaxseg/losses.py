"""Losses over pixels: pure functions that return (sum, weight), to be divided once, globally.

Labels are integers [b, h, w]. VOID pixels count nowhere; neither do labels outside the classes (the
task counts those and the loop stops on them): a wrong label must never train. All maths is float32
whatever the logits' dtype; gradients come back in the logits' dtype.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import VOID, Array


def is_valid(label: Array, num_classes: int) -> Array:
  """Returns bool, the shape of `label`: False for VOID and for labels outside [0, num_classes)."""
  chex.assert_type(label, int)
  label = label.astype(jnp.int32)
  return (label != VOID) & (label >= 0) & (label < num_classes)


def softmax_cross_entropy(
  logits: Array,
  label: Array,
  *,
  class_weights: tuple[float, ...] | None = None,
  pixel_weights: Array | None = None,
) -> tuple[Array, Array]:
  """Weighted softmax cross-entropy, summed over the valid pixels.

  Neither direction builds a one-hot array: the backward pass compares a class index with the label
  inside the loop that computes softmax - onehot, straight into the logits' dtype.

  Args:
    logits: [b, h, w, c], float32, bfloat16 or float16.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.
    class_weights: c numbers; each pixel is weighted by its true class's.
    pixel_weights: [b, h, w]; multiplies the class weight.

  Returns:
    float32 scalars: sum over valid pixels of weight * -log p(label), and the sum of those weights
    (the number of valid pixels where no weights are given). Both 0, with zero gradients, where all
    is void.
  """
  chex.assert_rank(logits, 4)
  chex.assert_shape(label, logits.shape[:-1])
  weight = _weights(label, logits.shape[-1], class_weights, pixel_weights)
  label = jnp.where(is_valid(label, logits.shape[-1]), label.astype(jnp.int32), VOID)
  return _softmax_sum(logits, label, weight), jnp.sum(weight)


def sigmoid_cross_entropy(
  logits: Array,
  label: Array,
  *,
  class_weights: tuple[float, ...] | None = None,
  pixel_weights: Array | None = None,
) -> tuple[Array, Array]:
  """Weighted binary cross-entropy of logits [b, h, w], the log-odds of class 1.

  Labels are 0 or 1 and the rest as in `softmax_cross_entropy`.
  """
  chex.assert_rank(logits, 3)
  chex.assert_shape(label, logits.shape)
  weight = _weights(label, 2, class_weights, pixel_weights)
  return _sigmoid_sum(logits, label.astype(jnp.int32) == 1, weight), jnp.sum(weight)


def soft_dice(logits: Array, label: Array) -> tuple[Array, Array]:
  """One minus the soft Dice coefficient (see `dice`) of logits [b, h, w, c] and label [b, h, w].

  Returns:
    float32 scalars: the sum over images and classes, and the number of terms: c for each image that
    has a valid pixel.
  """
  values, has_pixels = dice(jax.nn.softmax(logits.astype(jnp.float32)), label)
  count = logits.shape[-1] * jnp.sum(has_pixels, dtype=jnp.float32)
  return jnp.sum(jnp.where(has_pixels[:, None], 1 - values, 0.0)), count


def dice(probability: Array, label: Array, *, epsilon: float = 1e-6) -> tuple[Array, Array]:
  """The soft Dice coefficient of each image and class, background too (NVIDIA's UNet_Medical).

  With probabilities p and indicator t over the valid pixels:
  dice = (2 sum(p t) + epsilon) / (sum(p^2 + t^2) + epsilon).

  Args:
    probability: float [b, h, w, c], summing to 1 over the last axis; NumPy's or JAX's.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.
    epsilon: keeps a class that is neither there nor predicted at 1.

  Returns:
    [b, c], float32 of JAX's arrays and float64 of NumPy's, and bool [b], whether an image has a valid
    pixel.
  """
  chex.assert_rank(probability, 4)
  chex.assert_shape(label, probability.shape[:-1])
  xp, dtype = (jnp, jnp.float32) if isinstance(probability, jax.Array) else (np, np.float64)
  valid = is_valid(label, probability.shape[-1])[..., None]
  channel = xp.arange(probability.shape[-1], dtype=xp.int32).reshape(1, 1, 1, -1)
  truth = (label.astype(xp.int32)[..., None] == channel) & valid
  probability = xp.where(valid, probability.astype(dtype), 0.0)
  overlap = xp.sum(xp.where(truth, probability, 0.0), axis=(1, 2))
  total = xp.sum(xp.square(probability) + truth, axis=(1, 2))
  return (2 * overlap + epsilon) / (total + epsilon), xp.any(valid, axis=(1, 2, 3))


def _weights(label, num_classes: int, class_weights, pixel_weights) -> Array:
  """Returns float32 [b, h, w]: the factor of each pixel's term, 0 where the label is no class."""
  valid = is_valid(label, num_classes)
  weight = valid.astype(jnp.float32)
  if class_weights is not None:
    table = jnp.asarray(class_weights, jnp.float32)
    chex.assert_shape(table, (num_classes,))
    weight = jnp.where(valid, table[jnp.where(valid, label, 0).astype(jnp.int32)], 0.0)
  if pixel_weights is not None:
    chex.assert_shape(pixel_weights, label.shape)
    weight = jnp.where(valid, weight * pixel_weights.astype(jnp.float32), 0.0)
  return weight


def _is_class(logits: Array, label: Array) -> Array:
  """Returns bool, the shape of `logits`: whether the channel is the label's. XLA fuses it away."""
  channel = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  return channel == label[..., None]


def _log_partition(logits: Array, label: Array) -> tuple[Array, Array, Array]:
  """Returns float32 [b, h, w]: -log p(label), the largest logit, log sum exp(logit - largest)."""
  logits = logits.astype(jnp.float32)
  largest = jnp.max(logits, axis=-1)
  shifted = logits - largest[..., None]
  log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
  chosen = jnp.sum(jnp.where(_is_class(logits, label), shifted, 0.0), axis=-1)
  return log_sum - chosen, largest, log_sum


@jax.custom_vjp
def _softmax_sum(logits: Array, label: Array, weight: Array) -> Array:
  return _softmax_forward(logits, label, weight)[0]


def _softmax_forward(logits, label, weight):
  loss, largest, log_sum = _log_partition(logits, label)
  total = jnp.sum(jnp.where(weight != 0, weight * loss, 0.0))
  return total, (logits, label, weight, largest, log_sum)


def _softmax_backward(saved, cotangent):
  logits, label, weight, largest, log_sum = saved
  shifted = logits.astype(jnp.float32) - largest[..., None]
  probability = jnp.exp(shifted - log_sum[..., None])
  scale = (cotangent * weight)[..., None]
  gradient = jnp.where(scale != 0, scale * (probability - _is_class(logits, label)), 0.0)
  # The weights' own gradient is dropped by the compiler wherever nobody asks for it.
  loss = _log_partition(logits, label)[0]
  return gradient.astype(logits.dtype), None, jnp.where(label == VOID, 0.0, cotangent * loss)


_softmax_sum.defvjp(_softmax_forward, _softmax_backward)


def _sigmoid_loss(logits: Array, positive: Array) -> Array:
  logits = logits.astype(jnp.float32)
  tail = jnp.log1p(jnp.exp(-jnp.abs(logits)))
  return jnp.maximum(logits, 0.0) - jnp.where(positive, logits, 0.0) + tail


@jax.custom_vjp
def _sigmoid_sum(logits: Array, positive: Array, weight: Array) -> Array:
  return jnp.sum(jnp.where(weight != 0, weight * _sigmoid_loss(logits, positive), 0.0))


def _sigmoid_forward(logits, positive, weight):
  return _sigmoid_sum(logits, positive, weight), (logits, positive, weight)


def _sigmoid_backward(saved, cotangent):
  logits, positive, weight = saved
  scale = cotangent * weight
  gradient = scale * (jax.nn.sigmoid(logits.astype(jnp.float32)) - positive)
  gradient = jnp.where(scale != 0, gradient, 0.0)
  return gradient.astype(logits.dtype), None, cotangent * _sigmoid_loss(logits, positive)


_sigmoid_sum.defvjp(_sigmoid_forward, _sigmoid_backward)
