"""Scores images one by one, keeps those that say most, and makes them small enough to embed.

Of one run these are the worst and the best images, of several on the same images those that they are least at one
about.
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

MAX_IMAGES = 200  # of the split are scored
SECONDS = 120.0  # after which no further one is begun
SHOWN = 12  # worst ones, and best ones
THUMBNAIL = 256  # pixels of the longer side
_QUALITY = 80
_FLAT = 64  # colours: a picture of no more is a mask


@dataclasses.dataclass(frozen=True)
class Shot:
  """One image: its name, a score a run, and the pictures by title as data URIs, with their size."""

  name: str
  scores: tuple[float, ...]
  pictures: Mapping[str, str]
  size: tuple[int, int]

  @property
  def score(self) -> float:
    """Of one run."""
    return self.scores[0]

  @property
  def gap(self) -> float:
    """Between the best and the worst run."""
    return max(self.scores) - min(self.scores)


@dataclasses.dataclass(frozen=True)
class Images:
  """Images of a split that were scored one by one.

  Attributes:
    split: of the data.
    step: of the checkpoint that predicted.
    total: images of the split.
    scores: of every scored image, rising.
    result: of all scored images together; {} of none.
    worst, best: at most SHOWN each, the worst and the best first; where the split is small, no image
      is in both.
    problem: why there are none.
  """

  split: str
  step: int = 0
  total: int = 0
  scores: tuple[float, ...] = ()
  result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  worst: tuple[Shot, ...] = ()
  best: tuple[Shot, ...] = ()
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
    count, total: images that were scored, and all of the split.
    better: how many of them each run is alone the best on.
    shots: at most SHOWN.
    problem: why there are none.
  """

  split: str
  count: int = 0
  total: int = 0
  better: tuple[int, ...] = ()
  shots: tuple[Shot, ...] = ()
  problem: str = ''


class _Run:
  """A run that predicts images."""

  def __init__(self, run: RunSummary, step: str):
    self.run = run
    variables, self.step = load_variables(run.path, step)
    build.set_up_jax(run.settings)
    self._predictor = Predictor(run.experiment, variables, run.classes)

  def look(self, example: Mapping[str, Any]) -> tuple[Any, float | None, Callable]:
    """Returns a new score of the example, its number, and what draws the pictures."""
    task, classes = self.run.experiment.task, self.run.classes
    prediction = self._predictor.predict(example['image'])
    one = task.scorer(classes.names)
    value = of_image(one, example, prediction, self.run.score)
    return one, value, lambda: task.draw(example, prediction, classes)


def score(
  run: RunSummary, step: str, max_images: int, seconds: float, progress: Progress
) -> Images:
  """Predicts images of the evaluation split, evenly drawn, until all, `max_images` or the time.

  The data may have gone: then the report does without and says so.

  Raises:
    UserError: no checkpoint of that step.
  """
  split, one = run.settings.eval_split, _Run(run, step)
  source, problem = _source(run)
  if source is None:
    return Images(split, one.step, problem=problem)
  total = run.experiment.task.scorer(run.classes.names, **run.experiment.eval.score)
  scores, kept = [], []
  for example in _examples(source, max_images, seconds, run.experiment.data.timeout, progress):
    counted, value, draw = one.look(example)
    if value is None:  # nothing but void, or no object
      continue
    total.merge(counted)
    bisect.insort(scores, value)
    if _is_extreme(kept, value):
      bisect.insort(kept, _shot(example, [value], draw()), key=lambda shot: shot.score)
      del kept[SHOWN:-SHOWN]
  half = min(SHOWN, -(-len(kept) // 2))
  return Images(
    split,
    one.step,
    total=len(source),
    scores=tuple(scores),
    result=total.compute() if scores else {},
    worst=tuple(kept[:half]),
    best=tuple(reversed(kept[half:])),
  )


def compare(
  runs: Mapping[str, RunSummary],
  step: str,
  max_images: int,
  seconds: float,
  progress: Progress,
) -> Comparison:
  """Predicts the same images of the evaluation split with several runs, by name; see `score`."""
  first, *_ = runs.values()
  every, split = [_Run(run, step) for run in runs.values()], first.settings.eval_split
  source, problem = _source(first)
  if source is None:
    return Comparison(split, problem=problem)
  count, better, kept = 0, [0] * len(every), []
  for example in _examples(source, max_images, seconds, first.experiment.data.timeout, progress):
    looks = [run.look(example) for run in every]
    values = [value for _, value, _ in looks]
    if None in values:
      continue
    count += 1
    if values.count(max(values)) == 1:
      better[values.index(max(values))] += 1
    if len(kept) < SHOWN or max(values) - min(values) > kept[-1].gap:
      pictures = _side_by_side([*runs], [draw() for _, _, draw in looks])
      bisect.insort(kept, _shot(example, values, pictures), key=lambda shot: -shot.gap)
      del kept[SHOWN:]
  return Comparison(split, count, len(source), tuple(better), tuple(kept))


def _side_by_side(
  names: Sequence[str], drawn: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
  """Returns image and truth once and what each run says; of two runs like beside like."""
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
  except StuckError:  # its thread is still there: see jaxseg.console.run
    raise
  except UserError as e:
    return None, str(e)


def _examples(source, most: int, seconds: float, timeout: float, progress: Progress):
  """Yields images evenly drawn from all, until `most` or the time, the first at any rate."""
  order = np.random.default_rng(0).permutation(len(source))[:most].tolist()
  begin = time.monotonic()
  progress.is_due()  # not for the time before
  for count, example in enumerate(threads.examples(source, order, timeout=timeout)):
    if count and time.monotonic() - begin > seconds:
      return
    if progress.is_due():
      progress.show(f'report: {count}/{len(order)} images scored')
    yield example


def _is_extreme(kept: list[Shot], value: float) -> bool:
  """Whether a score is among the worst or the best so far."""
  return len(kept) < 2 * SHOWN or not kept[SHOWN - 1].score <= value <= kept[SHOWN].score


def _shot(
  example: Mapping[str, Any], values: Sequence[float], pictures: Mapping[str, np.ndarray]
) -> Shot:
  """Makes the pictures small, as photographs or masks."""
  size = example['image'].shape[1::-1]
  scale = min(1.0, THUMBNAIL / max(size))
  size = tuple(max(1, round(side * scale)) for side in size)
  encoded = {title: _encode(Image.fromarray(p), size) for title, p in pictures.items()}
  return Shot(str(example['file_name']), tuple(map(float, values)), encoded, size)


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
