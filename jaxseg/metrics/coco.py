"""Average precision of objects as COCO measures it, by masks and by boxes (pycocotools).

Lin et al., arXiv:1405.0312, and the evaluation of cocodataset.org: IoU thresholds .50:.05:.95,
precision at 101 recalls, at most 100 detections per image and class, greedy matching by descending
score, crowds and objects outside an area range ignored.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from pycocotools import mask as rle_masks
from pycocotools.cocoeval import COCOeval

from jaxseg.data.outlines import CroppedMask, Masks
from jaxseg.metrics.score import Example, Prediction, Result
from jaxseg.types import Detections, UserError

MAX_DETECTIONS = 100  # per image and class, the best first
_AREAS = ('all', 'small', 'medium', 'large')  # to 32^2, to 96^2, above; of COCOeval's Params
_THRESHOLD50, _THRESHOLD75 = 0, 5  # among the IoU thresholds


class Score:
  """Average precision of the prediction's 'detections'.

  Args:
    class_names: background first.
    max_detections: per image and class, the best first.
  """

  maps = False

  def __init__(self, class_names: Sequence[str], *, max_detections: int = MAX_DETECTIONS):
    self._names, self._most = tuple(class_names), max_detections
    self._images: list[tuple[int, list, list]] = []  # index, truths, results

  def add(self, example: Example, prediction: Prediction) -> None:
    """Adds one image.

    Args:
      example: 'instances' uint16 [h, w] or [h, w, layers], 'instance_classes' [n], optionally 'crowd'
        [n], 'area' [n] in pixels and 'instance_boxes' [n, 4]. An id without a pixel is an object
        only if there is an 'area'. Equal scores in several images are ordered by 'index'.
      prediction: 'detections' in the same image.

    Raises:
      UserError: data without object ids, classes out of range, or masks of another size.
    """
    truths, detections = truths_of(example, len(self._names)), prediction['detections']
    size = example['instances'].shape[:2]
    if detections.masks.shape != (len(detections), *size):
      raise UserError(
        f'masks of {detections.masks.shape} for {len(detections)} objects in an image of {size}'
      )
    self._images.append((int(example.get('index', 0)), truths, results_of(detections)))

  def merge(self, other: Score) -> None:
    self._images += other._images

  def compute(self) -> Result:
    """Returns mask_ap, _ap50, _ap75, _ap_small, _medium, _large, box_ap, _ap50, _ap75 and per_class_ap.

    Sizes and classes without objects have None.

    Raises:
      UserError: no image shows an object.
    """
    images = [image[1:] for image in sorted(self._images, key=lambda image: image[0])]
    objects = [truth for truths, _ in images for truth in truths if not truth['iscrowd']]
    if not objects:
      raise UserError('no image shows an object: there is nothing to score')
    class_ids = sorted(
      {truth['category_id'] for truth in objects}
    )  # classes without objects have no score
    masks = self._precision('segm', images, class_ids, _AREAS)
    boxes = self._precision('bbox', images, class_ids, _AREAS[:1])
    by_class = {k: _mean(masks[:, :, i, 0]) for i, k in enumerate(class_ids)}
    return {
      **_at_thresholds('mask', masks[..., 0]),
      **{f'mask_ap_{area}': _mean(masks[..., k]) for k, area in enumerate(_AREAS) if k},
      **_at_thresholds('box', boxes[..., 0]),
      'per_class_ap': {name: by_class.get(k) for k, name in enumerate(self._names) if k},
    }

  def _precision(
    self, by: str, images: list, class_ids: list[int], areas: Sequence[str]
  ) -> np.ndarray:
    """Returns [threshold, recall, class, area]."""
    evaluation = _Evaluation(by, images)
    parameters = evaluation.params
    parameters.imgIds = list(range(len(images)))
    parameters.catIds = class_ids
    parameters.maxDets = [self._most]
    parameters.areaRng = parameters.areaRng[: len(areas)]
    parameters.areaRngLbl = list(areas)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
      evaluation.evaluate()
      evaluation.accumulate()
    return evaluation.eval['precision'][..., -1]


class _Evaluation(COCOeval):
  """COCOeval on annotations and results in memory."""

  def __init__(self, kind: str, images: list[tuple[list, list]]):
    super().__init__(iouType=kind)
    self._images = images

  def _prepare(self) -> None:
    ids = itertools.count(1)  # 0 would read as "not matched"
    for image, (truths, results) in enumerate(self._images):
      for truth in truths:
        self._gts[image, truth['category_id']].append({**truth, 'id': next(ids)})
      for result in results:
        numbered = {**result, 'id': next(ids), 'area': self._area(result)}
        self._dts[image, result['category_id']].append(numbered)

  def _area(self, result: Mapping[str, Any]) -> float:
    if self.params.iouType == 'segm':
      return float(rle_masks.area(result['segmentation']))
    return result['bbox'][2] * result['bbox'][3]


def truths_of(example: Example, num_classes: int) -> list[dict[str, Any]]:
  """Returns the objects of an example as COCO's annotations; see Score.add."""
  if 'instances' not in example:
    raise UserError(
      'average precision needs data that number their objects, as dsb2018, ctc and coco do'
    )
  classes = np.asarray(example['instance_classes'])
  if len(classes) and not 1 <= classes.min() <= classes.max() < num_classes:
    raise UserError(
      f'objects are of the classes {classes.min()} to {classes.max()}; allowed are 1 to '
      f'{num_classes - 1}'
    )
  layers = np.moveaxis(np.atleast_3d(example['instances']), -1, 0)
  pieces = {i: piece for layer in layers for i, piece in _numbered(layer)}
  empty, size = CroppedMask(0, 0, np.zeros((0, 0), bool)), layers.shape[1:]
  numbers = range(1, len(classes) + 1)
  return [
    _annotation(example, i - 1, encode(pieces.get(i, empty), size))
    for i in numbers
    if i in pieces or 'area' in example
  ]


