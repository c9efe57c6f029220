"""Where an image of any size lies in what the network sees; evaluation and prediction share it.

An image [h,w] is resized first where the recipe has an image size or a shorter side. Then it is
padded right and below to a canvas, the canvas is resized by `scale` and gets the network's margin on
all four sides. The canvas is chosen so that the network's output is the canvas times `scale`:

  output size  = allowed input size - 2 * margin, at least ceil(scale * h)
  canvas size  = output size / scale; at scale 1 they are equal

So all that is shown or scored goes the same way back: outputs are resized to the canvas (half-pixel
centres; at scale 1 there is nothing to do), and `cut` takes the image's own part. A frame depends on
nothing but the image's size: a prediction is the same in any batch.
"""

import dataclasses
import math

import numpy as np

from jaxseg.data import geometry
from jaxseg.data.geometry import Fill, Size
from jaxseg.types import SizeRule

_MULTIPLE = 128  # of images by their shorter side, each of another size: so that programs are few


@dataclasses.dataclass(frozen=True)
class Frame:
  """How images are placed; all sizes are (height, width) in pixels.

  Attributes:
    rule: input sizes that the network takes, and its margin.
    scale: factor of the image, not of the label, for networks trained at a reduced size.
    multiple: rounds output sizes up to it, for fewer different ones; 1 to none, 0 to 128 where
      `short_side` is set, which is also the least of any other then.
    short_side: images are resized so that their shorter side is this; 0: they are not.
    long_side: the longer side's limit then.
    image_size: images are resized to this; () leaves them as they are.
    mirrored: mirror the image outwards; None: exactly where the network has a margin.
    fill: colour of padding that is not mirrored.
  """

  rule: SizeRule
  scale: float = 1.0
  multiple: int = 0
  short_side: int = 0
  long_side: int = 1333
  image_size: Size | tuple[()] = ()
  mirrored: bool | None = None
  fill: Fill = (0,)

  def output(self, size: Size) -> Size:
    """Returns the size of the network's output for an image of `size`."""
    return tuple(self._output(side) for side in self._resized(size))

  def input(self, size: Size) -> Size:
    """Returns the size of what the network gets of an image of `size`."""
    return tuple(side + 2 * self.rule.margin for side in self.output(size))

  def canvas(self, size: Size) -> Size:
    """Returns the canvas in pixels of the image, of the resized one where it is resized first."""
    return self.canvas_of(self.input(size))

  def canvas_of(self, input_size: Size) -> Size:
    """Returns the canvas of what the network gets, by the size of that."""
    margin = 2 * self.rule.margin
    return tuple(round((side - margin) / self.scale) for side in input_size)

  def factor(self, size: Size) -> tuple[float, float]:
    """Returns (y, x) pixels of the image per pixel of the network's output."""
    sides = zip(self.canvas(size), size, self._resized(size), self.output(size), strict=True)
    return tuple(canvas * own / resized / output for canvas, own, resized, output in sides)

  def extent(self, size: Size) -> tuple[float, float, float, float]:
    """Returns x0, y0, x1, y1 of an image in what the network gives, whose margin is cut off."""
    (height, width), (y, x) = size, self.factor(size)
    return 0.0, 0.0, width / x, height / y

  def place(self, image: np.ndarray) -> np.ndarray:
    """Returns an image [h, w, c] as the network gets it, [H, W, c] of the same type."""
    size, margin = image.shape[:2], self.rule.margin
    output = self.output(size)
    image = geometry.resize_image(image, self._resized(size))
    if self.scale != 1:
      image = self._scaled(image, self.canvas(size), output)
    return self.window(image, (-margin, -margin), tuple(side + 2 * margin for side in output))

  def window(self, image: np.ndarray, start: Size, size: Size) -> np.ndarray:
    """Returns [*size, c] of the plane that an image lies on; beside it that is mirrored, or `fill`.

    Args:
      image: [h, w, c].
      start: first row and column, also before the image or behind it.
      size: height and width.
    """
    spans = [(at, at + length) for at, length in zip(start, size, strict=True)]
    sides = list(zip(spans, image.shape[:2], strict=True))
    if all(0 <= low and high <= have for (low, high), have in sides):
      return image[tuple(slice(*span) for span in spans)]
    if self.rule.margin > 0 if self.mirrored is None else self.mirrored:
      rows, columns = (geometry.mirrored_indices(*span, have) for span, have in sides)
      return image.take(rows, axis=0).take(columns, axis=1)
    window = np.empty((*size, image.shape[2]), image.dtype)
    window[:] = geometry.per_channel(self.fill, image)
    inside = [(min(max(low, 0), have), min(max(high, 0), have)) for (low, high), have in sides]
    part = image[tuple(slice(*span) for span in inside)]
    there = (slice(span[0] - at, span[1] - at) for span, at in zip(inside, start, strict=True))
    window[tuple(there)] = part
    return window

  def cut(self, canvas: np.ndarray, size: Size) -> np.ndarray:
    """Cuts an image's own part, [*size, ...], out of what lies on its canvas.

    Where the image was resized first, whole numbers come back by the nearest, floats bilinearly.
    """
    height, width = self._resized(size)
    resize = geometry.resize_label if canvas.dtype.kind in 'ui' else geometry.resize_image
    return resize(canvas[:height, :width], size)

  def _resized(self, size: Size) -> Size:
    if self.short_side:
      return geometry.by_short_side(size, self.short_side, self.long_side)
    return tuple(self.image_size or size)

  def _output(self, side: int) -> int:
    multiple = max(self.multiple, _MULTIPLE if self.short_side and self.multiple != 1 else 1)
    scaled = math.ceil(round(side * self.scale, 6))  # 0.1 * 30 is 3, not 3.0000000000000004
    scaled += -scaled % multiple
    return self.rule.at_least(scaled + 2 * self.rule.margin) - 2 * self.rule.margin

  def _scaled(self, image: np.ndarray, canvas: Size, output: Size) -> np.ndarray:
    """Resizes image and canvas as one, so that the way back is exact, then drops the border."""
    resized = geometry.resize_image(self.window(image, (0, 0), canvas), output)
    sides = zip(image.shape[:2], canvas, output, strict=True)
    height, width = (min(out, math.ceil(have * out / full)) for have, full, out in sides)
    return resized[:height, :width]
