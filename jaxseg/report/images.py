"""Scores images one by one, keeps the worst and the best, and makes them small enough to embed."""

from __future__ import annotations

import base64
import bisect
import dataclasses
import io
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxseg import experiment, visualize
from jaxseg.inference import Predictor, load_variables
from jaxseg.metrics.confusion import summarize
from jaxseg.report.collect import Run
from jaxseg.types import VOID, UserError

MAX_IMAGES = 200  # of the split are scored
SECONDS = 120.0  # after which no further one is begun
SHOWN = 12  # worst ones, and best ones
THUMBNAIL = 256  # pixels of the longer side
_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Scored:
  """One image: its name, mean IoU, and the four pictures as data URIs with their size."""

  name: str
  iou: float
  pictures: dict[str, str]
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Images:
  """Worst first.

  Attributes:
    split: of the data.
    step: of the checkpoint that predicted.
    total: images of the split.
    ious: mean IoU of every scored image.
    confusion: int64 [c, c] over the scored images, rows truth.
    worst, best: at most SHOWN each; where the split is small, no image is in both.
    problem: why there are none.
  """

  split: str
  step: int = 0
  total: int = 0
  ious: tuple[float, ...] = ()
  confusion: np.ndarray | None = None
  worst: tuple[Scored, ...] = ()
  best: tuple[Scored, ...] = ()
  problem: str = ''


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
    source = experiment.source_from(config, config.eval_split)
  except UserError as e:
    return Images(config.eval_split, step, problem=str(e))
  experiment.set_up_jax(config)
  predictor = Predictor(config, variables, run.classes)
  order = np.random.default_rng(0).permutation(len(source))[:max_images]
  begin = shown = time.monotonic()
  interval = 0.25 if sys.stdout.isatty() else 10.0  # off a terminal every line stays
  done, kept = [], []
  confusion = np.zeros((config.num_classes,) * 2, np.int64)
  for count, index in enumerate(map(int, order)):
    if count and time.monotonic() - begin > seconds:
      break
    example = source[index]
    prediction = predictor(example['image'])
    matrix = confusion_of(example['label'], prediction, config.num_classes)
    confusion += matrix
    iou = summarize(matrix)['mean_iou']
    if np.isnan(iou):  # nothing but void
      continue
    done.append(iou)
    bisect.insort(kept, (iou, index, prediction), key=lambda k: k[:2])
    if len(kept) > 2 * SHOWN:
      kept.pop(SHOWN)
    if time.monotonic() - shown > interval:
      shown = time.monotonic()
      show(f'report: {count + 1}/{len(order)} images scored')
  drawn = [_draw(source[i], iou, p, run.classes.palette) for iou, i, p in kept]
  half = min(SHOWN, -(-len(drawn) // 2))
  return Images(
    split=config.eval_split,
    step=step,
    total=len(source),
    ious=tuple(sorted(done)),
    confusion=confusion,
    worst=tuple(drawn[:half]),
    best=tuple(reversed(drawn[half:])),
  )


def confusion_of(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts (truth, prediction) of one image, int64 [c, c]; labels that are no class do not count."""
  counted = label < num_classes
  cells = label[counted].astype(np.int64) * num_classes + prediction[counted]
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _draw(example: dict, iou: float, prediction: np.ndarray, palette) -> Scored:
  image, label = np.asarray(example['image']), np.asarray(example['label'])
  label = np.where(label < len(palette), label, VOID)
  pictures = {
    'image': visualize.overlay(image, np.full_like(label, VOID), palette),
    'truth': visualize.colorize(label, palette),
    'prediction': visualize.colorize(prediction, palette),
    'errors': visualize.error_map(image, label, prediction),
  }
  size = image.shape[1::-1]
  scale = min(1.0, THUMBNAIL / max(size))
  size = tuple(max(1, round(side * scale)) for side in size)
  encoded = {}
  for name, picture in pictures.items():
    photo = name in ('image', 'errors')
    smooth = Image.Resampling.BOX if name == 'image' else Image.Resampling.NEAREST
    small = Image.fromarray(picture).resize(size, smooth)
    encoded[name] = data_uri(small, 'JPEG' if photo else 'PNG')
  return Scored(str(example['file_name']), float(iou), encoded, size)


def data_uri(picture: Image.Image, kind: str) -> str:
  """Encodes a picture: 'JPEG' for photographs, 'PNG' (256 colours) for masks, where it is smaller."""
  data = io.BytesIO()
  if kind == 'JPEG':
    picture.save(data, 'JPEG', quality=_QUALITY, optimize=True)
  else:
    picture.quantize(256, dither=Image.Dither.NONE).save(data, 'PNG', optimize=True)
  text = base64.b64encode(data.getvalue()).decode()
  return f'data:image/{kind.lower()};base64,{text}'
