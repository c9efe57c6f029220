"""Scores a split on all devices and hosts: every image exactly once, at its original size."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxseg.data import threads
from jaxseg.data.loader import eval_batches
from jaxseg.metrics import score as scores
from jaxseg.metrics.score import Score
from jaxseg.train import allocator
from jaxseg.train.build import Experiment
from jaxseg.train.devices import hosts, parallel
from jaxseg.train.step import make_predict_step, predict_batch
from jaxseg.types import UserError


def make_scores(experiment: Experiment, class_names: tuple[str, ...], *names: str) -> Score:
  """Returns empty scores: the task's, those in the config, and those in `names`.

  Raises:
    UserError: no such score, or one that needs probability maps which the task does not predict.
  """
  wanted = dict.fromkeys((*experiment.eval.scores, *names))
  for name in wanted:
    if scores.load(name, class_names).maps and not experiment.task.maps:
      raise UserError(
        f'the score {name!r} needs probabilities of pixels, which config.task='
        f'{experiment.settings.task} does not predict: leave it out'
      )
  own = experiment.task.scorer(class_names, **experiment.eval.score)
  return scores.Scores([own, *(scores.load(name, class_names) for name in wanted)])


class Evaluator:
  """Scores variables on one split; compiled once for each canvas size.

  While the devices predict, each host scores its share of the images.

  Args:
    experiment: defines model, task and scores.
    source: the split.
    make: returns empty scores; default: `make_scores` of the experiment.

  Raises:
    UserError: several scales, which only launch/evaluate.py averages; or scores that do not fit.
  """

  def __init__(self, experiment: Experiment, source: Any, make: Callable[[], Score] | None = None):
    if len(experiment.eval.scales) != 1:
      raise UserError(f'config.eval.scales={experiment.eval.scales}: one scale while training')
    self._experiment, self._source = experiment, source
    self._make = make or functools.partial(make_scores, experiment, source.class_names)
    self._maps = self._make().maps
    settings = experiment.settings
    size = min(experiment.eval.batch_size or settings.batch_size, len(source))
    self._batch_size = size + -size % hosts.count()  # filled up with images that are not scored
    self._wrapper = parallel.build(settings.parallel, '', self._batch_size)
    self._model = experiment.model(self._wrapper.axis_name)
    self._frame = experiment.frame(self._model)
    self._step_of = functools.lru_cache(maxsize=None)(self._make_step)

  def __call__(self, variables: Any) -> dict[str, Any]:
    """Returns the computed scores; see `score`."""
    return self.score(variables).compute()

  def score(self, variables: Any, on_progress: Callable[[int], None] | None = None) -> Score:
    """Returns the scores after adding every image of every host.

    Args:
      variables: {'params': ..., 'batch_stats': ...}.
      on_progress: called with the number of images done.

    Raises:
      UserError: labels outside the classes, or data that a score cannot use.
    """
    allocator.return_freed_memory()  # whole images take more than crops, in other pieces
    score, problems, done = self._make(), [], 0
    with threads.Backlog(num_threads=1) as scoring:
      for example, row in self._rows(variables):
        scoring.submit(self._add, score, example, row, problems)
        done += 1
        if problems and hosts.count() == 1:  # every batch needs every host
          break
        if on_progress:
          on_progress(min(done * hosts.count(), len(self._source)))
    allocator.return_freed_memory()
    with hosts.together():
      if problems:
        raise problems[0]
    total, *others = hosts.gather_objects(score)
    for other in others:
      total.merge(other)
    return total

  def _rows(self, variables: Any) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yields this host's examples, each with its prediction on the canvas."""
    variables = self._wrapper.place_state(variables)
    for batch in self.batches():
      step = self._step_of(self._frame.canvas_of(batch['image'].shape[1:3]))
      placed = predict_batch(self._experiment.task, batch['image'], self._extents(batch))
      rows = step(variables, self._wrapper.place_batch(placed))
      for i, example in enumerate(batch['examples']):
        yield example, {name: values[i] for name, values in rows.items()}

  def _extents(self, batch: dict[str, Any]) -> np.ndarray:
    """Returns the images' extents on the canvas, float32 [b, 4]; zeros for the fill-up rows."""
    extents = np.zeros((len(batch['image']), 4), np.float32)
    for row, example in zip(extents, batch['examples'], strict=False):
      row[:] = self._frame.extent(example['image'].shape[:2])
    return extents

  def batches(self) -> Iterator[dict[str, Any]]:
    """Yields the padded batches; see jaxseg.data.loader.eval_batches."""
    data = self._experiment.data
    return eval_batches(
      self._source,
      self._frame,
      batch_size=self._batch_size,
      timeout=data.timeout,
      num_threads=data.num_threads,
      **hosts.share(),
    )

  def _make_step(self, size: tuple[int, int]) -> Callable:
    task, preprocess = self._experiment.task, self._experiment.preprocess
    step = make_predict_step(self._model, task, preprocess, size=size, maps=self._maps)
    return self._wrapper.wrap_predict(step)

  def _add(self, score: Score, example: dict, row: dict, problems: list[UserError]) -> None:
    """Adds one image; collects its error, because a host that raised would leave the others waiting."""
    if problems:
      return
    try:
      size = example['image'].shape[:2]
      scores.add(score, example, self._experiment.task.in_image(row, self._frame, size))
    except UserError as error:
      problems.append(error)
