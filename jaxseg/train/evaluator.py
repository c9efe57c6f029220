"""Scores of a split while training and after it: every image exactly once, at its own size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg.data import threads
from jaxseg.data.loader import eval_batches
from jaxseg.metrics.coco import CocoScore
from jaxseg.predict.instance_predictor import Seen, at_own_size, in_image, own_canvas
from jaxseg.train import build
from jaxseg.train.devices import hosts, parallel
from jaxseg.train.step import make_eval_step
from jaxseg.types import UserError

Told = Callable[[int], None]  # called with the number of images done


def make_evaluator(config: ConfigDict, source: Any, task: Any) -> Evaluator:
  """Returns what scores a task as its headline wants it."""
  kinds = {'mean_iou': Evaluator, 'mask_ap': InstanceEvaluator}
  return kinds[task.headline](config, source, task)


class Evaluator:
  """Scores variables on one split; compiled once for each padded image size.

  Args:
    config: of the run.
    source: the split.
    task: turns outputs and labels into additive metrics, and these into numbers.

  Raises:
    UserError: several scales, which only launch/evaluate.py averages.
  """

  def __init__(self, config: ConfigDict, source: Any, task: Any):
    if len(config.eval_scales) != 1:
      raise UserError(f'config.eval_scales={config.eval_scales}: one scale while training')
    self._config, self._source, self._task = config, source, task
    size = config.eval_batch_size or config.batch_size
    size = min(size, len(source))
    self._batch_size = size + -size % hosts.count()  # filled up with images that count for nothing
    self._wrapper = parallel.build(config.parallel, '', self._batch_size)
    self._model = build.model_from(config, self._wrapper.axis_name)
    self._preprocess = build.preprocessing_from(config)
    self._step = self._wrapper.wrap_eval(self._make_step(self._wrapper.axis_name))

  def __call__(self, variables: Any, told: Told | None = None) -> dict[str, Any]:
    """Returns the task's numbers; 'confusion' int64 [c, c] and per-class arrays among them.

    Raises:
      UserError: labels outside the classes.
    """
    totals, done = None, 0
    variables = self._wrapper.place_state(variables)
    for batch in self.batches():
      inputs = {k: batch[k] for k in ('image', 'label')}
      metrics = self._step(variables, self._wrapper.place_batch(inputs))
      metrics = {k: _exact(v) for k, v in jax.device_get(metrics).items()}
      if metrics['invalid']:
        index = hosts.gather(batch['index'])
        files = [str(self._source[int(i)]['file_name']) for i in index if i >= 0]
        raise hosts.SharedError(
          f'{int(metrics["invalid"])} pixels carry labels outside the {self._config.num_classes} '
          f'classes, in one of {", ".join(files)}'
        )
      totals = metrics if totals is None else {k: totals[k] + metrics[k] for k in metrics}
      done += int(hosts.gather(batch['valid']).sum()) if told else 0
      if told:
        told(done)
    return {**self._task.summarize(totals), 'confusion': totals['confusion']}

  def batches(self):
    """Yields the padded batches; see jaxseg.data.loader.eval_batches."""
    source = self._seen()
    return eval_batches(
      source,
      batch_size=self._batch_size,
      size_rule=self._model.size_rule,
      scale=float(self._config.eval_scales[0]),
      fill=self._preprocess.fill,
      mirror_border=build.mirror_border_from(self._config),
      timeout=self._config.data_timeout,
      num_threads=self._config.num_threads,
      min_multiple=getattr(source, 'multiple', 1),  # Seen has one
      **hosts.share(),
    )

  def _seen(self) -> Any:
    return self._source

  def _make_step(self, axis_name: str | None) -> Callable:
    return make_eval_step(self._model, self._task, self._preprocess, axis_name=axis_name)


class InstanceEvaluator(Evaluator):
  """Scores detections by COCO's average precision, which does not add up over devices.

  The step gathers the detections of all devices and hosts; the first host cuts them to the images'
  own sizes, pastes the masks and compares them with the truth. All get its numbers.
  """

  def __call__(self, variables: Any, told: Told | None = None) -> dict[str, Any]:
    """Returns metrics.coco.SCORES and 'per_class_ap' by name.

    Raises:
      UserError: data that do not number their objects, or no object at all.
    """
    score, done = CocoScore(self._source.class_names), 0
    variables = self._wrapper.place_state(variables)
    with threads.Backlog() as counting:  # behind the device
      for batch in self.batches():
        found = self._step(variables, self._wrapper.place_batch({'image': batch['image']}))
        canvas = batch['label'].shape[1:3], batch['image'].shape[1:3]
        index = hosts.gather(batch['index'])
        if hosts.first():
          found = jax.device_get(found)
          for place in np.flatnonzero(index >= 0):
            row = {k: v[place] for k, v in found.items()}
            counting.submit(self._count, score, int(index[place]), row, *canvas)
        done += int((index >= 0).sum())
        if told:
          told(done)
    return hosts.broadcast(score.summary() if hosts.first() else None)

  def _count(self, score: CocoScore, index: int, row, canvas, seen) -> None:
    [example] = threads.examples(self._source, [index], timeout=self._config.data_timeout)
    try:
      size = example['label'].shape
      own = own_canvas(self._config, size, canvas)
      score.add(example, at_own_size(in_image(row, own, seen), size), index)
    except UserError as error:
      raise UserError(f'{example["file_name"]}: {error}') from None

  def _seen(self) -> Seen:
    return Seen(self._source, self._config)

  def _make_step(self, axis_name: str | None) -> Callable:
    def step(variables: dict, batch: dict) -> dict:
      found = self._model.apply(variables, self._preprocess(batch['image']), train=False)
      if axis_name is None:
        return found
      return jax.tree.map(lambda a: jax.lax.all_gather(a, axis_name, tiled=True), found)

    return step


def _exact(value: Any) -> np.ndarray:
  """Counts as int64 and scores as float64, so that sums over many batches stay what they are."""
  value = np.asarray(value)
  return value.astype(np.int64 if np.issubdtype(value.dtype, np.integer) else np.float64)
