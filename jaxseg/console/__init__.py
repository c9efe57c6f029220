"""Command line handling shared by all launchers: `flags`, `speaking`, `ending`."""

from jaxseg.console.ending import leave_terminal, run, tell
from jaxseg.console.flags import Parser, folders, number, several, size, span, whole, words
from jaxseg.console.speaking import (
  Progress,
  Table,
  command,
  duration,
  installing,
  overwrite,
  plain,
  say,
)

__all__ = [
  'Parser',
  'Progress',
  'Table',
  'command',
  'duration',
  'folders',
  'installing',
  'leave_terminal',
  'number',
  'overwrite',
  'plain',
  'run',
  'say',
  'several',
  'size',
  'span',
  'tell',
  'whole',
  'words',
]
