"""Training in several processes.

Every process ("host") runs the same program on its part of each batch. Each reads configs and data for
itself, but only the first writes: only its disk needs the workdir. Four functions keep the hosts
consistent: `together` (all continue, or all fail with the same message), `broadcast` (the first host's
state to all), `gather`, and `make_voting_step` (a signal on any host stops all after the same step).

Nothing here touches a device before `join` is entered.
"""

import contextlib
import itertools
import json
import os
import pickle
import sys
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.serialization import msgpack_restore, msgpack_serialize
from jax.experimental import multihost_utils

from jaxseg import console
from jaxseg.types import Array, Batch, UserError

STOP = 'stop'  # entry of a batch and of the metrics: above 0 if any host was asked to stop
_HEARTBEAT_SECONDS = 60  # a host silent for this long counts as dead, and the others end
_BARRIER_SECONDS = 3600
_BARRIERS = itertools.count()
_MESSAGE_BYTES = 4096
# JAX's errors where it detects no cluster, or was already in use in this process.
_SINGLE_HOST = ('coordinator_address should be defined', 'must be called before')
_ADVICE = (
  'start every process with the same --coordinator=HOST:PORT --processes=N and with its own '
  '--process=0..N-1, and see that the port is open; --processes=1 runs alone'
)
_LOST_CONNECTION = ('closed by peer', 'Connection reset', 'Broken pipe', 'heartbeat', 'UNAVAILABLE')


@contextlib.contextmanager
def join(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  *,
  timeout: int = 300,
) -> Iterator[None]:
  """Joins the other hosts, and ends together with them; enter it before anything touches a device.

  Without arguments JAX looks for a TPU pod, Slurm or Open MPI; without one this is the only host, as
  with `processes=1`. A host that fails exits at once with its own message instead of waiting for the
  others, which notice the broken connection within a minute.

  Args:
    coordinator: 'HOST:PORT' of the first process, the same everywhere.
    processes: number of processes.
    process: index of this one, from 0.
    timeout: seconds to wait for the others.

  Raises:
    UserError: inconsistent arguments, or a host did not connect in time.
  """
  _check_arguments(coordinator, processes, process)
  if processes != 1:
    _initialize(coordinator, processes, process, timeout)
  if not jax.distributed.is_initialized():  # asking for the number of processes starts the devices
    yield
    return
  interrupt = None
  try:
    try:
      yield
    except Interrupted as error:
      interrupt = error
    _barrier()
    jax.distributed.shutdown()
  except BaseException as error:  # a normal exit would deadlock with hosts that wait for this one
    os._exit(_tell(error))
  if interrupt:
    raise interrupt


def _tell(error: BaseException) -> int:
  """Prints why this host ends, unless another host does; returns the exit status."""
  sys.stdout.flush()
  if isinstance(error, jax.errors.JaxRuntimeError) and any(
    w in str(error) for w in _LOST_CONNECTION
  ):
    reason = str(error).splitlines()[0][:200]
    message = 'another host has ended or cannot be reached; see what it says, then start the same'
    console.report_error(UserError(f'{message} command on all hosts again: they resume ({reason})'))
    return 1
  return console.report_error(error, quiet=isinstance(error, SharedError) and not is_first())


class Interrupted(KeyboardInterrupt):
  """Ctrl-C after all collective operations are done: this host may still join the final barrier."""


class SharedError(UserError):
  """An error that every host raises; only the first prints it."""


def _check_arguments(coordinator: str | None, processes: int | None, process: int | None) -> None:
  if coordinator is None:
    if process is not None or processes not in (None, 1):
      raise UserError('--processes and --process need --coordinator=HOST:PORT of the first process')
    return
  host, _, port = coordinator.rpartition(':')
  if not host or not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
    raise UserError(f'--coordinator={coordinator}: give HOST:PORT, as in 10.0.0.2:8476')
  if processes is None or process is None:
    raise UserError('--coordinator needs --processes=N and --process=I, this one counted from 0')
  if processes < 1 or not 0 <= process < processes:
    raise UserError(f'--process={process} of --processes={processes}: it must be 0..processes-1')


def _initialize(
  coordinator: str | None, processes: int | None, process: int | None, timeout: int
) -> None:
  if jax.distributed.is_initialized():
    return
  # JAX's SIGTERM handler would swallow the signal until training installs its own.
  jax.config.update('jax_enable_preemption_service', False)
  watchdog = threading.Timer(timeout, _give_up, (coordinator, processes, timeout))
  watchdog.daemon = True
  watchdog.start()
  try:
    with warnings.catch_warnings(action='ignore'):  # of cluster packages that do not apply here
      jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method='deactivate' if coordinator else None,
        initialization_timeout=timeout + 60,  # on a timeout JAX aborts with a stack dump
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
  except Exception as error:
    reason = ' '.join(str(error).split())[:200]
    if not coordinator and any(words in reason for words in _SINGLE_HOST):
      return
    raise UserError(f'{_where(coordinator)} cannot be joined ({reason}): {_ADVICE}') from error
  finally:
    watchdog.cancel()


