"""Average precision of instances as COCO measures it, by masks and by boxes (pycocotools).

Lin et al., arXiv:1405.0312, and the evaluation of cocodataset.org: IoU thresholds .50:.05:.95,
precision at 101 recalls, at most 100 detections of an image and class, greedy matching by falling score, crowds
and objects outside of an area range ignored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks
from pycocotools.cocoeval import COCOeval

from jaxseg.types import UserError

SCORES = (
  'mask_ap',
  'mask_ap50',
  'mask_ap75',
  'mask_ap_small',
  'mask_ap_medium',
  'mask_ap_large',
  'box_ap',
  'box_ap50',
  'box_ap75',
)
MAX_DETECTIONS = 100  # of an image and class that count, the best first
_AREAS = ('all', 'small', 'medium', 'large')  # to 32^2, to 96^2, above; of COCOeval's Params
_ALL, _LAST = 0, -1  # the first range of areas, the largest number of detections
_THRESHOLD50, _THRESHOLD75 = 0, 5  # places among the IoU thresholds


@dataclasses.dataclass(frozen=True)
class Detections:
  """The objects found in one image [h, w], by falling score.

  Attributes:
    boxes: float32 [n, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
    scores: float32 [n].
    classes: int32 [n], 1..c-1.
    masks: bool [n, h, w].
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  masks: np.ndarray

  def __len__(self) -> int:
    return len(self.scores)

  def __getitem__(self, chosen: Any) -> Detections:
    """Returns those that a slice or an array of bools chooses."""
    return Detections(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


class CocoScore:
  """Average precision over images that are added one by one.

  Args:
    class_names: background first.
    max_detections: of an image and class that count, the best first.
    by_size: whether objects are scored by size and by boxes too, not only by masks of all sizes.
  """

  def __init__(
    self, class_names: Sequence[str], *, max_detections: int = MAX_DETECTIONS, by_size: bool = True
  ):
    self._names, self._most, self._by_size = tuple(class_names), max_detections, by_size
    self._images: dict[int, tuple[list, list]] = {}  # number -> truths, detections

  def add(self, example: Mapping[str, Any], found: Detections, number: int | None = None) -> None:
    """Counts one image; threads may, where they give numbers.

    Args:
      example: 'instances' uint16 [h, w] or [h, w, layers], 'instance_classes' [n], perhaps 'crowd'
        [n], 'area' [n] in pixels and 'instance_boxes' [n, 4]. An id without a pixel is an object
        only where 'area' says so.
      found: in the same image.
      number: of the image, which decides between equal scores of several; by default the next.

    Raises:
      UserError: data that do not number their objects, classes that there are not, or masks of
        another size.
    """
    truths = truths_of(example, len(self._names))
    size = example['instances'].shape[:2]
    if found.masks.shape != (len(found), *size):
      raise UserError(
        f'masks of {found.masks.shape} for {len(found)} objects in an image of {size}'
      )
    self._images[len(self._images) if number is None else number] = truths, results_of(found)

  def summary(self) -> dict[str, Any]:
    """Returns SCORES, None where there is no object of the size, and 'per_class_ap' by class name.

    Raises:
      UserError: no image had an object.
    """
    if all(truth['iscrowd'] for truths, _ in self._images.values() for truth in truths):
      raise UserError('no image shows an object: there is nothing to score')
    precision = self._precision('segm')  # [threshold, recall, class, area, detections]
    found = {'mask_ap': _mean(precision[:, :, :, _ALL, _LAST])}
    if self._by_size:
      found |= {
        'mask_ap50': _mean(precision[_THRESHOLD50, :, :, _ALL, _LAST]),
        'mask_ap75': _mean(precision[_THRESHOLD75, :, :, _ALL, _LAST]),
      }
      for place, area in enumerate(_AREAS[1:], start=1):
        found[f'mask_ap_{area}'] = _mean(precision[:, :, :, place, _LAST])
      boxes = self._precision('bbox')
      found |= {
        'box_ap': _mean(boxes[:, :, :, _ALL, _LAST]),
        'box_ap50': _mean(boxes[_THRESHOLD50, :, :, _ALL, _LAST]),
        'box_ap75': _mean(boxes[_THRESHOLD75, :, :, _ALL, _LAST]),
      }
    per_class = [_mean(precision[:, :, k, _ALL, _LAST]) for k in range(len(self._names) - 1)]
    return {**found, 'per_class_ap': dict(zip(self._names[1:], per_class, strict=True))}

  def _precision(self, kind: str) -> np.ndarray:
    evaluation = _Evaluation(kind, self._images)
    parameters = evaluation.params
    parameters.imgIds = sorted(self._images)
    parameters.catIds = list(range(1, len(self._names)))
    parameters.maxDets = [self._most]
    count = len(_AREAS) if self._by_size and kind == 'segm' else 1
    parameters.areaRng = parameters.areaRng[:count]
    parameters.areaRngLbl = parameters.areaRngLbl[:count]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
      evaluation.evaluate()
      evaluation.accumulate()
    return evaluation.eval['precision']


class _Evaluation(COCOeval):
  """COCOeval on what is in memory already."""

  def __init__(self, kind: str, images: Mapping[int, tuple[list, list]]):
    super().__init__(iouType=kind)
    self._images = images

  def _prepare(self) -> None:
    ids = itertools.count(1)  # 0 would read as "not matched"
    for image, (truths, found) in self._images.items():
      for truth in truths:
        self._gts[image, truth['category_id']].append({**truth, 'id': next(ids)})
      for one in found:
        self._dts[image, one['category_id']].append(
          {**one, 'id': next(ids), 'area': self._area(one)}
        )

  def _area(self, found: Mapping[str, Any]) -> float:
    if self.params.iouType == 'segm':
      return float(rle_masks.area(found['segmentation']))
    return found['bbox'][2] * found['bbox'][3]


def truths_of(example: Mapping[str, Any], num_classes: int) -> list[dict[str, Any]]:
  """Returns the objects of an example as COCO's annotations; see CocoScore.add."""
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
  masks = _masks_by_id(example['instances'])
  empty = np.zeros(example['instances'].shape[:2], bool)
  truths = []
  for i in range(len(classes)):
    mask = masks.get(i + 1)
    if mask is None and 'area' not in example:
      continue
    code = encode(empty if mask is None else mask)
    crowd = bool(example['crowd'][i]) if 'crowd' in example else False
    truths.append(
      {
        'category_id': int(classes[i]),
        'segmentation': code,
        'bbox': _corner_and_size(example['instance_boxes'][i])
        if 'instance_boxes' in example
        else rle_masks.toBbox(code).tolist(),
        'area': float(example['area'][i] if 'area' in example else rle_masks.area(code)),
        'iscrowd': int(crowd),
        'ignore': int(crowd),
      }
    )
  return truths


def _masks_by_id(instances: np.ndarray) -> dict[int, np.ndarray]:
  """Returns id -> bool [h, w]."""
  layers = np.moveaxis(np.atleast_3d(instances), -1, 0)
  return {int(i): layer == i for layer in layers for i in np.unique(layer) if i}


def results_of(found: Detections) -> list[dict[str, Any]]:
  """Returns detections in COCO's result format: category_id, score, bbox, segmentation (RLE)."""
  return [
    {
      'category_id': int(kind),
      'score': float(score),
      'bbox': _corner_and_size(box),
      'segmentation': encode(mask),
    }
    for box, score, kind, mask in zip(
      found.boxes, found.scores, found.classes, found.masks, strict=True
    )
  ]


def _corner_and_size(box: np.ndarray) -> list[float]:
  x0, y0, x1, y1 = map(float, box)
  return [x0, y0, x1 - x0, y1 - y0]


def encode(mask: np.ndarray) -> dict[str, Any]:
  """Returns a mask bool [h, w] as COCO's compressed run lengths: 'size' and 'counts', bytes."""
  return rle_masks.encode(np.asfortranarray(mask, np.uint8))


def _mean(precision: np.ndarray) -> float | None:
  """Averages over what there is; COCO writes -1 for a class that has no object."""
  there = precision[precision > -1]
  return float(there.mean()) if there.size else None


def image_ap(
  example: Mapping[str, Any], found: Detections, class_names: Sequence[str]
) -> float | None:
  """Returns the mask AP of one image over the classes in it, None where it shows no object."""
  score = CocoScore(class_names, by_size=False)
  score.add(example, found)
  try:
    return score.summary()['mask_ap']
  except UserError:
    return None
