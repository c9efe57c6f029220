"""The pictures of a run, renewed at every evaluation: predictions, curves, IoU by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg import storage, visualize
from jaxseg.inference import Predictor
from jaxseg.train.workdir import Classes
from jaxseg.train.writer import Writer, read_records


class Figures:
  """Draws `workdir/figures/`.

  Args:
    config: of the run; `figures` validation images are drawn, always the same.
    workdir: an existing folder.
    source: the validation split.
    writer: shows the predictions too.
  """

  def __init__(self, config: ConfigDict, workdir: Path, source: Any, writer: Writer):
    self._config, self._workdir, self._source, self._writer = config, workdir, source, writer
    self._classes = Classes(source.class_names, source.palette)
    self._predictor: Predictor | None = None

  def __call__(self, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Draws a step.

    Args:
      step: of the variables.
      variables: {'params': ..., 'batch_stats': ...}.
      summary: of the evaluation, with 'per_class_iou'.
    """
    folder = self._workdir / 'figures'
    folder.mkdir(parents=True, exist_ok=True)
    rows = self._rows(variables)
    if rows:
      picture = visualize.panel(rows, self._classes.palette, self._classes.names)
      with storage.whole_file(folder / 'predictions.png') as part:
        visualize.save(part, picture)
      self._writer.picture(step, 'predictions', picture)
    with storage.whole_file(folder / 'curves.png') as part:
      visualize.save_curves(part, read_records(self._workdir))
    iou, title = summary['per_class_iou'], f'IoU at step {step}'
    with storage.whole_file(folder / 'classes.png') as part:
      visualize.save_class_bars(part, iou, self._classes.names, title=title)

  def _rows(self, variables: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns image, label and prediction of each image that is drawn."""
    predict = self._predict_with(variables)
    last, count = len(self._source) - 1, min(self._config.figures, len(self._source))
    places = np.linspace(0, last, count, dtype=int)  # apart: neighbours look alike
    examples = (self._source[int(place)] for place in places)
    return [(e['image'], e['label'], predict(e['image'])) for e in examples]

  def _predict_with(self, variables: Any) -> Predictor:
    """One predictor for the whole run, so that its programs are compiled once."""
    if self._predictor is None:
      self._predictor = Predictor(self._config, variables, self._classes)
    self._predictor.variables = jax.device_put(variables)
    return self._predictor
