"""Training augmentation: frozen dataclasses, each `__call__(example, rng) -> example`.

An example is a dict with 'image' [h,w,c] of any c and dtype, 'label' uint8 [h,w] with void 255 and, if
the set has them, 'weight' float32 [h,w] and 'instances' uint16 [h,w] or [h,w,layers]; all are
transformed together (see the table in geometry.py). `rng`, a numpy Generator, is the only source of
randomness.

A config names a class of this file (or of copy_paste.py) in snake_case, as `short_side` for ShortSide, with
its fields as arguments (augment.py). No other list needs an entry.
"""

import dataclasses
import math
import re
from typing import Any, Literal

import cv2
import numpy as np

from jaxseg.config.fields import check_fields, checked, within
from jaxseg.data import geometry
from jaxseg.data.geometry import Example, Fill, Size, size_of
from jaxseg.types import LONGEST, SCALES, VOID, UserError

_TRIES = 10  # to find a window with no dominant class
_GRAY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)


def name_of(transform: type) -> str:
  """Returns a class's name in a config: short_side for ShortSide."""
  return re.sub(r'(?<!^)(?=[A-Z])', '_', transform.__name__).lower()


@dataclasses.dataclass(frozen=True)
class Transform:
  """Base of transforms; checks the ranges of fields, with their config keys in messages."""

  def __post_init__(self):
    check_fields(self, f'config.augment.{name_of(type(self))}')


def _pixels(**options: Any) -> Any:
  allowed = f'(height, width) in pixels, each between 1 and {LONGEST}'
  return checked(lambda size: all(0 < side <= LONGEST for side in size), allowed, **options)


def colour(**options: Any) -> Any:
  allowed = 'one finite value for each channel'
  return checked(lambda v: len(v) and all(map(math.isfinite, v)), allowed, **options)


@dataclasses.dataclass(frozen=True)
class Resize(Transform):
  """Resizes everything to a fixed `size`, or by the factor `scale`; exactly one is given."""

  size: Size | None = _pixels(default=None)
  scale: float | None = within(*SCALES, default=None)

  def __post_init__(self):
    super().__post_init__()
    if (self.size is None) == (self.scale is None):
      raise UserError(
        f'config.augment.resize has size {self.size} and scale {self.scale}: give exactly one'
      )

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    size = self.size or tuple(max(1, round(n * self.scale)) for n in size_of(example))
    return geometry.resize(example, size)


@dataclasses.dataclass(frozen=True)
class ShortSide(Transform):
  """Resizes so that the shorter side is one of `sides`, drawn uniformly, the longer at most `longest`.

  Detectron2's for Mask R-CNN: 640 to 800 in steps of 32, at most 1333.
  """

  sides: tuple[int, ...] = within(1, LONGEST, some=True)
  longest: int = within(1, LONGEST, default=1333)

  def __post_init__(self):
    super().__post_init__()
    if max(self.sides) > self.longest:
      raise UserError(
        f'config.augment.short_side.sides={self.sides}: none above longest={self.longest}'
      )

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    side = self.sides[int(rng.integers(len(self.sides)))]
    return geometry.resize(example, geometry.by_short_side(size_of(example), side, self.longest))


@dataclasses.dataclass(frozen=True)
class Elastic(Transform):
  """Smooth random deformation (U-Net, arXiv:1505.04597, section 3.1); borders are mirrored.

  Displacement vectors are drawn from N(0, sigma) at the centres of `grid` x `grid` tiles of the image,
  and interpolated bicubically.

  Attributes:
    sigma: standard deviation of the displacement, in pixels (the paper's 10).
    grid: nodes along each side (the paper's 3).
  """

  sigma: float = within(0, LONGEST, default=10.0)
  grid: int = within(1, 100, default=3)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = size_of(example)
    coarse = rng.normal(0, self.sigma, (2, self.grid, self.grid)).astype(np.float32)
    columns, rows = (
      cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse
    )
    columns += np.arange(width, dtype=np.float32)
    rows += np.arange(height, dtype=np.float32)[:, None]
    return geometry.remap(example, columns, rows)


@dataclasses.dataclass(frozen=True)
class Rotate(Transform):
  """Rotates about the image's centre by U[-degrees, degrees], keeping the size.

  Corners from outside the image have `fill`, void and weight 0, or if `fill` is None the mirrored
  image and label. Only a fraction `share` of the images is rotated.
  """

  degrees: float = within(0, 180)
  fill: Fill | None = colour(default=(0,))
  share: float = within(0, 1, default=1.0)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if self.share < 1 and rng.uniform(0, 1) >= self.share:
      return example
    angle = math.radians(rng.uniform(-self.degrees, self.degrees))
    height, width = size_of(example)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([turn, centre - turn @ centre])
    return geometry.affine(example, matrix, self.fill)


