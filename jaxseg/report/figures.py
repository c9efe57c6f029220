"""The pictures of a run, renewed at every evaluation: predictions, curves, scores by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg import files
from jaxseg.data import threads
from jaxseg.draw import labels, objects
from jaxseg.predict.instance_predictor import InstancePredictor, painted
from jaxseg.predict.predictor import Predictor, make_predictor
from jaxseg.train.run_folder import Classes
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
    self._predictor: Predictor | InstancePredictor | None = None

  def __call__(self, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Draws a step.

    Args:
      step: of the variables.
      variables: {'params': ..., 'batch_stats': ...}.
      summary: of the evaluation, with 'per_class_iou' or 'per_class_ap'.
    """
    folder = self._workdir / 'figures'
    folder.mkdir(parents=True, exist_ok=True)
    picture = self._picture(variables)
    if picture is not None:
      self._predictor.variables = None  # the device's memory is the training's
      with files.whole_file(folder / 'predictions.png') as part:
        labels.save(part, picture)
      self._writer.picture(step, 'predictions', picture)
    with files.whole_file(folder / 'curves.png') as part:
      labels.save_curves(part, read_records(self._workdir))
    names, values, title = self._classes.names, summary.get('per_class_iou'), 'IoU'
    if 'per_class_ap' in summary:
      found = summary['per_class_ap']
      names, title = list(found), 'Mask AP'
      values = np.array([np.nan if v is None else v for v in found.values()])
    with files.whole_file(folder / 'classes.png') as part:
      labels.save_class_bars(part, values, names, title=f'{title} at step {step}')

  def _picture(self, variables: Any) -> np.ndarray | None:
    """Draws image, truth and prediction of some images, None where none is wanted."""
    predict = self._predict_with(variables)
    last, count = len(self._source) - 1, min(self._config.figures, len(self._source))
    places = np.linspace(0, last, count, dtype=int)  # apart: neighbours look alike
    examples = list(threads.examples(self._source, places.tolist()))
    if not examples:
      return None
    if self._config.task == 'instance':
      found = (painted(predict.instances(e['image']))[0] for e in examples)
      pairs = zip(examples, found, strict=True)
      return labels.strips([objects.pictures(e, ids) for e, ids in pairs])
    rows = [(e['image'], e['label'], predict(e['image'])) for e in examples]
    return labels.panel(rows, self._classes.palette, self._classes.names)

  def _predict_with(self, variables: Any) -> Predictor | InstancePredictor:
    """One predictor for the whole run, so that its programs are compiled once."""
    if self._predictor is None:
      self._predictor = make_predictor(self._config, variables, self._classes)
    self._predictor.variables = jax.device_put(variables)
    return self._predictor
