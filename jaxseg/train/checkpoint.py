"""Asynchronous checkpoints through Orbax; keeps the newest N and the best, and detects damaged ones.

Orbax's plain `max_to_keep` with a metric deletes the newest step when its score is poor, so that the
run cannot be resumed; the preservation policy below keeps both. Nor does Orbax detect corrupted
bytes, so every checkpoint has a checksum of each array.
"""

import contextlib
import datetime
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxseg import files
from jaxseg.console import say
from jaxseg.types import UserError


class Checkpoints:
  """The checkpoints of one workdir; with several processes only the first opens them.

  Args:
    folder: created if absent.
    keep: how many of the newest to keep, beside the best.
    metric: the score that ranks them, higher is better.
    read_only: for evaluation and prediction: nothing is created or deleted.
  """

  def __init__(
    self,
    folder: str | Path,
    *,
    keep: int = 2,
    metric: str = 'mean_iou',
    read_only: bool = False,
  ):
    self._folder, self._metric = files.absolute(folder), metric
    self._failed = False
    # Orbax logs every file that it touches, and each error four times before it raises it.
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    _drop_damaged(self._folder, metric, read_only)
    if not read_only:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._remove_partial()
    newest = checkpoint_managers.LatestN(keep)
    best = checkpoint_managers.BestN(
      get_metric_fn=lambda m: m[metric], reverse=False, n=1, keep_checkpoints_without_metrics=False
    )
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
        best_fn=lambda m: m[metric],
        best_mode='max',
        enable_async_checkpointing=True,
        create=False,
        read_only=read_only,
        multiprocessing_options=_without_barriers(),
      ),
    )

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """Returns the step with the highest score, the newest if none has a score."""
    return self._manager.best_step() or self._manager.latest_step()

  def save(
    self,
    step: int,
    state: Any,
    metrics: dict[str, float] | None = None,
    *,
    window: Sequence[dict[str, float]] = (),
  ) -> None:
    """Copies the state to the host and writes it in the background; does nothing if the step exists.

    Args:
      step: updates done.
      state: a State of arrays.
      metrics: of the evaluation at this step, None if there was none.
      window: metrics of each step since the last line of the log; the next line is their mean.

    Raises:
      UserError: this save, or the previous one in the background, failed.
    """
    if step in self._manager.all_steps():
      return
    tree = _tree(jax.device_get(state))
    meta = {'step': step, 'checksums': checksums(tree), 'window': list(window)}
    with self._explained_failure():
      self._manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta)),
        metrics={self._metric: float(metrics[self._metric])} if metrics else None,
      )

  def _remove_partial(self) -> None:
    """Orbax would do it in a thread that fails noisily if the process ends first."""
    for partial in self._folder.glob('*.orbax-checkpoint-tmp*'):
      with contextlib.suppress(OSError):
        files.remove_folder(partial)

  @contextlib.contextmanager
  def _explained_failure(self) -> Iterator[None]:
    """Turns a failed write into a UserError; earlier checkpoints are complete, as each ends by a rename."""
    try:
      yield
    except Exception as e:  # an OSError, or tensorstore's wrapper of one
      self._failed = True
      self._remove_partial()
      saved = sorted(int(p.name) for p in self._folder.glob('*') if p.name.isdigit())
      rest = (
        f'from step {saved[-1]}' if saved else 'from the beginning, no checkpoint was saved yet'
      )
      raise UserError(
        f'the training stops because a checkpoint cannot be written to {self._folder}: {_reason(e)}; '
        f'make room there, and the same command goes on {rest}'
      ) from e

  def restore(self, state: Any, step: int) -> Any:
    """Returns `state` with the values saved at `step`, as numpy arrays.

    Args:
      state: the expected State, of arrays or shapes.
      step: one of `steps()`.

    Raises:
      UserError: the checkpoint is damaged or belongs to another network.
    """
    target = _tree(state)
    target = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), target)
    tree = self._read(step, target, ocp.args.StandardRestore(target))
    return flax.serialization.from_state_dict(state, {'trained': {}} | tree)

  def restore_variables(self, variables: dict[str, Any], step: int) -> dict[str, Any]:
    """Returns only parameters and statistics, as numpy arrays, without reading the optimiser's state.

    Args:
      variables: {'params': ..., 'batch_stats': ...}, arrays or shapes.
      step: one of `steps()`.

    Raises:
      UserError: the checkpoint is damaged or belongs to another network.
    """
    target = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), flax.core.unfreeze(variables))
    target = {name: tree for name, tree in target.items() if tree}  # Orbax does not save empty ones
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    wanted = ocp.args.PyTreeRestore(item=target, restore_args=as_numpy, partial_restore=True)
    return dict.fromkeys(variables, {}) | self._read(step, target, wanted)

  def _read(self, step: int, target: Any, wanted: Any) -> Any:
    """Reads a tree like `target`, and checks its shapes and checksums."""
    # A manager remembers how it first read an item, so each kind of restore needs its own.
    options = ocp.CheckpointManagerOptions(
      read_only=True, multiprocessing_options=_without_barriers()
    )
    try:
      with ocp.CheckpointManager(self._folder, options=options) as manager:
        items = ocp.args.Composite(state=wanted, meta=ocp.args.JsonRestore())
        saved = manager.restore(step, args=items)
      tree, expected = saved['state'], _checked_meta(saved['meta'])['checksums']
    except Exception as e:  # Orbax raises many types, from KeyError to tensorstore's
      raise UserError(f'checkpoint {self._folder / str(step)} cannot be read: {_reason(e)}') from e
    for (path, want), got in zip(
      jax.tree_util.tree_leaves_with_path(target), jax.tree.leaves(tree), strict=True
    ):
      if want.shape != got.shape:
        raise UserError(
          f'checkpoint {self._folder / str(step)} is of another network: '
          f'{jax.tree_util.keystr(path)} is {got.shape} there, {want.shape} here'
        )
    damaged = [k for k, v in checksums(tree).items() if expected.get(k) != v]
    if damaged:
      raise UserError(
        f'checkpoint {self._folder / str(step)} is damaged: {damaged[0]} does not match its checksum'
      )
    return tree

  def restore_newest(self, state: Any) -> tuple[Any, int | None]:
    """Restores the newest intact checkpoint, with a warning for each damaged one.

    Returns:
      The state and its step, or the argument and None if there is no checkpoint.

    Raises:
      UserError: there are checkpoints, but none is readable.
    """
    problem = None
    for step in reversed(self.steps()):
      try:
        restored = self.restore(state, step)
      except UserError as e:
        say(f'warning: {e}; trying the one before')
        problem = e
        continue
      for newer in self.steps():  # otherwise the run could not save these steps again
        if newer > step:
          self._set_aside(newer)
      return restored, step
    if problem:
      raise UserError(f'{problem}; no checkpoint is left to resume from: use a new --workdir')
    return state, None

  def _set_aside(self, step: int) -> None:
    """Renames an unreadable checkpoint instead of deleting it: perhaps only the storage failed."""
    aside = self._folder / f'unreadable_{step}'
    if aside.exists():
      files.remove_folder(aside)
    (self._folder / str(step)).rename(aside)
    self._manager.reload()
    say(f'warning: checkpoint {step} is kept as {aside}')

  def window(self, step: int) -> list[dict[str, float]]:
    """Returns the `window` that was saved with a checkpoint; see `save`."""
    meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
    return _checked_meta(meta['meta'])['window']

  def wait(self) -> None:
    """Waits until everything is on disk; raises the errors of background saves."""
    with self._explained_failure():
      self._manager.wait_until_finished()

  def close(self) -> None:
    with contextlib.suppress(Exception) if self._failed else contextlib.nullcontext():
      self._manager.close()


