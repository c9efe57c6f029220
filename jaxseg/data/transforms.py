"""Training augmentation: frozen dataclasses, each `__call__(example, rng) -> example`.

An example is a dict with 'image' uint8 [h,w,c] (any c), 'label' uint8 [h,w] with void 255 and, where
the set has them, 'weight' float32 [h,w] and 'instances' uint16 [h,w] or [h,w,layers]; all move
together (the table is in geometry.py). `rng` is a numpy Generator; everything random comes from it.

A config names a class of this file by its name in snake_case, as `short_side` for ShortSide, and
gives its fields as arguments; a name with a dot is a class of your own. Nothing else lists them.
"""

import dataclasses
import importlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from jaxseg.config import parts
from jaxseg.config.fields import check_fields, checked, within
from jaxseg.data import geometry
from jaxseg.data.geometry import Example, Fill, Size, size_of
from jaxseg.types import LONGEST, SCALES, VOID, UserError

_GRAY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)


def make_transforms(steps: Iterable[tuple[str, Mapping[str, Any]]], fill: Fill = (0,)) -> tuple:
  """Builds the transforms that a config names, in its order.

  Args:
    steps: (name, arguments) of each.
    fill: colour beside the image, 0..255, one value or one for each channel; for those that have a
      field of this name and are not given another.

  Raises:
    UserError: no such transform or argument, or a value of the wrong type or out of its range.
  """
  made = []
  for name, options in steps:
    transform, where = _find(name), f'config.augment.{name}'
    values = parts.arguments(transform, options, where)
    if 'fill' in parts.parameters(transform):
      values.setdefault('fill', fill)
    made.append(transform(**values))
  _check_quarter_turns(made)
  return tuple(made)


def _find(name: str) -> type:
  """Returns a class by its name in a config. Raises UserError where there is none."""
  if '.' in name:
    module, _, own = name.rpartition('.')
    try:
      return getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError) as error:
      raise UserError(
        f'transform {name!r} cannot be imported ({error}): give a class on the Python path'
      ) from error
  here = (c for c in globals().values() if dataclasses.is_dataclass(c) and c is not _Transform)
  known = {_name(transform): transform for transform in here}
  if name not in known:
    hint = parts.did_you_mean(name, known)
    raise UserError(
      f'config.augment.{name}: no such transform; there are {", ".join(sorted(known))}{hint}'
    )
  return known[name]


def _name(transform: type) -> str:
  return re.sub(r'(?<!^)(?=[A-Z])', '_', transform.__name__).lower()  # short_side for ShortSide


def _check_quarter_turns(made: list[Any]) -> None:
  """Turned by 90 degrees, only images of one square size stay a batch, unless all are cut again."""
  turned, size = False, None
  for transform in made:
    own = getattr(transform, 'size', None)
    turned, size = isinstance(transform, Rotate90) or (turned and not own), own or size
  if turned and (size is None or size[0] != size[1]):
    raise UserError(
      f'config.augment.rotate90 needs images of one square size, got {size}: set '
      'config.augment.crop.size=(n, n) before it'
    )


@dataclasses.dataclass(frozen=True)
class _Transform:
  """Base of those whose fields have ranges; messages name their keys in a config."""

  def __post_init__(self):
    check_fields(self, f'config.augment.{_name(type(self))}')


def _pixels(**options: Any) -> Any:
  allowed = f'(height, width) in pixels, each between 1 and {LONGEST}'
  return checked(lambda size: all(0 < side <= LONGEST for side in size), allowed, **options)


def _colour(**options: Any) -> Any:
  allowed = 'one value for each channel, each between 0 and 255'
  return checked(lambda v: len(v) and all(0 <= n <= 255 for n in v), allowed, **options)


