"""What is counted image by image on the host: the confusion matrix, boundaries, DICE, neurites.

Each has `add(label, mask, probabilities)` for one image, label and mask uint8 [h, w], probabilities
float32 [h, w, k], and `summary()`, what goes into eval/<split>.json.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jaxseg.metrics import boundary, neurites
from jaxseg.metrics.dice import dice
from jaxseg.types import VOID, UserError


class Measure(Protocol):
  """A score of a data set that is gathered image by image."""

  def add(self, label: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> None: ...

  def summary(self) -> dict[str, Any]: ...


class Confusion:
  """The confusion matrix, and through the task the four numbers.

  Args:
    task: its `summarize` reads the matrix.
  """

  def __init__(self, task: Any):
    self._task, self._matrix = task, np.zeros((task.num_classes, task.num_classes), np.int64)

  def add(self, label: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> None:
    """Counts one image. Raises UserError where a label is neither a class nor void."""
    del probabilities
    count = self._task.num_classes
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

  def add(self, label: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> None:
    del probabilities
    self._images.append(boundary.boundary_f1(label, mask, len(self._names)))

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

  def add(self, label: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> None:
    del mask
    total, count = dice(probabilities[None], label[None])
    self._total, self._count = self._total + float(total), self._count + float(count)

  def summary(self) -> dict[str, Any]:
    return {'dice': self._total / max(self._count, 1)}


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

  def add(self, label: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> None:
    del mask
    truth = np.where(label == VOID, VOID, label == self._membrane)
    for thin, counts in self._counts.items():
      counts.append(neurites.count(probabilities[..., self._membrane], truth, thin=thin))

  def summary(self) -> dict[str, Any]:
    plain, thinned = (neurites.summarize(neurites.add(c)) for c in self._counts.values())
    return {
      'neurites': {**plain, **{f'{k}_thinned': thinned[k] for k in ('v_rand', 'v_info')}},
    }
