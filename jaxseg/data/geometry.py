"""Transforms an image, its label and its weight map together: resize, crop, pad, mirror, flip, warp.

Every function takes and returns a dict and transforms these entries where they exist; others pass
through unchanged:

  image      [h,w,c]         bilinear, any dtype; padded with the `fill` colour
  label      uint8 [h,w]     nearest (resized: optionally by shares); padded with void (255)
  weight     float32 [h,w]   bilinear; padded with 0
  instances  uint16 [h,w]    nearest; padded with 0; also [h,w,layers], where objects overlap

For examples with instances it tracks the transform, so that boxes and masks are computed from the
original instances rather than from resampled ones:

  drawn      the instances before any transform
  place      float [2,3], maps pixel corners (x, y, 1) of `drawn` to the present ones; None after a warp
  extent     float [4], x0, y0, x1, y1 of the image itself; anything beyond is padding

Both interpolations have samples at pixel centres: output pixel i reads (i + 0.5) * n / m - 0.5.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from jaxseg.types import VOID, UserError

cv2.setNumThreads(0)  # the loader's threads parallelise; OpenCV's own would compete with them

Example = dict  # 'image', 'label', and perhaps 'weight', 'instances', 'file_name', 'index'
Size = tuple[int, int]  # height, width in pixels
Fill = tuple[
  float, ...
]  # a colour in the image's units: one value for all channels or one for each

_NEAREST = ('label', 'instances')


def size_of(example: Example) -> Size:
  """Returns height and width of an example."""
  return example['image'].shape[:2]


def _any_size(example: Example) -> Size:
  """Returns them even without an image."""
  arrays = (example.get(key) for key in ('image', 'label', 'weight', 'instances'))
  return next(array.shape[:2] for array in arrays if array is not None)


def move(
  example: Example,
  function: Callable,
  fill: Fill = (0,),
  label: int = VOID,
  matrix: Sequence | None = None,
) -> Example:
  """Applies `function(array, nearest, ground)` to every entry that has pixels.

  `nearest`: values must not be interpolated; `ground`: the padding value for each channel: `fill` for
  the image, `label` for the label, 0 for the others. `matrix` [2,3] maps pixel corners (x, y, 1); None
  if axes are not preserved.
  """
  grounds = {'image': fill, 'label': (label,), 'weight': (0.0,), 'instances': (0,)}
  moved = dict(example)
  for key, ground in grounds.items():
    array = example.get(key)
    if array is not None:
      moved[key] = function(array, key in _NEAREST, per_channel(ground, array))
  if example.get('instances') is not None:
    moved |= _noted(example, moved['instances'].shape[:2], matrix)
  return moved


def _noted(example: Example, size: Size, matrix: Sequence | None) -> Example:
  """Returns the new `drawn`, `place` and `extent` of an example that `matrix` transforms to `size`."""
  drawn, extent, place = drawn_of(example)
  height, width = size
  if matrix is not None:
    matrix = np.array(matrix, np.float64)
    extent = np.clip(move_boxes(extent[None], matrix)[0], 0, (width, height, width, height))
  place = None if place is None or matrix is None else matrix @ np.vstack([place, (0, 0, 1)])
  return {'drawn': drawn, 'extent': extent, 'place': place}


def drawn_of(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """Returns the three, also for an example without transforms yet."""
  if 'drawn' in example:
    return example['drawn'], example['extent'], example['place']
  height, width = example['instances'].shape[:2]
  return example['instances'], np.array([0, 0, width, height], np.float64), np.eye(2, 3)


def exif_turn(orientation: int) -> tuple[bool, bool, bool]:
  """Returns whether EXIF orientation 1 to 8 means: swap rows and columns, then flip rows, flip columns."""
  return orientation > 4, orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Transforms boxes [n, 4] by a matrix [2, 3] without shear."""
  corners = [boxes[:, i : i + 2] @ matrix[:, :2].T + matrix[:, 2] for i in (0, 2)]
  return np.concatenate([np.minimum(*corners), np.maximum(*corners)], axis=1)


def per_channel(fill: Fill, array: np.ndarray) -> Fill:
  """Returns a colour's value for each channel of an array. Raises UserError if the counts differ."""
  channels = 1 if array.ndim == 2 else array.shape[2]
  if len(fill) not in (1, channels):
    raise UserError(
      f'fill has {len(fill)} values, the image has {channels} channels: give one value or {channels}'
    )
  return tuple(fill) * channels if len(fill) == 1 else tuple(fill)


