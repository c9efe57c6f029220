"""Values and gradients by hand and beside NumPy; masked losses against losses of the filtered pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import losses
from jaxseg.types import VOID

LOG = np.log


def value_and_grad(loss, *args, **kwargs):
  return jax.jit(jax.value_and_grad(loss, *args, **kwargs))


def two_pixels():
  """Softmax probabilities (1/4, 3/4) and (2/3, 1/3), true classes 1 and 0."""
  logits = jnp.asarray([[[[0.0, LOG(3)], [LOG(2), 0.0]]]], jnp.float32)
  return logits, jnp.asarray([[[1, 0]]], jnp.uint8)


def test_softmax_value_and_gradient_by_hand():
  logits, label = two_pixels()

  def loss(logits):
    return losses.softmax_cross_entropy(logits, label)[0]

  total, gradient = value_and_grad(loss)(logits)
  np.testing.assert_allclose(total, LOG(4 / 3) + LOG(3 / 2), rtol=1e-6)
  assert losses.softmax_cross_entropy(logits, label)[1] == 2
  np.testing.assert_allclose(gradient[0, 0], [[1 / 4, -1 / 4], [-1 / 3, 1 / 3]], rtol=1e-6)


def test_class_and_pixel_weights_multiply():
  logits, label = two_pixels()
  weights = jnp.asarray([[[0.5, 2.0]]])

  def loss(logits, weights):
    terms = losses.softmax_cross_entropy(
      logits, label, class_weights=(5.0, 3.0), pixel_weights=weights
    )
    return terms[0], terms[1]

  (total, weight), (by_logits, by_weights) = value_and_grad(loss, (0, 1), has_aux=True)(
    logits, weights
  )
  np.testing.assert_allclose(total, 3 * 0.5 * LOG(4 / 3) + 5 * 2 * LOG(3 / 2), rtol=1e-6)
  assert weight == 3 * 0.5 + 5 * 2
  np.testing.assert_allclose(by_logits[0, 0], [[1.5 / 4, -1.5 / 4], [-10 / 3, 10 / 3]], rtol=1e-6)
  np.testing.assert_allclose(by_weights[0, 0], [3 * LOG(4 / 3), 5 * LOG(3 / 2)], rtol=1e-6)


def test_softmax_equals_the_filtered_arrays():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
  label = rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
  label[rng.random(label.shape) < 0.4] = VOID
  keep = label != VOID
  kept_logits, kept_label = logits[keep][None, None], label[keep][None, None]

  def loss(logits, label):
    return losses.softmax_cross_entropy(logits, label, class_weights=(1.0, 2.0, 4.0))[0]

  total, gradient = value_and_grad(loss)(jnp.asarray(logits), jnp.asarray(label))
  expected, kept_gradient = value_and_grad(loss)(jnp.asarray(kept_logits), jnp.asarray(kept_label))
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient[keep], kept_gradient[0, 0], rtol=1e-6)
  np.testing.assert_array_equal(gradient[~keep], 0)
  probability = np.exp(kept_logits) / np.exp(kept_logits).sum(-1, keepdims=True)
  weight = np.asarray([1, 2, 4])[kept_label[0, 0]]
  chosen = probability[0, 0, np.arange(keep.sum()), kept_label[0, 0]]
  np.testing.assert_allclose(total, np.sum(-weight * LOG(chosen)), rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.int32, jnp.int8])
def test_labels_outside_the_classes_are_void(dtype):
  logits = jnp.ones((1, 1, 4, 2))
  label = jnp.asarray([[[0, 2, -1, 7]]], dtype)
  (total, weight), gradient = value_and_grad(
    lambda logits: losses.softmax_cross_entropy(logits, label, class_weights=(3.0, 9.0)),
    has_aux=True,
  )(logits)
  np.testing.assert_allclose(total, 3 * LOG(2), rtol=1e-6)
  assert weight == 3
  np.testing.assert_allclose(gradient[0, 0, 0], [-1.5, 1.5], rtol=1e-6)
  np.testing.assert_array_equal(gradient[0, 0, 1:], 0)


def test_void_is_void_even_among_three_hundred_classes():
  label = jnp.asarray([[[254, 255, 256]]], jnp.int32)
  assert losses.is_valid(label, 300).tolist() == [[[True, False, True]]]
  assert losses.softmax_cross_entropy(jnp.zeros((1, 1, 3, 300)), label)[1] == 2


@pytest.mark.parametrize('void_logit', [0.0, np.nan])
def test_all_void_gives_zeros(void_logit):
  label = jnp.full((1, 2, 2), VOID, jnp.uint8)
  for loss, shape in (
    (losses.softmax_cross_entropy, (1, 2, 2, 3)),
    (losses.sigmoid_cross_entropy, (1, 2, 2)),
    *(() if np.isnan(void_logit) else ((losses.soft_dice, (1, 2, 2, 3)),)),
  ):
    logits = jnp.full(shape, void_logit)
    (total, weight), gradient = value_and_grad(
      lambda logits, loss=loss: loss(logits, label), has_aux=True
    )(logits)
    assert total == 0 and weight == 0
    np.testing.assert_array_equal(gradient, np.zeros(shape))


def test_bfloat16_logits_keep_float32_sums_and_bfloat16_gradients():
  label = jnp.zeros((1, 64, 64), jnp.uint8)
  logits = jnp.zeros((1, 64, 64, 2), jnp.bfloat16)
  (total, weight), gradient = value_and_grad(
    lambda logits: losses.softmax_cross_entropy(logits, label), has_aux=True
  )(logits)
  assert total.dtype == weight.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
  np.testing.assert_allclose(total, 4096 * LOG(2), rtol=1e-6)
  assert weight == 4096
  np.testing.assert_array_equal(gradient[0, 0, 0].astype(jnp.float32), [-0.5, 0.5])


def test_large_logits_are_stable():
  logits = jnp.asarray([[[[1e4, 0.0], [1e4, 1e4], [1e4, 0.0]]]], jnp.float32)
  label = jnp.asarray([[[0, 0, 1]]], jnp.uint8)
  total, gradient = value_and_grad(lambda x: losses.softmax_cross_entropy(x, label)[0])(logits)
  np.testing.assert_allclose(total, LOG(2) + 1e4, rtol=1e-6)
  np.testing.assert_allclose(gradient[0, 0], [[0, 0], [-0.5, 0.5], [1, -1]], atol=1e-6)
  logits = jnp.asarray([[[1e4, -1e4, 1e4]]], jnp.float32)
  label = jnp.asarray([[[1, 0, 0]]], jnp.uint8)
  total, gradient = value_and_grad(lambda x: losses.sigmoid_cross_entropy(x, label)[0])(logits)
  assert total == 1e4
  np.testing.assert_array_equal(gradient[0, 0], [0, 0, 1])


def test_sigmoid_value_and_gradient_by_hand():
  logits = jnp.asarray([[[LOG(3), 0.0, -LOG(4), 2.0]]], jnp.float32)  # p = 3/4, 1/2, 1/5
  label = jnp.asarray([[[1, 0, 1, VOID]]], jnp.uint8)
  weights = jnp.asarray([[[1.0, 2.0, 3.0, 4.0]]])

  def loss(logits):
    return losses.sigmoid_cross_entropy(
      logits, label, class_weights=(10.0, 1.0), pixel_weights=weights
    )

  (total, weight), gradient = value_and_grad(loss, has_aux=True)(logits)
  np.testing.assert_allclose(total, LOG(4 / 3) + 20 * LOG(2) + 3 * LOG(5), rtol=1e-6)
  assert weight == 1 + 20 + 3
  np.testing.assert_allclose(gradient[0, 0], [-1 / 4, 20 / 2, -3 * 4 / 5, 0], rtol=1e-6)


def test_soft_dice_by_hand():
  # p = (3/4, 1/4), (1/4, 3/4) with truth 0, 1: per class 2 * 3/4 / (9/16 + 1/16 + 1) = 12/13.
  logits = jnp.asarray([[[[LOG(3), 0.0], [0.0, LOG(3)]]]], jnp.float32)
  label = jnp.asarray([[[0, 1]]], jnp.uint8)
  total, count = losses.soft_dice(logits, label)
  np.testing.assert_allclose(total, 2 * (1 - 12 / 13), rtol=1e-4)
  assert count == 2


def test_soft_dice_gradient_by_hand():
  # One pixel of class 0, p = (3/4, 1/4): dice_0 = 24/25, dice_1 = 0. With d = 2p / (p^2 + 1),
  # d dice_0 / dp_0 = 2 (1 - p^2) / (p^2 + 1)^2 = 224/625; dice_1 is flat at 0 but for epsilon; and
  # dp_0 / dlogit = (3/16, -3/16).
  logits = jnp.asarray([[[[LOG(3), 0.0]]]], jnp.float32)
  label = jnp.zeros((1, 1, 1), jnp.uint8)
  total, gradient = value_and_grad(lambda x: losses.soft_dice(x, label)[0])(logits)
  np.testing.assert_allclose(total, 1 / 25 + 1, rtol=1e-4)
  slope = 224 / 625 * 3 / 16
  np.testing.assert_allclose(gradient[0, 0, 0], [-slope, slope], rtol=1e-3)


def test_soft_dice_leaves_void_out_and_counts_a_doubly_absent_class_as_one():
  logits = jnp.asarray([[[[40.0, 0.0], [0.0, 40.0]]], [[[3.0, 1.0], [1.0, 2.0]]]], jnp.float32)
  label = jnp.asarray([[[0, VOID]], [[VOID, VOID]]], jnp.uint8)
  total, count = losses.soft_dice(logits, label)
  np.testing.assert_allclose(total, 0, atol=1e-6)
  assert count == 2  # the second image has no valid pixel


def test_weights_of_many_pixels_are_counted_exactly():
  label = jnp.zeros((5, 2048, 2048), jnp.uint8)  # 20,971,520 ones: more than float32 counts by ones
  weight = jax.jit(lambda label: losses.softmax_cross_entropy(jnp.zeros(label.shape + (1,)), label))
  assert weight(label)[1] == 5 * 2048 * 2048
