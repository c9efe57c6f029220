"""Places an image of any size in the network's input; shared by evaluation and prediction.

An image [h,w] is first resized if the recipe has an image size or a shorter side. Then it is padded
at the right and bottom to a canvas, which is resized by `scale` and gets the network's margin on all
four sides. The canvas is chosen so that the network's output is the canvas times `scale`:

  output size  = allowed input size - 2 * margin, at least ceil(scale * h)
  canvas size  = output size / scale; at scale 1 they are equal

The way back is the same for everything shown or scored: outputs are resized to the canvas (half-pixel
centres; nothing to do at scale 1), and `cut` takes the image's part. A frame depends only on the
image's size, so a prediction is the same in any batch.
"""

import dataclasses
import math

import numpy as np

from jaxseg.data import geometry
from jaxseg.data.geometry import Fill, Size
from jaxseg.types import SizeRule

_MULTIPLE = 128  # for images resized by the shorter side: else every size compiles a program


@dataclasses.dataclass(frozen=True)
class Frame:
  """Placement of images; all sizes are (height, width) in pixels.

  Attributes:
    rule: input sizes that the network allows, and its margin.
    scale: factor of the image, not of the label, for networks trained at a reduced size.
    multiple: rounds output sizes up to a multiple of it, for fewer sizes. With `short_side` it is at
      least 128, unless it is 1.
    short_side: images are resized so that their shorter side is this; 0: they are not.
    long_side: limit of the longer side then.
    image_size: images are resized to this; () leaves them as they are.
    mirrored: pad by mirroring the image; None: if and only if the network has a margin.
    fill: colour of other padding.
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
    """Returns the size of the network's input for an image of `size`."""
    return tuple(side + 2 * self.rule.margin for side in self.output(size))

  def canvas(self, size: Size) -> Size:
    """Returns the canvas's size in pixels of the (resized) image."""
    return self.canvas_of(self.input(size))

  def canvas_of(self, input_size: Size) -> Size:
    """Returns the canvas's size for a network's input size."""
    margin = 2 * self.rule.margin
    return tuple(round((side - margin) / self.scale) for side in input_size)

  def factor(self, size: Size) -> tuple[float, float]:
    """Returns (y, x) pixels of the image per pixel of the network's output."""
    sides = zip(self.canvas(size), size, self._resized(size), self.output(size), strict=True)
    return tuple(canvas * own / resized / output for canvas, own, resized, output in sides)

  def extent(self, size: Size) -> tuple[float, float, float, float]:
    """Returns x0, y0, x1, y1 of an image in the network's output, which has no margin."""
    (height, width), (y, x) = size, self.factor(size)
    return 0.0, 0.0, width / x, height / y

  def place(self, image: np.ndarray) -> np.ndarray:
    """Returns the network's input [H, W, c] for an image [h, w, c], of the same dtype."""
    size, margin = image.shape[:2], self.rule.margin
    output = self.output(size)
    image = geometry.resize_image(image, self._resized(size))
    if self.scale != 1:
      image = self._scaled(image, self.canvas(size), output)
    return self.window(image, (-margin, -margin), tuple(side + 2 * margin for side in output))

  def window(self, image: np.ndarray, start: Size, size: Size) -> np.ndarray:
    """Cuts [*size, c] out of the image, extended in all directions by mirroring or `fill`.

    Args:
      image: [h, w, c].
      start: first row and column, which may lie outside the image.
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
    """Cuts an image's part, [*size, ...], out of an array on its canvas.

    If the image was resized first, it is resized back: integers by nearest neighbour, floats bilinearly.
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
    """Resizes image and canvas together, so that the way back is exact, then drops the border."""
    resized = geometry.resize_image(self.window(image, (0, 0), canvas), output)
    sides = zip(image.shape[:2], canvas, output, strict=True)
    height, width = (min(out, math.ceil(have * out / full)) for have, full, out in sides)
    return resized[:height, :width]
