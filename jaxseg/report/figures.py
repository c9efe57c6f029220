"""The figures of a run, updated at every evaluation: predictions, curves, per-class scores."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxseg import files
from jaxseg.data import threads
from jaxseg.draw import labels, plots, sheet
from jaxseg.metrics.score import columns
from jaxseg.predict.predictor import Predictor
from jaxseg.report import render
from jaxseg.train.journal import RunView
from jaxseg.train.run_folder import Classes
from jaxseg.train.writer import read_records


class Figures:
  """A training hook that draws `workdir/figures/`, with one predictor for the whole run.

  It draws the same config.log.figures validation images every time.
  """

  def __init__(self):
    self._predictor: Predictor | None = None

  def on_evaluation(self, run: RunView, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Draws a step.

    Args:
      run: the current one.
      step: of the variables.
      variables: {'params': ..., 'batch_stats': ...}.
      summary: of the evaluation.
    """
    folder = files.own_folder(run.folder / 'figures')
    if run.experiment.log.figures and len(run.source):
      picture = self._predictions(run, variables)
      with files.new_file(folder / 'predictions.png') as part:
        labels.save(part, picture)
      run.writer.picture(step, 'predictions', picture)
    with files.new_file(folder / 'curves.png') as part:
      plots.save_curves(part, read_records(run.folder))
    for name, column in list(columns(summary).items())[:1]:
      with files.new_file(folder / 'classes.png') as part:
        title = f'{render.title(name)} at step {step}'
        values, axis = [*column.values()], render.title(name)
        plots.save_class_bars(part, values, [*column], title=title, axis=axis)

  def on_end(self, run: RunView) -> None:
    """Keeps the last evaluation's figures."""

  def _predictions(self, run: RunView, variables: Any) -> np.ndarray:
    """Draws evenly spaced images, because neighbours look alike."""
    if self._predictor is None:
      self._predictor = Predictor(run.experiment, variables, run.classes)
    self._predictor.variables = jax.device_put(variables)
    count = min(run.experiment.log.figures, len(run.source))
    chosen = np.linspace(0, len(run.source) - 1, count, dtype=int).tolist()
    examples = threads.examples(run.source, chosen)
    try:
      return draw(run.experiment.task, self._predictor.predict, examples, run.classes)
    finally:
      self._predictor.variables = None  # frees device memory for training


def draw(
  task: Any,
  predict: Callable[[np.ndarray], Mapping[str, Any]],
  examples: Iterable[Mapping[str, Any]],
  classes: Classes,
) -> np.ndarray:
  """Draws a row for each example, its truth and prediction, captioned with its name; and the legend.

  Returns:
    uint8 [height, width, 3].
  """
  rows, names, maps = [], [], []
  for example in examples:
    prediction = predict(example['image'])
    rows.append(task.draw(example, prediction, classes))
    names.append(str(example['file_name']))
    maps += [example['label'], prediction['mask']]
  return sheet.panel(rows, captions=names, legend=task.legend(classes, maps))
