"""Terminal output: lines, tables and a live progress line, safe for arbitrary text.

Names of files and classes, and libraries' messages about them, are untrusted: all control characters are
escaped here, and nothing else prints.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
import time
from pathlib import Path

from rich import table as tables
from rich.console import Console
from rich.live import Live
from rich.text import Text

_WIDTH = 100


def plain(text: str) -> str:
  """Escapes all characters in a line that a terminal would interpret, as names may contain any."""
  if text.isprintable():
    return text
  escaped = (c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
  return ''.join(escaped)


class Table(tables.Table):
  """A table of literal texts: '[b]' and ':car:' are not markup."""

  def __init__(self, *headers: str, title: str = ''):
    super().__init__(*headers, title=Text(plain(title)) if title else None)

  def add_column(self, header: str = '', **options) -> None:
    super().add_column(Text(plain(header)), **options)

  def add_row(self, *cells: str) -> None:
    super().add_row(*(Text(plain(cell)) for cell in cells))


def say(*shown: str | Table, error: bool = False, width: int = _WIDTH) -> None:
  """Prints texts, a line each, and tables, and flushes.

  Args:
    shown: in this order.
    error: print to standard error instead of standard output.
    width: of tables, in columns.
  """
  stream = sys.stderr if error else sys.stdout
  for one in shown:
    if isinstance(one, str):
      print(plain(one), file=stream, flush=True)
    else:
      Console(file=stream, width=width).print(one)


def overwrite(line: str = '') -> None:
  """Replaces the current line of standard error, a terminal."""
  print(f'\r\x1b[K{plain(line)}', end='', file=sys.stderr, flush=True)


class Progress:
  """A line that is updated in place on a terminal; occasional plain lines elsewhere."""

  def __init__(self):
    console = Console(file=sys.stdout)
    self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
    self._due = time.monotonic() + self._interval

  def __enter__(self) -> Progress:
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *_) -> None:
    if self._live:
      self._live.stop()

  @property
  def _interval(self) -> float:
    return 0.25 if self._live else 10.0  # seconds; without a terminal, lines accumulate

  def is_due(self) -> bool:
    """Whether it is time for another line."""
    now = time.monotonic()
    if now < self._due:
      return False
    self._due = now + self._interval
    return True

  def show(self, line: str) -> None:
    if self._live:
      self._live.update(Text(plain(line)))
    else:
      say(line)

  def say(self, line: str) -> None:
    """Prints a permanent line."""
    if self._live:
      self._live.console.print(Text(plain(line)))
    else:
      say(line)


def command(name: str) -> str:
  """Returns how to call a command: by its launcher in a clone, else by the installed program."""
  return f'python launch/{name}.py' if _clone() else f'jaxseg {name}'


def _clone() -> Path | None:
  root = Path(__file__).resolve().parents[2]
  return root if (root / 'setup.py').is_file() else None


def install_hint(extra: str) -> str:
  """Returns the command that installs an extra of setup.py: that of a clone, else its packages."""
  if root := _clone():
    return f"pip install -e '{'.' if Path.cwd() == root else root}[{extra}]'"
  listed = (line.partition(';') for line in importlib.metadata.requires('jaxseg') or ())
  packages = [name.strip() for name, _, condition in listed if f'"{extra}"' in condition]
  return f'pip install {shlex.join(packages)}'


def duration(seconds: float) -> str:
  """Writes seconds as '45s', '12m30s' or '2h13m'."""
  seconds = int(seconds)
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
