"""Counts over a source: label histograms, class frequencies, class weights, image mean and std."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jaxseg.data import threads
from jaxseg.types import VOID


@dataclasses.dataclass(frozen=True)
class LabelHistogram:
  """Pixel counts of a split, void apart.

  Attributes:
    counts: int64 [c], pixels of each class.
    pixels_where_present: int64 [c], all pixels (void included) of the images that hold the class.
    images: int64 [c], images that hold the class.
    void: void pixels.
    num_images: images in all.
    invalid: place in the source -> the ids there that are neither a class nor void.
  """

  counts: np.ndarray
  pixels_where_present: np.ndarray
  images: np.ndarray
  void: int
  num_images: int
  invalid: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  @property
  def void_share(self) -> float:
    """Void pixels / all pixels that are a class or void."""
    return self.void / max(self.void + int(self.counts.sum()), 1)


class LabelCounter:
  """Collects a LabelHistogram, one label map at a time."""

  def __init__(self, num_classes: int):
    self._counts, self._present, self._images = (np.zeros(num_classes, np.int64) for _ in range(3))
    self._void, self._number, self._invalid = 0, 0, {}

  def add(self, bins: np.ndarray) -> None:
    """Adds the next label map by its pixel counts, integer [256]."""
    classes = len(self._counts)
    here = bins[:classes] > 0
    self._counts += bins[:classes]
    self._void += int(bins[VOID])
    self._present += np.where(here, bins.sum(), 0)
    self._images += here
    wrong = classes + np.flatnonzero(bins[classes:VOID])
    if len(wrong):
      self._invalid[self._number] = tuple(wrong.tolist())
    self._number += 1

  def result(self) -> LabelHistogram:
    return LabelHistogram(
      self._counts, self._present, self._images, self._void, self._number, self._invalid
    )


def label_bins(label: np.ndarray) -> np.ndarray:
  """Returns the pixels of each value of uint8 [h, w], int64 [256]."""
  return np.bincount(label.ravel(), minlength=256)


def label_histogram(
  source, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> LabelHistogram:
  """Counts the labels of a source (one with num_classes, len and [i]), in a few threads.

  Images are not decoded where the source has a method label(i). `progress` is called with
  (done, total).

  Raises:
    StuckError: a label that does not come, see pipeline.ahead.started.
  """
  read = getattr(source, 'label', None) or (lambda i: source[i]['label'])
  counter = LabelCounter(source.num_classes)
  name = getattr(source, 'file_name', None)
  found = threads.results(lambda i: label_bins(read(i)), range(len(source)), name=name)
  for done, bins in enumerate(found, start=1):
    counter.add(bins)
    progress(done, len(source))
  return counter.result()


def class_frequencies(histogram: LabelHistogram) -> np.ndarray:
  """Returns float64 [c]: pixels of a class / pixels of the images holding it; 0 if absent."""
  return histogram.counts / np.maximum(histogram.pixels_where_present, 1)


def median_frequency_weights(source) -> np.ndarray:
  """Returns float64 [c]: median(f) / f with f of class_frequencies (SegNet, arXiv:1511.00561).

  The median is over the classes that occur; a class that never occurs weighs 0.

  Args:
    source: a source, or its LabelHistogram.
  """
  known = isinstance(source, LabelHistogram)
  frequencies = class_frequencies(source if known else label_histogram(source))
  present = frequencies > 0
  if not present.any():
    return np.zeros_like(frequencies)
  weights = np.median(frequencies[present]) / np.where(present, frequencies, 1)
  return np.where(present, weights, 0.0)


def channel_statistics(source) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation of each channel over all pixels, float64 [c], 0..255."""
  return moments(sum(channel_bins(source[i]['image']) for i in range(len(source))))


def channel_bins(image: np.ndarray) -> np.ndarray:
  """Returns the pixels of each value in each channel of uint8 [h, w, c], int64 [c, 256]."""
  channels = range(image.shape[-1])
  return np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in channels])


def moments(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation of each channel from its `channel_bins`, float64 [c]."""
  levels = np.arange(256, dtype=np.float64)
  pixels = bins.sum(axis=1)
  mean = bins @ levels / pixels
  return mean, np.sqrt(np.maximum(bins @ levels**2 / pixels - mean**2, 0))
