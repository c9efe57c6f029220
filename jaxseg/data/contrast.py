"""Contrast normalisation by percentiles, for sets whose exposure differs from image to image."""

import numpy as np


def stretch(image: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
  """Scales an image linearly so that two percentiles of its values become 0 and the dtype's maximum.

  Values beyond are clipped, integers rounded. All channels are scaled alike, which keeps hues. As the
  percentiles are values of the image, a second application changes nothing.

  Args:
    image: [h, w, c] of any dtype of config.data.dtype; the maximum of float32 is 1.
    percentiles: lower and upper, 0 to 100.

  Returns:
    An image of the same shape and dtype; the same image if both percentiles are equal.
  """
  low, high = np.percentile(image, percentiles, method='nearest').astype(np.float64)
  if low == high:
    return image
  is_integer = np.issubdtype(image.dtype, np.integer)
  most = np.iinfo(image.dtype).max if is_integer else 1.0
  scaled = np.clip((image - low) / (high - low) * most, 0, most)
  return (np.rint(scaled) if is_integer else scaled).astype(image.dtype)