def _opencv(array: np.ndarray, function: Callable, fill: Fill = ()) -> np.ndarray:
  """Runs `function(array, fill)` on groups of up to four channels, OpenCV's limit, and keeps the rank."""
  if array.ndim == 2 or array.shape[2] <= 4:
    result = function(array, fill)
    return result[..., None] if result.ndim < array.ndim else result
  starts = range(0, array.shape[2], 4)
  groups = (np.ascontiguousarray(array[..., c : c + 4]) for c in starts)
  return np.dstack(
    [function(group, fill[c : c + 4]) for group, c in zip(groups, starts, strict=True)]
  )


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
  """Bilinear at pixel centres; averages areas when shrinking to less than half (no aliasing).

  Args:
    image: [h,w] or [h,w,c], uint8, uint16, int16 or float32.
    size: new height and width, in pixels.
  """
  height, width = size
  if image.shape[:2] == (height, width):
    return image
  shrinks = image.shape[0] > 2 * height and image.shape[1] > 2 * width
  mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return _opencv(image, lambda part, _: cv2.resize(part, (width, height), interpolation=mode))


def resize_label(label: np.ndarray, size: Size, by: str = 'nearest') -> np.ndarray:
  """Resizes a label [h,w] without mixing values.

  Args:
    label: see the module's docstring.
    size: new height and width, in pixels.
    by: 'nearest' at pixel centres: row i reads row floor((i + 0.5) * n / m); or 'shares': argmax of the
      bilinearly interpolated one-hot labels, ties to the higher value (of two classes: the second where
      it has half or more).
  """
  if label.shape[:2] == tuple(size):
    return label
  if by == 'shares':
    values = np.unique(label)[::-1]
    planes = ((label == value).astype(np.float32) for value in values)
    shares = [cv2.resize(p, size[::-1], interpolation=cv2.INTER_LINEAR) for p in planes]
    return values[np.argmax(shares, axis=0)]
  return _nearest(label, size)


def _nearest(label: np.ndarray, size: Size) -> np.ndarray:
  """OpenCV's INTER_NEAREST samples at pixel corners, and its INTER_NEAREST_EXACT rounds in fixed point
  and deviates from the formula for one pair of sizes in five, so the indices are computed here.
  """
  rows, columns = (
    ((2 * np.arange(new) + 1) * old) // (2 * new)
    for new, old in zip(size, label.shape[:2], strict=True)
  )
  return label.take(rows, axis=0).take(columns, axis=1)


def resize(example: Example, size: Size, labels: str = 'nearest') -> Example:
  """Resizes everything to `size` = (height, width); `labels` as `by` of `resize_label`."""

  def function(array, nearest, _):
    return resize_label(array, size) if nearest else resize_image(array, size)

  y, x = (new / old for new, old in zip(size, _any_size(example), strict=True))
  moved = move(example, function, matrix=((x, 0, 0), (0, y, 0)))
  if labels != 'nearest' and example.get('label') is not None:
    moved['label'] = resize_label(example['label'], size, labels)
  return moved


def by_short_side(size: Size, short: int, longest: int) -> Size:
  """Returns (height, width) with the shorter side `short`, or less if the longer would exceed `longest`."""
  factor = min(short / min(size), longest / max(size))
  return tuple(max(1, int(side * factor + 0.5)) for side in size)


def crop(example: Example, top: int, left: int, height: int, width: int) -> Example:
  """Crops a window inside the image (a view, without copying)."""
  part = lambda array, *_: array[top : top + height, left : left + width]  # noqa: E731
  return move(example, part, matrix=((1, 0, -left), (0, 1, -top)))


def cut(
  example: Example, start: Sequence[int], window: Sequence[int], size: Sequence[int], fill: Fill
) -> Example:
  """Cuts a window that may extend beyond the image, with void padding there, and resizes it.

  Args:
    example: see the module's docstring.
    start: first row and column of the window, may be negative; it must contain some pixel of the image.
    window: its height and width.
    size: height and width of the result.
    fill: colour outside the image.
  """
  first, count, inner, before, after = [], [], [], [], []
  for begin, length, have, want in zip(start, window, size_of(example), size, strict=True):
    low, high = max(begin, 0), min(begin + length, have)
    top = min(round((low - begin) * want / length), want - 1)
    end = max(round((high - begin) * want / length), top + 1)
    first.append(low)
    count.append(high - low)
    inner.append(end - top)
    before.append(top)
    after.append(want - end)
  part = resize(crop(example, *first, *count), tuple(inner))
  return pad(part, before[0], after[0], before[1], after[1], fill)


