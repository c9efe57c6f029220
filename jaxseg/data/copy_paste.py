"""Augmentation that pastes objects of another image."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from jaxseg.config.fields import within
from jaxseg.data.geometry import Example, drawn_of, size_of
from jaxseg.data.transforms import Transform
from jaxseg.types import UserError

_IDS = 1 << 16  # of an instance map
_SEEN = ('image', 'label', 'weight')


@dataclasses.dataclass(frozen=True)
class CopyPaste(Transform):
  """Pastes objects of another training image, each with probability 1/2 (Ghiasi 2021, arXiv:2012.07177,
  section 3).

  The preceding transforms, such as crop and flip, were applied to the other image too, with random
  numbers of its own. Pasted objects occlude what they cover. If any were pasted, boxes and masks are
  computed from the visible pixels, no longer from the original instances (data/objects.py).

  Attributes:
    share: fraction of the images to paste into.
    least: fraction of an object's pixels that must stay visible; else it is removed.
    most: limit of objects in an image, from which on none is pasted. At most config.loss.max_instances.
  """

  share: float = within(0, 1, default=1.0)
  least: float = within(0, 1, default=0.1)
  most: int = within(1, 10_000, default=100)
  takes_another: ClassVar[bool] = True

  def __call__(
    self, example: Example, rng: np.random.Generator, another: Callable[[], Example]
  ) -> Example:
    if rng.uniform(0, 1) >= self.share:
      return example
    other = another()
    self._check(example, other)
    count = len(example['instance_classes'])
    here, there = (np.atleast_3d(e['instances']) for e in (example, other))
    crowd = [e.get('crowd', np.zeros(len(e['instance_classes']), bool)) for e in (example, other)]
    shown = np.unique(here[here > 0])
    offered = np.unique(there[there > 0])
    offered = offered[~crowd[1][offered - 1]]
    chances = rng.random(len(offered))
    room = max(0, min(self.most - len(shown), _IDS - 1 - count))
    picked = offered[np.argsort(chances)[: min(room, int((chances < 0.5).sum()))]]
    numbers = np.zeros(len(other['instance_classes']) + 1, np.uint16)
    numbers[picked] = count + 1 + np.arange(len(picked))
    _, extent, _ = drawn_of(example)
    pasted = np.where(_inside(extent, size_of(example)), numbers[there], 0)
    covered = pasted.any(axis=2)
    if not covered.any():
      return example
    instances = _joined(self._uncovered(here, covered), pasted)
    return {
      **{key: value for key, value in example.items() if key not in ('instance_boxes', 'area')},
      **{k: _over(example[k], other[k], covered) for k in _SEEN if example.get(k) is not None},
      'instances': instances,
      'instance_classes': _extended(example['instance_classes'], other['instance_classes'], picked),
      'crowd': _extended(*crowd, picked),
      'drawn': instances,
      'place': None,
      'extent': extent,
    }

  def _uncovered(self, layers: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Returns a map [h, w, l] without covered pixels, and without objects of which too little is visible."""
    left = np.where(covered[..., None], 0, layers)
    before, after = (np.bincount(ids.ravel(), minlength=_IDS) for ids in (layers, left))
    return np.where((after < self.least * before)[left], 0, left)

  def _check(self, example: Example, other: Example) -> None:
    for each in (example, other):
      if 'instances' not in each:
        raise UserError(
          f'{each.get("file_name", "an image")}: its dataset does not number objects, which '
          'config.augment.copy_paste needs'
        )
    if size_of(example) != size_of(other):
      raise UserError(
        f'config.augment.copy_paste: an image has {size_of(example)} pixels, another {size_of(other)}: '
        'put config.augment.crop.size=(h, w) before it'
      )


def _inside(extent: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns bool [h, w, 1]: True in the image, False in the padding around it."""
  x0, y0, x1, y1 = np.rint(extent).astype(int)
  rows, columns = np.ogrid[: size[0], : size[1]]
  return ((rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1))[..., None]


def _over(below: np.ndarray, above: np.ndarray, covered: np.ndarray) -> np.ndarray:
  return np.where(covered.reshape(*covered.shape, *[1] * (below.ndim - 2)), above, below)


def _joined(below: np.ndarray, above: np.ndarray) -> np.ndarray:
  """Merges two disjoint maps [h, w, l] into one with the larger number of layers."""
  deep, flat = (below, above) if below.shape[2] >= above.shape[2] else (above, below)
  deep[..., : flat.shape[2]] += flat
  return deep


def _extended(values: np.ndarray, others: np.ndarray, picked: np.ndarray) -> np.ndarray:
  """Appends the values of the other image's picked ids."""
  return np.concatenate([values, np.asarray(others)[picked.astype(int) - 1]])
