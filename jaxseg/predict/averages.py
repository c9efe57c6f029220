"""Test-time averaging: functions that wrap a prediction and return an averaged one.

On the device, a network maps uint8 images and a key to probabilities [b, h, w, k]; `with_samples`
adds k channels, the Monte-Carlo variances. On the host, a prediction maps one image to such maps.
Everything is linear in the maps, so tiles, flips, scales and rotations treat the variance like a
probability: the result is the variance within a view, averaged over the views.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import cv2
import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import geometry
from jaxseg.data.geometry import Size
from jaxseg.metrics.confidence import entropy
from jaxseg.predict.options import Options
from jaxseg.types import Array, UserError

# (variables, uint8 [b, H, W, c], key, size of the canvas) -> float32 [b, *size, k]
Network = Callable[[dict, Array, Array, Size], Array]
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, c] -> float32 [h, w, k]


@dataclasses.dataclass(frozen=True)
class Band:
  """Finished rows of a prediction, from row `top` on.

  Attributes:
    mask: uint8 [rows, w].
    maps: float32 [rows, w, k], class probabilities, followed by the variances of the sampled
      probabilities if there are samples.
    num_classes: k without the variances.
  """

  top: int
  mask: np.ndarray
  maps: np.ndarray
  num_classes: int

  @classmethod
  def of_maps(cls, top: int, maps: np.ndarray, num_classes: int) -> Band:
    """Returns a band whose mask is each pixel's most probable class."""
    mask = np.argmax(maps[..., :num_classes], axis=-1).astype(np.uint8)
    return cls(top, mask, maps, num_classes)

  @property
  def probabilities(self) -> np.ndarray:
    return self.maps[..., : self.num_classes]

  @property
  def variance(self) -> np.ndarray | None:
    sampled = self.maps.shape[-1] > self.num_classes
    return self.maps[..., self.num_classes :] if sampled else None

  @property
  def uncertainty(self) -> np.ndarray:
    """Returns float32 [rows, w]: the samples' variance, averaged over the classes, else the entropy.

    The entropy is in nats, at most log k.
    """
    if self.variance is not None:
      return self.variance.mean(axis=-1)
    return entropy(self.probabilities)


def make_network(model, task, preprocess: Callable, options: Options) -> Network:
  """Makes the network with the averaging that runs on the device: samples and the flip.

  Args:
    model: maps (image, train) to outputs.
    task: predicts probabilities from outputs resized to the canvas.
    preprocess: maps uint8 images to the model's float images.
    options: `samples`, `flip` and `flip_by` are used.
  """
  dropout = {'dropout': True} if options.samples else {}
  adds_logits = options.flip and options.flip_by == 'logits'

  def network(variables: dict, image: Array, key: Array, size: Size) -> Array:
    def run(image: Array) -> dict:
      rngs = {'dropout': key}
      return model.apply(variables, preprocess(image), train=False, rngs=rngs, **dropout)

    outputs = run(image)
    if adds_logits:
      mirrored = run(image[:, :, ::-1])
      outputs = {**outputs, 'logits': outputs['logits'] + mirrored['logits'][:, :, ::-1]}
    return task.predict(outputs, size, maps=True)['probabilities']

  sampled = with_samples(network, options.samples) if options.samples else network
  return with_flip(sampled) if options.flip and not adds_logits else sampled


def with_flip(network: Network) -> Network:
  """Averages the prediction with that of the horizontally mirrored image, mirrored back."""

  def flipped(variables: dict, image: Array, key: Array, size: Size) -> Array:
    upright = network(variables, image, key, size)
    mirrored = network(variables, image[:, :, ::-1], jax.random.fold_in(key, 1), size)
    return (upright + mirrored[:, :, ::-1]) / 2

  return flipped


def with_samples(network: Network, count: int) -> Network:
  """Monte-Carlo dropout (Bayesian SegNet, arXiv:1511.02680): mean and variance of `count` passes.

  Returns:
    A network of 2 k channels: mean probabilities, and the (biased) variance of each.
  """

  def sampled(variables: dict, image: Array, key: Array, size: Size) -> Array:
    def add(carry, inputs):  # Welford's algorithm avoids cancellation
      (mean, squares), (number, key) = carry, inputs
      sample = network(variables, image, key, size)
      new_mean = mean + (sample - mean) / number
      return (new_mean, squares + (sample - mean) * (sample - new_mean)), None

    keys = jax.random.split(key, count)
    shape = jax.eval_shape(lambda: network(variables, image, keys[0], size)).shape
    zeros = jnp.zeros(shape, jnp.float32)
    numbers = jnp.arange(1, count + 1, dtype=jnp.float32)
    (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (numbers, keys))
    return jnp.concatenate([mean, squares / count], axis=-1)

  return sampled


def check_dropout(model, variables: dict, channels: int) -> None:
  """Raises UserError for a network without dropout."""
  side = model.size_rule.at_least(64)
  image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)

  def without_key(variables, image):
    return model.apply(variables, image, train=False, dropout=True)

  try:
    jax.eval_shape(without_key, variables, image)
  except flax.errors.InvalidRngError:
    return  # dropout asked for a key
  raise UserError(
    'samples: this network has no dropout to draw from; train one with, as '
    'configs/segnet_camvid.py:bayesian'
  )


def over_rotations(predict: Predict, count: int) -> Predict:
  """Averages over `count` rotations of the image in steps of 360 / count degrees, each rotated back.

  U-Net's result on the EM data is "averaged over 7 rotated versions of the input" (arXiv:1505.04597,
  section 4); the paper does not give the angles, so here they are evenly spaced. The image is padded by
  reflection to a square of its diagonal, so nothing is cut off; both rotations are bilinear.
  """

  def average(image: np.ndarray) -> np.ndarray:
    total = predict(image)
    for turn in range(1, count):
      angle = 360 * turn / count
      square, image_area = _square(image)
      back = _rotate(predict(_rotate(square, angle)), -angle)
      total = total + back[image_area]
    return total / np.float32(count)

  return average


def _square(image: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
  """Pads an image by reflection to a square that holds it at any angle; returns its slices too."""
  height, width = image.shape[:2]
  side = math.ceil(math.hypot(height, width))
  top, left = (side - height) // 2, (side - width) // 2
  square = geometry.mirror_array(image, top, side - height - top, left, side - width - left)
  return square, (slice(top, top + height), slice(left, left + width))


def _rotate(array: np.ndarray, degrees: float) -> np.ndarray:
  """Rotates a square array [n, n, k] about its centre, clockwise; reflects at the borders."""
  centre = (array.shape[0] - 1) / 2
  matrix = cv2.getRotationMatrix2D((centre, centre), degrees, 1.0)
  return geometry.affine({'image': array}, matrix, None)['image']
