"""Removes specks from a predicted mask: parts of a class too small to be an object."""

import numpy as np
import scipy


def without_specks(mask: np.ndarray, min_area: int) -> np.ndarray:
  """Gives each 8-connected part of a class with fewer than `min_area` pixels the class of its surroundings.

  Args:
    mask: uint8 [h, w].
    min_area: pixels of the smallest part that stays.

  Returns:
    uint8 [h, w]: every pixel of such a part has the class of the nearest pixel of a larger part; the
    mask itself if all parts are too small.
  """
  small = np.zeros(mask.shape, bool)
  for class_id in np.unique(mask):
    parts, _ = scipy.ndimage.label(mask == class_id, structure=np.ones((3, 3)))
    too_small = np.bincount(parts.ravel()) < min_area
    too_small[0] = False  # of other classes
    small |= too_small[parts]
  if small.all() or not small.any():
    return mask
  nearest = scipy.ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
  return mask[tuple(nearest)]
