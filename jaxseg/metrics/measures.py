"""What is counted image by image on the host: the confusion matrix, boundaries, DICE, cells, neurites.

Each has `add(example, mask, probabilities)` for one image, the example as its dataset gives it, mask
uint8 [h, w], probabilities float32 [h, w, k], and `summary()`, what goes into eval/<split>.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from jaxseg.metrics import boundary, cells, coco, confusion, neurites
from jaxseg.metrics.dice import dice
from jaxseg.types import VOID, UserError

SCORES = ('pixel_accuracy', 'mean_accuracy', 'mean_iou', 'frequency_weighted_iou')
_SINGLE = (*coco.SCORES, 'dice', 'seg', 'boundary_f1', 'f_score')
EXTRAS = (*_SINGLE, 'per_class_ap', 'per_class_boundary_f1', 'per_class_f_score', 'neurites')


class Measure(Protocol):
  """A score of a data set that is gathered image by image."""

  def add(
    self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray
  ) -> None: ...

  def summary(self) -> dict[str, Any]: ...


def asked_for(
  config: Any,
  class_names: tuple[str, ...],
  *,
  boundaries: bool,
  neurites: bool | None,
  precision: bool = False,
) -> list[Measure]:
  """Returns the measures beside the confusion matrix, those of the config and those of the flags.

  Args:
    config: of the run; `dice`, `seg` and its dataset speak.
    class_names: of the data.
    boundaries: whether BF is measured.
    neurites: whether the ISBI challenge's measures are taken; None: where the data are ISBI 2012's.
    precision: whether connected components are scored as instances.
  """
  found: list[Measure] = [Boundary(class_names)] if boundaries else []
  found += [Dice()] if config.dice else []
  found += [Objects()] if config.seg else []
  found += [Precision(class_names)] if precision else []
  if neurites or (neurites is None and config.dataset == 'isbi2012'):
    found.append(Neurites(class_names))
  return found


def single_numbers(result: Mapping[str, Any]) -> dict[str, float | None]:
  """Returns all scores of an evaluation that are one number, by name, the four first."""
  found = {name: result[name] for name in (*SCORES, *_SINGLE) if name in result}
  found |= {f'f_score of {k}': v for k, v in result.get('per_class_f_score', {}).items()}
  return found | dict(result.get('neurites') or {})


def published_numbers(paper: Mapping[str, Any] | None) -> dict[str, float]:
  """Returns the scores of config.paper by the names that `single_numbers` uses."""
  return {name: value for name, value in (paper or {}).items() if isinstance(value, float)}


class Confusion:
  """The confusion matrix, and through the task the four numbers.

  Args:
    task: its `summarize` reads the matrix.
  """

  def __init__(self, task: Any):
    self._task, self._matrix = task, np.zeros((task.num_classes, task.num_classes), np.int64)

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    """Counts one image. Raises UserError where a label is neither a class nor void."""
    del probabilities
    label, count = example['label'], self._task.num_classes
    invalid = np.count_nonzero((label >= count) & (label != VOID))
    if invalid:
      raise UserError(f'{invalid} pixels carry labels outside the {count} classes')
    seen = label != VOID
    pairs = label[seen].astype(np.int64) * count + mask[seen]
    self._matrix += np.bincount(pairs, minlength=count**2).reshape(count, count)

  def summary(self) -> dict[str, Any]:
    return {**self._task.summarize({'confusion': self._matrix}), 'confusion': self._matrix}


class Boundary:
  """BF, the boundary F1 measure of the SegNet paper."""

  def __init__(self, class_names: tuple[str, ...]):
    self._names, self._images = class_names, []

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    del probabilities
    self._images.append(boundary.boundary_f1(example['label'], mask, len(self._names)))

  def summary(self) -> dict[str, Any]:
    """Returns boundary_f1, and the mean over images for each class, None where it has none."""
    images = np.array(self._images)
    present = ~np.isnan(images)
    totals = np.where(present, images, 0).sum(axis=0)
    per_class = {
      name: float(total / count) if count else None
      for name, total, count in zip(self._names, totals, present.sum(axis=0), strict=True)
    }
    return {
      'boundary_f1': boundary.mean_of_images(images),
      'per_class_boundary_f1': per_class,
    }


class Dice:
  """The soft DICE of NVIDIA's U-Net, over images and classes."""

  def __init__(self):
    self._total, self._count = 0.0, 0.0

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    del mask
    total, count = dice(probabilities[None], example['label'][None])
    self._total, self._count = self._total + float(total), self._count + float(count)

  def summary(self) -> dict[str, Any]:
    return {'dice': self._total / max(self._count, 1)}


