"""Options of a prediction, and its averages: functions that take a prediction and return a better one.

On the device, a network maps uint8 images and a key to probabilities [b, h, w, k]; `with_samples`
adds k channels, the Monte-Carlo variances. On the host, a prediction maps one image to such maps.
Everything is linear in the maps, so the variance travels through tiles, flips, scales and rotations
like a probability: it is that within a view, averaged over the views.
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
from jaxseg.types import Array, UserError

MAX_PIXELS = 1 << 22  # of a network's input, 2048 x 2048: larger ones go in tiles

# (variables, uint8 [b, H, W, c], key, size of the canvas) -> float32 [b, *size, k]
Network = Callable[[dict, Array, Array, Size], Array]
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, c] -> float32 [h, w, k]


@dataclasses.dataclass(frozen=True)
class Options:
  """What is averaged, and what an image is cut into. The defaults are one plain pass.

  Attributes:
    scales: of the image; (): the config's eval.scales.
    flip: also the image mirrored left to right.
    rotations: also the image turned, in all this many times (U-Net's 7); 1 is off.
    samples: passes with dropout on, 0 is off.
    tile: input size (height, width) of the network; None: whole images up to `max_pixels`.
    tile_step: distance between tiles; None: that of tiles.make_tiling.
    multiple: output sizes are rounded up to it, so that images of many sizes share few programs; 0
      leaves the choice to the prediction job, and elsewhere to the config, see data.frame.
      What is added lies right and below. A network with a margin predicts the same within the image;
      one that pads has more of the fill colour there in place of its own zero padding, and
      differs only where its receptive field reaches the border.
    max_pixels: of a network's input, from which on tiles are used.
  """

  scales: tuple[float, ...] = ()
  flip: bool = False
  rotations: int = 1
  samples: int = 0
  tile: tuple[int, int] | None = None
  tile_step: tuple[int, int] | None = None
  multiple: int = 0
  max_pixels: int = MAX_PIXELS

  def __post_init__(self):
    if any(not 0 < scale <= 16 for scale in self.scales):
      raise UserError(f'scales={self.scales}: factors above 0, at most 16')
    for name, least in (('rotations', 1), ('samples', 0), ('multiple', 0), ('max_pixels', 1)):
      if getattr(self, name) < least:
        raise UserError(f'{name}={getattr(self, name)}: {least} or more')
    if self.tile_step and not self.tile:
      raise UserError('tile_step needs a tile')

  @property
  def is_one_pass(self) -> bool:
    """Whether nothing is averaged or cut, but for images that are too large."""
    averaged = len(self.scales) > 1 or self.flip or self.rotations > 1 or self.samples
    return not (averaged or self.tile)

  def describe(self) -> str:
    """Returns what differs from one plain pass, in words; '' where nothing does."""
    parts = [
      f'scales {", ".join(f"{s:g}" for s in self.scales)}' if len(self.scales) > 1 else '',
      f'scale {self.scales[0]:g}' if len(self.scales) == 1 and self.scales[0] != 1 else '',
      'flip' if self.flip else '',
      f'{self.rotations} rotations' if self.rotations > 1 else '',
      f'{self.samples} samples' if self.samples else '',
      f'tiles of {self.tile[0]}x{self.tile[1]}' if self.tile else '',
      f'every {self.tile_step[0]}x{self.tile_step[1]}' if self.tile_step else '',
    ]
    return ', '.join(filter(None, parts))


@dataclasses.dataclass(frozen=True)
class Band:
  """Finished rows of a prediction, `top` being the first.

  Attributes:
    mask: uint8 [rows, w].
    maps: float32 [rows, w, k], the probabilities of the classes, and behind them the variances of the
      samples' probabilities where any were drawn.
    num_classes: k without the variances.
  """

  top: int
  mask: np.ndarray
  maps: np.ndarray
  num_classes: int

  @classmethod
  def of_maps(cls, top: int, maps: np.ndarray, num_classes: int) -> Band:
    """Returns the rows with the likeliest class of each pixel."""
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
    p = self.probabilities
    return -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=-1)


def make_network(model, task, preprocess: Callable, options: Options) -> Network:
  """Makes the network with what of the options happens on the device: samples and the flip.

  Args:
    model: maps (image, train) to outputs.
    task: has maps; its probabilities are those of outputs resized to the canvas.
    preprocess: maps uint8 images to the model's float images.
    options: see above.
  """
  dropout = {'dropout': True} if options.samples else {}

  def network(variables: dict, image: Array, key: Array, size: Size) -> Array:
    rngs = {'dropout': key}
    outputs = model.apply(variables, preprocess(image), train=False, rngs=rngs, **dropout)
    return task.predict(outputs, size, maps=True)['probabilities']

  sampled = with_samples(network, options.samples) if options.samples else network
  return with_flip(sampled) if options.flip else sampled


def with_flip(network: Network) -> Network:
  """The mean of the image and of the image mirrored left to right, mirrored back."""

  def flipped(variables: dict, image: Array, key: Array, size: Size) -> Array:
    there = network(variables, image, key, size)
    back = network(variables, image[:, :, ::-1], jax.random.fold_in(key, 1), size)
    return (there + back[:, :, ::-1]) / 2

  return flipped


def with_samples(network: Network, count: int) -> Network:
  """Monte-Carlo dropout (Bayesian SegNet, arXiv:1511.02680): mean and variance of `count` passes.

  Returns:
    A network of 2 k channels: the mean probabilities, and the (biased) variance of each class's.
  """

  def sampled(variables: dict, image: Array, key: Array, size: Size) -> Array:
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
    return jnp.concatenate([mean, squares / count], axis=-1)

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
      square, image_area = _square(image)
      back = _rotate(predict(_rotate(square, angle)), -angle)
      total = total + back[image_area]
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
