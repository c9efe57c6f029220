"""The measures of the ISBI 2012 challenge: membranes between neurites in electron micrographs.

Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for
connectomics, Frontiers in Neuroanatomy 2015. A map of membrane probability is thresholded at ten
levels; the 4-connected components of the rest are the proposed segmentation T. It is compared with
the components S of the truth over the pixels that are cell in the truth, at the threshold that is
best for all sections together. A pixel that T calls membrane there is a segment of its own.

With p_ij the fraction of those pixels in true segment i and proposed segment j, s_i and t_j the sums
over j and over i: V^Rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2), V^Info = 2 I(S, T) /
(H(S) + H(T)).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy

from jaxseg.metrics.score import Example, Prediction, Result, Sums
from jaxseg.types import VOID, UserError

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 11))  # membrane is where the map reaches it

Counts = dict[str, np.ndarray]
_THINNED = 'thinned/'


class Score(Sums):
  """The challenge's measures of the probability of class 'membrane'.

  `v_rand_thinned` and `v_info_thinned` come after thinning, as in the later official scores.

  Raises:
    UserError: the data have no class 'membrane'.
  """

  maps = True

  def __init__(self, class_names: Sequence[str]):
    super().__init__()
    names = tuple(class_names)
    if 'membrane' not in names:
      raise UserError(
        f"the score neurites needs a class named 'membrane', the classes are {', '.join(names)}"
      )
    self._membrane = names.index('membrane')

  def measure(self, example: Example, prediction: Prediction) -> Counts:
    label, membrane = example['label'], prediction['probabilities'][..., self._membrane]
    truth = np.where(label == VOID, VOID, label == self._membrane)
    thinned = count(membrane, truth, thin=True)
    return {**count(membrane, truth), **{_THINNED + k: v for k, v in thinned.items()}}

  def compute(self) -> Result:
    """Returns 'neurites': the result of `summarize`, and V^Rand and V^Info after thinning."""
    plain = summarize(self.sums)
    thinned = summarize({k: self.sums[_THINNED + k] for k in self.sums if _THINNED not in k})
    return {'neurites': plain | {f'{k}_thinned': thinned[k] for k in ('v_rand', 'v_info')}}


def count(membrane: np.ndarray, label: np.ndarray, *, thin: bool = False) -> Counts:
  """Counts one section at every threshold.

  Args:
    membrane: float [h, w] in [0, 1], probability of membrane.
    label: integers [h, w], 1 membrane, 0 cell; VOID is ignored.
    thin: first thins proposed membranes, as in the later official scores.

  Returns:
    name -> float64 [thresholds], to be summed over sections for `summarize`.
  """
  cells, valid = label == 0, label != VOID
  truth = components(cells)[cells]
  rows = []
  for threshold in THRESHOLDS:
    inside = membrane < threshold
    segments = thin_membranes(components(inside)) if thin else components(inside)
    rows.append(
      {
        'sections': 1,
        'pixels': valid.sum(),
        'wrong': (inside != cells)[valid].sum(),
        'hits': (cells & inside).sum(),
        'claimed': (valid & inside).sum(),
        'cells': cells.sum(),
        **_pair_sums(truth, segments[cells]),
      }
    )
  return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def summarize(counts: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Computes scores from summed counts, each at its own best threshold.

  Returns:
    pixel_error: 1 - the best F-score of cell pixels. pixel_disagreement: the smallest fraction of
    wrong pixels. rand_error: 1 - v_rand. v_rand, v_info: in [0, 1], larger is better; pixel pairs are
    summed over sections, V^Info is averaged.
  """
  pixel_f = _ratio(2 * counts['hits'], counts['claimed'] + counts['cells'])
  v_rand = _ratio(2 * counts['joint'], counts['truth'] + counts['proposed'])
  return {
    'pixel_error': float(1 - pixel_f.max()),
    'pixel_disagreement': float(_ratio(counts['wrong'], counts['pixels']).min()),
    'rand_error': float(1 - v_rand.max()),
    'v_rand': float(v_rand.max()),
    'v_info': float(_ratio(counts['info'], counts['sections']).max()),
  }


def components(cells: np.ndarray) -> np.ndarray:
  """Returns int32 [h, w]: the 4-connected components of bool `cells`, numbered from 1, 0 elsewhere."""
  return scipy.ndimage.label(cells)[0]


def thin_membranes(segments: np.ndarray) -> np.ndarray:
  """Grows segments, integers [h, w], into the membranes (0) until these are lines of one pixel."""
  membrane = segments == 0
  if membrane.all() or not membrane.any():
    return segments
  nearest = scipy.ndimage.distance_transform_edt(
    membrane, return_distances=False, return_indices=True
  )
  grown = segments[tuple(nearest)]
  padded, was_membrane = np.pad(grown, 1, mode='edge'), np.pad(membrane, 1)
  right_below = (grown != padded[1:-1, 2:]) | (grown != padded[2:, 1:-1])
  # If the neighbour on the other side was not membrane, the line has to be at this pixel.
  left_above = (grown != padded[1:-1, :-2]) & ~was_membrane[1:-1, :-2]
  left_above |= (grown != padded[:-2, 1:-1]) & ~was_membrane[:-2, 1:-1]
  return np.where(membrane & (right_below | left_above), 0, grown)


def _pair_sums(truth: np.ndarray, proposed: np.ndarray) -> dict[str, float]:
  """Returns V^Info, and ordered pixel pairs in the same segment of both, of the truth, of the proposal.

  Both inputs are int [n], segments from 1; 0 is proposed membrane.
  """
  singletons = np.count_nonzero(proposed == 0)  # each is a segment of one pixel
  claimed = proposed > 0
  pairs = truth[claimed].astype(np.int64) * (int(proposed.max(initial=0)) + 1) + proposed[claimed]
  both = np.unique(pairs, return_counts=True)[1].astype(np.float64)
  rows = np.bincount(truth)[1:].astype(np.float64)
  columns = np.bincount(proposed[claimed])[1:].astype(np.float64)
  entropies = _entropy(rows, truth.size, 0) + _entropy(columns, truth.size, singletons)
  return {
    'joint': (both**2).sum() + singletons,
    'truth': (rows**2).sum(),
    'proposed': (columns**2).sum() + singletons,
    'info': 2 * (entropies - _entropy(both, truth.size, singletons)) / entropies
    if entropies > 0
    else 1.0,
  }


def _entropy(sizes: np.ndarray, total: int, singletons: int) -> float:
  """Entropy in nats of a partition of `total` pixels into `sizes` and `singletons` single pixels."""
  share = sizes[sizes > 0] / max(total, 1)
  return float(-(share * np.log(share)).sum() + singletons / max(total, 1) * np.log(max(total, 1)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides; 0 / 0 is 1, for an empty truth and prediction."""
  nothing = denominator == 0
  return np.where(nothing, 1.0, numerator / np.where(nothing, 1.0, denominator))
