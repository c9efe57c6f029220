"""Keeps decoded examples in memory, so that a data set that fits is read from disk once."""

from __future__ import annotations

import threading

import numpy as np

_BYTES = 4 << 30


def remember(source, max_bytes: int = _BYTES) -> Remembered:
  """Wraps a source so that examples stay in memory once read, up to `max_bytes` of pixels.

  Args:
    source: random access to examples, `len(source)` and `source[i]` -> dict.
    max_bytes: what is read after the memory is full is not kept, and read again each time.

  Returns:
    A source with the same examples and attributes, and a method `size(i)`; any number of threads
    may read it. The arrays it hands out are read-only.
  """
  return Remembered(source, max_bytes)


class Remembered:
  """See `remember`. Attributes that are not its own are those of the wrapped source.

  Attributes:
    held_bytes: bytes of pixels in memory now.
  """

  def __init__(self, source, max_bytes: int):
    self._source = source
    self._max_bytes = max_bytes
    self._lock = threading.Lock()
    self._examples: dict[int, dict] = {}
    self._sizes: dict[int, tuple[int, int]] = {}
    self.held_bytes = 0

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    index = range(len(self))[index]
    example = self._examples.get(index)
    if example is None:
      example = {key: _frozen(value) for key, value in self._source[index].items()}
      self._keep(index, example)
    return dict(example)

  def size(self, index: int) -> tuple[int, int]:
    """Returns height and width of an image, in pixels; remembered even where the image is not."""
    if index not in self._sizes:
      ask = getattr(self._source, 'size', None)
      self._sizes[index] = tuple(ask(index) if ask else self[index]['image'].shape[:2])
    return self._sizes[index]

  def _keep(self, index: int, example: dict) -> None:
    cost = sum(v.nbytes for v in example.values() if isinstance(v, np.ndarray))
    with self._lock:
      self._sizes[index] = example['image'].shape[:2]
      if index not in self._examples and self.held_bytes + cost <= self._max_bytes:
        self._examples[index] = example
        self.held_bytes += cost

  def __getattr__(self, name: str):
    if name.startswith('_'):  # while being unpickled there is no _source yet
      raise AttributeError(name)
    return getattr(self._source, name)


def _frozen(value):
  """A transform that wrote into a remembered array would spoil every later epoch: forbid it."""
  if not isinstance(value, np.ndarray):
    return value
  view = value.view()
  view.flags.writeable = False
  return view
