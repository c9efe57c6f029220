"""Label histograms, SegNet's median-frequency weights, image mean and std."""

import json

import numpy as np
import pytest

from jaxseg.data import mask_files, statistics
from jaxseg.types import VOID


class Listed:
  """A source over arrays in memory."""

  def __init__(self, labels, num_classes=3):
    self.labels, self.num_classes = labels, num_classes

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, i):
    return {'label': np.array(self.labels[i], np.uint8)}


def test_histogram_and_weights_by_hand():
  source = Listed([[[0, 0], [0, 1]], [[0, VOID], [2, 2]], [[0, 0], [0, 0]]])
  histogram = statistics.label_histogram(source)
  assert histogram.counts.tolist() == [8, 1, 2]
  assert histogram.pixels_where_present.tolist() == [12, 4, 4]
  assert histogram.images.tolist() == [3, 1, 1]
  assert (histogram.void, histogram.num_images) == (1, 3)
  np.testing.assert_allclose(statistics.class_frequencies(histogram), [8 / 12, 1 / 4, 2 / 4])
  expected = [0.5 / (8 / 12), 0.5 / 0.25, 1]
  np.testing.assert_allclose(statistics.median_frequency_weights(histogram), expected)


def test_a_class_that_never_occurs_weighs_nothing_and_moves_no_median():
  def weights(label, num_classes):
    histogram = statistics.label_histogram(Listed([label], num_classes=num_classes))
    return statistics.median_frequency_weights(histogram).tolist()

  assert weights([[0, 0, 0, 1]], 4) == pytest.approx([0.5 / 0.75, 2, 0, 0])
  assert weights([[VOID]], 3) == [0, 0, 0]


def test_moments_equal_numpy():
  images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
  for dtype in ('uint8', 'uint16', 'int16', 'float32'):
    typed = (images.astype(np.float64) * 100 - (7000 if dtype == 'int16' else 0)).astype(dtype)
    found = sum(map(statistics.Moments.of, typed), statistics.Moments.empty(3))
    values = typed.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_allclose(found.std, values.std(0))
    np.testing.assert_array_equal([found.low, found.high], [values.min(0), values.max(0)])


def test_camvid_training_labels_give_the_stored_statistics(shared_data):
  folder = shared_data / 'camvid'
  stored = json.loads((folder / 'stats.json').read_text())
  masks = [mask_files.read_ids(path) for path in sorted(folder.glob('trainannot/*.png'))]
  labels = [np.where(mask == 11, VOID, mask) for mask in masks]
  histogram = statistics.label_histogram(Listed(labels, num_classes=11))
  expected = stored['splits']['train']
  assert histogram.num_images == expected['n'] == 367
  assert [*histogram.counts.tolist(), histogram.void] == expected['pixel_counts']
  assert histogram.pixels_where_present.tolist() == expected['pixels_in_images_with_class'][:11]
  assert histogram.images.tolist() == expected['images_with_class'][:11]
  weights = statistics.median_frequency_weights(histogram)
  np.testing.assert_allclose(weights, stored['median_frequency_weights_train'], atol=5.1e-5)
