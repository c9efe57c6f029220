"""How every launcher starts, speaks and ends: flags, a live line, and one line for a user's mistake."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.metadata
import io
import math
import os
import select
import shlex
import signal
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxseg import files
from jaxseg.types import LARGEST, LONGEST, StuckError, UserError

# What the system says of a file or folder that the user named, beside the errors that have a type.
_OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO)


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line, and which collects --config.key=value flags.

  Args:
    description: what the command does.
    program: its name; default: that of the script.
    argv: the words behind it; default: those of this process.
  """

  def __init__(self, description: str, program: str | None = None, argv: list[str] | None = None):
    super().__init__(
      prog=program,
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,  # a slip, --scale for --scales, is told and not guessed
    )
    self._argv = sys.argv[1:] if argv is None else argv

  def error(self, message: str):
    raise UserError(f'{message} (see {self.prog} --help)')

  def require(self, flags: argparse.Namespace, *names: str) -> None:
    """Refuses to go on without flags that only one of the launcher's jobs needs."""
    absent = [f'--{name}' for name in names if getattr(flags, name) is None]
    if absent:
      self.error(f'{flags.job} needs {" and ".join(absent)}')

  def add_hosts(self) -> None:
    """Adds the flags of `jaxseg.train.devices.hosts.joined`; TPU pods and Slurm need none of them."""
    add = self.add_argument
    add('--coordinator', help='HOST:PORT of the first of several processes')
    add(
      '--processes', type=whole(1), help='how many there are; 1: alone, whatever the cluster says'
    )
    add('--process', type=whole(0), help="this one's number, from 0")

  def add_runs(self) -> None:
    """Adds the flags that name trained runs and their checkpoint."""
    add, one = self.add_argument, 'a folder that launch/train.py has written'
    add('--workdir', required=True, type=folders, help=f'{one}; several with commas: their mean')
    add('--step', default='best', help='a step that has a checkpoint, or best, or latest')

  def parse(self, without_config: str = '') -> argparse.Namespace:
    """Returns the flags; `overrides` lists the 'key=value' of every --config.key=value.

    The job `without_config` takes these alone, others with the config that they change.
    """
    argv, prefix = self._argv, '--config.'
    flags = self.parse_args([a for a in argv if not a.startswith(prefix)])
    flags.overrides = [a[len(prefix) :] for a in argv if a.startswith(prefix)]
    alone = without_config and flags.job == without_config
    if flags.overrides and not alone and not getattr(flags, 'config', None):
      raise UserError(f'--config.{flags.overrides[0]} needs --config=configs/NAME.py')
    return flags


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
  """Returns a type for `add_argument`: a whole number from `least` to `most`."""
  limit = f', at most {most}' if most < LARGEST else ''
  return _type(int, least, most, f'give a whole number, {least} or more{limit}')


def number(least: float, most: float) -> Callable[[str], float]:
  """Returns a type for `add_argument`: a number from `least` to `most`."""
  return _type(float, least, most, f'give a number between {least:g} and {most:g}')


def _type(kind: type, least: float, most: float, allowed: str) -> Callable[[str], Any]:
  def read(text: str) -> Any:
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not least <= value <= most:  # nan too
      raise argparse.ArgumentTypeError(f'{text!r}: {allowed}')
    return value

  return read


def several(one: Callable[[str], Any]) -> Callable[[str], tuple]:
  """Returns a type for `add_argument`: 'a,b,c', each of them read by `one`."""
  return lambda text: tuple(map(one, text.split(',')))


def span(text: str) -> tuple[int, int]:
  """Reads 'FIRST:LAST', two whole numbers from 1 on; a type for `add_argument`."""
  first, _, last = text.partition(':')
  numbers = whole(1)(first), whole(1)(last or first)
  if numbers[0] > numbers[1]:
    raise argparse.ArgumentTypeError(f'{text!r}: give FIRST:LAST, the smaller first')
  return numbers


def words(text: str) -> tuple[str, ...]:
  """Reads 'one,two'; a type for `add_argument`."""
  return tuple(part.strip() for part in text.split(',') if part.strip())


def folders(text: str) -> tuple[str, ...]:
  """Reads 'runs/a,runs/b'; a folder whose own name has a comma is one. A type for `add_argument`."""
  return (text,) if os.path.isdir(text) else words(text) or (text,)


def size(text: str) -> tuple[int, int]:
  """Reads 'H,W', or 'N' for a square; a type for `add_argument`."""
  sides = several(whole(1, LONGEST))(text)
  if len(sides) > 2:
    raise argparse.ArgumentTypeError(f'{text!r}: give height,width, as in 512,512')
  return sides * 2 if len(sides) == 1 else sides


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
    print(plain(f'interrupted{f": {error}" if str(error) else ""}'), file=sys.stderr, flush=True)
    return 128 + signal.SIGINT
  if message is None:
    traceback.print_exception(error)
  elif not quiet:
    print(f'error: {plain(" ".join(message.splitlines()))}', file=sys.stderr)
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


def command(name: str) -> str:
  """Returns what one types for a command: in the clone that is used its launcher, else as it is installed."""
  return f'python launch/{name}.py' if _clone() else f'jaxseg {name}'


def _clone() -> Path | None:
  root = Path(__file__).resolve().parents[1]
  return root if (root / 'setup.py').is_file() else None


def installing(extra: str) -> str:
  """Returns the command that installs an extra of setup.py: of the clone that is used, else its packages."""
  if root := _clone():
    return f"pip install -e '{'.' if Path.cwd() == root else root}[{extra}]'"
  listed = (line.partition(';') for line in importlib.metadata.requires('jaxseg') or ())
  packages = [name.strip() for name, _, condition in listed if f'"{extra}"' in condition]
  return f'pip install {shlex.join(packages)}'


def plain(text: str) -> str:
  """Returns a line of text with all escaped that a terminal would obey: names may hold anything."""
  if text.isprintable():
    return text
  escaped = (c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
  return ''.join(escaped)


class Progress:
  """One line that renews itself on a terminal; plain lines elsewhere, now and then."""

  def __init__(self):
    console = Console(file=sys.stdout)
    self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

  def __enter__(self) -> Progress:
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *_) -> None:
    if self._live:
      self._live.stop()

  def show(self, line: str) -> None:
    line = plain(line)
    if self._live:
      self._live.update(Text(line))
    else:
      print(line, flush=True)

  def say(self, line: str) -> None:
    """Prints a line that stays."""
    line = plain(line)
    if self._live:
      self._live.console.print(Text(line))
    else:
      print(line, flush=True)


def duration(seconds: float) -> str:
  """Writes seconds as '45s', '12m30s' or '2h13m'."""
  seconds = int(seconds)
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
