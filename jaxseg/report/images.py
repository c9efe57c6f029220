"""Scores images one by one, and makes thumbnails of the most informative ones to embed.

For one run these are the worst and the best images, for several runs those on which they differ most.
"""

import bisect
import dataclasses
import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.console import Progress
from jaxseg.data import threads
from jaxseg.metrics.score import of_image
from jaxseg.predict.predictor import Predictor
from jaxseg.report.render import data_uri
from jaxseg.report.runs import RunSummary
from jaxseg.train import build
from jaxseg.train.variables import load_variables
from jaxseg.types import StuckError, UserError

MAX_IMAGES = 200  # of the split to score
SECONDS = 120.0  # after which no further image is started
SHOWN = 12  # worst images, and best images
THUMBNAIL = 256  # pixels of the longer side
_QUALITY = 80
_FLAT = 64  # a picture with at most this many colours is a mask


@dataclasses.dataclass(frozen=True)
class Sample:
  """One image: name, each run's score, and the pictures by title as data URIs, with their size."""

  name: str
  scores: tuple[float, ...]
  pictures: Mapping[str, str]
  size: tuple[int, int]

  @property
  def score(self) -> float:
    """The score of a single run."""
    return self.scores[0]

  @property
  def gap(self) -> float:
    """Difference between the best and the worst run."""
    return max(self.scores) - min(self.scores)


@dataclasses.dataclass(frozen=True)
class Images:
  """Images of a split that were scored one by one.

  Attributes:
    split: of the data.
    step: of the checkpoint that predicted.
    total: images of the split.
    scores: of every scored image, ascending.
    result: of all scored images together; {} without any.
    worst, best: at most SHOWN each, the most extreme first, without overlap.
    problem: why there are no images.
  """

  split: str
  step: int = 0
  total: int = 0
  scores: tuple[float, ...] = ()
  result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  worst: tuple[Sample, ...] = ()
  best: tuple[Sample, ...] = ()
  problem: str = ''

  @property
  def median(self) -> float:
    return statistics.median(self.scores)

  @property
  def all_shown(self) -> bool:
    return len(self.scores) == len(self.worst) + len(self.best)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Images on which runs differ most, the largest gap first.

  Attributes:
    split: of the data.
    count, total: number of scored images, and of the split.
    better: number of images on which each run is the only best.
    samples: at most SHOWN.
    steps: of each run's checkpoint.
    problem: why there are no images.
  """

  split: str
  count: int = 0
  total: int = 0
  better: tuple[int, ...] = ()
  samples: tuple[Sample, ...] = ()
  steps: tuple[int, ...] = ()
  problem: str = ''


class _Run:
  """A run that predicts images."""

  def __init__(self, run: RunSummary, step: str):
    self.run = run
    variables, self.step = load_variables(run.path, step)
    build.set_up_jax(run.settings)
    self._predictor = Predictor(run.experiment, variables, run.classes)

  def evaluate(self, example: Mapping[str, Any]) -> tuple[Any, float | None, Callable]:
    """Returns the example's score, its headline value, and a function that draws the pictures."""
    task, classes = self.run.experiment.task, self.run.classes
    prediction = self._predictor.predict(example['image'])
    one = task.scorer(classes.names)
    value = of_image(one, example, prediction, self.run.score)
    return one, value, lambda: task.draw(example, prediction, classes)


