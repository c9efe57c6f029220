"""A ready config for your own objects: Mask R-CNN, sized to fit them.

The rules, open to debate: Images are scaled by a power of two so that large objects (the 95th
percentile) fit twice into a crop; if that allows, they are doubled where the median object is below 16
pixels. The crop is the median image, at most 512 pixels a side (192 without an accelerator). Anchors
double from level to level, centred in log space on the 5th to 95th percentile of the objects' sides;
their ratios are 1:2, 1:1 and 2:1, or more extreme ones if the objects are. `max_instances` is the most
that a crop can show, `detections` one and a half times the most in an image. The batch is the largest
power of two whose step fits in half of the device's memory, at most 16 (4). Training sees the pixels of
100 epochs, in 300 to 20,000 steps (900 without an accelerator). Nothing is pretrained or frozen: with an
accelerator the network is a full-width ResNet-50, else a small one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxseg.data import mask_files, threads
from jaxseg.data.objects import CELLS
from jaxseg.data.source import Source
from jaxseg.models import mask_rcnn
from jaxseg.prepare.recipe import OBJECTS, Machine, Recipe, power_of_two, step_bytes
from jaxseg.types import UserError

_SMALL = dict(
  width=16,
  stage_sizes=(2, 2, 2, 2),
  features=64,
  pre_nms=(300, 500),
  post_nms=(200, 400),
  rpn_samples=128,
  roi_samples=96,
  box_features=256,
  mask_features=64,
  mask_layers=2,
)
_RATIOS = (0.5, 1.0, 2.0)
_SAMPLE = 24  # masks to inspect to distinguish object ids from classes
_CROP_SCALE = (0.75, 1.5)


def are_numbers(masks: Sequence[Path]) -> bool:
  """Whether masks look like numbered objects rather than classes.

  True if nearly every id is one connected region, some mask has at least three ids, and the masks are
  16-bit or their ids are 1..n with n varying between masks.
  """
  looked = _looked(masks)
  regions = np.array([count for _, counts, _ in looked for count in counts])
  found = [numbers for numbers, _, _ in looked]
  highest = {len(numbers) for numbers in found}
  gaps = any(numbers != list(range(1, len(numbers) + 1)) for numbers in found)
  deep = any(size > 1 for *_, size in looked)
  single = len(regions) > 0 and np.mean(regions == 1) >= 0.95
  return bool(single and max(highest) > 2 and (deep or (not gaps and len(highest) > 2)))


def are_classes(masks: Sequence[Path]) -> bool:
  """Whether most ids of masks are several regions each, which rules out objects."""
  regions = np.array([count for _, counts, _ in _looked(masks) for count in counts])
  return len(regions) > 0 and np.mean(regions > 1) > 0.5


def _looked(masks: Sequence[Path]) -> list[tuple[list[int], list[int], int]]:
  """Returns the ids, regions per id and bytes per pixel of some masks; [] for colours."""
  found = []
  for path in masks[:: max(1, len(masks) // _SAMPLE)]:
    try:
      ids = mask_files.read_ids(path)
    except UserError:  # in colour or damaged: the full read reports what is wrong
      return []
    numbers, order = np.unique(ids, return_inverse=True)
    order = np.where(ids > 0, order.reshape(ids.shape) + 1, 0)
    windows = [(i, w) for i, w in enumerate(scipy.ndimage.find_objects(order), start=1) if w]
    regions = [scipy.ndimage.label(order[w] == i, np.ones((3, 3)))[1] for i, w in windows]
    found.append((numbers[numbers > 0].tolist(), regions, ids.dtype.itemsize))
  return found


@dataclasses.dataclass(frozen=True)
class _Measured:
  """Statistics of the training images.

  Attributes:
    sizes: int [i, 2], heights and widths.
    boxes: for each image, [n, 4], without crowds.
    counts: objects of each class.
    layers: needed to store overlapping objects.
  """

  sizes: np.ndarray
  boxes: Sequence[np.ndarray]
  counts: np.ndarray
  layers: int


def _measure(source: Source) -> _Measured:
  def read(i: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    example = source[i]
    boxes = example['instance_boxes']
    used = ~example['crowd'] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return example['instances'].shape, boxes[used], example['instance_classes'][used]

  results = threads.results(read, range(len(source)), name=source.file_name)
  sizes, boxes, classes = zip(*results, strict=True)
  counts = np.bincount(np.concatenate(classes), minlength=source.num_classes)
  if not counts.any():
    raise UserError(f'{source.name}: no training image shows an object: there is nothing to learn')
  shapes = np.array(sizes)
  return _Measured(shapes[:, :2], boxes, counts, int(shapes[:, 2].max()))


def make_recipe(source: Source, device: Machine) -> tuple[Recipe, tuple[int, ...]]:
  """Fits scale, crop, anchors, row counts and batch to the training images and the device.

  Returns:
    The recipe, and the number of objects of each class.
  """
  fast, known = device.is_accelerator, _measure(source)
  largest, most_images, most_steps = (512, 16, 20_000) if fast else (192, 4, 900)
  boxes = np.concatenate(known.boxes)
  sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
  low, middle, high = np.percentile(np.maximum(sides, 1), (5, 50, 95))
  scale = fit_scale(middle, high, largest)
  rule = mask_rcnn.Model(2).size_rule
  image = np.median(known.sizes, axis=0) * scale
  crop = tuple(rule.at_least(int(min(side, largest - rule.multiple + 1))) for side in image)
  anchors = fit_anchors(low * scale, high * scale), fit_ratios(boxes)
  model = _network(max(len(b) for b in known.boxes), *anchors, fast=fast)
  rows = _rows(known, [side / _CROP_SCALE[0] / scale for side in crop])
  network = mask_rcnn.Model(source.num_classes, **model)
  fixed, each = step_bytes(network, crop, source.channels, partial(_truth, rows))
  fits = (device.budget - fixed) / each * device.count
  batch = max(power_of_two(min(fits, most_images, len(source))), 1)
  crops = len(source) * max(math.prod(image) / math.prod(crop), 1)
  biggest = np.prod(known.sizes, axis=1).max() * scale**2
  recipe = Recipe(
    model={'name': OBJECTS} | model,
    learning_rate=1e-3,
    scale=scale,
    crop=crop,
    batch_size=batch,
    eval_batch_size=max(power_of_two(min(batch, fits * 2 * math.prod(crop) / biggest)), 1),
    num_steps=min(max(10 * round(10 * crops / batch), 300), most_steps),
    step_bytes=int(fixed + each * batch / device.count),
    objects=rows,
    optim={'clip_norm': 10.0},
    score={'max_detections': model['detections']},
  )
  return recipe, tuple(known.counts.tolist())


def _network(
  most: int, sizes: Sequence[int], ratios: Sequence[float], *, fast: bool
) -> dict[str, Any]:
  """Returns the options of a network for images of at most `most` objects."""
  detections = min(max(100, 10 * math.ceil(0.15 * most)), 1000)
  model = {} if fast else _SMALL | dict(post_nms=(200, max(400, detections)))
  return model | dict(
    frozen_norm=False,
    frozen_stages=0,
    anchor_sizes=sizes,
    anchor_ratios=ratios,
    detections=detections,
    candidates=max(600, 2 * detections),
  )


def _rows(known: _Measured, window: Sequence[float]) -> dict[str, Any]:
  """Returns the truth's options for crops of the size `window`."""
  shown = max(at_most_in_window(boxes, window) for boxes in known.boxes)
  return dict(max_instances=max(shown, 1), max_layers=known.layers, min_area=4)


