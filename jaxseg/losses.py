"""Pixel losses: pure functions that return (sum, weight), to be divided once, globally.

Labels are integers [b, h, w]. VOID pixels are ignored, and so are labels outside the classes (the task
counts those and the loop stops on them): a wrong label must never train. All maths is float32;
gradients have the logits' dtype.
"""

import functools

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
  label_smoothing: float = 0.0,
  focal_gamma: float = 0.0,
  ohem: float = 0.0,
  ohem_kept: float = 0.0,
) -> tuple[Array, Array]:
  """Weighted softmax cross-entropy, summed over the valid pixels.

  No one-hot array is materialised: the backward pass compares class indices with the label in the
  fused loop that computes softmax - target in the logits' dtype.

  Args:
    logits: [b, h, w, c], float32, bfloat16 or float16.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.
    class_weights: c numbers; each pixel is weighted by its true class's.
    pixel_weights: [b, h, w]; multiplies the class weight.
    label_smoothing: s in the target (1 - s) onehot + s / c (Szegedy 2016, arXiv:1512.00567, section 7).
    focal_gamma: multiplies each term by (1 - p)^gamma, with p of the true class; the sum of weights is
      unchanged (Lin 2017, arXiv:1708.02002, equation 5).
    ohem: only pixels with p below this train, the others are void (online hard example mining,
      Shrivastava 2016, arXiv:1604.03540, here over pixels); 0: all train.
    ohem_kept: fraction of an image's pixels of positive weight that always trains: those of the lowest
      p, with ties. Selected per image, so that the value does not depend on the number of devices.

  Returns:
    float32 scalars: sum over valid pixels of weight * -log p(label), and the sum of the weights
    (without weights, the number of valid pixels). Both 0, with zero gradients, if all is void.
  """
  chex.assert_rank(logits, 4)
  chex.assert_shape(label, logits.shape[:-1])
  weight = _weights(label, logits.shape[-1], class_weights, pixel_weights)
  label = jnp.where(is_valid(label, logits.shape[-1]), label.astype(jnp.int32), VOID)

  def losses(smoothing: float) -> Array:  # masks void pixels, even NaN
    return jnp.where(weight != 0, _softmax_losses(logits, label, smoothing), 0.0)

  loss = losses(label_smoothing)
  if focal_gamma:  # the bound keeps the gradient finite for gamma < 1
    loss = loss * jnp.maximum(-jnp.expm1(-losses(0.0)), 1e-12) ** focal_gamma
  if ohem:
    weight = _hardest(jnp.exp(-losses(0.0)), weight, ohem, ohem_kept)
  return jnp.sum(weight * loss), jnp.sum(weight)


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
  return _summed_up(*dice(_softmax(logits), label))


def soft_tversky(
  logits: Array, label: Array, *, alpha: float = 0.3, beta: float = 0.7
) -> tuple[Array, Array]:
  """The same for the Tversky index (Salehi 2017, arXiv:1706.05721, equations 3 and 4), see `tversky`."""
  return _summed_up(*tversky(_softmax(logits), label, alpha=alpha, beta=beta))


def _softmax(logits: Array) -> Array:
  return jax.nn.softmax(logits.astype(jnp.float32))


def _summed_up(values: Array, has_pixels: Array) -> tuple[Array, Array]:
  count = values.shape[-1] * jnp.sum(has_pixels, dtype=jnp.float32)
  return jnp.sum(jnp.where(has_pixels[:, None], 1 - values, 0.0)), count


def dice(probability: Array, label: Array) -> tuple[Array, Array]:
  """The soft Dice coefficient of each image and class, background too (NVIDIA's UNet_Medical).

  With probabilities p and indicator t over the valid pixels:
  dice = (2 sum(p t) + 1e-6) / (sum(p^2 + t^2) + 1e-6). Arguments and result: see `tversky`.
  """
  return tversky(probability, label, power=2, epsilon=5e-7)


