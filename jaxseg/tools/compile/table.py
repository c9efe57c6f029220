"""The table of every baseline compiled for slices: what is missing is compiled, one after the other."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import config, files
from jaxseg.config.config_files import baselines
from jaxseg.console import say
from jaxseg.tools.compile import topology
from jaxseg.tools.compile.program import OutOfMemory, as_json, in_hours
from jaxseg.tools.compile.unfinished import Died, traced
from jaxseg.tools.examples import training_size
from jaxseg.tools.slices import Slice, slice_of
from jaxseg.train import build
from jaxseg.types import UserError

Row = dict[str, Any]
Show = Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]

_KEYS = ('config', 'slice', 'mode', 'changes')
_HEAD = ('mode', 'images', 'chips busy', 'GiB a chip', 'fits', 'GFLOP a chip', 'ms', 'of peak')
_HEAD += ('hours of all steps',)
_TWIN = ('program', 'compiled_for', 'mode', 'compiler', 'num_steps')
_DEAREST = 3  # layers that a row keeps


@dataclasses.dataclass(frozen=True)
class Scope:
  """What a table shows.

  Attributes:
    slices, modes: each of them with every baseline, the first ones before the others.
    overrides: of every config.
    size: (height, width) of the images; default: the training's.
    only: the baseline that is compiled now; default: all of them.
    memory_only: compile no further than the layout of the buffers: no cycles, and a tenth of the time.
  """

  slices: Sequence[Slice]
  modes: Sequence[str]
  overrides: Sequence[str] = ()
  size: tuple[int, int] | None = None
  only: str | None = None
  memory_only: bool = False

  @property
  def changes(self) -> str:
    """The flags that changed the configs, as one types them."""
    crop = [f'--crop={self.size[0]},{self.size[1]}'] if self.size else []
    return ' '.join([*(f'--config.{override}' for override in self.overrides), *crop])

  def keys(self) -> Iterator[tuple[str, ...]]:
    """Yields the values of _KEYS in the order in which they are compiled.

    Raises:
      UserError: `only` is no baseline.
    """
    specs = interleave([spec for spec, _ in baselines()])
    if self.only not in (None, *specs):
      raise UserError(f'--config={self.only} is none of --all: choose one of {", ".join(specs)}')
    specs = [self.only] if self.only else specs
    for rented, mode, spec in itertools.product(self.slices, self.modes, specs):
      yield spec, rented.name, mode, self.changes


def interleave(specs: Sequence[str]) -> list[str]:
  """Orders specs so that every file's first comes before any file's second."""
  order: dict[str, int] = {}
  turns: dict[str, int] = {}
  for spec in specs:
    file = spec.partition(':')[0]
    order[spec] = turns[file] = turns.get(file, -1) + 1
  return sorted(specs, key=order.__getitem__)


def fill(scope: Scope, json_file: str | None, minutes: float | None, show: Show) -> None:
  """Shows what is known, compiles what is missing, and shows all.

  Args:
    scope: its rows.
    json_file: where rows of earlier calls are, and to which new ones are added.
    minutes: after which no further program is begun; None: all are compiled.
    show: of a table's name, its head and its rows.
  """
  known = {_key(row): row for row in _read(json_file)}
  _show_all(scope, known, show)
  missing = [key for key in scope.keys() if _is_missing(known.get(key), scope)]
  end = None if minutes is None else time.monotonic() + 60 * minutes
  begun = 0
  for key in missing:
    if end is not None and time.monotonic() >= end:
      break
    known[key] = _compiled(key, scope, list(known.values()))
    begun += 1
    cells = ', '.join(filter(None, _cells(known[key])))
    say(f'{begun} of {len(missing)}: {key[0]}, {key[2]} on {key[1]}: {cells}')
    if json_file:
      _write(json_file, known.values())
  if begun:
    _show_all(scope, known, show)


def _is_missing(row: Row | None, scope: Scope) -> bool:
  return row is None or not (scope.memory_only or _is_whole(row))


def _is_whole(row: Row) -> bool:
  return 'problem' in row or row['cycles'] is not None


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
  return tuple(row[name] for name in _KEYS)


def _read(json_file: str | None) -> list[Row]:
  if not json_file or not files.to_path(json_file).exists():
    return []
  rows = files.read_json(files.to_path(json_file))
  if not isinstance(rows, list) or not all(
    isinstance(row, dict) and row.keys() >= set(_KEYS) for row in rows
  ):
    raise UserError(f'{json_file} is no table of --all: name another file')
  return rows


def _write(json_file: str, rows: Sequence[Row]) -> None:
  """Writes a row a line, in an order of their own, so that two versions compare line by line."""
  lines = [json.dumps(row, sort_keys=True) for row in sorted(rows, key=_key)]
  files.write_text(files.to_path(json_file), '[\n' + ',\n'.join(lines) + '\n]\n')


def _compiled(key: tuple[str, ...], scope: Scope, known: Sequence[Row]) -> Row:
  """Returns the row of a key: of the same program when that is known, else of a new one."""
  topology.prepare()
  spec, name, mode, _ = key
  row = dict(zip(_KEYS, key, strict=True)) | {'compiler': _compiler()}
  rented = slice_of(name)
  try:
    experiment = build.experiment(config.load(spec, scope.overrides))
    batch = experiment.settings.batch_size
    if rented.busy(batch) is None:
      return row | {'problem': f'refused: {rented.hosts} hosts cannot share {batch} images'}
    size = scope.size or training_size(experiment)
    how = dict(memory_only=scope.memory_only, flops=_flops(row, known))
    with traced(experiment, rented, mode, size, **how) as program:
      row |= {'program': program.digest, 'compiled_for': program.taken.name}
      same = row | {'mode': mode, 'num_steps': program.num_steps}
      for other in known:
        usable = 'problem' not in other and (scope.memory_only or _is_whole(other))
        if usable and all(other.get(name) == same[name] for name in _TWIN):
          return other | row
      found = as_json(program.compile().result)
  except Died:  # another call may fare better: no row
    raise
  except (UserError, OutOfMemory) as error:
    return row | {'problem': str(error)}
  found['layers'] = dict(itertools.islice(found['layers'].items(), _DEAREST))
  return found | row


def _flops(row: Row, known: Sequence[Row]) -> float | None:
  """Returns those of all chips, which are the same on every slice, from another slice's row."""
  same = (other for other in known if all(other[k] == row[k] for k in _KEYS if k != 'slice'))
  return next((o['flops'] * o['chips'] for o in same if 'problem' not in o), None)