def _truth(rows: Mapping[str, Any], batch: int) -> dict[str, Any]:
  """Returns the shapes of the network's training inputs other than images."""
  count = rows['max_instances']
  shapes = dict(boxes=((count, 4), 'f4'), classes=((count,), 'i4'), crowd=((count,), bool))
  shapes |= dict(masks=((count, CELLS, CELLS), 'u1'), mask_boxes=((count, 4), 'f4'))
  named = {k: jax.ShapeDtypeStruct((batch, *s), jnp.dtype(d)) for k, (s, d) in shapes.items()}
  return {'truth': named}


def fit_scale(middle: float, high: float, largest: int) -> float:
  """Returns the scale of images, given the median and the 95th percentile of the objects' sides."""
  if middle < 16 and 4 * high <= largest:
    return 2.0
  power = min(0, math.floor(math.log2(largest / 2 / high)))
  return max(2.0**power, 2.0 ** min(0, math.ceil(math.log2(8 / middle))))


def fit_anchors(low: float, high: float) -> tuple[int, ...]:
  """Returns the sides of four levels of anchors for objects with sides from `low` to `high`."""
  centre = (math.log2(low) + math.log2(max(high, low))) / 2
  first = min(max(2 ** (centre - 1.5), 6), 64)
  return tuple(round(first * 2**i) for i in range(4))


def fit_ratios(boxes: np.ndarray) -> tuple[float, ...]:
  """Returns the anchors' ratios, height over width."""
  ratios = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
  flat, tall = np.clip(np.percentile(ratios, (10, 90)), 0.1, 10).round(2).tolist()
  if flat >= 0.4 and tall <= 2.5:
    return _RATIOS
  return (min(flat, 0.5), 1.0, max(tall, 2.0))


def at_most_in_window(boxes: np.ndarray, window: Sequence[float]) -> int:
  """Returns an upper bound on the boxes [n, 4] that a window of (height, width) can show.

  Any window lies in one of 1.5 times its size that starts at a multiple of half of it, so only those are
  counted.
  """
  if not len(boxes):
    return 0
  halves = np.array([window[1], window[0]]) / 2
  first = np.floor(boxes[:, :2] / halves).astype(int) - 2
  last = np.floor(boxes[:, 2:] / halves).astype(int)
  counts: dict[tuple[int, int], int] = {}
  for (x0, y0), (x1, y1) in zip(first.tolist(), last.tolist(), strict=True):
    for place in ((x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)):
      counts[place] = counts.get(place, 0) + 1
  return min(max(counts.values()), len(boxes))
