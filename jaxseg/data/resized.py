"""A source whose images all have one size, for recipes that train and score at a fixed size."""

from __future__ import annotations

import numpy as np

from jaxseg.data import geometry

_IN_PIXELS = ('area', 'instance_boxes')  # what annotators measured is not so any more


class Resized:
  """Resizes every example: images and weights bilinearly, labels and instances to the nearest.

  What is scored then is the resized label, as the recipes do that need this; attributes that are
  not its own are those of the wrapped source.

  Args:
    source: random access to examples, `len(source)` and `source[i]` -> dict.
    size: (height, width) in pixels.
  """

  def __init__(self, source, size: tuple[int, int]):
    self._source, self._size = source, (int(size[0]), int(size[1]))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    example = geometry.resize(self._source[index], self._size)
    return {k: v for k, v in example.items() if k not in _IN_PIXELS}

  def size(self, index: int) -> tuple[int, int]:
    """Returns height and width of an image, in pixels."""
    del index
    return self._size

  def label(self, index: int) -> np.ndarray:
    """Returns only the label, uint8 [h, w]."""
    ask = getattr(self._source, 'label', None)
    label = ask(index) if ask else self._source[index]['label']
    return geometry.resize_label(label, self._size)

  @property
  def identity(self) -> str:
    """Text that is the same only for the same examples, in the same order and size."""
    return f'{self._source.identity}|{self._size}'

  def __getattr__(self, name: str):
    if name.startswith('_'):  # while being unpickled there is no _source yet
      raise AttributeError(name)
    return getattr(self._source, name)
