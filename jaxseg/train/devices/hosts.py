"""Several processes as one training: joined first, agreeing on what would otherwise part them.

Every process ("host") runs the same program on its share of each batch. Reading configs and data is
done by each for itself, all that is written by the first alone: only its disk needs the workdir.
What must be the same everywhere is made so in four places: `together` (all go on, or all end with
the same line), `broadcast` (the first's state for all), `gather`, and `make_voting_step` (a signal on
any host stops all of them at one step).

Nothing here touches a device before `joined` has been entered.
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

STOP = 'stop'  # entry of a batch and of the metrics: how many hosts are asked to stop
_HEARTBEAT_SECONDS = 60  # a host that is silent for so long is dead, and the others end
_MEET_SECONDS = 3600
_MEETINGS = itertools.count()
_MESSAGE_BYTES = 4096
# What JAX says where it sees no cluster, or has been at work in this process already.
_ALONE = ('coordinator_address should be defined', 'must be called before')
_MEND = (
  'start every process with the same --coordinator=HOST:PORT --processes=N and with its own '
  '--process=0..N-1, and see that the port is open; --processes=1 runs alone'
)
_LOST = ('closed by peer', 'Connection reset', 'Broken pipe', 'heartbeat', 'UNAVAILABLE')


@contextlib.contextmanager
def joined(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  *,
  timeout: int = 300,
) -> Iterator[None]:
  """Joins the other hosts, and ends with them; enter it before anything touches a device.

  With no arguments JAX looks for a TPU pod, Slurm or Open MPI; where it finds none this is the only
  host. `processes=1` is always alone. A host that fails leaves at once, with its own message, instead
  of waiting for the others; they notice the broken connection, at the latest after a minute.

  Args:
    coordinator: 'HOST:PORT' of the first process, the same everywhere.
    processes: how many there are.
    process: this one's number, from 0.
    timeout: seconds to wait for the others.

  Raises:
    UserError: arguments that do not belong together, or hosts that did not come.
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
    _meet()
    jax.distributed.shutdown()
  except BaseException as error:  # a plain exit would wait for hosts that wait for this one
    os._exit(_tell(error))
  if interrupt:
    raise interrupt


def _tell(error: BaseException) -> int:
  """Says why this host ends, where it is the one to say it; returns the exit status."""
  sys.stdout.flush()
  if isinstance(error, jax.errors.JaxRuntimeError) and any(w in str(error) for w in _LOST):
    reason = str(error).splitlines()[0][:200]
    message = 'another host has ended or cannot be reached; see what it says, then start the same'
    console.tell(UserError(f'{message} command on all hosts again: they resume ({reason})'))
    return 1
  return console.tell(error, quiet=isinstance(error, SharedError) and not is_first())


class Interrupted(KeyboardInterrupt):
  """Ctrl-C, after which all hosts have done what they do together: this one may meet the others."""


class SharedError(UserError):
  """A mistake that every host knows of; only the first tells it."""


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
  # JAX's own handler of SIGTERM would swallow the signal until the training's takes its place.
  jax.config.update('jax_enable_preemption_service', False)
  late = threading.Timer(timeout, _give_up, (coordinator, processes, timeout))
  late.daemon = True
  late.start()
  try:
    with warnings.catch_warnings(action='ignore'):  # of packages for clusters that this one is not
      jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method='deactivate' if coordinator else None,
        initialization_timeout=timeout + 60,  # JAX's own way to give up is a dump of its stack
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
  except Exception as error:
    reason = ' '.join(str(error).split())[:200]
    if not coordinator and any(words in reason for words in _ALONE):
      return
    raise UserError(f'{_where(coordinator)} cannot be joined ({reason}): {_MEND}') from error
  finally:
    late.cancel()


def _give_up(coordinator: str | None, processes: int | None, timeout: int) -> None:
  number = f'{processes} processes' if processes else 'the processes'
  where = _where(coordinator)
  console.tell(UserError(f'{where}: {number} have not met within {timeout} s: {_MEND}'))
  os._exit(2)


def _where(coordinator: str | None) -> str:
  return f'--coordinator={coordinator}' if coordinator else 'the cluster that JAX sees here'


def count() -> int:
  """Returns the number of hosts."""
  return jax.process_count()


def is_first() -> bool:
  """Returns whether this is the host that writes and speaks."""
  return jax.process_index() == 0


def share() -> dict[str, int]:
  """Returns this host's part of a batch, as `data.loader` takes it."""
  return {'shard_index': jax.process_index(), 'shard_count': jax.process_count()}


@contextlib.contextmanager
def together() -> Iterator[dict[str, Any]]:
  """A block that ends well on every host or on none; nothing in it may wait for other hosts.

  A host puts what must be the same on all into the dict that it is given: {name: JSON-able value}.

  Raises:
    SharedError: on every host, where one raised a UserError in the block, or their facts or numbers of
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
  _meet()  # a first exchange between devices waits for half a minute only
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
  """Raises SharedError where the hosts have other numbers of devices: JAX exchanges nothing then."""
  counts = Counter(device.process_index for device in devices)
  for host, number in sorted(counts.items()):
    if number != counts[0]:
      raise SharedError(
        f'host {host} has {number} devices and host 0 has {counts[0]}: give every host the same number (of '
        f'CPUs: --config.cpu_devices={min(counts.values())})'
      )


def _meet() -> None:
  """Waits for all hosts, however long one reads or writes; fails where one of them is dead."""
  if count() > 1:
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f'jaxseg-{next(_MEETINGS)}', timeout_ms=_MEET_SECONDS * 1000)


def _gather_text(text: str) -> list[str]:
  """Returns every host's text."""
  data = np.frombuffer(text.encode().ljust(_MESSAGE_BYTES), np.uint8)
  return [row.tobytes().decode().rstrip() for row in multihost_utils.process_allgather(data)]


def gather(values: np.ndarray) -> np.ndarray:
  """Joins the hosts' arrays [b, ...] of one shape along the first axis, in the hosts' order."""
  return values if count() == 1 else multihost_utils.process_allgather(values, tiled=True)


def gather_objects(value: Any) -> list[Any]:
  """Returns every host's value, in the hosts' order; it must be picklable."""
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
    tree: nested dicts of arrays, texts and numbers; on the other hosts it is not looked at. Arrays
      come back as numpy arrays.
  """
  if count() == 1:
    return tree
  data = msgpack_serialize(jax.device_get(tree)) if is_first() else b''
  size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(data))))
  sent = np.frombuffer(data or bytes(size), np.uint8)
  return msgpack_restore(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())


def make_voting_step(step: Callable, axis_name: str | None) -> Callable:
  """Adds to a training step's metrics how many hosts are asked to stop.

  The vote travels with the metrics, which are fetched a step later anyway: it costs no further wait,
  and all hosts read the same sum at the same step.

  Args:
    step: step(state, batch, key) -> (state, metrics).
    axis_name: the mapped axis under pmap, None under jit.

  Returns:
    The same with batch['stop'] float32 [b], see `vote`, and metrics['stop'], a float32 scalar.
  """

  def voting(state: Any, batch: Batch, key: Array) -> tuple[Any, dict[str, Array]]:
    stop = jnp.sum(batch[STOP])
    state, metrics = step(state, {k: v for k, v in batch.items() if k != STOP}, key)
    return state, metrics | {STOP: jax.lax.psum(stop, axis_name) if axis_name else stop}

  return voting


def vote(batch: Batch, stop: bool) -> Batch:
  """Adds this host's vote to its part of a batch."""
  return batch | {STOP: np.full(len(batch['image']), stop, np.float32)}
