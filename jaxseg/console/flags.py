"""Flags: a parser whose errors are one line, and types for their values."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from typing import Any

from jaxseg.types import LARGEST, LONGEST, UserError


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line, and which collects --config.key=value flags.

  Args:
    description: what the command does.
    program: its name; default: that of the script.
    argv: its arguments; default: those of this process.
  """

  def __init__(self, description: str, program: str | None = None, argv: list[str] | None = None):
    super().__init__(
      prog=program,
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,  # a typo, --scale for --scales, is an error
    )
    self._argv = sys.argv[1:] if argv is None else argv

  def error(self, message: str):
    raise UserError(f'{message} (see {self.prog} --help)')

  def require(self, flags: argparse.Namespace, *names: str) -> None:
    """Requires flags that only one of the launcher's jobs needs."""
    absent = [f'--{name}' for name in names if getattr(flags, name) is None]
    if absent:
      self.error(f'{flags.job} needs {" and ".join(absent)}')

  def add_hosts(self) -> None:
    """Adds the flags of `jaxseg.train.devices.hosts.join`; TPU pods and Slurm need none of them."""
    add = self.add_argument
    add('--coordinator', help='HOST:PORT of the first of several processes')
    add(
      '--processes', type=integer(1), help='how many there are; 1: alone, whatever the cluster says'
    )
    add('--process', type=integer(0), help="this one's number, from 0")

  def add_runs(self) -> None:
    """Adds the flags that name trained runs and their checkpoint."""
    add, one = self.add_argument, 'a folder that launch/train.py has written'
    add('--workdir', required=True, type=folders, help=f'{one}; several with commas: their mean')
    add('--step', default='best', help='a step that has a checkpoint, or best, or latest')

  def add_fetching(self) -> None:
    """Adds the flags of `jaxseg.prepare.get.get`."""
    add = self.add_argument_group('for get').add_argument
    add('--yes', action='store_true', help='agree to the terms that are shown')
    add('--mirror', default='', help='path or URL that is asked first')
    add('--data_dir', default='', help='default: $JAXSEG_DATA, else ~/jaxseg_data')

  def parse(self, without_config: str = '', every: str = '') -> argparse.Namespace:
    """Returns the flags; `overrides` lists the 'key=value' of every --config.key=value.

    The job `without_config` and the flag `every`, which selects many configs, take overrides on their
    own; anything else needs --config with them.
    """
    argv, prefix = self._argv, '--config.'
    flags = self.parse_intermixed_args([a for a in argv if not a.startswith(prefix)])
    flags.overrides = [a[len(prefix) :] for a in argv if a.startswith(prefix)]
    alone = without_config and flags.job == without_config
    alone = alone or (every and getattr(flags, every))
    if flags.overrides and not alone and not getattr(flags, 'config', None):
      raise UserError(f'--config.{flags.overrides[0]} needs --config=configs/NAME.py')
    return flags


def integer(least: int, most: int = LARGEST) -> Callable[[str], int]:
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


def list_of(one: Callable[[str], Any]) -> Callable[[str], tuple]:
  """Returns a type for `add_argument`: 'a,b,c', each parsed by `one`."""
  return lambda text: tuple(map(one, text.split(',')))


def step_range(text: str) -> tuple[int, int]:
  """Reads 'FIRST:LAST', two whole numbers from 1; a type for `add_argument`."""
  first, _, last = text.partition(':')
  numbers = integer(1)(first), integer(1)(last or first)
  if numbers[0] > numbers[1]:
    raise argparse.ArgumentTypeError(f'{text!r}: give FIRST:LAST, the smaller first')
  return numbers


def names(text: str) -> tuple[str, ...]:
  """Reads 'one,two'; a type for `add_argument`."""
  return tuple(part.strip() for part in text.split(',') if part.strip())


def folders(text: str) -> tuple[str, ...]:
  """Reads 'runs/a,runs/b', or an existing folder with a comma in its name; a type for `add_argument`."""
  return (text,) if os.path.isdir(text) else names(text) or (text,)


def size(text: str) -> tuple[int, int]:
  """Reads 'H,W', or 'N' for a square; a type for `add_argument`."""
  sides = list_of(integer(1, LONGEST))(text)
  if len(sides) > 2:
    raise argparse.ArgumentTypeError(f'{text!r}: give height,width, as in 512,512')
  return sides * 2 if len(sides) == 1 else sides
