"""The most frequent class at each position, and when a run is told what its score is worth."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxseg.report import baseline
from jaxseg.report.baseline import Baseline
from jaxseg.types import VOID
from tests.tiny_runs import make_experiment

TOP, LEFT = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
TOP[:2], LEFT[:, :2] = 1, 1


class Labels:
  num_classes, class_names = 2, ('a', 'b')

  def __init__(self, *labels):
    self.labels = labels

  def __len__(self):
    return len(self.labels)

  def label(self, i):
    return self.labels[i]


def test_the_most_frequent_class_of_each_quarter():
  """Of the upper left quarter all three say 1, of the upper right two; void has no say."""
  void = np.full((4, 4), VOID, np.uint8)
  mask = baseline.most_frequent(Labels(TOP, TOP, LEFT, void))
  half = len(mask) // 2
  quarters = [mask[:half, :half], mask[:half, half:], mask[half:, :half], mask[half:, half:]]
  assert [np.unique(q).tolist() for q in quarters] == [[1], [1], [0], [0]]
  found = baseline.score(make_experiment(), mask, Labels(TOP, LEFT))
  assert found['pixel_accuracy'] == (16 + 8) / 32


@pytest.mark.parametrize(
  ('steps', 'step', 'said'), [(200, 200, True), (20_000, 20_000, False), (20_000, 500, True)]
)
def test_short_and_stopped_runs_are_told(steps, step, said):
  experiment = make_experiment(num_steps=steps)
  lines = []
  run = SimpleNamespace(experiment=experiment, source=experiment.source('val'), say=lines.append)
  hook = Baseline()
  hook.on_evaluation(run, step, None, {'mean_iou': 0.5})
  hook.on_end(run)
  assert bool(lines) == said
  assert not said or lines[0].startswith(f'mean iou 0.500 at step {step}; the most frequent class')


def test_a_run_without_an_evaluation_is_told_nothing():
  lines = []
  Baseline().on_end(SimpleNamespace(experiment=make_experiment(), source=None, say=lines.append))
  assert lines == []
