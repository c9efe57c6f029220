"""Values and gradients by hand and beside NumPy; masked losses against losses of the filtered pixels."""

from functools import partial

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
  options = dict(label_smoothing=0.1, focal_gamma=0.5, ohem=0.7, ohem_kept=0.5)
  of_softmax = (losses.softmax_cross_entropy, partial(losses.softmax_cross_entropy, **options))
  of_regions = (losses.soft_dice, losses.soft_tversky, losses.lovasz_softmax)
  for loss, shape in (
    *((loss, (1, 2, 2, 3)) for loss in of_softmax),
    (losses.sigmoid_cross_entropy, (1, 2, 2)),
    *((loss, (1, 2, 2, 3)) for loss in of_regions if not np.isnan(void_logit)),
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


def test_label_smoothing_by_hand():
  """Targets (1/10, 9/10) and (9/10, 1/10), weighted by their true class; the third pixel is void."""
  logits = jnp.asarray([[[[0.0, LOG(3)], [LOG(2), 0.0], [7.0, 0.0]]]], jnp.float32)
  label = jnp.asarray([[[1, 0, VOID]]], jnp.uint8)

  def loss(logits):
    return losses.softmax_cross_entropy(
      logits, label, class_weights=(5.0, 3.0), label_smoothing=0.2
    )

  (total, weight), gradient = value_and_grad(loss, has_aux=True)(logits)
  first, second = 0.9 * LOG(4 / 3) + 0.1 * LOG(4), 0.9 * LOG(3 / 2) + 0.1 * LOG(3)
  np.testing.assert_allclose(total, 3 * first + 5 * second, rtol=1e-6)
  assert weight == 3 + 5
  slope = 5 * (2 / 3 - 0.9)
  np.testing.assert_allclose(gradient[0, 0], [[0.45, -0.45], [slope, -slope], [0, 0]], rtol=1e-5)


def test_focal_by_hand():
  """p = 3/4 and 2/3: d/dx of -(1-p)^2 log p is p (1-p) (2 (1-p) log p - (1-p)^2 / p) for the true class."""
  logits, label = two_pixels()
  loss = partial(losses.softmax_cross_entropy, focal_gamma=2.0)
  (total, weight), gradient = value_and_grad(lambda x: loss(x, label), has_aux=True)(logits)
  np.testing.assert_allclose(total, LOG(4 / 3) / 16 + LOG(3 / 2) / 9, rtol=1e-5)
  assert weight == 2  # the pixels, whatever they are multiplied by
  first = 3 / 16 * (-LOG(4 / 3) / 2 - 1 / 12)
  second = 2 / 9 * (-2 / 3 * LOG(3 / 2) - 1 / 6)
  np.testing.assert_allclose(gradient[0, 0], [[-first, first], [second, -second]], rtol=1e-5)


def test_focal_of_a_sure_pixel_has_a_finite_gradient():
  label = jnp.zeros((1, 1, 1), jnp.uint8)
  loss = lambda x: losses.softmax_cross_entropy(x, label, focal_gamma=0.5)[0]  # noqa: E731
  total, gradient = value_and_grad(loss)(jnp.asarray([[[[99.0, 0.0]]]]))
  assert total == 0
  np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_hard_pixels_by_hand():
  """True classes have 3/4, 1/2, 1/5 (and void) in the first image, 3/4, 4/5, 3/4, 3/4 in the second."""
  p = np.array([[[3 / 4, 1 / 2, 1 / 5, 1 / 9]], [[3 / 4, 4 / 5, 3 / 4, 3 / 4]]])
  logits = jnp.asarray(LOG(np.stack([p, 1 - p], axis=-1)), jnp.float32)
  label = jnp.asarray([[[0, 0, 0, VOID]], [[0, 0, 0, 0]]], jnp.uint8)

  def hard(**options):
    loss = partial(losses.softmax_cross_entropy, label=label, ohem=0.6, **options)
    return value_and_grad(lambda x: loss(x), has_aux=True)(logits)

  (total, weight), gradient = hard()
  np.testing.assert_allclose(total, LOG(2) + LOG(5), rtol=1e-6)
  assert weight == 2
  np.testing.assert_allclose(gradient[0, 0], [[0, 0], [-0.5, 0.5], [-0.8, 0.8], [0, 0]], rtol=1e-6)
  np.testing.assert_array_equal(gradient[1], 0)
  # A quarter of four is one, and three tie; a quarter of three is one, and two are hard already.
  (total, weight), gradient = hard(ohem_kept=0.25)
  np.testing.assert_allclose(total, LOG(2) + LOG(5) + 3 * LOG(4 / 3), rtol=1e-5)
  assert weight == 2 + 3
  np.testing.assert_array_equal(np.any(gradient != 0, axis=-1)[1, 0], [True, False, True, True])
  # Of the pixels that have a weight: here none of the first class.
  assert hard(ohem_kept=0.25, class_weights=(0.0, 1.0))[0][1] == 0


def test_tversky_by_hand():
  """Class 0 of both pixels: TP = 3/4, FP = FN = 1/4; and so has class 1."""
  logits = jnp.asarray([[[[LOG(3), 0.0], [0.0, LOG(3)]]]], jnp.float32)
  total, count = losses.soft_tversky(logits, jnp.asarray([[[0, 1]]], jnp.uint8), alpha=2, beta=1)
  np.testing.assert_allclose(total, 2 * (1 - 0.75 / (0.75 + 2 / 4 + 1 / 4)), rtol=1e-5)
  assert count == 2


def test_tversky_gradient_by_hand():
  """One pixel of class 0, p = 3/4: p / (p + 0.7 (1 - p)) rises by 0.7 / (p + 0.7 (1 - p))^2; class 1 has 0."""
  label = jnp.zeros((1, 1, 1), jnp.uint8)
  logits = jnp.asarray([[[[LOG(3), 0.0]]]], jnp.float32)
  total, gradient = value_and_grad(lambda x: losses.soft_tversky(x, label)[0])(logits)
  np.testing.assert_allclose(total, 1 - 0.75 / 0.925 + 1, rtol=1e-4)
  slope = 0.7 / 0.925**2 * 3 / 16
  np.testing.assert_allclose(gradient[0, 0, 0], [-slope, slope], rtol=1e-3)


def test_lovasz_by_hand():
  """p(1) = 3/4, 1/2, 1/5 with truth 1, 0, 1: errors 1/4, 1/2, 4/5 of either class.

  In falling order class 1 loses a hit, gains a false one, loses a hit: its Jaccard loss goes 1/2, 2/3, 1;
  class 0 gains a false one, loses its only hit, gains another: 1/2, 1, 1. Class 2 is not there.
  """
  p = np.array([[0.75, 0.5, 0.2, 0.9]])
  logits = np.stack([LOG(1 - p), LOG(p), np.full_like(p, -40.0)], axis=-1)[None]
  label = jnp.asarray([[[1, 0, 1, VOID]]], jnp.uint8)
  loss = lambda x: losses.lovasz_softmax(x, label)  # noqa: E731
  (total, count), gradient = value_and_grad(loss, has_aux=True)(jnp.asarray(logits, jnp.float32))
  class_1 = 0.8 * 1 / 2 + 0.5 * 1 / 6 + 0.25 * 1 / 3
  class_0 = 0.8 * 1 / 2 + 0.5 * 1 / 2
  np.testing.assert_allclose(total, (class_0 + class_1) / 2, rtol=1e-6)
  assert count == 1
  by_p = np.array([-1 / 3 - 0, 1 / 6 + 1 / 2, -1 / 2 - 1 / 2, 0]) / 2
  slopes = by_p * [3 / 16, 1 / 4, 4 / 25, 0]
  np.testing.assert_allclose(gradient[0, 0, :, 1], slopes, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(gradient[0, 0, :, 0], -slopes, rtol=1e-5, atol=1e-7)


def in_numpy(logits, label, weights, options):
  """Softmax cross-entropy with all options, pixel by pixel in float64."""
  total = divisor = 0.0
  for image, truth in zip(logits, label, strict=True):
    pixels = []  # -log p, term, weight
    for x, t in zip(image.reshape(-1, image.shape[-1]), truth.ravel(), strict=True):
      if t < len(x):
        log_p = x - LOG(np.exp(x).sum())
        s, gamma = options.get('label_smoothing', 0.0), options.get('focal_gamma', 0.0)
        term = -((1 - s) * log_p[t] + s * log_p.mean()) * (1 - np.exp(log_p[t])) ** gamma
        pixels.append((-log_p[t], term, weights[t]))
    pixels.sort(reverse=True)
    kept = int(np.ceil(options.get('ohem_kept', 0) * len(pixels)))
    least = -LOG(options['ohem']) if 'ohem' in options else -np.inf
    for i, (nll, term, weight) in enumerate(pixels):
      if i < kept or nll > least:
        total, divisor = total + weight * term, divisor + weight
  return total, divisor


def regions_in_numpy(logits, label, of_class):
  """Returns of_class(p [n], t [n]) of the valid pixels, [images, classes], and which classes are there."""
  values, there = [], []
  for image, truth in zip(logits, label, strict=True):
    x, t = image[truth != VOID], truth[truth != VOID]
    p = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    values.append([of_class(p[:, c], t == c) for c in range(p.shape[1])])
    there.append([(t == c).any() for c in range(p.shape[1])])
  return np.array(values), np.array(there)


def lovasz_in_numpy(logits, label):
  """The Jaccard loss of growing sets of wrong pixels, set by set."""

  def of_class(p, t):
    errors, total, before, wrong = np.abs(t - p), 0.0, 0.0, set()
    truth = set(np.flatnonzero(t))
    for i in np.argsort(-errors, kind='stable'):
      wrong |= {i}
      now = 1 - len(truth - wrong) / len(truth | wrong)
      total, before = total + errors[i] * (now - before), now
    return total

  values, there = regions_in_numpy(logits, label, of_class)
  return (values * there).sum(axis=1) @ (1 / there.sum(axis=1)), len(label)


def tversky_in_numpy(logits, label):
  def of_class(p, t):
    hits, false, missed = p[t].sum(), p[~t].sum(), (1 - p[t]).sum()
    return 1 - (hits + 1e-6) / (hits + 0.6 * false + 1.2 * missed + 1e-6)

  values, _ = regions_in_numpy(logits, label, of_class)
  return values.sum(), values.size


OPTIONS = (
  dict(label_smoothing=0.1),
  dict(focal_gamma=1.5),
  dict(ohem=0.4, ohem_kept=0.5),
  dict(label_smoothing=0.2, focal_gamma=0.5, ohem=0.3, ohem_kept=0.25),
)
WEIGHTS = (1.0, 2.0, 0.5)
BESIDE_NUMPY = [
  *(
    (
      partial(losses.softmax_cross_entropy, class_weights=WEIGHTS, **options),
      partial(in_numpy, weights=WEIGHTS, options=options),
    )
    for options in OPTIONS
  ),
  (partial(losses.soft_tversky, alpha=0.6, beta=1.2), tversky_in_numpy),
  (losses.lovasz_softmax, lovasz_in_numpy),
]


@pytest.mark.parametrize(('loss', 'reference'), BESIDE_NUMPY)
def test_values_and_slopes_beside_numpy(loss, reference):
  """Two images with void, the second without the last class; slopes by central differences."""
  rng = np.random.default_rng(5)
  logits, label = rng.normal(0, 2, (2, 4, 5, 3)), rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
  label[rng.random(label.shape) < 0.2] = VOID
  label[1][label[1] == 2] = 1
  (total, weight), gradient = value_and_grad(lambda x: loss(x, jnp.asarray(label)), has_aux=True)(
    jnp.asarray(logits, jnp.float32)
  )
  np.testing.assert_allclose([total, weight], reference(logits, label), rtol=1e-5)
  slopes = np.zeros_like(logits)
  for place in np.ndindex(logits.shape):
    step = np.zeros_like(logits)
    step[place] = 1e-6
    rise = reference(logits + step, label)[0] - reference(logits - step, label)[0]
    slopes[place] = rise / 2e-6
  np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-5)


def test_weights_of_many_pixels_are_counted_exactly():
  label = jnp.zeros((5, 2048, 2048), jnp.uint8)  # 20,971,520 ones: more than float32 counts by ones
  weight = jax.jit(lambda label: losses.softmax_cross_entropy(jnp.zeros(label.shape + (1,)), label))
  assert weight(label)[1] == 5 * 2048 * 2048
