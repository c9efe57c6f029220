"""Pictures of labels: colours, overlays, errors.

Void (255) is drawn in VOC's light (224, 224, 192), in palette files too; overlays do not tint it.
Images are [h, w] or [h, w, c] of any dtype, labels integers [h, w], pictures uint8 [h, w, 3].
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from jaxseg.types import VOID, UserError

Color = tuple[int, int, int]
Palette = Sequence[Color]  # a colour for each class

VOID_COLOR = (224, 224, 192)
# Candidates for the colour of errors: the first that is not close to a class's.
_LOUD = ((230, 40, 40), (255, 0, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 128, 0))
_FAR = 100  # distance from which two colours are clearly different
_ROWS = 1024  # to blend at a time
_ENDS = (1, 99)  # percentiles of other than 8-bit images to draw as black and white
_LOOK = 1 << 20  # pixels to compute these from
_MANY = 24  # with more classes, a legend has only those that occur


def colorize(label: np.ndarray, palette: Palette) -> np.ndarray:
  """Returns each pixel in its class's colour, void and values outside the palette in VOID_COLOR."""
  table = np.array([*palette, VOID_COLOR], np.uint8)
  return table[np.where(_is_class(label, palette), label, len(palette))]


def overlay(
  image: np.ndarray, label: np.ndarray, palette: Palette, alpha: float = 0.5
) -> np.ndarray:
  """Blends the classes' colours into the image with opacity `alpha`, from 0 to 1."""
  image, label = as_rgb(image), np.asarray(label)
  if image.shape[:2] != label.shape:
    raise UserError(f'image {image.shape[:2]} and label {label.shape} must be of one size')
  blended = np.empty(image.shape, np.uint8)
  for top in range(0, len(label), _ROWS):  # blending takes ten times the image's memory
    part, classes = image[top : top + _ROWS], label[top : top + _ROWS]
    mixed = np.rint((1 - alpha) * part + alpha * colorize(classes, palette)).astype(np.uint8)
    blended[top : top + _ROWS] = np.where(_is_class(classes, palette)[..., None], mixed, part)
  return blended


def error_map(
  image: np.ndarray, label: np.ndarray, prediction: np.ndarray, palette: Palette
) -> np.ndarray:
  """Draws wrong pixels in `wrong_color` on the faint image, void in VOID_COLOR."""
  shown = faint(image)
  shown[label != prediction] = wrong_color(tuple(map(tuple, palette)))
  shown[label == VOID] = VOID_COLOR
  return shown


@functools.cache
def wrong_color(palette: tuple[Color, ...]) -> Color:
  """Returns the colour of errors: red, or another that differs from all classes and void."""
  taken = np.array([*palette, VOID_COLOR], float)
  levels = itertools.product(range(0, 256, 51), repeat=3)
  colors = [
    *_LOUD,
    *(color for color in levels if len(set(color)) > 1),
  ]  # no greys, which the image has
  return max(colors, key=lambda c: min(np.linalg.norm(taken - c, axis=1).min(), _FAR))


def faint(image: np.ndarray) -> np.ndarray:
  """Returns the image in light grey, on which colours stand out."""
  gray = 50 + 0.5 * as_rgb(image).mean(axis=-1, keepdims=True)
  return np.repeat(gray, 3, axis=-1).astype(np.uint8)


def pictures(
  image: np.ndarray, label: np.ndarray, prediction: np.ndarray | None, palette: Palette
) -> dict[str, np.ndarray]:
  """Returns 'image', 'truth' and, with a prediction, 'prediction' and 'errors'."""
  shown = {'image': as_rgb(image), 'truth': colorize(label, palette)}
  if prediction is None:
    return shown
  errors = error_map(image, label, prediction, palette)
  return {**shown, 'prediction': colorize(prediction, palette), 'errors': errors}


def legend(
  palette: Palette,
  class_names: Sequence[str],
  shown: Iterable[np.ndarray] = (),
  *,
  errors: bool = False,
) -> list[tuple[str, Color]]:
  """Returns (name, colour) of the classes, of void and, with `errors`, of wrong pixels.

  If there are many classes, only those that occur in `shown`, labels and predictions, are listed.
  """
  classes = range(len(palette))
  if len(palette) > _MANY:
    classes = sorted({int(k) for label in shown for k in np.unique(label)}.intersection(classes))
  entries = [(class_names[k], palette[k]) for k in classes] + [('void', VOID_COLOR)]
  return entries + [('wrong', wrong_color(tuple(map(tuple, palette))))] * errors


def as_rgb(image: np.ndarray) -> np.ndarray:
  """Returns a displayable uint8 [h, w, 3] of the first three channels, or of the first if there are fewer.

  A view for uint8; other dtypes are stretched between the first and last percentile of each channel.
  """
  image = np.atleast_3d(image)
  image = image[..., : 3 if image.shape[-1] >= 3 else 1]
  if image.dtype != np.uint8:
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _LOOK))
    low, high = np.percentile(image[::step, ::step], _ENDS, axis=(0, 1)).astype(np.float32)
    spread = (image.astype(np.float32) - low) * (255 / np.maximum(high - low, 1e-20))
    image = np.rint(np.clip(spread, 0, 255)).astype(np.uint8)
  return np.broadcast_to(image, (*image.shape[:2], 3))


def heat(uncertainty: np.ndarray, num_classes: int, *, sampled: bool) -> np.ndarray:
  """Draws uncertainty [h, w] as uint8 [h, w, 3], from black (0) to pale yellow.

  Entropy is scaled by log k, its largest possible value, the same for all images. The variance of
  samples varies with the network's dropout by orders of magnitude, so its square root is scaled by the
  image's maximum.
  """
  from matplotlib import colormaps

  if sampled:
    shown = np.sqrt(uncertainty / max(float(uncertainty.max()), 1e-9))
  else:
    shown = uncertainty / np.log(num_classes)
  table = (np.asarray(colormaps['inferno'].colors) * 255).round().astype(np.uint8)
  return table[np.clip(shown * 255, 0, 255).astype(np.uint8)]


def save(file: BinaryIO, picture: np.ndarray) -> None:
  """Writes a picture as a PNG."""
  Image.fromarray(picture).save(file, 'PNG')


def save_palette_png(file: BinaryIO, label: np.ndarray, palette: Palette) -> None:
  """Writes a label as a palette PNG: one byte per pixel, the class, void 255.

  Entry 255 of the palette is VOID_COLOR, unused ones are black.
  """
  label = np.asarray(label)
  if label.ndim != 2 or label.min(initial=0) < 0 or label.max(initial=0) > 255:
    raise UserError(f'a palette PNG holds [h, w] classes from 0 to 255, got shape {label.shape}')
  table = np.zeros((256, 3), np.uint8)
  table[: len(palette)] = palette
  if len(palette) <= VOID:
    table[VOID] = VOID_COLOR
  picture = Image.fromarray(np.ascontiguousarray(label, np.uint8))
  picture.putpalette(table.tobytes())
  picture.save(file, format='PNG')


def _is_class(label: np.ndarray, palette: Palette) -> np.ndarray:
  label = np.asarray(label)
  return (label >= 0) & (label < len(palette))
