"""Two thin wrappers of one pure step: pmap over devices, or one jit-compiled program on a mesh.

Both place batches, wrap the steps and keep the state whole (every device holds all of it).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.types import UserError


def largest_divisor(batch_size: int, available: int) -> int:
  """Returns the largest number of devices, at most `available`, that divides the batch."""
  return max(n for n in range(1, available + 1) if batch_size % n == 0)


@dataclasses.dataclass(frozen=True)
class Pmap:
  """jax.pmap over `devices`; the step is made with axis_name='data'."""

  devices: Sequence[jax.Device]
  axis_name = 'data'

  def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits the first axis over the devices: [b, ...] -> [n, b/n, ...]."""
    n = len(self.devices)
    return {k: v.reshape(n, v.shape[0] // n, *v.shape[1:]) for k, v in batch.items()}

  def place_state(self, state: Any) -> Any:
    """Replicates the state as the step will return it: from elsewhere pmap would compile twice."""
    mesh = Mesh(np.array(self.devices), (self.axis_name,))
    return jax.device_put(jax.device_get(state), NamedSharding(mesh, PartitionSpec()))

  def wrap_train(self, step: Callable) -> Callable:
    return jax.pmap(
      step,
      axis_name=self.axis_name,
      in_axes=(None, 0, None),
      out_axes=(None, None),
      donate_argnums=0,
      devices=self.devices,
    )

  def wrap_eval(self, step: Callable) -> Callable:
    return jax.pmap(
      step, axis_name=self.axis_name, in_axes=(None, 0), out_axes=None, devices=self.devices
    )

  def describe(self) -> str:
    return f'pmap over {len(self.devices)} {self.devices[0].device_kind} device(s)'


@dataclasses.dataclass(frozen=True)
class OnMesh:
  """jax.jit with named shardings; the step is made with axis_name=None and sees the whole batch."""

  mesh: Mesh
  axis_name = None

  @property
  def devices(self) -> Sequence[jax.Device]:
    return list(self.mesh.devices.flat)

  @property
  def _replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def _split(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec('data'))

  def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return jax.device_put(batch, self._split)

  def place_state(self, state: Any) -> Any:
    return jax.device_put(jax.device_get(state), self._replicated)

  def wrap_train(self, step: Callable) -> Callable:
    return jax.jit(
      step,
      in_shardings=(self._replicated, self._split, self._replicated),
      out_shardings=(self._replicated, self._replicated),
      donate_argnums=0,
    )

  def wrap_eval(self, step: Callable) -> Callable:
    return jax.jit(
      step, in_shardings=(self._replicated, self._split), out_shardings=self._replicated
    )

  def describe(self) -> str:
    axes = ', '.join(f'{k}:{v}' for k, v in self.mesh.shape.items())
    return f'jit on a mesh {axes} of {self.devices[0].device_kind} devices'


Wrapper = Pmap | OnMesh


def build(
  kind: str, mesh: str, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> Wrapper:
  """Chooses the devices and the wrapper.

  Args:
    kind: 'pmap' | 'mesh'.
    mesh: for 'mesh', 'data:N'; '' takes the largest number that divides the batch.
    batch_size: images that the devices share in one (micro-)batch.
    devices: default: this process's own.

  Raises:
    UserError: a mesh that cannot be read, needs more devices than there are, or does not divide.
  """
  devices = list(jax.local_devices() if devices is None else devices)
  if kind == 'pmap':
    return Pmap(tuple(devices[: largest_divisor(batch_size, len(devices))]))
  if not mesh:
    count = largest_divisor(batch_size, len(devices))
  else:
    match = re.fullmatch(r'data:(\d+)', mesh.strip())
    if not match:
      raise UserError(f"config.mesh={mesh!r}: expected 'data:N', N devices that share the batch")
    count = int(match.group(1))
  if not 1 <= count <= len(devices):
    raise UserError(f'config.mesh={mesh!r} needs {count} devices, there are {len(devices)}')
  if batch_size % count:
    near = largest_divisor(batch_size, count)
    raise UserError(
      f'config.mesh={mesh!r}: {count} devices do not divide {batch_size} images; {near} do'
    )
  axis = jax.sharding.AxisType.Auto
  return OnMesh(jax.make_mesh((count,), ('data',), axis_types=(axis,), devices=devices[:count]))
