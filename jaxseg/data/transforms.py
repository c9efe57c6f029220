"""Training augmentation: frozen dataclasses, each `__call__(example, rng) -> example`.

An example is a dict with 'image' uint8 [h,w,c] (any c), 'label' uint8 [h,w] with void 255 and, where
the set has them, 'weight' float32 [h,w] and 'instances' uint16 [h,w] or [h,w,layers]; all move
together (the table is in geometry.py). `rng` is a numpy Generator; everything random comes from it.
`make_train_transforms` builds the tuple for a config's options.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from jaxseg.data import checks, geometry
from jaxseg.data.geometry import Example, Fill
from jaxseg.types import VOID, UserError

Size = tuple[int, int]  # height, width in pixels

_GRAY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)


def _sides(example: Example) -> Size:
  return example['image'].shape[:2]


@dataclasses.dataclass(frozen=True)
class Resize:
  """Resizes everything to a fixed `size`, or by the factor `scale`; exactly one is given."""

  size: Size | None = None
  scale: float | None = None

  def __post_init__(self):
    if (self.size is None) == (self.scale is None):
      raise UserError(f'resize has size {self.size} and scale {self.scale}: give exactly one')

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    size = self.size or tuple(max(1, round(n * self.scale)) for n in _sides(example))
    return geometry.resize(example, size)


@dataclasses.dataclass(frozen=True)
class RandomShortSide:
  """Resizes so that the shorter side is one of `sides`, drawn evenly, the longer at most `longest`.

  Detectron2's for Mask R-CNN: 640 to 800 by 32, at most 1333.
  """

  sides: tuple[int, ...]
  longest: int

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    side = self.sides[int(rng.integers(len(self.sides)))]
    return geometry.resize(example, geometry.by_short_side(_sides(example), side, self.longest))


@dataclasses.dataclass(frozen=True)
class Pad:
  """Centres the image on a larger canvas (the odd pixel goes right and below).

  Attributes:
    size: height and width of the canvas.
    fill: colour of the new ground.
    label: label of the new ground: void, or a class where a recipe counts it as one.
  """

  size: Size
  fill: Fill = (0,)
  label: int = VOID

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = (want - have for want, have in zip(self.size, _sides(example), strict=True))
    if min(height, width) < 0:
      raise UserError(
        f'an image of {example["image"].shape[:2]} pixels does not fit on pad={self.size}: '
        'set resize=(h, w) to at most that, or crop=(h, w)'
      )
    top, left = height // 2, width // 2
    return geometry.pad(example, top, height - top, left, width - left, self.fill, label=self.label)


@dataclasses.dataclass(frozen=True)
class MirrorBorder:
  """Mirrors the image outwards by `pixels` at each side; there the label is void, the weight 0."""

  pixels: int

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.mirror(example, *[self.pixels] * 4)


@dataclasses.dataclass(frozen=True)
class RandomScaleCrop:
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

  size: Size
  scale: tuple[float, float] = (1.0, 1.0)
  fill: Fill = (0,)
  mirror: int = 0

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    scale = rng.uniform(*self.scale)
    window = [max(1, round(side / scale)) for side in self.size]
    if self.mirror:
      example = geometry.mirror(example, *[round(self.mirror / scale)] * 4)
    spare = [have - need for have, need in zip(_sides(example), window, strict=True)]
    start = [int(rng.integers(min(s, 0), max(s, 0), endpoint=True)) for s in spare]
    return self._cut(example, start, window)

  def _cut(self, example: Example, start: list[int], window: list[int]) -> Example:
    """Cuts the part of the window inside the image, resizes it and pads it to the whole."""
    first, count, inner, before, after = [], [], [], [], []
    for begin, length, have, want in zip(start, window, _sides(example), self.size, strict=True):
      low, high = max(begin, 0), min(begin + length, have)
      place = min(round((low - begin) * want / length), want - 1)
      end = max(round((high - begin) * want / length), place + 1)
      first.append(low)
      count.append(high - low)
      inner.append(end - place)
      before.append(place)
      after.append(want - end)
    example = geometry.resize(geometry.crop(example, *first, *count), tuple(inner))
    return geometry.pad(example, before[0], after[0], before[1], after[1], self.fill)


@dataclasses.dataclass(frozen=True)
class RandomSides:
  """Moves each side of the image in by U[0, amount] of its length and resizes back.

  With 0.3 the crop of NVIDIA's U-Net recipe for ISBI 2012 (DeepLearningExamples, UNet_Medical).
  """

  amount: float

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = _sides(example)
    top, bottom, left, right = rng.uniform(0, self.amount, 4) * (height, height, width, width)
    top, left = round(top), round(left)
    rows = max(1, round(height - bottom) - top)
    columns = max(1, round(width - right) - left)
    return geometry.resize(geometry.crop(example, top, left, rows, columns), (height, width))


@dataclasses.dataclass(frozen=True)
class RandomFlip:
  """Swaps left and right, and top and bottom where `vertical`, each with probability 1/2."""

  horizontal: bool = True
  vertical: bool = False

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    coins = rng.random(2) < 0.5  # always two draws: one option does not change the other's luck
    return geometry.flip(example, self.horizontal and coins[0], self.vertical and coins[1])


@dataclasses.dataclass(frozen=True)
class RandomRotate90:
  """Turns by 0, 90, 180 or 270 degrees with equal probability."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return geometry.rotate90(example, int(rng.integers(4)))