def _give_up(coordinator: str | None, processes: int | None, timeout: int) -> None:
  number = f'{processes} processes' if processes else 'the processes'
  where = _where(coordinator)
  console.report_error(UserError(f'{where}: {number} have not met within {timeout} s: {_ADVICE}'))
  os._exit(2)


def _where(coordinator: str | None) -> str:
  return f'--coordinator={coordinator}' if coordinator else 'the cluster that JAX sees here'


def count() -> int:
  """Returns the number of hosts."""
  return jax.process_count()


def is_first() -> bool:
  """Returns whether this is the host that writes and prints."""
  return jax.process_index() == 0


def share() -> dict[str, int]:
  """Returns this host's shard arguments for `data.loader`."""
  return {'shard_index': jax.process_index(), 'shard_count': jax.process_count()}


@contextlib.contextmanager
def together() -> Iterator[dict[str, Any]]:
  """A block that succeeds on every host or fails on every host; it must not wait for other hosts.

  Yields a dict for values that must agree on all hosts: {name: JSON-serialisable value}.

  Raises:
    SharedError: on every host, if one raised a UserError in the block, or if their values or numbers of
      devices differ.
  """
  facts: dict[str, Any] = {}
  if count() == 1:
    yield facts
    return
  _check_devices(jax.devices())
  problem = ''
  try:
    yield facts
  except UserError as error:
    problem = str(error)
  _barrier()  # the first collective between devices would time out after half a minute
  sums = {name: zlib.crc32(json.dumps(value).encode()) for name, value in facts.items()}
  short = problem.encode()[:1500].decode(errors='ignore')
  message = json.dumps([short, sums], ensure_ascii=False)
  messages = [json.loads(text) for text in _gather_text(message)]
  for host, (text, _) in enumerate(messages):
    if text:
      raise SharedError(text if host == 0 else f'host {host}: {text}')
  for host, (_, theirs) in enumerate(messages):
    for name, value in messages[0][1].items():
      if theirs.get(name) != value:
        raise SharedError(
          f'host {host} has another {name} than host 0: start all hosts with one command and one '
          'copy of the data'
        )


def _check_devices(devices: Sequence[jax.Device]) -> None:
  """Raises SharedError if hosts have different numbers of devices: JAX's collectives would fail."""
  counts = Counter(device.process_index for device in devices)
  for host, number in sorted(counts.items()):
    if number != counts[0]:
      raise SharedError(
        f'host {host} has {number} devices and host 0 has {counts[0]}: give every host the same number (of '
        f'CPUs: --config.cpu_devices={min(counts.values())})'
      )


def _barrier() -> None:
  """Waits up to an hour for all hosts; fails if one of them is dead."""
  if count() > 1:
    wait_for_all = ocp.multihost.get_barrier_sync_fn()
    wait_for_all(key=f'jaxseg-{next(_BARRIERS)}', timeout_ms=_BARRIER_SECONDS * 1000)


def _gather_text(text: str) -> list[str]:
  """Returns every host's text."""
  data = np.frombuffer(text.encode().ljust(_MESSAGE_BYTES), np.uint8)
  return [row.tobytes().decode().rstrip() for row in multihost_utils.process_allgather(data)]


def gather(values: np.ndarray) -> np.ndarray:
  """Concatenates the hosts' arrays [b, ...], all of one shape, in host order."""
  return values if count() == 1 else multihost_utils.process_allgather(values, tiled=True)


def gather_objects(value: Any) -> list[Any]:
  """Returns every host's value, in host order; it must be picklable."""
  if count() == 1:
    return [value]
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  lengths = multihost_utils.process_allgather(np.int64(len(data)))
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(data)] = data
  rows = multihost_utils.process_allgather(padded)
  return [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def broadcast(tree: Any) -> Any:
  """Returns the first host's value on every host, bit for bit.

  Args:
    tree: nested dicts of arrays, strings and numbers; ignored on the other hosts. Arrays come back
      as numpy arrays.
  """
  if count() == 1:
    return tree
  data = msgpack_serialize(jax.device_get(tree)) if is_first() else b''
  size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(data))))
  sent = np.frombuffer(data or bytes(size), np.uint8)
  return msgpack_restore(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())


def make_voting_step(step: Callable, axis_name: str | None) -> Callable:
  """Adds to a training step's metrics whether any host was asked to stop: the number of its images.

  The loop fetches the metrics one step late anyway, so the vote adds no synchronisation, and all hosts
  read the same sum at the same step.

  Args:
    step: step(state, batch, key) -> (state, metrics).
    axis_name: the mapped axis under pmap, None under jit.

  Returns:
    The step with a batch['stop'] float32 [b], see `vote`, and metrics['stop'], a float32 scalar.
  """

  def voting(state: Any, batch: Batch, key: Array) -> tuple[Any, dict[str, Array]]:
    stop = jnp.sum(batch[STOP])
    state, metrics = step(state, {k: v for k, v in batch.items() if k != STOP}, key)
    return state, metrics | {STOP: jax.lax.psum(stop, axis_name) if axis_name else stop}

  return voting


def vote(batch: Batch, stop: bool) -> Batch:
  """Adds this host's vote to its part of a batch."""
  return batch | {STOP: np.full(len(batch['image']), stop, np.float32)}
