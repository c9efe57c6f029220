"""How every launcher starts and ends: `--config.key=value` flags, and one line for a user's mistake."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from jaxseg.types import UserError


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line, and which collects --config.key=value flags."""

  def __init__(self, description: str):
    super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

  def error(self, message: str):
    raise UserError(f'{message} (see {self.prog} --help)')

  def parse(self, argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the flags; `overrides` lists the 'key=value' of every --config.key=value."""
    argv = sys.argv[1:] if argv is None else argv
    prefix = '--config.'
    flags = self.parse_args([a for a in argv if not a.startswith(prefix)])
    flags.overrides = [a[len(prefix) :] for a in argv if a.startswith(prefix)]
    if flags.overrides and not getattr(flags, 'config', None):
      raise UserError(f'--config.{flags.overrides[0]} needs --config=configs/NAME.py')
    return flags


def run(main: Callable[[], None]) -> None:
  """Runs a launcher's main. A UserError is printed in one line and ends the process with status 2."""
  try:
    main()
  except UserError as e:
    print(f'error: {e}', file=sys.stderr)
    sys.exit(2)
