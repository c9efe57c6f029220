"""Images whose rows are split over devices: what a layer has to know of it.

XLA splits a program by itself, and exchanges only the few rows at the seams that a window reaches
over. Two things it cannot be left alone with, both tried (jax 0.10.2 and 0.12.0.1). Where a device has
uneven rows, one row, or no more rows than a kernel reaches over, gradients can come out silently wrong,
some exactly doubled, while the loss is right (a 7x7 convolution of 6 rows on a mesh of 2x2 is enough);
so every layer says how its map lies (`by_rows`). And operations that it cannot split gather the whole
map; so layers take another form where `rows_are_split`. A model knows nothing of either: whoever
traces it opens `split_rows`.
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

# What a layer does with a map [b, h, w, c] and its reach; None: rows are not split.
_on_map: ContextVar[Callable[[Array, int], Array] | None] = ContextVar('on_map', default=None)


@dataclasses.dataclass(frozen=True)
class Level:
  """A map that a layer sees.

  Attributes:
    rows: its height.
    reach: rows beyond its own that an output row may need, above or below.
  """

  rows: int
  reach: int = 0

  @property
  def least(self) -> int:
    """Rows that a shard needs."""
    return max(2, self.reach + 1)

  def splits(self, shards: int) -> bool:
    """Whether shards get equal rows, at least two, and more than a window reaches over."""
    return self.rows % shards == 0 and self.rows // shards >= self.least


@contextlib.contextmanager
def split_rows(mesh: Mesh) -> Iterator[None]:
  """While open, layers that are traced place their maps [b, h, w, c] on ('data', 'spatial')."""

  def constrain(x: Array, reach: int) -> Array:
    rows = Level(x.shape[1], reach).splits(mesh.shape['spatial'])
    spec = PartitionSpec('data', 'spatial' if rows else None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  with _using(constrain):
    yield


@contextlib.contextmanager
def recorded_levels() -> Iterator[list[Level]]:
  """While open, layers that are traced leave their maps in the list, and split nothing."""
  levels: list[Level] = []

  def note(x: Array, reach: int) -> Array:
    levels.append(Level(x.shape[1], reach))
    return x

  with _using(note):
    yield levels


@contextlib.contextmanager
def unsplit_rows() -> Iterator[None]:
  """While open, layers say nothing of rows: their maps are a few numbers that sum up an image."""
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
  """Whether layers are being traced for rows on several devices."""
  return _on_map.get() is not None


def by_rows(x: Array, reach: int = 0) -> Array:
  """Says that x [b, h, w, c], and its gradient, lie by rows; x itself where rows are not split.

  Args:
    x: a layer's input or output.
    reach: rows beyond its own that an output row of the layer needs at most.
  """
  on_map = _on_map.get()
  return x if on_map is None else on_map(x, reach)


def shifted(x: Array, axis: int, n: int) -> Array:
  """x[i + n] at i along an axis, zeros beyond the ends."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (-n, n, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), pads) if n else x
