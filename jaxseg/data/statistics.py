"""Statistics of a source: label histograms, class frequencies and weights, image mean and std."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxseg.data import threads
from jaxseg.data.progress import with_progress
from jaxseg.types import VOID


@dataclasses.dataclass
class LabelHistogram:
  """Pixel counts of a split, with void separate; updated by one label map at a time.

  Attributes:
    counts: int64 [c], pixels of each class.
    pixels_where_present: int64 [c], all pixels (including void) of the images with the class.
    images: int64 [c], number of images with the class.
    void: void pixels.
    num_images: total number of images.
    invalid: index of an example -> its ids that are neither a class nor void.
  """

  counts: np.ndarray
  pixels_where_present: np.ndarray
  images: np.ndarray
  void: int = 0
  num_images: int = 0
  invalid: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  @classmethod
  def empty(cls, num_classes: int) -> LabelHistogram:
    return cls(*(np.zeros(num_classes, np.int64) for _ in range(3)))

  def add(self, bins: np.ndarray) -> None:
    """Adds the next label map by its pixel counts, integer [256]."""
    classes = len(self.counts)
    present = bins[:classes] > 0
    self.counts += bins[:classes]
    self.void += int(bins[VOID])
    self.pixels_where_present += np.where(present, bins.sum(), 0)
    self.images += present
    wrong = classes + np.flatnonzero(bins[classes:VOID])
    if len(wrong):
      self.invalid[self.num_images] = tuple(wrong.tolist())
    self.num_images += 1

  @property
  def void_share(self) -> float:
    """Void pixels / all pixels that are a class or void."""
    return self.void / max(self.void + int(self.counts.sum()), 1)


def label_bins(label: np.ndarray) -> np.ndarray:
  """Returns the pixel count of each value of uint8 [h, w], int64 [256]."""
  return np.bincount(label.ravel(), minlength=256)


def label_histogram(source, title: str = 'reading labels') -> LabelHistogram:
  """Counts the labels of a source (one with num_classes, len and [i]), in a few threads.

  Images are not decoded if the source has a method label(i).

  Raises:
    StuckError: reading a label timed out, see threads.futures.
  """
  read = getattr(source, 'label', None) or (lambda i: source[i]['label'])
  name, total = getattr(source, 'file_name', None), len(source)
  histogram = LabelHistogram.empty(source.num_classes)
  all_bins = threads.results(lambda i: label_bins(read(i)), range(total), name=name)
  for bins in with_progress(title, all_bins, total):
    histogram.add(bins)
  return histogram


def class_frequencies(histogram: LabelHistogram) -> np.ndarray:
  """Returns float64 [c]: pixels of a class / pixels of the images with it; 0 if absent."""
  return histogram.counts / np.maximum(histogram.pixels_where_present, 1)


def median_frequency_weights(histogram: LabelHistogram) -> np.ndarray:
  """Returns float64 [c]: median(f) / f with f of class_frequencies (SegNet, arXiv:1511.00561).

  The median is over the classes that occur; a class that never occurs weighs 0.
  """
  frequencies = class_frequencies(histogram)
  present = frequencies > 0
  if not present.any():
    return np.zeros_like(frequencies)
  weights = np.median(frequencies[present]) / np.where(present, frequencies, 1)
  return np.where(present, weights, 0.0)


@dataclasses.dataclass(frozen=True)
class Moments:
  """Mean, standard deviation and range per channel, of images of any dtype; `+` merges two sets.

  Attributes:
    pixels: number of pixels.
    mean: float64 [c].
    squares: float64 [c], sum of squared deviations from the mean.
    low, high: float64 [c], minimum and maximum.
  """

  pixels: int
  mean: np.ndarray
  squares: np.ndarray
  low: np.ndarray
  high: np.ndarray

  @classmethod
  def empty(cls, channels: int) -> Moments:
    """Returns the moments of no pixels."""
    zeros, infinity = np.zeros(channels), np.full(channels, np.inf)
    return cls(0, zeros, zeros, infinity, -infinity)

  @classmethod
  def of(cls, image: np.ndarray) -> Moments:
    """Returns the moments of an image [h, w, c]."""
    rows = [_moments(image[..., c]) for c in range(image.shape[-1])]
    return cls(image.shape[0] * image.shape[1], *np.array(rows, np.float64).T)

  def __add__(self, other: Moments) -> Moments:
    pixels, apart = self.pixels + other.pixels, other.mean - self.mean
    share = other.pixels / max(pixels, 1)
    return Moments(
      pixels,
      self.mean + share * apart,
      self.squares + other.squares + share * self.pixels * apart**2,
      np.minimum(self.low, other.low),
      np.maximum(self.high, other.high),
    )

  @property
  def std(self) -> np.ndarray:
    """The (biased) standard deviation, float64 [c]."""
    return np.sqrt(self.squares / max(self.pixels, 1))


def _moments(plane: np.ndarray) -> tuple[float, float, float, float]:
  if plane.dtype == np.uint8:  # a histogram is faster, and exact
    counts = np.bincount(plane.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    mean = counts[values] @ values / plane.size
    return mean, counts[values] @ (values - mean) ** 2, values[0], values[-1]
  mean = plane.mean(dtype=np.float64)
  return mean, np.square(plane - mean, dtype=np.float64).sum(), plane.min(), plane.max()