def tversky(
  probability: Array,
  label: Array,
  *,
  alpha: float = 0.5,
  beta: float = 0.5,
  power: int = 1,
  epsilon: float = 1e-6,
) -> tuple[Array, Array]:
  """The Tversky index of each image and class: Dice with a weight for each kind of error.

  With probabilities p and indicator t over the valid pixels, TP = sum(p t), FP = sum(p^power) - TP and
  FN = sum(t) - TP: index = (TP + epsilon) / (TP + alpha FP + beta FN + epsilon).

  Args:
    probability: float [b, h, w, c], summing to 1 over the last axis; NumPy or JAX.
    label: integers [b, h, w]; VOID and labels outside [0, c) are skipped.
    alpha, beta: weights of false positives and false negatives; both 0.5 is Dice, both 1 Jaccard.
    power: of p in FP; 2 uses sum(p^2).
    epsilon: smoothing, which makes the index of an absent class that is not predicted 1.

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
  total = xp.sum(alpha * probability**power + beta * truth, axis=(1, 2))
  total = total + (1 - alpha - beta) * overlap
  return (overlap + epsilon) / (total + epsilon), xp.any(valid, axis=(1, 2, 3))


def lovasz_softmax(logits: Array, label: Array) -> tuple[Array, Array]:
  """The Lovasz extension of the Jaccard loss (Berman 2018, arXiv:1705.08790, equations 9 and 12).

  Computed per image, so that the value does not depend on the number of devices. For each class in an
  image's label, its valid pixels' errors |t - p| are sorted in descending order, and each is multiplied
  by the increase of the Jaccard loss when its pixel joins the mispredicted ones. This is piecewise
  linear in the errors, and the increases are its gradient; errors of t = 0 and t = 1 that differ only in
  their last bit may be swapped.

  Returns:
    float32 scalars: the sum over images of the mean over classes, and the number of images with a
    valid pixel.
  """
  chex.assert_rank(logits, 4)
  chex.assert_shape(label, logits.shape[:-1])
  images, _, _, classes = logits.shape
  channel = jnp.arange(classes, dtype=jnp.int32).reshape(1, -1, 1)
  valid = is_valid(label, classes).reshape(images, 1, -1)
  truth = valid & (label.astype(jnp.int32).reshape(images, 1, -1) == channel)
  probability = jnp.moveaxis(_softmax(logits).reshape(images, -1, classes), 1, 2)
  error = jnp.where(valid, jnp.abs(truth - probability), 0.0)
  loss = jnp.sum(error * _jaccard_rises(jax.lax.stop_gradient(error), truth), axis=-1)
  present = jnp.any(truth, axis=-1)
  of_image = jnp.sum(jnp.where(present, loss, 0.0), axis=-1)
  count = jnp.sum(present, axis=-1, dtype=jnp.float32)
  return jnp.sum(of_image / jnp.maximum(count, 1)), jnp.sum(count > 0, dtype=jnp.float32)


def _jaccard_rises(error: Array, truth: Array) -> Array:
  """Returns the gradient of the Lovasz extension, float32 [..., n], for errors >= 0 and bool truth.

  Sorts integers that pack error and truth (the bits of non-negative floats sort like the floats), and
  sorts the result back. Void pixels have error 0, so their position among zeros does not matter.
  """
  bits = jax.lax.bitcast_convert_type(error, jnp.uint32)
  key = ~((bits & ~jnp.uint32(1)) | truth.astype(jnp.uint32))
  position = jax.lax.broadcasted_iota(jnp.uint32, key.shape, key.ndim - 1)
  ordered = functools.partial(jax.lax.sort, num_keys=1, is_stable=False)
  key, position = ordered((key, position))
  sorted_truth = (~key & 1).astype(jnp.float32)
  total = jnp.sum(sorted_truth, axis=-1, keepdims=True)
  loss = 1 - (total - jnp.cumsum(sorted_truth, axis=-1)) / (
    total + jnp.cumsum(1 - sorted_truth, axis=-1)
  )
  return ordered((position, jnp.diff(loss, axis=-1, prepend=0.0)))[1]


def _hardest(likelihood: Array, weight: Array, below: float, share: float) -> Array:
  """Returns the weights [b, h, w], 0 except for hard pixels, see `ohem` in `softmax_cross_entropy`."""
  likelihood = jax.lax.stop_gradient(likelihood)  # 1 where the weight is 0
  count = jnp.ceil(share * jnp.sum(weight != 0, axis=(1, 2), dtype=jnp.float32)).astype(jnp.int32)
  ranked = jnp.sort(likelihood.reshape(len(likelihood), -1), axis=-1)
  threshold = jnp.take_along_axis(ranked, jnp.maximum(count - 1, 0)[:, None], axis=-1)
  threshold = jnp.where(count[:, None] > 0, threshold, -1.0)[..., None]
  return jnp.where((likelihood < below) | (likelihood <= threshold), weight, 0.0)


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


def _log_partition(logits: Array, label: Array, smoothing: float) -> tuple[Array, Array, Array]:
  """Returns float32 [b, h, w]: the cross-entropy, the largest logit, log sum exp(logit - largest)."""
  logits = logits.astype(jnp.float32)
  largest = jnp.max(logits, axis=-1)
  shifted = logits - largest[..., None]
  log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
  chosen = jnp.sum(jnp.where(_is_class(logits, label), shifted, 0.0), axis=-1)
  if smoothing:
    chosen = (1 - smoothing) * chosen + smoothing * jnp.mean(shifted, axis=-1)
  return log_sum - chosen, largest, log_sum


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax_losses(logits: Array, label: Array, smoothing: float) -> Array:
  return _log_partition(logits, label, smoothing)[0]


def _softmax_forward(logits, label, smoothing):
  loss, largest, log_sum = _log_partition(logits, label, smoothing)
  return loss, (logits, label, largest, log_sum)


def _softmax_backward(smoothing, saved, cotangent):
  logits, label, largest, log_sum = saved
  shifted = logits.astype(jnp.float32) - largest[..., None]
  probability = jnp.exp(shifted - log_sum[..., None])
  target = _is_class(logits, label)
  if smoothing:
    target = jnp.where(target, 1 - smoothing, 0.0) + smoothing / logits.shape[-1]
  scale = cotangent[..., None]
  gradient = jnp.where(scale != 0, scale * (probability - target), 0.0)
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
