"""Pixel losses: pure functions that return (sum, weight), to be divided once, globally.

Labels are integers [b, h, w]. VOID pixels are ignored, and so are labels outside the classes (the task
counts those and the loop stops on them): a wrong label must never train. All maths is float32;
gradients have the logits' dtype.
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

  No one-hot array is materialised: the backward pass compares class indices with the label in the
  fused loop that computes softmax - target in the logits' dtype.

  Args:
    logits: [b, h, w, c], float32, bfloat16 or float16.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.
    class_weights: c numbers; each pixel is weighted by its true class's.
    pixel_weights: [b, h, w]; multiplies the class weight.

  Returns:
    float32 scalars: sum over valid pixels of weight * -log p(label), and the sum of the weights
    (without weights, the number of valid pixels). Both 0, with zero gradients, if all is void.
  """
  chex.assert_rank(logits, 4)
  chex.assert_shape(label, logits.shape[:-1])
  weight = _weights(label, logits.shape[-1], class_weights, pixel_weights)
  label = jnp.where(is_valid(label, logits.shape[-1]), label.astype(jnp.int32), VOID)
  loss = _softmax_losses(logits, label)
  return jnp.sum(weight * jnp.where(weight != 0, loss, 0.0)), jnp.sum(weight)  # void may be NaN


def sigmoid_cross_entropy(
  logits: Array,
  label: Array,
  *,
  class_weights: tuple[float, ...] | None = None,
  pixel_weights: Array | None = None,
) -> tuple[Array, Array]:
  """Weighted binary cross-entropy of logits [b, h, w], the log-odds of class 1.

  Labels are 0 or 1; otherwise as `softmax_cross_entropy`.
  """
  chex.assert_rank(logits, 3)
  chex.assert_shape(label, logits.shape)
  weight = _weights(label, 2, class_weights, pixel_weights)
  loss = _sigmoid_losses(logits, label.astype(jnp.int32) == 1)
  return jnp.sum(weight * jnp.where(weight != 0, loss, 0.0)), jnp.sum(weight)


def soft_dice(logits: Array, label: Array) -> tuple[Array, Array]:
  """One minus the soft Dice coefficient (see `dice`) of logits [b, h, w, c] and label [b, h, w].

  Returns:
    float32 scalars: the sum over images and classes, and the number of terms: c for each image with a
    valid pixel.
  """
  values, has_pixels = dice(jax.nn.softmax(logits.astype(jnp.float32)), label)
  count = values.shape[-1] * jnp.sum(has_pixels, dtype=jnp.float32)
  return jnp.sum(jnp.where(has_pixels[:, None], 1 - values, 0.0)), count


def dice(probability: Array, label: Array) -> tuple[Array, Array]:
  """The soft Dice coefficient of each image and class, background too (NVIDIA's UNet_Medical).

  With probabilities p and indicator t over the valid pixels:
  dice = (2 sum(p t) + 1e-6) / (sum(p^2 + t^2) + 1e-6), 1 for an absent class that is not predicted.

  Args:
    probability: float [b, h, w, c], summing to 1 over the last axis; NumPy or JAX.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.

  Returns:
    [b, c], float32 for JAX arrays and float64 for NumPy, and bool [b], whether an image has a valid
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
  total = xp.sum(probability**2 + truth, axis=(1, 2))
  return (2 * overlap + 1e-6) / (total + 1e-6), xp.any(valid, axis=(1, 2, 3))


def _weights(label, num_classes: int, class_weights, pixel_weights) -> Array:
  """Returns float32 [b, h, w]: each pixel's weight, 0 where the label is not a class."""
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
  """Returns bool, the shape of `logits`: whether the channel is the label's. XLA fuses it."""
  channel = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  return channel == label[..., None]


def _log_partition(logits: Array, label: Array) -> tuple[Array, Array, Array]:
  """Returns float32 [b, h, w]: the cross-entropy, the largest logit, log sum exp(logit - largest)."""
  logits = logits.astype(jnp.float32)
  largest = jnp.max(logits, axis=-1)
  shifted = logits - largest[..., None]
  log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
  chosen = jnp.sum(jnp.where(_is_class(logits, label), shifted, 0.0), axis=-1)
  return log_sum - chosen, largest, log_sum


@jax.custom_vjp
def _softmax_losses(logits: Array, label: Array) -> Array:
  return _log_partition(logits, label)[0]


def _softmax_forward(logits, label):
  loss, largest, log_sum = _log_partition(logits, label)
  return loss, (logits, label, largest, log_sum)


def _softmax_backward(saved, cotangent):
  logits, label, largest, log_sum = saved
  shifted = logits.astype(jnp.float32) - largest[..., None]
  probability = jnp.exp(shifted - log_sum[..., None])
  scale = cotangent[..., None]
  gradient = jnp.where(scale != 0, scale * (probability - _is_class(logits, label)), 0.0)
  return gradient.astype(logits.dtype), None


_softmax_losses.defvjp(_softmax_forward, _softmax_backward)


@jax.custom_vjp
def _sigmoid_losses(logits: Array, positive: Array) -> Array:
  logits = logits.astype(jnp.float32)
  tail = jnp.log1p(jnp.exp(-jnp.abs(logits)))
  return jnp.maximum(logits, 0.0) - jnp.where(positive, logits, 0.0) + tail


def _sigmoid_backward(saved, cotangent):
  logits, positive = saved
  gradient = cotangent * (jax.nn.sigmoid(logits.astype(jnp.float32)) - positive)
  return jnp.where(cotangent != 0, gradient, 0.0).astype(logits.dtype), None


_sigmoid_losses.defvjp(lambda *inputs: (_sigmoid_losses(*inputs), inputs), _sigmoid_backward)
