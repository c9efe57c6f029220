"""Scores images one by one, keeps the worst and the best, and makes them small enough to embed."""

from __future__ import annotations

import base64
import bisect
import dataclasses
import io
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from jaxseg.data import threads
from jaxseg.draw import labels, objects
from jaxseg.metrics.coco import image_ap
from jaxseg.metrics.confusion import summarize
from jaxseg.predict.instance_predictor import InstancePredictor, painted
from jaxseg.predict.predictor import Predictor, load_variables, make_predictor
from jaxseg.report.collect import Run
from jaxseg.train import build
from jaxseg.types import VOID, StuckError, UserError

MAX_IMAGES = 200  # of the split are scored
SECONDS = 120.0  # after which no further one is begun
SHOWN = 12  # worst ones, and best ones
THUMBNAIL = 256  # pixels of the longer side
_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Scored:
  """One image: its name, score, and the pictures by title as data URIs, with their size."""

  name: str
  score: float
  pictures: dict[str, str]
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Images:
  """Worst first.

  Attributes:
    split: of the data.
    step: of the checkpoint that predicted.
    total: images of the split.
    scores: of every scored image, rising.
    confusion: int64 [c, c] over the scored images, rows truth; None of instances.
    worst, best: at most SHOWN each; where the split is small, no image is in both.
    problem: why there are none.
    measure: what the score is: 'IoU', the mean over the classes in the image, or 'AP', likewise.
  """

  split: str
  step: int = 0
  total: int = 0
  scores: tuple[float, ...] = ()
  confusion: np.ndarray | None = None
  worst: tuple[Scored, ...] = ()
  best: tuple[Scored, ...] = ()
  problem: str = ''
  measure: str = 'IoU'


def score(
  run: Run, step: str, max_images: int, seconds: float, show: Callable[[str], None]
) -> Images:
  """Predicts images of the evaluation split, evenly drawn, until all, `max_images` or the time.

  The data may have gone: then the report does without and says so.

  Raises:
    UserError: no checkpoint of that step.
  """
  config = run.config
  variables, step = load_variables(run.path, step)
  try:
    source = build.source_from(config, config.eval_split)
  except StuckError:  # its thread is still there: see jaxseg.console.run
    raise
  except UserError as e:
    return Images(config.eval_split, step, problem=str(e))
  build.set_up_jax(config)
  predictor = make_predictor(config, variables, run.classes)
  kind = _Instances if config.task == 'instance' else _Pixels
  judge = kind(predictor, run)
  order = np.random.default_rng(0).permutation(len(source))[:max_images].tolist()
  read = partial(threads.examples, source, timeout=config.data_timeout)
  begin = shown = time.monotonic()
  interval = 0.25 if sys.stdout.isatty() else 10.0  # off a terminal every line stays
  done, kept = [], []
  for count, (index, example) in enumerate(zip(order, read(order), strict=True)):
    if count and time.monotonic() - begin > seconds:
      break
    value, prediction = judge.score(example)
    if value is None:  # nothing but void, or no object
      continue
    done.append(value)
    bisect.insort(kept, (value, index, prediction), key=lambda k: k[:2])
    if len(kept) > 2 * SHOWN:
      kept.pop(SHOWN)
    if time.monotonic() - shown > interval:
      shown = time.monotonic()
      show(f'report: {count + 1}/{len(order)} images scored')
  again = zip(kept, read([index for _, index, _ in kept]), strict=True)
  drawn = [_encode(e, value, judge.pictures(e, found)) for (value, _, found), e in again]
  half = min(SHOWN, -(-len(drawn) // 2))
  return Images(
    split=config.eval_split,
    step=step,
    total=len(source),
    scores=tuple(sorted(done)),
    confusion=judge.confusion,
    worst=tuple(drawn[:half]),
    best=tuple(reversed(drawn[half:])),
    measure=judge.measure,
  )


class _Pixels:
  """Scores and draws the classes of pixels."""

  measure = 'IoU'

  def __init__(self, predictor: Predictor, run: Run):
    self._predictor, self._palette = predictor, run.classes.palette
    self.confusion = np.zeros((run.config.num_classes,) * 2, np.int64)

  def score(self, example: dict) -> tuple[float | None, np.ndarray]:
    """Returns the mean IoU, None of nothing but void, and the prediction."""
    prediction = self._predictor(example['image'])
    matrix = confusion_of(example['label'], prediction, len(self.confusion))
    self.confusion += matrix
    iou = summarize(matrix)['mean_iou']
    return None if np.isnan(iou) else iou, prediction

  def pictures(self, example: dict, prediction: np.ndarray) -> dict[str, np.ndarray]:
    palette = self._palette
    image, label = np.asarray(example['image']), np.asarray(example['label'])
    label = np.where(label < len(palette), label, VOID)
    return {
      'image': labels.overlay(image, np.full_like(label, VOID), palette),
      'truth': labels.colorize(label, palette),
      'prediction': labels.colorize(prediction, palette),
      'errors': labels.error_map(image, label, prediction),
    }


class _Instances:
  """Scores and draws instances."""

  measure, confusion = 'AP', None

  def __init__(self, predictor: InstancePredictor, run: Run):
    self._predictor, self._names = predictor, run.classes.names

  def score(self, example: dict) -> tuple[float | None, np.ndarray]:
    """Returns the mask AP, None where there is no object, and the numbers of the pixels."""
    found = self._predictor.instances(example['image'])
    return image_ap(example, found, self._names), painted(found)[0]

  def pictures(self, example: dict, prediction: np.ndarray) -> dict[str, np.ndarray]:
    return objects.pictures(example, prediction)


def confusion_of(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts (truth, prediction) of one image, int64 [c, c]; labels that are no class do not count."""
  counted = label < num_classes
  cells = label[counted].astype(np.int64) * num_classes + prediction[counted]
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _encode(example: dict, score: float, pictures: dict[str, np.ndarray]) -> Scored:
  """Makes the pictures small, as photographs or masks."""
  size = example['image'].shape[1::-1]
  scale = min(1.0, THUMBNAIL / max(size))
  size = tuple(max(1, round(side * scale)) for side in size)
  encoded = {}
  for name, picture in pictures.items():
    mask = 'errors' in pictures and name in ('truth', 'prediction')
    smooth = name == 'image' or 'errors' not in pictures
    small = Image.fromarray(picture).resize(
      size, Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    )
    encoded[name] = data_uri(small, 'PNG' if mask else 'JPEG')
  return Scored(str(example['file_name']), float(score), encoded, size)


def data_uri(picture: Image.Image, kind: str) -> str:
  """Encodes a picture: 'JPEG' for photographs, 'PNG' (256 colours) for masks, where it is smaller."""
  data = io.BytesIO()
  if kind == 'JPEG':
    picture.save(data, 'JPEG', quality=_QUALITY, optimize=True)
  else:
    picture.quantize(256, dither=Image.Dither.NONE).save(data, 'PNG', optimize=True)
  text = base64.b64encode(data.getvalue()).decode()
  return f'data:image/{kind.lower()};base64,{text}'
