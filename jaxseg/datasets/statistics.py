"""Counts over a source: label histograms, class frequencies, class weights, image mean and std."""

from __future__ import annotations

import dataclasses

import numpy as np

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
  """

  counts: np.ndarray
  pixels_where_present: np.ndarray
  images: np.ndarray
  void: int
  num_images: int


def label_histogram(source) -> LabelHistogram:
  """Counts the labels of a source (one with num_classes, len and [i]); images are not decoded."""
  classes = source.num_classes
  counts, present, images = (np.zeros(classes, np.int64) for _ in range(3))
  void = 0
  read = getattr(source, 'label', None) or (lambda i: source[i]['label'])
  for i in range(len(source)):
    label = read(i)
    bins = np.bincount(label.ravel(), minlength=256)
    counts += bins[:classes]
    void += int(bins[VOID])
    present += np.where(bins[:classes] > 0, label.size, 0)
    images += bins[:classes] > 0
  return LabelHistogram(counts, present, images, void, len(source))


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
  pixels, total, squares = 0, 0, 0
  levels = np.arange(256, dtype=np.float64)
  for i in range(len(source)):
    image = source[i]['image']
    channels = range(image.shape[-1])
    bins = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in channels])
    pixels += image.shape[0] * image.shape[1]
    total, squares = total + bins @ levels, squares + bins @ levels**2
  mean = total / pixels
  return mean, np.sqrt(np.maximum(squares / pixels - mean**2, 0))
