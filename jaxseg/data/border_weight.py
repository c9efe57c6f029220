"""The U-Net's weight map: w(x) = w_c(x) + w0 * exp(-(d1 + d2)^2 / (2 sigma^2)).

Ronneberger et al., arXiv:1505.04597, equation 2: d1 and d2 are the distances to the nearest and the
second nearest cell, and w_c balances the class frequencies. The exponential is added to the
background only, as ports of the paper do and its figure 3d shows; the paper itself does not say.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import scipy

_REACH = 6.0  # in sigmas: beyond it the exponential is below 1.6e-8 of w0


def border_weight(
  instances: np.ndarray,
  *,
  class_weights: Sequence[float] | None = None,
  w0: float = 10.0,
  sigma: float = 5.0,
) -> np.ndarray:
  """Returns the weight map, float32 [h, w].

  Args:
    instances: integer [h, w], 0 the background and a positive id per cell.
    class_weights: w_c of background and cells; by default 0.5 / (fraction of the image's pixels),
      or 1 if only one of the two occurs.
    w0: height of the border term.
    sigma: its width in pixels.
  """
  inside = instances > 0
  if class_weights is None:
    class_weights = balancing_weights((np.count_nonzero(~inside), np.count_nonzero(inside)))
  background, cells = np.float32(class_weights[0]), np.float32(class_weights[1])
  nearest, second = two_nearest(instances, reach=_REACH * sigma)
  border = np.float32(w0) * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
  return np.where(inside, cells, background + border)


def foreground(
  instances: np.ndarray,
  *,
  weigh: bool,
  separate: bool,
  class_weights: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns the two-class label, uint8 [h, w], and the weight map of objects that may touch.

  Args:
    instances: integer [h, w], 0 the background.
    weigh: whether to compute the weight map, with gaps between touching objects; else it is None.
    separate: whether the label has these gaps too.
    class_weights: see border_weight.
  """
  apart = separate_touching(instances) if weigh or separate else instances
  weight = border_weight(apart, class_weights=class_weights) if weigh else None
  return ((apart if separate else instances) > 0).astype(np.uint8), weight


def balancing_weights(counts: Sequence[int]) -> tuple[float, ...]:
  """Returns weights that give all classes the same total weight; the mean over all pixels is 1.

  Args:
    counts: pixels of each class; if any is 0, all weights are 1.
  """
  if min(counts) == 0:
    return (1.0,) * len(counts)
  return tuple(sum(counts) / (len(counts) * n) for n in counts)


def two_nearest(instances: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
  """Distances to the nearest and second nearest instance, in pixels between centres.

  Args:
    instances: integer [h, w], 0 for the background.
    reach: distances above it may be infinite. Smaller is faster: each instance is processed in its
      bounding box, extended by `reach`.

  Returns:
    Two float32 [h, w]; inside an instance the first is 0. Infinite where there is no instance.
  """
  nearest = np.full(instances.shape, np.inf, np.float32)
  second = nearest.copy()
  pad = int(np.ceil(reach))
  for number, box in enumerate(scipy.ndimage.find_objects(instances.astype(np.int32)), start=1):
    if box is None:
      continue
    window = tuple(slice(max(0, s.start - pad), s.stop + pad) for s in box)
    outside = (instances[window] != number).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    first = nearest[window]
    second[window] = np.minimum(second[window], np.maximum(first, distance))
    nearest[window] = np.minimum(first, distance)
  return nearest, second


def separate_touching(instances: np.ndarray) -> np.ndarray:
  """Returns uint16 [h, w] with a gap of background between touching instances.

  Every pixel with another instance among its eight neighbours becomes background, which makes gaps
  of two pixels. An instance that would vanish is left unchanged.
  """
  instances = instances.astype(np.uint16)
  top = np.uint16(65535)
  window = np.ones((3, 3), np.uint8)
  highest = cv2.dilate(instances, window)
  lowest = top - cv2.dilate(np.where(instances > 0, top - instances, np.uint16(0)), window)
  result = np.where(highest == lowest, instances, 0).astype(np.uint16)
  vanished = np.setdiff1d(instances, result)
  return np.where(np.isin(instances, vanished), instances, result)
