"""Puts a short run's score beside that of the most frequent class at each position.

Images of one kind look alike: sky is above and road below. Even a network trained for minutes, or
stopped early, should beat a predictor that only knows positions.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from jaxseg.data import threads
from jaxseg.train.journal import RunView
from jaxseg.types import VOID

_SHORT = 1000  # steps; longer runs get no baseline unless they stopped early
_GRID = 128  # positions along each side
_LABELS = 1000  # of the training split, at most
_IMAGES = 3000  # at most, so that a stopped run ends soon


class Baseline:
  """A hook that prints the baseline at the end of a run that was short or stopped early."""

  remedy = 'evaluation does not need it'

  def __init__(self):
    self._last: tuple[int, dict[str, Any]] | None = None

  def on_evaluation(self, run: RunView, step: int, variables: Any, summary: dict[str, Any]) -> None:
    del run, variables
    self._last = step, summary

  def on_end(self, run: RunView) -> None:
    experiment, steps = run.experiment, run.experiment.settings.num_steps
    step, summary = self._last or (0, {})
    headline = experiment.task.headline
    if not experiment.task.maps or headline not in summary or step == steps > _SHORT:
      return
    if len(run.source) > _IMAGES:
      return
    train = experiment.source(experiment.data.train_split)
    scored = score(experiment, most_frequent(train), run.source)
    name = headline.replace('_', ' ')
    run.say(
      f'{name} {summary[headline]:.3f} at step {step}; the most frequent class at each position has '
      f'{scored[headline]:.3f}'
    )


def most_frequent(source: Any) -> np.ndarray:
  """Returns the most frequent class at each position of a split, uint8 [_GRID, _GRID], ignoring void."""
  counts = np.zeros((source.num_classes, _GRID, _GRID), np.int32)
  chosen = range(0, len(source), -(-len(source) // _LABELS))
  for label in _labels(source, chosen):
    label = cv2.resize(label, (_GRID, _GRID), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.nonzero(label != VOID)
    np.add.at(counts, (label[rows, columns], rows, columns), 1)
  return counts.argmax(axis=0).astype(np.uint8)


def score(experiment: Any, mask: np.ndarray, source: Any) -> dict[str, Any]:
  """Returns the task's scores of a mask [h, w], resized to every image of a split."""
  scores = experiment.task.scorer(source.class_names, **experiment.eval.score)
  for label in _labels(source, range(len(source))):
    size = label.shape[::-1]
    stretched = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    scores.add({'label': label}, {'mask': stretched})
  return scores.compute()


def _labels(source: Any, indices: range) -> Any:
  read = getattr(source, 'label', None) or (lambda i: source[i]['label'])
  return threads.results(read, indices, name=getattr(source, 'file_name', None))
