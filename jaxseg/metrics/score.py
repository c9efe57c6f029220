"""The protocol of scores: every image of a data set is added once, on the host; then `compute`.

Scores of two parts of the data, from threads or hosts, can be merged. The form of an entry of a result
determines its meaning:

  NAME             float, or None where nothing can be measured     a score
  per_class_NAME   {class: float, None where it is absent}          a column
  NAME             {name: float or None}                            further scores
  NAME             {name: [numbers]}                                a curve to draw
  by_NAME          {row: {column: number or None}}                  a breakdown, such as by camera
  confusion        [c][c] pixels, rows truth
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxseg.config import parts
from jaxseg.types import UserError

Example = Prediction = Mapping[str, Any]
Result = dict[str, Any]

_PER_CLASS, BY = 'per_class_', 'by_'
_MOST_ROWS = 40  # shown of a breakdown
_RENAMED = {'places': 'error_breakdown'}  # earlier name -> name


class Score(Protocol):
  """A score of a data set.

  Attributes:
    maps: whether it reads prediction['probabilities'].
  """

  maps: bool

  def add(self, example: Example, prediction: Prediction) -> None:
    """Adds one image.

    Args:
      example: from its source, with 'label' integers [h, w], and perhaps its 'index' in the data.
      prediction: from a task's `in_image`, with 'mask' uint8 [h, w].

    Raises:
      UserError: labels outside the classes, or data without the truth that the score needs.
    """

  def merge(self, other: Any) -> None:
    """Adds the images of another score of the same kind."""

  def compute(self) -> Result:
    """Returns the result. Raises UserError if there is nothing to score."""


class Sums:
  """Base of scores that are sums over images.

  Attributes:
    sums: name -> number or array, summed over images.
  """

  maps = False

  def __init__(self, **zeros: Any):
    self.sums = zeros

  def measure(self, example: Example, prediction: Prediction) -> dict[str, Any]:
    """Returns one image's contribution to the sums."""
    raise NotImplementedError

  def add(self, example: Example, prediction: Prediction) -> None:
    self._plus(self.measure(example, prediction))

  def merge(self, other: Sums) -> None:
    self._plus(other.sums)

  def _plus(self, sums: Mapping[str, Any]) -> None:
    self.sums |= {name: self.sums.get(name, 0) + value for name, value in sums.items()}


class Mean(Sums):
  """Base of scores that are means over images or objects.

  `measure` returns 'total' and 'count'; the result is None if the count is 0.
  """

  name: str

  def __init__(self, class_names: Sequence[str]):
    del class_names
    super().__init__(total=0.0, count=0)

  def compute(self) -> Result:
    total, count = self.sums['total'], self.sums['count']
    return {self.name: total / count if count else None}


class Scores:
  """Several scores as one."""

  def __init__(self, scores: Iterable[Score]):
    self._scores = tuple(scores)
    self.maps = any(score.maps for score in self._scores)

  def add(self, example: Example, prediction: Prediction) -> None:
    for score in self._scores:
      score.add(example, prediction)

  def merge(self, other: Scores) -> None:
    for score, another in zip(self._scores, other._scores, strict=True):
      score.merge(another)

  def compute(self) -> Result:
    return {name: value for score in self._scores for name, value in score.compute().items()}


class Groups:
  """A score for each part of a data set, such as each camera, site or date.

  Args:
    title: of the groups, such as 'camera'.
    group_of: example -> group.
    make: returns empty scores.
  """

  def __init__(self, title: str, group_of: Callable[[Example], str], make: Callable[[], Score]):
    self._title, self._group_of, self._make = title, group_of, make
    self._scores: dict[str, Score] = {}
    self._images: dict[str, int] = {}
    self.maps = make().maps

  def add(self, example: Example, prediction: Prediction) -> None:
    group = self._group_of(example)
    self._of(group).add(example, prediction)
    self._images[group] = self._images.get(group, 0) + 1

  def merge(self, other: Groups) -> None:
    for group, score in other._scores.items():
      self._of(group).merge(score)
      self._images[group] = self._images.get(group, 0) + other._images[group]

  def compute(self) -> Result:
    """Returns by_<title>: the number of images and the scores of each group."""
    rows = {}
    for group, score in sorted(self._scores.items()):
      try:
        scores_of_group = numbers(score.compute())
      except UserError:  # nothing there to score
        scores_of_group = {}
      known = {name: _known(value) for name, value in scores_of_group.items()}
      rows[group] = {'images': self._images[group], **known}
    return {f'by_{self._title}': rows}

  def _of(self, group: str) -> Score:
    return self._scores.setdefault(group, self._make())


