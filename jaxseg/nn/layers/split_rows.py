"""Support in the layers for images whose rows are split over devices.

XLA partitions a program by itself, and exchanges only the halo: the few rows at the seams that a window
extends over. It needs help in two cases, both observed (jax 0.10.2 and 0.12.0.1). With uneven shards,
shards of one row, or no more rows than the kernel's reach, gradients can be silently wrong, some exactly
doubled, while the loss is right (a 7x7 convolution of 6 rows on a 2x2 mesh is enough); so every layer
constrains the sharding of its maps (`by_rows`). And operations that XLA cannot partition gather the full
map; so layers use another form if `rows_are_split`. Models know nothing of this: the code that traces
them opens `split_rows`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.types import Array

# Function that a layer applies to a map [b, h, w, c] and its reach; None: rows are not split.
_on_map: ContextVar[Callable[[Array, int], Array] | None] = ContextVar('on_map', default=None)


@dataclasses.dataclass(frozen=True)
class Level:
  """A layer's feature map.

  Attributes:
    rows: its height.
    reach: rows above or below its own that an output row may need.
  """

  rows: int
  reach: int = 0

  @property
  def least(self) -> int:
    """Smallest number of rows of a shard."""
    return max(2, self.reach + 1)

  def splits(self, shards: int) -> bool:
    """Whether shards get equally many rows, at least `least`."""
    return self.rows % shards == 0 and self.rows // shards >= self.least


@contextlib.contextmanager
def split_rows(mesh: Mesh) -> Iterator[None]:
  """While open, traced layers shard their maps [b, h, w, c] over ('data', 'spatial')."""

  def constrain(x: Array, reach: int) -> Array:
    rows = Level(x.shape[1], reach).splits(mesh.shape['spatial'])
    spec = PartitionSpec('data', 'spatial' if rows else None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  with _using(constrain):
    yield


@contextlib.contextmanager
def recorded_levels() -> Iterator[list[Level]]:
  """While open, traced layers append their maps to the yielded list, and split nothing."""
  levels: list[Level] = []

  def note(x: Array, reach: int) -> Array:
    levels.append(Level(x.shape[1], reach))
    return x

  with _using(note):
    yield levels


@contextlib.contextmanager
def unsplit_rows() -> Iterator[None]:
  """While open, layers do not constrain rows: their maps are a few global features of an image."""
  with _using(None):
    yield


@contextlib.contextmanager
def _using(function: Callable[[Array, int], Array] | None) -> Iterator[None]:
  token = _on_map.set(function)
  try:
    yield
  finally:
    _on_map.reset(token)


def rows_are_split() -> bool:
  """Whether layers are being traced with rows split over devices."""
  return _on_map.get() is not None


def by_rows(x: Array, reach: int = 0) -> Array:
  """Constrains x [b, h, w, c], and its gradient, to be split by rows; does nothing if rows are not split.

  Args:
    x: a layer's input or output.
    reach: the most rows above or below its own that an output row of the layer needs.
  """
  on_map = _on_map.get()
  return x if on_map is None else on_map(x, reach)


def shifted(x: Array, axis: int, n: int) -> Array:
  """Returns x[i + n] at i along an axis, zeros beyond the ends."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (-n, n, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), pads) if n else x
