"""Averages at test time, each a function that takes a prediction and returns a better one.

On the device, a network maps uint8 images and a key to probabilities [b, h, w, k]; `with_samples`
adds a channel, the Monte-Carlo variance. On the host, a prediction maps one image to such a map.
Everything is linear in the maps, so the variance travels through tiles, flips, scales and rotations
like a probability: it is that within a view, averaged over the views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.pipeline import geometry
from jaxseg.train.step import at_size
from jaxseg.types import Array, UserError

Size = tuple[int, int]
# (variables, uint8 [b, H, W, c], key, size) -> float32 [b, *size, k]; size None: as the logits come
Network = Callable[[dict, Array, Array, Size | None], Array]
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, c] -> float32 [h, w, k]


def make_network(model, task, preprocess: Callable, *, dropout: bool | None = None) -> Network:
  """Makes the plain network: probabilities, the logits resized to `size` beforehand.

  Args:
    model: maps (image, train) to outputs.
    task: turns logits into probabilities.
    preprocess: maps uint8 images to the model's float images.
    dropout: True keeps dropout on, drawn from the key.
  """

  def network(variables: dict, image: Array, key: Array, size: Size | None) -> Array:
    outputs = model.apply(
      variables, preprocess(image), train=False, dropout=dropout, rngs={'dropout': key}
    )
    logits = outputs['logits']
    return task.probabilities({'logits': at_size(logits, size or logits.shape[1:3])})

  return network


def with_flip(network: Network) -> Network:
  """The mean of the image and of the image mirrored left to right, mirrored back."""

  def flipped(variables: dict, image: Array, key: Array, size: Size | None) -> Array:
    there = network(variables, image, key, size)
    back = network(variables, image[:, :, ::-1], jax.random.fold_in(key, 1), size)
    return (there + back[:, :, ::-1]) / 2

  return flipped


def with_samples(network: Network, count: int) -> Network:
  """Monte-Carlo dropout (Bayesian SegNet, arXiv:1511.02680): mean and variance of `count` passes.

  Returns:
    A network of k + 1 channels: the mean probabilities, and the (biased) variance of each class's
    probability, averaged over the classes.
  """

  def sampled(variables: dict, image: Array, key: Array, size: Size | None) -> Array:
    def add(carry, inputs):  # Welford: no difference of large numbers
      (mean, squares), (number, key) = carry, inputs
      sample = network(variables, image, key, size)
      new_mean = mean + (sample - mean) / number
      return (new_mean, squares + (sample - mean) * (sample - new_mean)), None

    keys = jax.random.split(key, count)
    shape = jax.eval_shape(lambda: network(variables, image, keys[0], size)).shape
    zeros = jnp.zeros(shape, jnp.float32)
    numbers = jnp.arange(1, count + 1, dtype=jnp.float32)
    (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (numbers, keys))
    variance = jnp.mean(squares / count, axis=-1, keepdims=True)
    return jnp.concatenate([mean, variance], axis=-1)

  return sampled


def check_dropout(model, variables: dict, channels: int) -> None:
  """Refuses a network that has nothing to sample. Raises UserError."""
  side = model.size_rule.at_least(max(64, model.size_rule.minimum))
  image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)

  def without_key(variables, image):
    return model.apply(variables, image, train=False, dropout=True)

  try:
    jax.eval_shape(without_key, variables, image)
  except flax.errors.InvalidRngError:
    return  # it asked for random numbers
  raise UserError(
    'samples: this network has no dropout to draw from; train one with, as '
    'configs/segnet_camvid.py:bayesian'
  )


def over_scales(predict: Callable[[np.ndarray, float], np.ndarray], scales: Sequence[float]):
  """Returns the Predict that averages `predict(image, scale)` over the scales."""

  def average(image: np.ndarray) -> np.ndarray:
    return sum(predict(image, scale) for scale in scales) / np.float32(len(scales))

  return average


def over_rotations(predict: Predict, count: int) -> Predict:
  """The mean over `count` rotations of the image by 360 / count degrees, each turned back.

  U-Net's result on the EM data is "averaged over 7 rotated versions of the input" (arXiv:1505.04597,
  section 4); the paper does not say which, so here they are evenly spread. The image is mirrored
  outwards to a square of its diagonal, so nothing is cut off; both turns interpolate bilinearly.
  """

  def average(image: np.ndarray) -> np.ndarray:
    total = predict(image)
    for turn in range(1, count):
      angle = 360 * turn / count
      squared, place = _square(image)
      back = _rotate(predict(_rotate(squared, angle)), -angle)
      total = total + back[place]
    return total / np.float32(count)

  return average


def _square(image: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
  """Mirrors an image outwards to a square that holds it at any angle; returns where it lies."""
  height, width = image.shape[:2]
  side = math.ceil(math.hypot(height, width))
  top, left = (side - height) // 2, (side - width) // 2
  square = geometry.mirror_array(image, top, side - height - top, left, side - width - left)
  return square, (slice(top, top + height), slice(left, left + width))


def _rotate(array: np.ndarray, degrees: float) -> np.ndarray:
  """Turns a square array [n, n, k] about its centre, to the right; borders are mirrored."""
  centre = (array.shape[0] - 1) / 2
  matrix = cv2.getRotationMatrix2D((centre, centre), degrees, 1.0)
  return geometry.affine({'image': array}, matrix, None)['image']