def load(name: str, class_names: Sequence[str]) -> Score:
  """Returns an empty score of jaxseg.metrics.NAME, or of a user's module, for these classes."""
  kind = parts.load('metrics', _RENAMED.get(name, name), kind='score').Score
  if kind is Score:
    raise UserError(f'{name!r} is no score but what scores have in common: name another')
  return kind(tuple(class_names))


def add(score: Score, example: Example, prediction: Prediction) -> None:
  """Adds one image. Prefixes the score's UserError with the example's file name."""
  try:
    score.add(example, prediction)
  except UserError as error:
    raise UserError(f'{example["file_name"]}: {error}') from None


def of_image(score: Score, example: Example, prediction: Prediction, name: str) -> float | None:
  """Adds one image to an empty score and returns its number `name`; None if it cannot be computed."""
  score.add(example, prediction)
  try:
    return _known(score.compute()[name])
  except UserError:
    return None


def _known(value: float | None) -> float | None:
  return None if value is None or np.isnan(value) else value


def numbers(result: Mapping[str, Any]) -> dict[str, float | None]:
  """Returns the scalar entries of a result by name."""
  single = {name: value for name, value in result.items() if _is_number(value)}
  for key, values in _tables(result).items():
    if not _is_column(key, values, result):
      of = f'{key.removeprefix(_PER_CLASS)} of ' if key.startswith(_PER_CLASS) else ''
      single |= {f'{of}{name}': value for name, value in values.items()}
  return single


def columns(result: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
  """Returns the per-class entries of a result: name of the score -> {class: value}."""
  tables = _tables(result).items()
  return {k.removeprefix(_PER_CLASS): dict(v) for k, v in tables if _is_column(k, v, result)}


def breakdowns(result: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
  """Returns the breakdowns of a result: title -> {row: {column: number}}.

  Of too many rows only those with the lowest scores are included.
  """
  tables = {k: v for k, v in result.items() if k.startswith(BY) and isinstance(v, Mapping)}
  shown = {}
  for key, rows in tables.items():
    title, names = key.removeprefix(BY).replace('_', ' '), [*rows]
    if len(rows) > _MOST_ROWS:
      title += f', the lowest {_MOST_ROWS} of {len(rows)}'
      names = sorted(rows, key=lambda name: _first(rows[name]))[:_MOST_ROWS]
    if names:
      shown[title] = {name: rows[name] for name in names}
  return shown


def _first(row: Mapping[str, float | None]) -> float:
  """Returns the first score of a row, infinity if there is none."""
  return next((value for value in row.values() if isinstance(value, float)), np.inf)


def published(paper: Mapping[str, Any] | None) -> dict[str, float]:
  """Returns the scores of a config's `paper`, by the names that `numbers` uses."""
  return {name: value for name, value in (paper or {}).items() if isinstance(value, float)}


def _is_number(value: Any) -> bool:
  return value is None or isinstance(value, float)


def _tables(result: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
  tables = {name: value for name, value in result.items() if isinstance(value, Mapping)}
  return {k: v for k, v in tables.items() if v and all(map(_is_number, v.values()))}


def _is_column(key: str, values: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
  """Whether a table's keys are classes, as in the first one, and not, for example, F-measures."""
  first = next((v for k, v in _tables(result).items() if k.startswith(_PER_CLASS)), {})
  return key.startswith(_PER_CLASS) and not values.keys().isdisjoint(first)
