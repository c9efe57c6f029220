"""Runs launchers: a user's mistake gives one line and status 2, whatever the state of the streams."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
import sys
import traceback
from collections.abc import Callable

from jaxseg import files
from jaxseg.console.speaking import install_hint, say
from jaxseg.types import StuckError, UserError

_MOST, _END = 4_000, 1_000  # characters of an error that are shown, and of these the last
# Errors of files and folders that the user named for which Python has no exception class.
_OF_A_NAME = (
  errno.ENAMETOOLONG,
  errno.ELOOP,
  errno.EROFS,
  errno.EIO,
  errno.ESTALE,
  errno.ENXIO,
  errno.EMLINK,
)


def run(main: Callable[[], None]) -> None:
  """Runs a launcher's main. A UserError is printed in one line and ends the process with status 2.

  So are files or folders that cannot be read or written, a full disk, and lack of memory. Ctrl-C ends it
  with status 130; if the output's reader is gone (`| head`), it ends silently with 141. Names that are
  not valid Unicode are printed with their bytes escaped.
  """
  _open_closed()
  if isinstance(sys.stdout, io.TextIOWrapper):  # the default for standard error
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    _check_working_folder()
    main()
    _flush()
  except KeyboardInterrupt as error:
    _leave(report_error(error))  # a normal exit crashes in threads running JAX
  except SystemExit:
    _flush()
    raise
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _is_unread():
      _leave_unread(128 + signal.SIGPIPE)
    if _message(error) is None:
      raise
    status = report_error(error)
    if isinstance(error, StuckError):  # a normal exit would wait for the stuck thread
      _leave(status)
    try:
      _flush()
    except OSError:  # already reported
      _leave_unread(status)
    sys.exit(status)


def _open_closed() -> None:
  """Opens standard streams that were closed at the start, as files would otherwise get their descriptors."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode, encoding='utf-8'))  # noqa: SIM115


def _check_working_folder() -> None:
  try:
    os.getcwd()
  except FileNotFoundError:
    raise UserError('this folder has been removed: cd to one that exists') from None


def _flush() -> None:
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    _leave_unread(128 + signal.SIGPIPE)


def _is_unread() -> bool:
  """Whether standard output is a pipe without a reader; the broken pipe may be another."""
  try:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
  except (OSError, ValueError):  # not a file
    return False


def detach_terminal() -> None:
  """Redirects output to a closed terminal to /dev/null, as writing to it fails."""
  for descriptor in (1, 2):
    with contextlib.suppress(OSError):  # closed
      is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
      if is_device and not os.isatty(descriptor):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _leave_unread(status: int) -> None:
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for unflushed output
  _leave(status)


def _leave(status: int) -> None:
  """Ends the process without waiting for its threads."""
  sys.stdout.flush()
  os._exit(status)


def report_error(error: BaseException, *, quiet: bool = False) -> int:
  """Prints a user's error in one line, any other with its traceback; returns the exit status."""
  message = _message(error)
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else int(error.code is not None)
  if isinstance(error, KeyboardInterrupt):
    say(f'interrupted{f": {error}" if str(error) else ""}', error=True)
    return 128 + signal.SIGINT
  if message is None:
    traceback.print_exception(error)
  elif not quiet:
    say(f'error: {_bounded(" ".join(message.splitlines()))}', error=True)
  sys.stderr.flush()
  return 1 if message is None else 2


def _bounded(text: str) -> str:
  """Leaves out the middle of a long line, such as of a file without line breaks that a message quotes."""
  left_out = len(text) - _MOST
  return (
    text
    if left_out <= 0
    else f'{text[: _MOST - _END]} [{left_out:,} characters left out] {text[-_END:]}'
  )


def _message(error: BaseException) -> str | None:
  """Returns the message for the user; None for a bug of ours."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, OSError):
    return _of_the_system(error)
  if isinstance(error, MemoryError):
    return f'this machine has too little memory ({str(error) or "the allocation failed"})'
  if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
    return 'the system allows this process no more threads: raise the limit (ulimit -u)'
  if isinstance(error, ImportError) and 'failed to map segment' in str(error):  # ulimit -v
    return f'this machine has too little memory ({error})'
  if isinstance(error, ImportError) and 'gcsfs' in str(error):
    return f"gs:// needs Google's libraries: {install_hint('gcs')}"
  return None


def _of_the_system(error: OSError) -> str | None:
  """Returns the message for an error of a path that the user gave, or a full disk; else None."""
  if error.errno in files.FULL:
    return (
      f'{error.filename or "a file"} cannot be written: {error.strerror}; make room there, and run '
      'the same command again'
    )
  kinds = PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError
  if error.filename is not None and (isinstance(error, kinds) or error.errno in _OF_A_NAME):
    return f'{error.filename}: {error.strerror}'
  return None