@dataclasses.dataclass(frozen=True)
class Pad(Transform):
  """Centres the image on a larger canvas (the odd pixel goes right and below).

  Attributes:
    size: height and width of the canvas.
    fill: colour of the padding.
    label: of the padding: void, or a class if the recipe counts it as one.
  """

  size: Size = _pixels()
  fill: Fill = colour(default=(0,))
  label: int = within(0, 255, default=VOID)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = (want - have for want, have in zip(self.size, size_of(example), strict=True))
    if min(height, width) < 0:
      raise UserError(
        f'an image of {size_of(example)} pixels does not fit on config.augment.pad.size={self.size}: '
        'make that larger, or resize or crop to at most that before'
      )
    top, left = height // 2, width // 2
    return geometry.pad(example, top, height - top, left, width - left, self.fill, label=self.label)


@dataclasses.dataclass(frozen=True)
class Crop(Transform):
  """Crops a window at a random position, then resizes it to a fixed size.

  An image smaller than the window is placed at a random position, padded with void.

  Attributes:
    size: height and width of the result, in pixels.
    scale: range of the uniform factor; (0.5, 2.0) shows objects at half to twice their size.
    fill: colour outside the image.
    mirror: pixels of the result by which windows may extend beyond the image; there the image is
      mirrored, the label void. For networks that lose a margin: U-Net's 572 x 572 windows of
      512 x 512 images need 92 (arXiv:1505.04597, figure 2).
    most: largest fraction of a window's labelled pixels that one class may have; other windows are
      redrawn, at most ten times. 1: no limit.
    turned: tall images get a tall window, `size` with its sides swapped, and batches of their own, for
      less padding (as Detectron2 groups images).
  """

  size: Size = _pixels()
  scale: tuple[float, float] = checked(
    lambda v: SCALES[0] <= v[0] <= v[1] <= SCALES[1],
    f'(lowest, highest) factors between {SCALES[0]} and {SCALES[1]}',
    default=(1.0, 1.0),
  )
  fill: Fill = colour(default=(0,))
  mirror: int = within(0, LONGEST, default=0)
  turned: bool = False
  most: float = within(0, 1, default=1.0)

  def kind(self, size: Size) -> int:
    """Returns 1 for an image that gets the swapped window, else 0."""
    return int(self.turned and size[0] > size[1])

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    scale = rng.uniform(*self.scale)
    size = self.size[::-1] if self.kind(size_of(example)) else self.size
    window = [max(1, round(side / scale)) for side in size]
    if self.mirror:
      example = geometry.mirror(example, *[round(self.mirror / scale)] * 4)
    spare = [have - need for have, need in zip(size_of(example), window, strict=True)]
    for _ in range(1 if self.most == 1 else _TRIES):
      start = [int(rng.integers(min(s, 0), max(s, 0), endpoint=True)) for s in spare]
      if self.most == 1 or self._is_mixed(example['label'], start, window):
        break
    return geometry.cut(example, start, window, size, self.fill)

  def _is_mixed(self, label: np.ndarray, start: list[int], window: list[int]) -> bool:
    rows, columns = (slice(max(0, a), a + n) for a, n in zip(start, window, strict=True))
    counts = np.bincount(label[rows, columns].ravel(), minlength=VOID + 1)[:VOID]
    return 0 < counts.max() <= self.most * counts.sum()


@dataclasses.dataclass(frozen=True)
class MirrorBorder(Transform):
  """Pads each side by `pixels`: the image mirrored, the label void, the weight 0."""

  pixels: int = within(1, LONGEST)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.mirror(example, *[self.pixels] * 4)


@dataclasses.dataclass(frozen=True)
class Sides(Transform):
  """Crops each side of the image by U[0, amount] of its length and resizes back.

  0.3 is NVIDIA's U-Net recipe for ISBI 2012 (DeepLearningExamples, UNet_Medical).

  Attributes:
    labels: how these are resized, see geometry.resize_label.
  """

  amount: float = within(0, 0.45)
  labels: Literal['nearest', 'shares'] = 'nearest'

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = size_of(example)
    top, bottom, left, right = rng.uniform(0, self.amount, 4) * (height, height, width, width)
    top, left = round(top), round(left)
    rows = max(1, round(height - bottom) - top)
    columns = max(1, round(width - right) - left)
    part = geometry.crop(example, top, left, rows, columns)
    return geometry.resize(part, (height, width), self.labels)


