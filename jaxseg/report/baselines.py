"""The papers' baselines as one table: what was published, and our run of the same recipe or "not run".

A baseline is a variant that a config file names in BASELINES.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxseg import config as configs
from jaxseg.metrics.measures import published_numbers, single_numbers
from jaxseg.report.tables import hardware, percent, replace_table, training_time
from jaxseg.train.run_folder import load_config
from jaxseg.types import UserError

_HEAD = ('baseline', 'config', 'parameters', 'paper', 'ours', 'hardware', 'training', 'command')


def write(output: str, workdirs: Sequence[str] = (), folder: str = 'configs') -> None:
  """Writes a row for every baseline between the markers `baselines` of a Markdown file.

  Args:
    output: a file with the lines `<!-- results baselines -->` and `<!-- end -->`.
    workdirs: trained and evaluated folders; one that was trained with exactly a baseline's
      --config, and no key changed, is that baseline's row.
    folder: of the config files.

  Raises:
    UserError: a run that was not evaluated or is no baseline, or a file without the markers.
  """
  known = dict(find(folder))
  runs = {_spec_of(Path(workdir)): Path(workdir) for workdir in workdirs}
  if strangers := [str(runs[spec]) for spec in runs if spec not in known]:
    raise UserError(
      f'{strangers[0]} was not trained by a baseline of {folder}/ as it stands: leave it out here'
    )
  rows = [_row(spec, title, runs.get(spec)) for spec, title in known.items()]
  replace_table(output, 'baselines', [_line(_HEAD), '|---' * len(_HEAD) + '|', *map(_line, rows)])


def find(folder: str) -> Iterator[tuple[str, str]]:
  """Yields every baseline: what --config takes, and the config's title."""
  for file in sorted(Path(folder).glob('*.py')):
    module = runpy.run_path(str(file))
    title = module['__doc__'].splitlines()[0].split(' (')[0].rstrip('.')
    for variant in module.get('BASELINES', ()):
      yield f'{folder}/{file.name}' + (f':{variant}' if variant else ''), title


def _row(spec: str, title: str, workdir: Path | None) -> tuple[str, ...]:
  paper = configs.load(spec).paper or {}
  parameters = f'{paper["params"]:,}' if paper else '-'
  name = Path(spec).name.replace('.py', '')
  told = title, f'`{name}`', parameters, _published(paper)
  if workdir is None:
    safe = ''.join(c if c.isalnum() else '_' for c in name)
    return (
      *told,
      'not run',
      '-',
      '-',
      f'`python launch/train.py --config={spec} --workdir=runs/{safe}`',
    )
  run = json.loads((workdir / 'run.json').read_text(encoding='utf-8'))
  seconds = training_time(workdir, load_config(workdir).batch_size)
  return *told, _scores(workdir, paper.get('split')), hardware(run), seconds, f'`{run["command"]}`'


def _published(paper: Any) -> str:
  numbers = ', '.join(
    f'{name.replace("_", " ")} {percent(value)}' for name, value in published_numbers(paper).items()
  )
  where = f' on {paper["split"]}' if numbers and 'split' in paper else ''
  source = f': {paper["source"]}' if paper else ''
  return (numbers or 'no score') + where + source


def _scores(workdir: Path, split: str | None) -> str:
  """Returns every score of the paper's split, or of the one that was evaluated."""
  files = sorted((workdir / 'eval').glob('*.json'), key=lambda file: file.stem != split)
  if not files:
    raise UserError(
      f'{workdir} has no scores: python launch/evaluate.py --workdir={workdir} --step=latest'
    )
  result = json.loads(files[0].read_text(encoding='utf-8'))
  numbers = ', '.join(
    f'{name.replace("_", " ")} {percent(value)}' for name, value in single_numbers(result).items()
  )
  return f'{numbers} ({result["split"]}, {result["images"]} images, step {result["step"]})'


def _spec_of(workdir: Path) -> str:
  """Returns what the run's command gave as --config, with every key that it changed."""
  run = json.loads((workdir / 'run.json').read_text(encoding='utf-8'))
  flags = [flag for flag in run['command'].split() if flag.startswith(('--config=', '--config.'))]
  return ' '.join(flags).removeprefix('--config=')


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'