@dataclasses.dataclass(frozen=True)
class RandomRotate:
  """Turns about the image's centre by U[-degrees, degrees]; the size stays.

  Corners that turn in from outside hold `fill`, void and weight 0, or with `fill` None the
  mirrored image with its mirrored label. Only a `share` of the images is turned.
  """

  degrees: float
  fill: Fill | None = (0,)
  share: float = 1.0

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if self.share < 1 and rng.uniform(0, 1) >= self.share:
      return example
    angle = math.radians(rng.uniform(-self.degrees, self.degrees))
    height, width = _sides(example)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([turn, centre - turn @ centre])
    return geometry.affine(example, matrix, self.fill)


@dataclasses.dataclass(frozen=True)
class ElasticDeform:
  """Smooth random deformation (U-Net, arXiv:1505.04597, section 3.1); borders are mirrored.

  Displacement vectors drawn from N(0, sigma) on a coarse grid, bicubic between its nodes, which
  are the centres of the image's `grid` x `grid` tiles.

  Attributes:
    sigma: standard deviation of the displacement, in pixels (the paper's 10).
    grid: nodes along each side (the paper's 3).
  """

  sigma: float = 10.0
  grid: int = 3

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    height, width = _sides(example)
    coarse = rng.normal(0, self.sigma, (2, self.grid, self.grid)).astype(np.float32)
    columns, rows = (
      cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse
    )
    columns += np.arange(width, dtype=np.float32)
    rows += np.arange(height, dtype=np.float32)[:, None]
    return geometry.remap(example, columns, rows)


@dataclasses.dataclass(frozen=True)
class Photometric:
  """Changes brightness, contrast and saturation at once, with one rounding at the end.

  Attributes:
    brightness: the image is multiplied by 1 + U[-brightness, brightness].
    contrast: distances from the image's mean gray are multiplied by 1 + U[-contrast, contrast].
    saturation: distances from each pixel's gray likewise; only where there are three channels, RGB.
    shift: U[-shift, shift] of the full range 255 is added (NVIDIA's U-Net recipe: 0.1).
  """

  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  shift: float = 0.0

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
class RandomBlur:
  """Softens a share of the images by a 5x5 Gaussian of sigma 1.1 (PSPNet, hszhao/semseg)."""

  share: float

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.uniform(0, 1) >= self.share:
      return example
    image = example['image']
    return {**example, 'image': cv2.GaussianBlur(image, (5, 5), 1.1).reshape(image.shape)}