@dataclasses.dataclass(frozen=True)
class Flip:
  """Flips left-right if `horizontal` and top-bottom if `vertical`, each with probability 1/2."""

  horizontal: bool = True
  vertical: bool = False

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    coins = rng.random(2) < 0.5  # always two draws, so that one option does not affect the other
    return geometry.flip(example, self.horizontal and coins[0], self.vertical and coins[1])


@dataclasses.dataclass(frozen=True)
class Rotate90:
  """Rotates by 0, 90, 180 or 270 degrees with equal probability."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.rotate90(example, int(rng.integers(4)))


@dataclasses.dataclass(frozen=True)
class Photometric(Transform):
  """Changes brightness, contrast and saturation together, rounding once at the end.

  Attributes:
    brightness: the image is multiplied by 1 + U[-brightness, brightness].
    contrast: distances from the image's mean gray are multiplied by 1 + U[-contrast, contrast].
    saturation: distances from each pixel's gray likewise; only for three channels, RGB.
    shift: U[-shift, shift] of the full range is added (NVIDIA's U-Net recipe: 0.1).
    black, white: the range, one value or one per channel: 0 and 255 for 8 bits; for other dtypes two
      standard deviations below and above the mean in config.data.
  """

  brightness: float = within(0, 1, default=0.0)
  contrast: float = within(0, 1, default=0.0)
  saturation: float = within(0, 1, default=0.0)
  shift: float = within(0, 1, default=0.0)
  black: Fill = colour(default=(0.0,))
  white: Fill = colour(default=(255.0,))

  def __post_init__(self):
    super().__post_init__()
    alike = len(self.black) == len(self.white) or 1 in (len(self.black), len(self.white))
    if not alike or np.any(np.less_equal(self.white, self.black)):
      raise UserError(
        f'config.augment.photometric has black {self.black} and white {self.white}: give white above '
        'black, for all channels or each'
      )

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    draws = rng.uniform(-1, 1, 4) * (self.brightness, self.contrast, self.saturation, self.shift)
    gain, contrast, saturation = 1 + draws[:3]
    image, shift = example['image'], draws[3]
    channels = image.shape[2]
    black, span = (
      np.broadcast_to(np.asarray(side, np.float64), channels)
      for side in (self.black, np.subtract(self.white, self.black))
    )
    small = channels <= 4  # OpenCV's limit
    means = cv2.mean(image)[:channels] if small else image.mean(axis=(0, 1), dtype=np.float64)
    means = (means - black) / span  # in units with black 0 and white 1
    mean = np.dot(_GRAY, means) if channels == 3 else means.mean()
    scale = gain * contrast
    offsets = contrast * shift + (1 - contrast) * (gain * mean + shift)
    mix = np.eye(channels)
    if channels == 3:
      mix = saturation * mix + (1 - saturation) * np.tile(_GRAY, (3, 1))
    mix = scale * span[:, None] * mix / span  # back in the image's units
    offsets = offsets * span + black - mix @ black
    return {**example, 'image': _mixed(image, mix, offsets)}


def _mixed(image: np.ndarray, mix: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Returns mix [c, c] @ each pixel + offsets [c], rounded and clipped to the image's dtype."""
  scale = mix[0, 0]
  if (mix != scale * np.eye(len(mix))).any():
    return cv2.transform(image, np.column_stack([mix, offsets]).astype(np.float32))
  if (offsets == offsets[0]).all():
    return cv2.addWeighted(image, scale, image, 0, offsets[0]).reshape(image.shape)
  planes = zip(np.moveaxis(image, -1, 0), offsets, strict=True)
  return np.dstack([cv2.addWeighted(plane, scale, plane, 0, offset) for plane, offset in planes])


@dataclasses.dataclass(frozen=True)
class Blur(Transform):
  """Blurs a fraction of the images by a 5x5 Gaussian of sigma 1.1 (PSPNet, hszhao/semseg)."""

  share: float = within(0, 1)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.uniform(0, 1) >= self.share:
      return example
    image = example['image']
    return {**example, 'image': cv2.GaussianBlur(image, (5, 5), 1.1).reshape(image.shape)}
