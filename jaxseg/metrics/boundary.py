"""The boundary F1 measure (BF) of the SegNet paper (arXiv:1511.00561), as in its script.

Per image and class the boundary pixels of truth and prediction are matched one to one, at a distance
of at most 0.75 % of the image's diagonal; precision and recall are the matched fractions of the
predicted and the true boundary. This is a maximum bipartite matching. The script's (BSDS
correspondPixels) has minimum cost, with 100 tolerances for an unmatched pixel: its size is the same,
and only the size matters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Prediction, Result, Sums
from jaxseg.types import UserError

TOLERANCE = 0.0075  # of the diagonal: 4.5 pixels at 360x480


class Score(Sums):
  """BF of a data set: the mean over each image's classes with a boundary in either map, then over images.

  Images without any boundary are skipped; the script counts them as 0.
  """

  def __init__(self, class_names: Sequence[str]):
    self._names = tuple(class_names)
    zeros = np.zeros(len(self._names))
    super().__init__(f1=zeros, present=zeros, image_means=0.0, images=0)

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    f1 = boundary_f1(example['label'], prediction['mask'], len(self._names))
    present = ~np.isnan(f1)
    return {
      'f1': np.where(present, f1, 0.0),
      'present': present,
      'image_means': float(f1[present].mean()) if present.any() else 0.0,
      'images': int(present.any()),
    }

  def compute(self) -> Result:
    """Returns boundary_f1, and per_class_boundary_f1, the mean over the images that have the class."""
    sums = self.sums
    means = (float(t / n) if n else None for t, n in zip(sums['f1'], sums['present'], strict=True))
    return {
      'boundary_f1': sums['image_means'] / sums['images'] if sums['images'] else None,
      'per_class_boundary_f1': dict(zip(self._names, means, strict=True)),
    }


def boundary_map(mask: np.ndarray) -> np.ndarray:
  """Marks the pixels of [h, w] whose 2x2 window (itself, right, below, diagonal) is not constant.

  The line is one pixel wide, half a pixel closer to the origin than the true edge, as in BSDS's
  seg2bdry at image size. The image's border is not a boundary.
  """
  padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
  here = padded[:-1, :-1]
  return (here != padded[1:, :-1]) | (here != padded[:-1, 1:]) | (here != padded[1:, 1:])


def count_matches(first: np.ndarray, second: np.ndarray, radius: float) -> int:
  """Returns the size of the largest one-to-one matching of True pixels of two maps [h, w].

  `radius` is the largest Euclidean distance of a pair, in pixels, inclusive.
  """
  points, others = np.argwhere(first), np.argwhere(second)
  if not len(points) or not len(others):
    return 0
  reach = int(radius)
  offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
  offsets = offsets[(offsets**2).sum(axis=1) <= radius**2]
  index = np.full(np.add(second.shape, 2 * reach), -1, np.int32)
  index[tuple((others + reach).T)] = np.arange(len(others))
  near = points[:, None] + offsets[None] + reach
  near = index[near[..., 0], near[..., 1]]
  rows, columns = np.nonzero(near >= 0)
  return _matching_size(len(points), len(others), rows, near[rows, columns])


def boundary_f1(
  label: np.ndarray, prediction: np.ndarray, num_classes: int, *, tolerance: float = TOLERANCE
) -> np.ndarray:
  """F1 of each class's boundary in one image, from integers [h, w].

  As in the script, void pixels have no class in the truth but keep it in the prediction, which is
  thus penalised for boundaries in void. `tolerance` is the largest distance of a match relative to the
  diagonal.

  Returns:
    float64 [c] in [0, 1]; 0 if only one of the two maps has a boundary, nan if neither has.
  """
  if label.shape != prediction.shape or label.ndim != 2:
    raise UserError(f'label {label.shape} and prediction {prediction.shape} must be one [h, w]')
  radius = tolerance * np.hypot(*label.shape)
  scores = np.full(num_classes, np.nan)
  for index in range(num_classes):
    truth, predicted = boundary_map(label == index), boundary_map(prediction == index)
    total = np.count_nonzero(truth) + np.count_nonzero(predicted)
    if total:
      # With m matches, precision m / p and recall m / t: F1 = 2 m / (p + t).
      scores[index] = 2 * count_matches(truth, predicted, radius) / total
  return scores


def _matching_size(count: int, other_count: int, points: np.ndarray, others: np.ndarray) -> int:
  """Returns the size of the largest matching in the graph with edges (points[k], others[k]).

  Solved as a maximum flow with unit capacities: on these graphs Dinic's algorithm takes milliseconds,
  scipy's maximum_bipartite_matching minutes.
  """
  source, sink = count + other_count, count + other_count + 1
  left, right = np.arange(count), np.arange(count, source)
  rows = np.concatenate([np.full(count, source), points, right])
  columns = np.concatenate([left, others + count, np.full(other_count, sink)])
  edges, shape = (np.ones(len(rows), np.int32), (rows, columns)), (sink + 1, sink + 1)
  graph = scipy.sparse.csr_matrix(edges, shape=shape)
  return int(scipy.sparse.csgraph.maximum_flow(graph, source, sink, method='dinic').flow_value)