def score(
  run: RunSummary, step: str, max_images: int, seconds: float, progress: Progress
) -> Images:
  """Scores a random sample of the evaluation split, at most `max_images` and about `seconds` long.

  Without the data the result has no images, but the reason.

  Raises:
    UserError: no checkpoint of that step.
  """
  split, one = run.settings.eval_split, _Run(run, step)
  source, problem = _source(run)
  if source is None:
    return Images(split, one.step, problem=problem)
  total = run.experiment.task.scorer(run.classes.names, **run.experiment.eval.score)
  scores, samples = [], []
  for example in _examples(source, max_images, seconds, run.experiment.data.timeout, progress):
    score_of_image, value, draw = one.evaluate(example)
    if value is None:  # all void, or no object
      continue
    total.merge(score_of_image)
    bisect.insort(scores, value)
    if _is_extreme(samples, value):
      bisect.insort(samples, _sample(example, [value], draw()), key=lambda sample: sample.score)
      del samples[SHOWN:-SHOWN]
  half = min(SHOWN, -(-len(samples) // 2))
  return Images(
    split,
    one.step,
    total=len(source),
    scores=tuple(scores),
    result=total.compute() if scores else {},
    worst=tuple(samples[:half]),
    best=tuple(reversed(samples[half:])),
  )


def compare(
  runs: Mapping[str, RunSummary],
  step: str,
  max_images: int,
  seconds: float,
  progress: Progress,
) -> Comparison:
  """Scores the same images of the evaluation split with several runs, by name; see `score`."""
  first, *_ = runs.values()
  every, split = [_Run(run, step) for run in runs.values()], first.settings.eval_split
  source, problem = _source(first)
  if source is None:
    return Comparison(split, problem=problem)
  count, better, samples = 0, [0] * len(every), []
  for example in _examples(source, max_images, seconds, first.experiment.data.timeout, progress):
    looks = [run.evaluate(example) for run in every]
    values = [value for _, value, _ in looks]
    if None in values:
      continue
    count += 1
    if values.count(max(values)) == 1:
      better[values.index(max(values))] += 1
    if len(samples) < SHOWN or max(values) - min(values) > samples[-1].gap:
      pictures = _side_by_side([*runs], [draw() for _, _, draw in looks])
      bisect.insort(samples, _sample(example, values, pictures), key=lambda sample: -sample.gap)
      del samples[SHOWN:]
  steps = tuple(run.step for run in every)
  return Comparison(split, count, len(source), tuple(better), tuple(samples), steps)


def _side_by_side(
  names: Sequence[str], drawn: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
  """Returns image and truth once, and each run's pictures; for two runs, corresponding ones are adjacent."""
  same = {title: drawn[0][title] for title in ('image', 'truth')}
  own = [
    {f'{title}, {name}': picture for title, picture in pictures.items() if title not in same}
    for name, pictures in zip(names, drawn, strict=True)
  ]
  if len(own) == 2:
    own = [dict(pair) for pair in zip(*(pictures.items() for pictures in own), strict=False)]
  return {title: picture for pictures in (same, *own) for title, picture in pictures.items()}


def _source(run: RunSummary) -> tuple[Any, str]:
  """Returns the evaluation split, or None and why it cannot be read."""
  try:
    return run.experiment.source(run.settings.eval_split, run.classes.names), ''
  except StuckError:  # its thread is still running: see jaxseg.console.run
    raise
  except UserError as e:
    return None, str(e)


def _examples(source, max_images: int, seconds: float, timeout: float, progress: Progress):
  """Yields images evenly drawn from all, until `most` or the time, the first at any rate."""
  order = np.random.default_rng(0).permutation(len(source))[:max_images].tolist()
  begin = time.monotonic()
  progress.is_due()  # resets the interval
  for count, example in enumerate(threads.examples(source, order, timeout=timeout)):
    if count and time.monotonic() - begin > seconds:
      return
    if progress.is_due():
      progress.show(f'report: {count}/{len(order)} images scored')
    yield example


def _is_extreme(samples: list[Sample], value: float) -> bool:
  """Whether a score is among the worst or best so far."""
  return len(samples) < 2 * SHOWN or not samples[SHOWN - 1].score <= value <= samples[SHOWN].score


def _sample(
  example: Mapping[str, Any], values: Sequence[float], pictures: Mapping[str, np.ndarray]
) -> Sample:
  """Encodes thumbnails of the pictures."""
  size = example['image'].shape[1::-1]
  scale = min(1.0, THUMBNAIL / max(size))
  size = tuple(max(1, round(side * scale)) for side in size)
  encoded = {title: _encode(Image.fromarray(p), size) for title, p in pictures.items()}
  return Sample(str(example['file_name']), tuple(map(float, values)), encoded, size)


def _encode(picture: Image.Image, size: tuple[int, int]) -> str:
  """Encodes a photograph as JPEG, a mask as PNG, which is smaller and keeps its edges."""
  file = io.BytesIO()
  if picture.getcolors(_FLAT) is None:
    small = picture.resize(size, Image.Resampling.BOX)
    small.save(file, 'JPEG', quality=_QUALITY, subsampling=0, optimize=True)
    return data_uri(file.getvalue(), 'jpeg')
  small = picture.resize(size, Image.Resampling.NEAREST)
  small.quantize(_FLAT, dither=Image.Dither.NONE).save(file, 'PNG', optimize=True)
  return data_uri(file.getvalue(), 'png')