@dataclasses.dataclass(frozen=True)
class Resize(_Transform):
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
class ShortSide(_Transform):
  """Resizes so that the shorter side is one of `sides`, drawn evenly, the longer at most `longest`.

  Detectron2's for Mask R-CNN: 640 to 800 by 32, at most 1333.
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
class Elastic(_Transform):
  """Smooth random deformation (U-Net, arXiv:1505.04597, section 3.1); borders are mirrored.

  Displacement vectors drawn from N(0, sigma) on a coarse grid, bicubic between its nodes, which
  are the centres of the image's `grid` x `grid` tiles.

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
class Rotate(_Transform):
  """Turns about the image's centre by U[-degrees, degrees]; the size stays.

  Corners that turn in from outside hold `fill`, void and weight 0, or with `fill` None the
  mirrored image with its mirrored label. Only a `share` of the images is turned.
  """

  degrees: float = within(0, 180)
  fill: Fill | None = _colour(default=(0,))
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
class Pad(_Transform):
  """Centres the image on a larger canvas (the odd pixel goes right and below).

  Attributes:
    size: height and width of the canvas.
    fill: colour of the new ground.
    label: of the new ground: void, or a class where a recipe counts it as one.
  """

  size: Size = _pixels()
  fill: Fill = _colour(default=(0,))
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
class Crop(_Transform):
  """Cuts a window at a random place and resizes it to a fixed size: one crop, then one resize.

  Where the image is smaller than the window it lies at a random place on void ground.

  Attributes:
    size: height and width of the result, in pixels.
    scale: range of the uniform factor; (0.5, 2.0) shows objects at half to twice their size.
    fill: colour beside the image.
    mirror: pixels of the result by which windows may reach over the image's border; there the
      image is mirrored, the label void. For networks that lose a margin: U-Net's 572 x 572 windows
      of 512 x 512 images need 92 (arXiv:1505.04597, figure 2).
  """

  size: Size = _pixels()
  scale: tuple[float, float] = checked(
    lambda v: SCALES[0] <= v[0] <= v[1] <= SCALES[1],
    f'(lowest, highest) factors between {SCALES[0]} and {SCALES[1]}',
    default=(1.0, 1.0),
  )
  fill: Fill = _colour(default=(0,))
  mirror: int = within(0, LONGEST, default=0)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    scale = rng.uniform(*self.scale)
    window = [max(1, round(side / scale)) for side in self.size]
    if self.mirror:
      example = geometry.mirror(example, *[round(self.mirror / scale)] * 4)
    spare = [have - need for have, need in zip(size_of(example), window, strict=True)]
    start = [int(rng.integers(min(s, 0), max(s, 0), endpoint=True)) for s in spare]
    return geometry.cut(example, start, window, self.size, self.fill)


@dataclasses.dataclass(frozen=True)
class MirrorBorder(_Transform):
  """Mirrors the image outwards by `pixels` at each side; there the label is void, the weight 0."""

  pixels: int = within(1, LONGEST)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.mirror(example, *[self.pixels] * 4)


@dataclasses.dataclass(frozen=True)
class Sides(_Transform):
  """Moves each side of the image in by U[0, amount] of its length and resizes back.

  With 0.3 the crop of NVIDIA's U-Net recipe for ISBI 2012 (DeepLearningExamples, UNet_Medical).
  """

  amount: float = within(0, 0.45)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = size_of(example)
    top, bottom, left, right = rng.uniform(0, self.amount, 4) * (height, height, width, width)
    top, left = round(top), round(left)
    rows = max(1, round(height - bottom) - top)
    columns = max(1, round(width - right) - left)
    return geometry.resize(geometry.crop(example, top, left, rows, columns), (height, width))


@dataclasses.dataclass(frozen=True)
class Flip:
  """Swaps left and right where `horizontal`, top and bottom where `vertical`, each in half of all."""

  horizontal: bool = True
  vertical: bool = False

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    coins = rng.random(2) < 0.5  # always two draws: one option does not change the other's luck
    return geometry.flip(example, self.horizontal and coins[0], self.vertical and coins[1])


@dataclasses.dataclass(frozen=True)
class Rotate90:
  """Turns by 0, 90, 180 or 270 degrees with equal probability."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.rotate90(example, int(rng.integers(4)))


@dataclasses.dataclass(frozen=True)
class Photometric(_Transform):
  """Changes brightness, contrast and saturation at once, with one rounding at the end.

  Attributes:
    brightness: the image is multiplied by 1 + U[-brightness, brightness].
    contrast: distances from the image's mean gray are multiplied by 1 + U[-contrast, contrast].
    saturation: distances from each pixel's gray likewise; only where there are three channels, RGB.
    shift: U[-shift, shift] of the full range 255 is added (NVIDIA's U-Net recipe: 0.1).
  """

  brightness: float = within(0, 1, default=0.0)
  contrast: float = within(0, 1, default=0.0)
  saturation: float = within(0, 1, default=0.0)
  shift: float = within(0, 1, default=0.0)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    draws = rng.uniform(-1, 1, 4) * (self.brightness, self.contrast, self.saturation, self.shift)
    gain, contrast, saturation = 1 + draws[:3]
    image, shift = example['image'], 255 * draws[3]
    colour = image.shape[2] == 3
    mean = np.dot(_GRAY, cv2.mean(image)[:3]) if colour else image.mean()
    scale = gain * contrast
    offset = contrast * shift + (1 - contrast) * (gain * mean + shift)
    if colour and self.saturation:
      mix = scale * (saturation * np.eye(3) + (1 - saturation) * np.tile(_GRAY, (3, 1)))
      image = cv2.transform(image, np.column_stack([mix, [offset] * 3]).astype(np.float32))
    else:
      image = cv2.addWeighted(image, scale, image, 0, offset).reshape(image.shape)
    return {**example, 'image': image}


@dataclasses.dataclass(frozen=True)
class Blur(_Transform):
  """Softens a share of the images by a 5x5 Gaussian of sigma 1.1 (PSPNet, hszhao/semseg)."""

  share: float = within(0, 1)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.uniform(0, 1) >= self.share:
      return example
    image = example['image']
    return {**example, 'image': cv2.GaussianBlur(image, (5, 5), 1.1).reshape(image.shape)}
