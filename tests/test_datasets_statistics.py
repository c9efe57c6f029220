"""Label histograms, SegNet's median-frequency weights, image mean and std."""

import json

import numpy as np
import pytest

from jaxseg.data import statistics
from jaxseg.datasets import camvid
from jaxseg.types import VOID


class Listed:
  """A source over arrays in memory."""

  def __init__(self, labels, images=None, num_classes=3):
    self.labels, self.images, self.num_classes = labels, images, num_classes

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, i):
    image = None if self.images is None else self.images[i]
    return {'label': np.array(self.labels[i], np.uint8), 'image': image}


def test_histogram_and_weights_by_hand():
  source = Listed([[[0, 0], [0, 1]], [[0, VOID], [2, 2]], [[0, 0], [0, 0]]])
  histogram = statistics.label_histogram(source)
  assert histogram.counts.tolist() == [8, 1, 2]
  assert histogram.pixels_where_present.tolist() == [12, 4, 4]
  assert histogram.images.tolist() == [3, 1, 1]
  assert (histogram.void, histogram.num_images) == (1, 3)
  np.testing.assert_allclose(statistics.class_frequencies(histogram), [8 / 12, 1 / 4, 2 / 4])
  expected = [0.5 / (8 / 12), 0.5 / 0.25, 1]
  np.testing.assert_allclose(statistics.median_frequency_weights(source), expected)
  np.testing.assert_allclose(statistics.median_frequency_weights(histogram), expected)


def test_a_class_that_never_occurs_weighs_nothing_and_moves_no_median():
  weights = statistics.median_frequency_weights(Listed([[[0, 0, 0, 1]]], num_classes=4))
  np.testing.assert_allclose(weights, [0.5 / 0.75, 2, 0, 0])
  np.testing.assert_array_equal(statistics.median_frequency_weights(Listed([[[VOID]]])), [0, 0, 0])


def test_channel_statistics_equal_numpy():
  images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
  mean, std = statistics.channel_statistics(Listed(np.zeros((3, 4, 5)), images))
  np.testing.assert_allclose(mean, images.reshape(-1, 3).mean(0))
  np.testing.assert_allclose(std, images.reshape(-1, 3).std(0))


def test_camvid_training_split_gives_the_stored_statistics(shared_data, tmp_path):
  stored = json.loads((shared_data / 'camvid' / 'stats.json').read_text())
  source = camvid.source('train', data_dir=shared_data, cache_dir=tmp_path)
  assert len(source) == stored['splits']['train']['n'] == 367
  histogram = statistics.label_histogram(source)
  expected = stored['splits']['train']
  assert [*histogram.counts.tolist(), histogram.void] == expected['pixel_counts']
  assert histogram.pixels_where_present.tolist() == expected['pixels_in_images_with_class'][:11]
  assert histogram.images.tolist() == expected['images_with_class'][:11]
  weights = statistics.median_frequency_weights(histogram)
  np.testing.assert_allclose(weights, stored['median_frequency_weights_train'], atol=5.1e-5)
  np.testing.assert_allclose(weights, camvid.MEDIAN_FREQUENCY_WEIGHTS, atol=5.1e-5)
  assert list(camvid.PAPER_CLASS_WEIGHTS) == stored['segnet_prototxt_class_weighting']


@pytest.mark.slow
def test_camvid_mean_and_std(shared_data, tmp_path):
  source = camvid.source('train', data_dir=shared_data, cache_dir=tmp_path)
  mean, std = statistics.channel_statistics(source)
  np.testing.assert_allclose(mean, camvid.TRAIN_MEAN, atol=0.006)
  np.testing.assert_allclose(std, camvid.TRAIN_STD, atol=0.006)
