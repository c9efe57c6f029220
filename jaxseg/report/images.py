"""Scores images one by one, keeps the worst and the best, and makes them small enough to embed."""

import bisect
import dataclasses
import io
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.data import threads
from jaxseg.metrics.score import of_image
from jaxseg.predict.predictor import Predictor
from jaxseg.report.render import data_uri
from jaxseg.report.runs import RunSummary
from jaxseg.train import build
from jaxseg.train.initial import load_variables
from jaxseg.types import StuckError, UserError

MAX_IMAGES = 200  # of the split are scored
SECONDS = 120.0  # after which no further one is begun
SHOWN = 12  # worst ones, and best ones
THUMBNAIL = 256  # pixels of the longer side
_QUALITY = 80
_FLAT = 64  # colours: a picture of no more is a mask


@dataclasses.dataclass(frozen=True)
class Shot:
  """One image: its name, score, and the pictures by title as data URIs, with their size."""

  name: str
  score: float
  pictures: Mapping[str, str]
  size: tuple[int, int]


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


def score(
  run: RunSummary, step: str, max_images: int, seconds: float, show: Callable[[str], None]
) -> Images:
  """Predicts images of the evaluation split, evenly drawn, until all, `max_images` or the time.

  The data may have gone: then the report does without and says so.

  Raises:
    UserError: no checkpoint of that step.
  """
  experiment, split = run.experiment, run.settings.eval_split
  variables, step = load_variables(run.path, step)
  try:
    source = experiment.source(split)
  except StuckError:  # its thread is still there: see jaxseg.console.run
    raise
  except UserError as e:
    return Images(split, step, problem=str(e))
  build.set_up_jax(run.settings)
  predictor = Predictor(experiment, variables, run.classes)
  task, names = experiment.task, run.classes.names
  total, scores, kept = task.scorer(names, **experiment.eval.score), [], []
  for example in _examples(source, max_images, seconds, experiment.data.timeout, show):
    prediction, one = predictor.predict(example['image']), task.scorer(names)
    value = of_image(one, example, prediction, run.score)
    if value is None:  # nothing but void, or no object
      continue
    total.merge(one)
    bisect.insort(scores, value)
    if _is_extreme(kept, value):
      shot = _shot(example, value, task.draw(example, prediction, run.classes))
      bisect.insort(kept, shot, key=lambda shot: shot.score)
      del kept[SHOWN:-SHOWN]
  half = min(SHOWN, -(-len(kept) // 2))
  return Images(
    split,
    step,
    total=len(source),
    scores=tuple(scores),
    result=total.compute() if scores else {},
    worst=tuple(kept[:half]),
    best=tuple(reversed(kept[half:])),
  )


def _examples(source, most: int, seconds: float, timeout: float, show):
  """Yields images evenly drawn from all, until `most` or the time, the first at any rate."""
  order = np.random.default_rng(0).permutation(len(source))[:most].tolist()
  begin = shown = time.monotonic()
  interval = 0.25 if sys.stdout.isatty() else 10.0  # off a terminal every line stays
  for count, example in enumerate(threads.examples(source, order, timeout=timeout)):
    if count and time.monotonic() - begin > seconds:
      return
    if time.monotonic() - shown > interval:
      shown = time.monotonic()
      show(f'report: {count}/{len(order)} images scored')
    yield example


def _is_extreme(kept: list[Shot], value: float) -> bool:
  """Whether a score is among the worst or the best so far."""
  return len(kept) < 2 * SHOWN or not kept[SHOWN - 1].score <= value <= kept[SHOWN].score


def _shot(example: Mapping[str, Any], value: float, pictures: Mapping[str, np.ndarray]) -> Shot:
  """Makes the pictures small, as photographs or masks."""
  size = example['image'].shape[1::-1]
  scale = min(1.0, THUMBNAIL / max(size))
  size = tuple(max(1, round(side * scale)) for side in size)
  encoded = {title: _encode(Image.fromarray(p), size) for title, p in pictures.items()}
  return Shot(str(example['file_name']), float(value), encoded, size)


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