def make_train_transforms(
  *,
  crop: int | Size | None = None,
  resize: int | float | Size | None = None,
  short_side: tuple[int, ...] = (),
  long_side: int = 1333,
  scale: tuple[float, float] | None = None,
  flip: bool = False,
  vertical_flip: bool = False,
  rotate: float = 0.0,
  rotate_share: float = 1.0,
  rotate90: bool = False,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  shift: float = 0.0,
  blur: float = 0.0,
  elastic: float = 0.0,
  mirror: int = 0,
  pad: int | Size | None = None,
  pad_label: int = VOID,
  sides: float = 0.0,
  fill: Fill = (0,),
) -> tuple:
  """Builds the transforms of a config; everything is off by default. Applied in this order:

  Args:
    resize: new (height, width), or one integer for a square, or a float: a factor.
    short_side, long_side: see RandomShortSide; instead of `resize`.
    elastic: standard deviation of the elastic deformation, in pixels.
    rotate: largest angle in degrees, 0..180; borders void, or mirrored where `mirror` is set.
    rotate_share: share of the images that are rotated.
    pad: canvas (height, width) on which the image is centred, before the crop.
    pad_label: label of that canvas, 0..255.
    crop: (height, width) of the random window, or one integer; a smaller image is padded.
    scale: range of the random factor of the crop, (lowest, highest).
    mirror: pixels of mirrored border with void labels; alone, or as part of the crop.
    sides: share by which each side is randomly moved in, 0..0.45.
    flip, vertical_flip, rotate90: left-right, top-bottom, quarter turns (square results only).
    brightness, contrast, saturation, shift: see Photometric, each 0..1.
    blur: share of the images that RandomBlur softens.
    fill: colour beside the image, 0..255, one value or one for each channel.

  Raises:
    UserError: a value is out of range or two of them do not go together.
  """
  resize = resize if isinstance(resize, float) else checks.size('resize', resize)
  crop, pad = checks.size('crop', crop), checks.size('pad', pad)
  mirror, fill = checks.whole('mirror', mirror), checks.colour('fill', fill)
  if scale is not None and crop is None:
    raise UserError(f'scale={scale} needs crop=(h, w), so that all images end at one size')
  final = crop or pad or (None if isinstance(resize, float) else resize)
  if rotate90 and (final is None or final[0] != final[1]):
    raise UserError(f'rotate90 needs images of one square size, got {final}: set crop=(n, n)')

  steps = []
  if isinstance(resize, float):
    steps.append(Resize(scale=checks.factor('resize', resize)))
  elif resize is not None:
    steps.append(Resize(size=resize))
  if short_side:
    short = tuple(checks.whole('short_side', side, least=1) for side in short_side)
    steps.append(RandomShortSide(short, checks.whole('long_side', long_side, least=1)))
  if sigma := checks.number('elastic', elastic):
    steps.append(ElasticDeform(sigma))
  if degrees := checks.number('rotate', rotate, 180):
    share = checks.number('rotate_share', rotate_share, 1)
    steps.append(RandomRotate(degrees, None if mirror else fill, share))
  if pad is not None:
    steps.append(Pad(pad, fill, checks.whole('pad_label', pad_label, most=255)))
  if crop is not None:
    steps.append(RandomScaleCrop(crop, checks.span('scale', scale), fill, mirror))
  elif mirror:
    steps.append(MirrorBorder(mirror))
  if amount := checks.number('sides', sides, 0.45):
    steps.append(RandomSides(amount))
  if flip or vertical_flip:
    steps.append(RandomFlip(bool(flip), bool(vertical_flip)))
  if rotate90:
    steps.append(RandomRotate90())
  light = {'brightness': brightness, 'contrast': contrast, 'saturation': saturation, 'shift': shift}
  if any(checks.number(name, value, 1) for name, value in light.items()):
    steps.append(Photometric(**light))
  if share := checks.number('blur', blur, 1):
    steps.append(RandomBlur(share))
  return tuple(steps)
