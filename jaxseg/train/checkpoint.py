"""Checkpoints through Orbax: asynchronous, the newest N and the best are kept, a damaged one is told.

Orbax's plain `max_to_keep` with a metric deletes the newest step when its score is poor, which makes
a run impossible to resume; the preservation policy below keeps both. Orbax does not notice flipped
bytes either, so every checkpoint carries a checksum of its arrays.
"""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxseg.types import UserError

METRIC = 'mean_iou'


class Checkpoints:
  """The checkpoints of one workdir.

  Args:
    folder: made if it is absent.
    keep: how many of the newest are kept, beside the best by `mean_iou`.
    read_only: for evaluation and prediction: nothing is deleted or made.
  """

  def __init__(self, folder: str | Path, *, keep: int = 2, read_only: bool = False):
    self._folder = Path(folder).absolute()
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax reports every file that it touches
    _mend_metrics(self._folder, read_only)
    if not read_only and not jax.process_index():
      # Orbax can do it too, in a thread that fails noisily where the process ends before it.
      for place in self._folder.glob('*.orbax-checkpoint-tmp*'):
        shutil.rmtree(place, ignore_errors=True)
    newest = checkpoint_managers.LatestN(keep)
    best = checkpoint_managers.BestN(
      get_metric_fn=lambda m: m[METRIC], reverse=False, n=1, keep_checkpoints_without_metrics=False
    )
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
        best_fn=lambda m: m[METRIC],
        best_mode='max',
        enable_async_checkpointing=True,
        create=not read_only,
        read_only=read_only,
      ),
    )

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """Returns the step with the highest mean_iou, the newest where none was evaluated."""
    return self._manager.best_step() or self._manager.latest_step()

  def save(self, step: int, state: Any, metrics: dict[str, float] | None = None) -> None:
    """Copies the state to the host and writes it in the background; a step already there is kept."""
    if step in self._manager.all_steps():
      return
    tree = flax.serialization.to_state_dict(jax.device_get(state))
    meta = {'step': step, 'checksums': checksums(tree)}
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta)),
      metrics={METRIC: float(metrics[METRIC])} if metrics else None,
    )

  def restore(self, state: Any, step: int) -> Any:
    """Returns `state` with the values saved at `step`, as numpy arrays.

    Args:
      state: a State of arrays or shapes, which says what is expected.
      step: one of `steps()`.

    Raises:
      UserError: the checkpoint is damaged or belongs to another network.
    """
    target = flax.serialization.to_state_dict(state)
    target = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), target)
    try:
      saved = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
        ),
      )
      tree, meta = saved['state'], saved['meta']
    except Exception as e:  # Orbax raises many kinds, from KeyError to tensorstore's own
      reason = str(e).strip().splitlines()[0][:160] if str(e).strip() else type(e).__name__
      raise UserError(f'checkpoint {self._folder / str(step)} cannot be read: {reason}') from e
    for (path, want), got in zip(
      jax.tree_util.tree_leaves_with_path(target), jax.tree.leaves(tree), strict=True
    ):
      if want.shape != got.shape:
        raise UserError(
          f'checkpoint {self._folder / str(step)} is of another network: '
          f'{jax.tree_util.keystr(path)} is {got.shape} there, {want.shape} here'
        )
    damaged = [k for k, v in checksums(tree).items() if meta['checksums'].get(k) != v]
    if damaged:
      raise UserError(
        f'checkpoint {self._folder / str(step)} is damaged: {damaged[0]} does not match its checksum'
      )
    return flax.serialization.from_state_dict(state, tree)

  def restore_newest(self, state: Any) -> tuple[Any, int | None]:
    """Restores the newest checkpoint that is whole, telling of any that are not.

    Returns:
      The state and its step, or the given state and None where there is no checkpoint.

    Raises:
      UserError: there are checkpoints and none can be read.
    """
    problem = None
    for step in reversed(self.steps()):
      try:
        restored = self.restore(state, step)
      except UserError as e:
        print(f'warning: {e}; trying the one before', flush=True)
        problem = e
        continue
      for newer in self.steps():  # else the run could not save these steps again
        if newer > step:
          self._manager.delete(newer)
      return restored, step
    if problem:
      raise UserError(f'{problem}; no checkpoint is left to resume from: use a new --workdir')
    return state, None

  def wait(self) -> None:
    """Returns once everything is on disk; errors of background saves are raised here."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()


def _mend_metrics(folder: Path, read_only: bool) -> None:
  """Orbax fails as a whole where one checkpoint's metrics cannot be read; without them it goes on."""
  for file in folder.glob('[0-9]*/metrics/metrics'):
    try:
      json.loads(file.read_text(encoding='utf-8'))[METRIC]
    except (OSError, ValueError, KeyError, TypeError):
      step = file.parent.parent
      if read_only:
        raise UserError(f'checkpoint {step} is damaged: remove this folder') from None
      print(f'warning: the score of checkpoint {step} cannot be read and is dropped', flush=True)
      shutil.rmtree(file.parent)


def checksums(tree: Any) -> dict[str, int]:
  """Returns the CRC-32 of every array, by its path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves
  }