def pad(
  example: Example,
  top: int,
  bottom: int,
  left: int,
  right: int,
  fill: Fill = (0,),
  label: int = VOID,
) -> Example:
  """Adds constant borders: `fill` around the image, `label` around the label, weight 0."""
  if not (top or bottom or left or right):
    return example

  def border(part, value):
    sides = (top, bottom, left, right, cv2.BORDER_CONSTANT)
    return cv2.copyMakeBorder(part, *sides, value=value)

  bordered = lambda array, _, ground: _opencv(array, border, ground)  # noqa: E731
  return move(example, bordered, fill, label, ((1, 0, left), (0, 1, top)))


def mirror_array(array: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
  """Pads by mirroring without repeating the edge: c b [a b c] b a; any widths."""
  borders = (top, bottom, left, right, cv2.BORDER_REFLECT_101)
  return _opencv(array, lambda part, _: cv2.copyMakeBorder(part, *borders))


def mirrored_indices(start: int, stop: int, length: int) -> np.ndarray:
  """Returns the indices of positions start..stop-1 in `length` values extended by mirroring."""
  period = max(2 * (length - 1), 1)
  positions = np.arange(start, stop) % period
  return np.minimum(positions, period - positions)


def mirror(example: Example, top: int, bottom: int, left: int, right: int) -> Example:
  """Pads the image by mirroring, its label with void and its weight with 0."""
  padded = pad({**example, 'image': None}, top, bottom, left, right)
  return {**padded, 'image': mirror_array(example['image'], top, bottom, left, right)}


def edges(values: np.ndarray) -> np.ndarray:
  """Marks the pixels [h,w] with a 4-neighbour of another value."""
  marked = np.zeros(values.shape, bool)
  down, right = values[1:] != values[:-1], values[:, 1:] != values[:, :-1]
  marked[1:] |= down
  marked[:-1] |= down
  marked[:, 1:] |= right
  marked[:, :-1] |= right
  return marked


def flip(example: Example, horizontal: bool, vertical: bool) -> Example:
  """Swaps left and right (horizontal), top and bottom (vertical), or both."""
  if not (horizontal or vertical):
    return example
  code = -1 if horizontal and vertical else 1 if horizontal else 0
  height, width = _any_size(example)
  x, y = (-1, 0, width) if horizontal else (1, 0, 0), (0, -1, height) if vertical else (0, 1, 0)
  flipped = lambda array, *_: _opencv(array, lambda part, _: cv2.flip(part, code))  # noqa: E731
  return move(example, flipped, matrix=(x, y))


def rotate90(example: Example, turns: int) -> Example:
  """Rotates everything counter-clockwise by `turns` quarter turns."""
  height, width = _any_size(example)
  matrix = (
    ((1, 0, 0), (0, 1, 0)),
    ((0, 1, 0), (-1, 0, width)),
    ((-1, 0, width), (0, -1, height)),
    ((0, -1, height), (1, 0, 0)),
  )[turns % 4]
  turned = lambda array, *_: np.ascontiguousarray(np.rot90(array, turns))  # noqa: E731
  return move(example, turned, matrix=matrix)


def affine(example: Example, matrix: np.ndarray, fill: Fill | None) -> Example:
  """Output pixel (x, y) reads the source at matrix @ (x, y, 1); the size stays.

  Args:
    example: see the module's docstring.
    matrix: float [2,3], from output to source pixels, x before y.
    fill: colour outside the source, where the label is void and the weight 0; None mirrors everything.
  """
  size = size_of(example)[::-1]

  def warp(part, mode, **border):
    return cv2.warpAffine(part, matrix, size, flags=mode | cv2.WARP_INVERSE_MAP, **border)

  return _warp(example, warp, fill)


def remap(
  example: Example, columns: np.ndarray, rows: np.ndarray, fill: Fill | None = None
) -> Example:
  """Output pixel (i, j) reads the source at row rows[i,j], column columns[i,j] (float32 [h,w]).

  `fill` as in `affine`.
  """

  def warp(part, mode, **border):
    return cv2.remap(part, columns, rows, mode, **border)

  return _warp(example, warp, fill)


def _warp(example: Example, warp: Callable, fill: Fill | None) -> Example:
  border = cv2.BORDER_REFLECT_101 if fill is None else cv2.BORDER_CONSTANT

  def function(array, nearest, ground):
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return _opencv(
      array, lambda part, value: warp(part, mode, borderMode=border, borderValue=value), ground
    )

  return move(example, function, fill or (0,))
