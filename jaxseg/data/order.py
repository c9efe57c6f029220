"""The order of training examples: endless permutations of the data, one kind of image per batch.

Most data are of one kind. If images get one of two sizes (transforms.Crop, `turned`), each batch has
only one of them, and the kinds alternate in proportion to their number of images.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxseg.data import threads


@dataclasses.dataclass(frozen=True)
class Order:
  """The order of a run's examples; a pure function of its attributes.

  Attributes:
    seed: 0 or larger.
    kinds: indices of the examples of each kind, one or two, none empty.
    batch_size: examples per step.
    replacement: draw each example from all of its kind instead of once per epoch.
  """

  seed: int
  kinds: tuple[np.ndarray, ...]
  batch_size: int
  replacement: bool = False

  def index(self, position: int, rng: np.random.Generator) -> int:
    """Returns the example at a position of the endless stream; `rng` is that position's own."""
    step, row = divmod(position, self.batch_size)
    kind, before = self._kind(step)
    indices, place = self.kinds[kind], before * self.batch_size + row
    if self.replacement:
      return self.another(position, rng)
    epoch, rest = divmod(place, len(indices))
    return int(indices[_order((self.seed, 0, epoch, *[kind] * bool(kind)), len(indices))[rest]])

  def another(self, position: int, rng: np.random.Generator) -> int:
    """Draws an example from all of the position's kind."""
    indices = self.kinds[self._kind(position // self.batch_size)[0]]
    return int(indices[rng.integers(len(indices))])

  def _kind(self, step: int) -> tuple[int, int]:
    """Returns the kind of a step, and the number of earlier steps of that kind."""
    if len(self.kinds) == 1:
      return 0, step
    count, total = len(self.kinds[1]), sum(map(len, self.kinds))
    phase = self.seed % total
    of_second = (step * count + phase) // total
    if ((step + 1) * count + phase) // total > of_second:
      return 1, of_second
    return 0, step - of_second


# Not Grain's shuffle: it takes 0.1 to 5 ms per example for fewer than 1000 of them.
@functools.lru_cache(maxsize=8)
def _order(seed: tuple[int, ...], count: int) -> np.ndarray:
  return np.random.default_rng(seed).permutation(count)


def kinds(source: Any, transforms: Sequence[Any], timeout: float = 0.0) -> tuple[np.ndarray, ...]:
  """Returns the indices of the examples of each kind that the transforms distinguish."""
  everything = np.arange(len(source))
  kind = next((t.kind for t in transforms if getattr(t, 'turned', False)), None)
  if kind is None:
    return (everything,)
  name = getattr(source, 'file_name', None)
  sizes = threads.results(source.size, range(len(source)), name=name, timeout=timeout)
  found = np.array([kind(size) for size in sizes])
  return tuple(part for part in (everything[found == k] for k in (0, 1)) if len(part))
