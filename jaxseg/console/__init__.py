"""Command line handling shared by all launchers: `flags`, `speaking`, `ending`."""

from jaxseg.console.ending import detach_terminal, report_error, run
from jaxseg.console.flags import (
  Parser,
  folders,
  integer,
  list_of,
  names,
  number,
  size,
  step_range,
)
from jaxseg.console.speaking import (
  Progress,
  Table,
  command,
  duration,
  install_hint,
  overwrite,
  plain,
  say,
)

__all__ = [
  'Parser',
  'Progress',
  'Table',
  'list_of',
  'command',
  'detach_terminal',
  'duration',
  'folders',
  'install_hint',
  'integer',
  'names',
  'number',
  'overwrite',
  'plain',
  'report_error',
  'run',
  'say',
  'size',
  'step_range',
]
