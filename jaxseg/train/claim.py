"""Claims a workdir, an empty folder or a run's, for one process at a time.

A folder that holds anything else is refused, so that none of the user's files is replaced; a start
that fails leaves the folder as it was.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from jaxseg import files
from jaxseg.types import UserError

_LOCK, _MARK = '.lock', b'jaxseg run\n'
_LOGS = ('.log', '.out', '.err')  # a shell's redirections open these before the run starts
_FOLDERS = ('checkpoints', 'eval', 'figures', 'profile')
_WRITTEN = (
  'classes.json',
  'config.json',
  'data.json',
  'events.out.tfevents.*',
  'metrics.jsonl',
  'run.json',
  'wandb_id',
)


class Claim:
  """A workdir claimed by this process; the lock is released with the process, however it ends.

  A bucket has no locks: there the user must see to it that only one process trains in a folder.

  Args:
    path: absolute; created if absent.
    holds_run: whether a folder without the marker file holds a run; older runs have no marker.

  Raises:
    UserError: the folder holds something else, cannot be written, or another process has it.
  """

  def __init__(self, path: Path, holds_run: Callable[[Path], bool]):
    self._path, self._lock, self._kept, self._created = path, None, True, []
    self._begun = False
    try:
      existing = {p.name for p in path.iterdir()} if path.is_dir() else set()
      self._kept = bool(existing) and (_is_marked(path) or holds_run(path))
      others = [n for n in existing if not (n.startswith('.') or n.endswith(_LOGS))]
      if others and not self._kept:
        raise UserError(
          f'--workdir={path} holds other files ({min(others)}) and no run: choose an empty or a new folder'
        )
      self._before = existing
      if not files.is_remote(path):
        _refuse_links(path, existing)
      if files.is_remote(path):
        path.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path / _LOCK, _MARK)
      else:
        self._created = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path / _LOCK)
    except OSError as e:
      self.close()
      reason = e.strerror or e
      raise UserError(f'--workdir={path}: {reason}; choose a folder that can be written') from e
    for folder in (path, path / 'figures', path / 'eval'):
      files.remove_stale(folder)

  def begin(self) -> None:
    """Allows this process to write the run's files.

    Raises:
      UserError: another program has written some into the new folder since.
    """
    if not self._kept and (late := sorted(path.name for path in self._new_files())):
      raise UserError(
        f'--workdir={self._path}: {late[0]} has appeared while the run was starting: another program '
        'writes there; choose another folder'
      )
    self._begun = True

  def keep(self) -> None:
    """From here on the folder holds a run, and `close` leaves it."""
    self._kept = True

  def close(self) -> None:
    """Releases the folder, and restores it as it was unless `keep` was called."""
    if not self._kept:
      with contextlib.suppress(OSError):
        self._remove_written()
    if self._lock:
      self._lock.close()

  def _new_files(self) -> list[Path]:
    """Returns files of a run's names that were not there at the start, without the lock."""
    found = [path for pattern in _WRITTEN for path in self._path.glob(pattern)]
    return [path for path in found if path.name not in self._before and path.is_file()]

  def _remove_written(self) -> None:
    for path in self._new_files() if self._begun else ():
      path.unlink()
    if 'checkpoints' not in self._before:
      _remove_empty(self._path / 'checkpoints')
    if _LOCK not in self._before:
      (self._path / _LOCK).unlink(missing_ok=True)
    elif self._lock:
      self._lock.truncate(0)  # it was empty, and the folder is no run's
    for folder in self._created:
      folder.rmdir()


def _remove_empty(folder: Path) -> None:
  """Removes a folder and those in it, unless they hold files."""
  for path in sorted(folder.rglob('*'), reverse=True):
    if path.is_dir():
      with contextlib.suppress(OSError):
        path.rmdir()
  if folder.is_dir() and not any(folder.iterdir()):
    folder.rmdir()


def _refuse_links(folder: Path, existing: Iterable[str]) -> None:
  """A stranger's run may hold links, and writing through them could overwrite any file."""
  links = [n for n in existing if not n.endswith(_LOGS) and (folder / n).is_symlink()]
  for name in _FOLDERS if not links else ():
    paths = (path for path in (folder / name).rglob('*') if path.is_symlink())
    links += [str(path.relative_to(folder)) for path in paths]
  if links:
    raise UserError(
      f'--workdir={folder}: {min(links)} in it is a link, and training would write through it: put the '
      'file or folder itself there'
    )


def _is_marked(folder: Path) -> bool:
  try:
    return files.read_bytes(folder / _LOCK, len(_MARK)) == _MARK
  except (OSError, UserError):
    return False


def _locked(path: Path) -> BinaryIO:
  """Returns the open file, locked and marked; tries again if its last owner has just removed it."""
  while True:
    file = path.open('a+b')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
        file.seek(0)
        if file.read(len(_MARK) + 1) not in (b'', _MARK):
          file.close()
          raise UserError(
            f"--workdir={path.parent}: its {path.name} is no run's: choose another folder"
          )
        file.truncate(0)
        file.write(_MARK)
        file.flush()
        return file
    except FileNotFoundError:
      pass
    except BlockingIOError:
      file.close()
      raise UserError(
        f'--workdir={path.parent}: another process is training there; wait or choose another'
      ) from None
    file.close()
