"""Two thin wrappers of one pure step: pmap over devices, or one jit-compiled program on a mesh.

Both place batches, wrap the steps and replicate the state on every device. With several processes
("hosts") each places its part of a batch, and its own copy of the state.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn.layers.split_rows import split_rows
from jaxseg.train.devices import compiled
from jaxseg.types import UserError


def largest_divisor(batch_size: int, available: int) -> int:
  """Returns the largest number of devices, at most `available`, that divides the batch."""
  return max(n for n in range(1, available + 1) if batch_size % n == 0)


@dataclasses.dataclass(frozen=True)
class Pmap:
  """jax.pmap over `devices`, of all hosts; the step is made with axis_name='data'."""

  devices: Sequence[jax.Device]
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
  axis_name = 'data'

  @property
  def _local_devices(self) -> list[jax.Device]:
    return [d for d in self.devices if d.process_index == jax.process_index()]

  def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits the first axis over this host's n devices: [b, ...] -> [n, b/n, ...].

    pmap copies the parts to the devices when the step is called.
    """
    n = len(self._local_devices)
    return {k: v.reshape(n, v.shape[0] // n, *v.shape[1:]) for k, v in batch.items()}

  def place_state(self, state: Any) -> Any:
    """Replicates the state with the sharding the step returns: with another pmap would compile twice."""
    mesh = Mesh(np.array(self._local_devices), (self.axis_name,))
    return _put(state, NamedSharding(mesh, PartitionSpec()))

  def wrap_train(self, step: Callable) -> Callable:
    return self._mapped(step, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0)

  def wrap_eval(self, step: Callable) -> Callable:
    return self._mapped(step, in_axes=(None, 0), out_axes=None)

  def map_predict(self, step: Callable) -> Callable:
    return self._mapped(step, in_axes=(None, 0))

  def _mapped(self, step: Callable, **axes: Any) -> Callable:
    mapped = jax.pmap(step, axis_name=self.axis_name, devices=self.devices, **axes)
    return compiled.with_options(mapped, self.options)

  def wrap_predict(self, step: Callable) -> Callable:
    """Wraps a step with one result row per image: (variables, batch) -> this host's rows, numpy."""
    mapped = self.map_predict(step)
    return lambda variables, batch: jax.tree.map(_rows_by_device, mapped(variables, batch))

  def describe(self) -> str:
    return f'pmap over {len(self.devices)} {self.devices[0].device_kind} device(s){_of_hosts()}'


@dataclasses.dataclass(frozen=True)
class OnMesh:
  """jax.jit with named shardings; the step is made with axis_name=None and sees the global batch."""

  mesh: Mesh
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
  axis_name = None

  @property
  def devices(self) -> Sequence[jax.Device]:
    return list(self.mesh.devices.flat)

  @property
  def _replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def shards(self) -> int:
    """Number of devices that the rows of one image are split over."""
    return self.mesh.shape.get('spatial', 1)

  def batch_sharding(self, array: Any) -> NamedSharding:
    """Splits images over 'data', and the rows of [b, h, w, ...] over 'spatial'."""
    axes = ('data', 'spatial') if 'spatial' in self.mesh.shape and array.ndim > 2 else ('data',)
    return NamedSharding(self.mesh, PartitionSpec(*axes[: array.ndim]))

  def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Splits a batch over the mesh; each host passes its part of the images."""
    if jax.process_count() == 1:
      return jax.device_put(batch, jax.tree.map(self.batch_sharding, batch))
    make = jax.make_array_from_process_local_data
    return {k: make(self.batch_sharding(v), v) for k, v in batch.items()}

  def place_state(self, state: Any) -> Any:
    if jax.process_count() == 1:
      return _put(state, self._replicated)

    def copy(array: Any) -> jax.Array:  # device_put would compare the hosts' copies
      return jax.make_array_from_callback(np.shape(array), self._replicated, lambda _: array)

    return jax.tree.map(copy, jax.tree.map(np.asarray, jax.device_get(state)))

  def wrap_train(self, step: Callable) -> Callable:
    return self._jitted(
      step,
      in_shardings=(self._replicated, None, self._replicated),  # None: as placed
      out_shardings=(self._replicated, self._replicated),
      donate_argnums=0,
    )

  def wrap_eval(self, step: Callable) -> Callable:
    return self._jitted(step, in_shardings=(self._replicated, None), out_shardings=self._replicated)

  def map_predict(self, step: Callable) -> Callable:
    by_image = NamedSharding(self.mesh, PartitionSpec('data'))
    return self._jitted(step, in_shardings=(self._replicated, None), out_shardings=by_image)

  def _jitted(self, step: Callable, **shardings: Any) -> Callable:
    return compiled.with_options(jax.jit(self._traced(step), **shardings), self.options)

  def wrap_predict(self, step: Callable) -> Callable:
    """Wraps a step with one result row per image: (variables, batch) -> this host's rows, numpy."""
    mapped = self.map_predict(step)
    return lambda variables, batch: jax.tree.map(_local_rows, mapped(variables, batch))

  def _traced(self, step: Callable) -> Callable:
    """Returns the step with row splitting enabled in its layers."""
    if 'spatial' not in self.mesh.shape:
      return step

    @functools.wraps(step)
    def traced(*args):
      with split_rows(self.mesh):
        return step(*args)

    return traced

  def describe(self) -> str:
    axes = ', '.join(f'{k}:{v}' for k, v in self.mesh.shape.items())
    return f'jit on a mesh {axes} of {self.devices[0].device_kind} devices{_of_hosts()}'


Wrapper = Pmap | OnMesh


def build(
  kind: str, mesh: str, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> Wrapper:
  """Chooses the devices and the wrapper.

  Args:
    kind: 'pmap' | 'mesh'.
    mesh: for 'mesh', 'data:N' or 'data:N,spatial:M', N devices for the batch times M for the rows of
      each image; '' uses the largest number of devices that divides the batch.
    batch_size: images of one (micro-)batch, over all devices.
    devices: default: all, of all hosts. Every host uses the same number of its devices.

  Raises:
    UserError: a mesh that is malformed, needs more devices than there are, or does not divide the
      batch; or a batch that the hosts cannot share evenly.
  """
  devices = list(jax.devices() if devices is None else devices)
  if kind == 'pmap':
    chosen = tuple(_chosen_devices(devices, batch_size))
    return Pmap(chosen, compiled.options(chosen, batch_size // len(chosen)))
  axes = _axes(mesh) if mesh else {'data': len(_chosen_devices(devices, batch_size))}
  count, data = math.prod(axes.values()), axes['data']
  if not 1 <= count <= len(devices):
    raise UserError(f'config.mesh={mesh!r} needs {count} devices, there are {len(devices)}')
  if batch_size % data:
    near = largest_divisor(batch_size, data)
    raise UserError(
      f'config.mesh={mesh!r}: {data} devices do not divide {batch_size} images; {near} do'
    )
  options = compiled.options(devices, batch_size // data)
  chosen, sizes, names = _chosen_devices(devices, data, count), tuple(axes.values()), tuple(axes)
  if 'spatial' in axes and jax.process_count() > 1:  # in order, so that an image stays on one host
    return OnMesh(Mesh(np.array(chosen).reshape(sizes), names), options)
  kinds = (jax.sharding.AxisType.Auto,) * len(axes)
  return OnMesh(jax.make_mesh(sizes, names, axis_types=kinds, devices=chosen), options)


def idle(images: int, used: int, available: int) -> str:
  """Warns if at least half of the devices are idle, with batch sizes that use all; else ''.

  Args:
    images: of a micro-batch.
    used, available: devices.
  """
  if 2 * used > available:
    return ''
  near = [n for n in (images - images % available, images + -images % available) if n]
  return (
    f'{available - used} of {available} devices are idle, because a (micro-)batch of {images} is shared evenly: '
    f'{" or ".join(map(str, dict.fromkeys(near)))} images use all of them (config.batch_size over '
    'config.accumulate)'
  )


def _put(state: Any, sharding: NamedSharding) -> Any:
  """Places the state for donation: do not use the original afterwards, it may be donated too.

  Memory shared with NumPy cannot be donated: a second copy would remain.
  """
  return jax.device_put(state, sharding, may_alias=False)


def _local_rows(array: jax.Array) -> np.ndarray:
  """Returns this process's part of an array that is split along its first axis."""
  parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
  return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def _rows_by_device(array: jax.Array) -> np.ndarray:
  """The same for pmap's results, [devices, images of each, ...]."""
  rows = _local_rows(array)
  return rows.reshape(-1, *rows.shape[2:])


def _chosen_devices(
  devices: Sequence[jax.Device], batch_size: int, count: int | None = None
) -> list[jax.Device]:
  """Returns `count` devices, equally many of each host; None: as many as divide the batch."""
  hosts: dict[int, list[jax.Device]] = {}
  for device in devices:
    hosts.setdefault(device.process_index, []).append(device)
  least = min(len(own) for own in hosts.values())
  if count is None and batch_size % len(hosts):
    raise UserError(
      f'{len(hosts)} hosts cannot share {batch_size} images evenly: config.batch_size (over '
      f'config.accumulate) must be a multiple of {len(hosts)}'
    )
  if count is None:
    count = len(hosts) * largest_divisor(batch_size // len(hosts), least)
  each, rest = divmod(count, len(hosts))
  if rest or batch_size % len(hosts) or each > least:
    raise UserError(
      f'config.mesh: {batch_size} shares of the batch on {count} devices cannot be spread evenly over '
      f'{len(hosts)} hosts of {least} devices'
    )
  return [device for host in sorted(hosts) for device in hosts[host][:each]]


def _of_hosts() -> str:
  return f' on {jax.process_count()} hosts' if jax.process_count() > 1 else ''


def _axes(mesh: str) -> dict[str, int]:
  """Reads 'data:2,spatial:4' into {'data': 2, 'spatial': 4}."""
  match = re.fullmatch(r'data:(\d+)(?:,\s*spatial:(\d+))?', mesh.strip())
  if not match:
    raise UserError(
      f"config.mesh={mesh!r}: expected 'data:N', N devices that share the batch, or "
      "'data:N,spatial:M', M of them for the rows of each image"
    )
  return {k: int(n) for k, n in zip(('data', 'spatial'), match.groups(), strict=True) if n}
