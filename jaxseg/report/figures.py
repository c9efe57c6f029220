"""The pictures of a run, renewed at every evaluation: predictions, curves, scores by class."""

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
  """A hook of training that draws `workdir/figures/`; one predictor serves the whole run.

  config.log.figures validation images are drawn, always the same.
  """

  def __init__(self):
    self._predictor: Predictor | None = None

  def evaluated(self, run: RunView, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Draws a step.

    Args:
      run: that is trained.
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

  def ended(self, run: RunView) -> None:
    """Nothing is left to do: the last evaluation's pictures stay."""

  def _predictions(self, run: RunView, variables: Any) -> np.ndarray:
    """Draws some images, far from each other because neighbours look alike."""
    if self._predictor is None:
      self._predictor = Predictor(run.experiment, variables, run.classes)
    self._predictor.variables = jax.device_put(variables)
    count = min(run.experiment.log.figures, len(run.source))
    chosen = np.linspace(0, len(run.source) - 1, count, dtype=int).tolist()
    examples = threads.examples(run.source, chosen)
    try:
      return draw(run.experiment.task, self._predictor.predict, examples, run.classes)
    finally:
      self._predictor.variables = None  # the device's memory is the training's


def draw(
  task: Any,
  predict: Callable[[np.ndarray], Mapping[str, Any]],
  examples: Iterable[Mapping[str, Any]],
  classes: Classes,
) -> np.ndarray:
  """Draws each example, its truth and its prediction as a row above its name, and the legend.

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