def _numbered(layer: np.ndarray) -> Iterator[tuple[int, CroppedMask]]:
  """Yields the ids in a map and their pixels."""
  for i, window in enumerate(scipy.ndimage.find_objects(layer), start=1):
    if window:
      yield i, CroppedMask(window[0].start, window[1].start, layer[window] == i)


def _annotation(example: Example, i: int, code: Mapping[str, Any]) -> dict[str, Any]:
  crowd = int('crowd' in example and example['crowd'][i])
  boxes, areas = example.get('instance_boxes'), example.get('area')
  return {
    'category_id': int(example['instance_classes'][i]),
    'segmentation': code,
    'bbox': rle_masks.toBbox(code).tolist() if boxes is None else _corner_and_size(boxes[i]),
    'area': float(rle_masks.area(code) if areas is None else areas[i]),
    'iscrowd': crowd,
    'ignore': crowd,
  }


def results_of(detections: Detections) -> list[dict[str, Any]]:
  """Returns detections in COCO's result format: category_id, score, bbox, segmentation (RLE)."""
  d, masks = detections, Masks.of(detections.masks)
  return [
    {
      'category_id': int(kind),
      'score': float(score),
      'bbox': _corner_and_size(box),
      'segmentation': encode(piece, masks.size),
    }
    for box, score, kind, piece in zip(d.boxes, d.scores, d.classes, masks.pieces, strict=True)
  ]


def encode(piece: CroppedMask, size: tuple[int, int]) -> dict[str, Any]:
  """Returns an object's pixels as COCO's compressed RLE: 'size' and 'counts', bytes."""
  height, width = size
  columns, rows = np.nonzero(piece.mask.T)
  positions = (columns + piece.left) * height + rows + piece.top  # column-major, ascending
  starts = positions[np.diff(positions, prepend=-2) != 1]
  ends = positions[np.diff(positions, append=-2) != 1] + 1
  edges = np.stack([starts, ends], axis=1).ravel()
  runs = np.diff(edges, prepend=0, append=height * width)
  counts = runs[:-1] if len(runs) > 1 and not runs[-1] else runs
  return rle_masks.frPyObjects({'size': [height, width], 'counts': counts.tolist()}, height, width)


def _corner_and_size(box: np.ndarray) -> list[float]:
  x0, y0, x1, y1 = map(float, box)
  return [x0, y0, x1 - x0, y1 - y0]


def _at_thresholds(kind: str, precision: np.ndarray) -> dict[str, float | None]:
  return {
    f'{kind}_ap': _mean(precision),
    f'{kind}_ap50': _mean(precision[_THRESHOLD50]),
    f'{kind}_ap75': _mean(precision[_THRESHOLD75]),
  }


def _mean(precision: np.ndarray) -> float | None:
  """Averages over valid entries; COCO uses -1 for classes without objects."""
  valid = precision[precision > -1]
  return float(valid.mean()) if valid.size else None