def _tree(state: Any) -> dict[str, Any]:
  """Returns a state's fields as nested dicts, without an empty `trained`."""
  tree = flax.serialization.to_state_dict(state)
  return {name: values for name, values in tree.items() if name != 'trained' or values}


def _reason(error: Exception) -> str:
  """Returns the operating system's message, or else the first line of the library's, or its type."""
  os_message = re.search(r'([^:]+?) \[os_error_code=', str(error))  # ends tensorstore's message
  if os_message:
    return os_message.group(1).strip()
  return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


def _without_barriers() -> ocp.options.MultiprocessingOptions:
  """Each process holds the full state, so the writing one need not wait for the others."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  this = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=this, active_processes={this}, barrier_sync_key_prefix=f'process{this}'
  )


def _drop_damaged(folder: Path, metric: str, read_only: bool) -> None:
  """One checkpoint with an unreadable score or time makes Orbax fail for all of them; without it goes on."""
  for what, place, read in (
    ('score', 'metrics/metrics', lambda file: 0.0 + files.read_json(file)[metric]),
    ('time', '_CHECKPOINT_METADATA', _saved_at),
  ):
    steps = (step for step in folder.glob('[0-9]*') if step.name.isdigit())
    for file in (step / place for step in steps if (step / place).exists()):
      try:
        read(file)
      except Exception:  # Orbax raises many types
        step = file.parents[place.count('/')]
        if read_only:
          raise UserError(f'checkpoint {step} is damaged: remove this folder') from None
        say(f'warning: the {what} of checkpoint {step} cannot be read and is dropped')
        file.unlink() if file.parent == step else files.remove_folder(file.parent)


def _saved_at(file: Path) -> datetime.datetime:
  """Reads it as Orbax will."""
  return ocp.path.step.Metadata(0, epath.Path(file.parent)).commit_timestamp


def _checked_meta(meta: Any) -> dict[str, Any]:
  """Returns what `save` wrote beside the arrays. Raises ValueError, TypeError, ... if it is something else."""
  rows = [dict(row) for row in meta.get('window', ())]
  if any(row.keys() != rows[0].keys() for row in rows):
    raise ValueError('its metrics are not those of each step')
  rows = [{name: float(value) for name, value in row.items()} for row in rows]
  return {'checksums': dict(meta['checksums']), 'window': rows}


def checksums(tree: Any) -> dict[str, int]:
  """Returns the CRC-32 of every array by its path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves
  }