class Objects:
  """SEG of the Cell Tracking Challenge: each connected component of class 1 and above is an object."""

  def __init__(self):
    self._total, self._count = 0.0, 0

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    """Counts one image. Raises UserError where the data do not tell objects apart."""
    del probabilities
    if 'instances' not in example:
      raise UserError(
        'config.seg=True needs data that number their objects, as ctc and dsb2018 do: set it to False'
      )
    total, count = cells.seg_score(example['instances'], cells.components(mask > 0))
    self._total, self._count = self._total + total, self._count + count

  def summary(self) -> dict[str, Any]:
    """Returns seg, the mean over the true objects of all images; None where there is none."""
    return {'seg': self._total / self._count if self._count else None}


class Precision:
  """COCO's average precision of connected components, so that it compares with detectors.

  A component of a class's pixels is an instance; its score is the class's mean probability there.
  """

  def __init__(self, class_names: tuple[str, ...]):
    self._score = coco.CocoScore(class_names)

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    """Counts one image. Raises UserError where the data do not tell objects apart."""
    self._score.add(example, component_detections(mask, probabilities))

  def summary(self) -> dict[str, Any]:
    """Returns metrics.coco.SCORES and per_class_ap."""
    return self._score.summary()


def component_detections(mask: np.ndarray, probabilities: np.ndarray) -> coco.Detections:
  """Returns the best connected components of each class but background, by falling score.

  Args:
    mask: uint8 [h, w].
    probabilities: float32 [h, w, k].
  """
  found = []
  for kind in (int(k) for k in np.unique(mask) if 0 < k < probabilities.shape[-1]):
    numbers = cells.components(mask == kind)
    means = ndimage.mean(probabilities[..., kind], numbers, range(1, numbers.max() + 1))
    places = ndimage.find_objects(numbers)
    for i in np.argsort(-means, kind='stable')[: coco.MAX_DETECTIONS]:
      rows, columns = places[i]
      box = (columns.start, rows.start, columns.stop, rows.stop)
      found.append((means[i], box, kind, numbers == i + 1))
  found.sort(key=lambda one: -one[0])
  return coco.Detections(
    boxes=np.array([box for _, box, _, _ in found], np.float32).reshape(-1, 4),
    scores=np.array([score for score, _, _, _ in found], np.float32),
    classes=np.array([kind for _, _, kind, _ in found], np.int32),
    masks=np.array([one for _, _, _, one in found], bool).reshape(-1, *mask.shape),
  )


def make_f_scores(
  class_names: tuple[str, ...], betas: Mapping[str, float]
) -> Callable[[np.ndarray], dict[str, Any]]:
  """Returns what reads F-measures from a confusion matrix (metrics.confusion.f_score).

  Args:
    class_names: in the matrix's order.
    betas: class -> beta; {}: nothing is measured.

  Returns:
    matrix -> f_score, the mean over those of the classes that occur, and per_class_f_score with None
    for a class that does not; {} where nothing is measured.

  Raises:
    UserError: a class that is not there, or a beta that is not above 0.
  """
  for name, beta in betas.items():
    if name not in class_names:
      raise UserError(
        f'config.f_scores.{name}: no such class; the classes are {", ".join(class_names)}'
      )
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not beta > 0:
      raise UserError(f'config.f_scores.{name}={beta!r}: beta is a number above 0')

  def measure(matrix: np.ndarray) -> dict[str, Any]:
    values = {n: confusion.f_score(matrix, class_names.index(n), b) for n, b in betas.items()}
    present = [v for v in values.values() if not np.isnan(v)]
    per_class = {f'{n} (beta {betas[n]:g})': None if np.isnan(v) else v for n, v in values.items()}
    mean = float(np.mean(present)) if present else None
    return {'f_score': mean, 'per_class_f_score': per_class} if betas else {}

  return measure


class Neurites:
  """The ISBI 2012 challenge's measures, of the probability of membrane.

  `v_rand_thinned` and `v_info_thinned` come after thinning, as in the later official scores.

  Raises:
    UserError: the data have no class 'membrane'.
  """

  def __init__(self, class_names: tuple[str, ...]):
    if 'membrane' not in class_names:
      raise UserError(
        f"--neurites needs a class named 'membrane', the classes are {', '.join(class_names)}"
      )
    self._membrane = class_names.index('membrane')
    self._counts: dict[bool, list] = {False: [], True: []}

  def add(self, example: Mapping[str, Any], mask: np.ndarray, probabilities: np.ndarray) -> None:
    del mask
    label = example['label']
    truth = np.where(label == VOID, VOID, label == self._membrane)
    for thin, counts in self._counts.items():
      counts.append(neurites.count(probabilities[..., self._membrane], truth, thin=thin))

  def summary(self) -> dict[str, Any]:
    plain, thinned = (neurites.summarize(neurites.add(c)) for c in self._counts.values())
    return {
      'neurites': {**plain, **{f'{k}_thinned': thinned[k] for k in ('v_rand', 'v_info')}},
    }
