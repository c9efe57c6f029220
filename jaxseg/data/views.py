"""Wrappers of sources: resize all examples, stretch their contrast, or cache them in memory."""

import threading
from typing import Any

import numpy as np

from jaxseg.data import contrast, geometry
from jaxseg.data.geometry import Size

_IN_PIXELS = ('area', 'instance_boxes')  # annotated values do not hold at another size


class _View:
  """Delegates to the wrapped source all that the view does not define.

  Args:
    source: random access to examples, `len(source)` and `source[i]` -> dict.
  """

  def __init__(self, source: Any):
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):  # during unpickling there is no _source yet
      raise AttributeError(name)
    return getattr(self._source, name)


class Resized(_View):
  """All examples at `size`: images and weights bilinear, instances nearest.

  Scores are then computed on the resized label, as in the recipes that need this.

  Args:
    labels: how to resize them, see geometry.resize_label.
  """

  def __init__(self, source: Any, size: Size, labels: str = 'nearest'):
    super().__init__(source)
    self._size, self._labels = (int(size[0]), int(size[1])), labels

  def __getitem__(self, index: int) -> dict:
    example = geometry.resize(self._source[index], self._size, self._labels)
    return {k: v for k, v in example.items() if k not in _IN_PIXELS}

  def size(self, index: int) -> Size:
    """Returns height and width of an image, in pixels."""
    del index
    return self._size

  def label(self, index: int) -> np.ndarray:
    """Returns only the label, uint8 [h, w]."""
    read = getattr(self._source, 'label', None)
    label = read(index) if read else self._source[index]['label']
    return geometry.resize_label(label, self._size, self._labels)

  @property
  def identity(self) -> str:
    """A string that is equal only for the same examples, in the same order and size."""
    by = '' if self._labels == 'nearest' else f'|{self._labels}'
    return f'{self._source.identity}|{self._size}{by}'


class Stretched(_View):
  """All images with the contrast that `contrast.stretch` gives them."""

  def __init__(self, source: Any, percentiles: tuple[float, float]):
    super().__init__(source)
    self._percentiles = percentiles

  def __getitem__(self, index: int) -> dict:
    example = self._source[index]
    return {**example, 'image': contrast.stretch(example['image'], self._percentiles)}

  @property
  def identity(self) -> str:
    """A string that is equal only for the same examples, in the same order and contrast."""
    return f'{self._source.identity}|{self._percentiles}'


class Cached(_View):
  """Caches examples in memory, so that a set that fits is decoded once.

  Thread-safe. The returned arrays are read-only: a transform that wrote into one would corrupt all
  later epochs.

  Args:
    source: see Resized.
    max_bytes: limit of pixels; examples read beyond it are read again each time.

  Attributes:
    held_bytes: bytes of pixels in memory.
  """

  def __init__(self, source: Any, max_bytes: int = 4 << 30):
    super().__init__(source)
    self._max_bytes = max_bytes
    self._lock = threading.Lock()
    self._examples: dict[int, dict] = {}
    self._sizes: dict[int, Size] = {}
    self.held_bytes = 0

  def __getitem__(self, index: int) -> dict:
    index = range(len(self))[index]
    example = self._examples.get(index)
    if example is None:
      example = {key: _read_only(value) for key, value in self._source[index].items()}
      self._keep(index, example)
    return dict(example)

  def size(self, index: int) -> Size:
    """Returns height and width of an image, in pixels; cached even if the image is not."""
    if index not in self._sizes:
      read = getattr(self._source, 'size', None)
      self._sizes[index] = tuple(read(index) if read else geometry.size_of(self[index]))
    return self._sizes[index]

  def _keep(self, index: int, example: dict) -> None:
    cost = sum(v.nbytes for v in example.values() if isinstance(v, np.ndarray))
    with self._lock:
      self._sizes[index] = geometry.size_of(example)
      if index not in self._examples and self.held_bytes + cost <= self._max_bytes:
        self._examples[index] = example
        self.held_bytes += cost


def _read_only(value: Any) -> Any:
  if not isinstance(value, np.ndarray):
    return value
  view = value.view()
  view.flags.writeable = False
  return view
