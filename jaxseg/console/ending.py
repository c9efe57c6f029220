"""How every launcher runs and ends: one line and status 2 for a user's mistake, whatever the streams are."""

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
from jaxseg.console.speaking import installing, say
from jaxseg.types import StuckError, UserError

# What the system says of a file or folder that the user named, beside the errors that have a type.
_OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO)


def run(main: Callable[[], None]) -> None:
  """Runs a launcher's main. A UserError is printed in one line and ends the process with status 2.

  So is a file or folder that may not be read or written, wherever it is met, a full disk, and want of
  memory; Ctrl-C ends it with status 130, a reader of the output that is gone (`| head`) without a
  word with 141. A name that is not valid Unicode is printed with its bytes escaped.
  """
  _open_closed()
  if isinstance(sys.stdout, io.TextIOWrapper):  # standard error does so by itself
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    main()
    _flush()
  except KeyboardInterrupt as error:
    _leave(tell(error))  # a plain exit crashes in threads that are at work in JAX
  except SystemExit:
    _flush()
    raise
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _is_unread():
      _leave_unread(128 + signal.SIGPIPE)
    if _message(error) is None:
      raise
    status = tell(error)
    if isinstance(error, StuckError):  # a plain exit would wait for the thread that is stuck
      _leave(status)
    try:
      _flush()
    except OSError:  # it is what was told
      _leave_unread(status)
    sys.exit(status)


def _open_closed() -> None:
  """Gives the process the streams that it was started without; files would else get their numbers."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode, encoding='utf-8'))  # noqa: SIM115


def _flush() -> None:
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    _leave_unread(128 + signal.SIGPIPE)


def _is_unread() -> bool:
  """Whether standard output is a pipe that nobody reads any more; another's may have broken."""
  try:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
  except (OSError, ValueError):  # no file at all
    return False


def leave_terminal() -> None:
  """Sends to nowhere what would be said on a terminal that is gone: a write to it is an error."""
  for descriptor in (1, 2):
    with contextlib.suppress(OSError):  # closed
      is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
      if is_device and not os.isatty(descriptor):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _leave_unread(status: int) -> None:
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not flushed yet
  _leave(status)


def _leave(status: int) -> None:
  """Ends the process without a look at its threads."""
  sys.stdout.flush()
  os._exit(status)


def tell(error: BaseException, *, quiet: bool = False) -> int:
  """Prints a mistake in one line, anything else with its traceback; returns the exit status."""
  message = _message(error)
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else int(error.code is not None)
  if isinstance(error, KeyboardInterrupt):
    say(f'interrupted{f": {error}" if str(error) else ""}', error=True)
    return 128 + signal.SIGINT
  if message is None:
    traceback.print_exception(error)
  elif not quiet:
    say(f'error: {" ".join(message.splitlines())}', error=True)
  sys.stderr.flush()
  return 1 if message is None else 2


def _message(error: BaseException) -> str | None:
  """Returns what to tell the user; None where it is a mistake of ours."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, OSError):
    return _of_the_system(error)
  if isinstance(error, MemoryError):
    return f'this machine has too little memory ({str(error) or "no more could be had"})'
  if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
    return 'the system allows this process no more threads: raise the limit (ulimit -u)'
  if isinstance(error, ImportError) and 'failed to map segment' in str(error):  # ulimit -v
    return f'this machine has too little memory ({error})'
  if isinstance(error, ImportError) and 'gcsfs' in str(error):
    return f"gs:// needs Google's libraries: {installing('gcs')}"
  return None


def _of_the_system(error: OSError) -> str | None:
  """Returns what the system says of a name that the user gave, or of a disk that is full."""
  if error.errno in files.FULL:
    return (
      f'{error.filename or "a file"} cannot be written: {error.strerror}; make room there, and run '
      'the same command again'
    )
  kinds = PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError
  if error.filename is not None and (isinstance(error, kinds) or error.errno in _OF_A_NAME):
    return f'{error.filename}: {error.strerror}'
  return None