def _compiler() -> str:
  return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'libtpu'))


def _show_all(scope: Scope, known: Mapping[tuple[str, ...], Row], show: Show) -> None:
  """Shows a table for each slice; configs, then modes, that have the same in all columns share a row."""
  for rented in scope.slices:
    configs: dict[tuple[str, ...], list[str]] = {}
    for mode, (spec, _) in itertools.product(scope.modes, baselines()):
      cells = _cells(known.get((spec, rented.name, mode, scope.changes)))
      configs.setdefault((mode, *cells), []).append(f'`{Path(spec).name.replace(".py", "")}`')
    modes: dict[tuple[str, ...], list[str]] = {}
    for (mode, *cells), specs in configs.items():
      modes.setdefault((', '.join(specs), *cells), []).append(mode)
    rows = [(specs, ', '.join(names), *cells) for (specs, *cells), names in modes.items()]
    head = (f'configs on {rented.name}', *_HEAD)
    show(f'compiled {rented.name}', head, sorted(rows, key=_not_run))


def _not_run(cells: Sequence[str]) -> bool:
  return cells[2] == 'not run'


def _cells(row: Row | None) -> tuple[str, ...]:
  """Returns the columns behind config and mode; of what was not compiled, its reason in the first."""
  if row is None or 'problem' in row:
    return ('not run' if row is None else row['problem'], *[''] * (len(_HEAD) - 2))
  needs, memory = row['needed_bytes'] / 2**30, slice_of(row['slice']).chip.memory / 2**30
  return (
    f'{row["batch"]} x {"x".join(map(str, row["size"]))}',
    str(row['chips']),
    f'{needs:.2f} of {memory:.0f}',
    'yes' if needs <= memory else 'no',
    f'{row["flops"] / 1e9:,.0f}' if row['flops'] >= 1e10 else f'{row["flops"] / 1e9:.1f}',
    f'{row["seconds"] * 1e3:.1f}' if _is_whole(row) else '-',
    f'{row["share_of_peak"]:.0%}' if _is_whole(row) else '-',
    '-' if row['hours'] is None else in_hours(row['hours']),
  )
