"""The tables of runs in docs/results.md, made from run folders: nothing is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.draw import labels, objects
from jaxseg.metrics.measures import SCORES, published_numbers, single_numbers
from jaxseg.predict.instance_predictor import InstancePredictor, painted
from jaxseg.predict.predictor import load
from jaxseg.train.run_folder import load_config
from jaxseg.train.writer import duration, read_records
from jaxseg.types import UserError

_PIXELS = dict(zip(SCORES, ('pixel acc.', 'mean acc.', 'mean IoU', 'f.w. IoU'), strict=True))
_INSTANCES = {
  'mask_ap': 'mask AP',
  'mask_ap50': 'AP50',
  'mask_ap75': 'AP75',
  'mask_ap_small': 'small',
  'mask_ap_medium': 'medium',
  'mask_ap_large': 'large',
  'box_ap': 'box AP',
}


def write(
  workdirs: Sequence[str],
  output: str,
  split: str,
  *,
  table: str | None = None,
  pictures: str | None = None,
) -> None:
  """Writes the rows of several runs between the markers of a Markdown file.

  Where one of them finds instances, all are compared by average precision.

  Args:
    workdirs: trained folders in which eval/<split>.json stands (launch/evaluate.py).
    output: a Markdown file with the lines `<!-- results TABLE -->` and `<!-- end -->`.
    split: whose numbers.
    table: which of the file's tables; None: the one named as the split.
    pictures: folder for one strip (image, truth, prediction) a run; None: none is drawn.

  Raises:
    UserError: a run that was not evaluated, or a file without the markers.
  """
  instances = any(load_config(w).task == 'instance' for w in workdirs)
  columns = _INSTANCES if instances else _PIXELS
  rows = [_row(Path(w), split, columns, pictures and Path(pictures)) for w in workdirs]
  head = ('run', 'split', *columns.values(), 'paper', 'hardware', 'training', 'command')
  replace_table(
    output, table or split, [f'| {" | ".join(head)} |', '|---' * len(head) + '|', *rows]
  )


def replace_table(output: str, table: str, lines: Sequence[str]) -> None:
  """Puts lines between `<!-- results TABLE -->` and `<!-- end -->` of a Markdown file.

  Raises:
    UserError: the file has no such markers.
  """
  file, begin = Path(output), f'<!-- results {table} -->'
  text = file.read_text(encoding='utf-8')
  if begin not in text or '<!-- end -->' not in text.split(begin)[1]:
    raise UserError(
      f'{output} needs the lines {begin} and <!-- end -->: the table goes between them'
    )
  before, after = text.split(begin)[0], text.split(begin)[1].split('<!-- end -->', 1)[1]
  text = '\n'.join([begin, *lines, '<!-- end -->'])
  file.write_text(before + text + after, encoding='utf-8')


def _row(workdir: Path, split: str, columns: Mapping[str, str], pictures: Path | None) -> str:
  config = load_config(workdir)
  file = workdir / 'eval' / f'{split}.json'
  if not file.exists():
    raise UserError(
      f'{workdir} has no scores on {split}: python launch/evaluate.py --workdir={workdir} --split={split}'
    )
  result = json.loads(file.read_text(encoding='utf-8'))
  run = json.loads((workdir / 'run.json').read_text(encoding='utf-8'))
  picture = ''
  if pictures:
    strip = pictures / f'{workdir.name}.png'
    labels.save(strip, _strip(workdir, split))
    picture = f' ([picture]({strip.name}))'
  if not columns.keys() <= result.keys():
    raise UserError(
      f'{file} has no {next(iter(columns.values()))}: python launch/evaluate.py --workdir={workdir} '
      f'--split={split} --instances'
    )
  numbers = ' | '.join('-' if result[s] is None else f'{100 * result[s]:.1f}' for s in columns)
  return (
    f'| {workdir.name}{picture} | {split}, {result["images"]} images, step {result["step"]} | {numbers} '
    f'| {_published(config.paper, result, columns)} | {hardware(run)} | {training_time(workdir, config.batch_size)} '
    f'| `{run["command"]}` |'
  )


def training_time(workdir: Path, batch_size: int) -> str:
  """Adds up the steps' own time (evaluations left out) from the rates in metrics.jsonl."""
  seconds, before = 0.0, 0
  for record in read_records(workdir):
    if 'time/images_per_second' in record:
      seconds += (record['step'] - before) * batch_size / record['time/images_per_second']
      before = record['step']
  return f'{before} steps in {duration(seconds)}'


def _published(paper: Any, result: dict[str, Any], columns: Mapping[str, str] = _PIXELS) -> str:
  """The paper's numbers, each beside ours of the same name where the row does not show it yet."""
  published, ours = published_numbers(paper), single_numbers(result)
  if not published:
    return 'none published'
  told = []
  for name, value in published.items():
    text = f'{name.replace("_", " ")} {percent(value)}'
    if name not in columns:
      text += f' (ours {percent(ours.get(name))})'
    told.append(text)
  split = paper.get('split', result['split'])
  where = '' if split == result['split'] else f' on {split}'
  return ', '.join(told) + f'{where}: {paper["source"]}'


def percent(value: float | None) -> str:
  """Writes a share with one decimal, or more where it would hide the number: an error of 0.04 per cent."""
  if value is None:
    return 'not measured'
  return f'{100 * value:.1f}' if abs(value) >= 0.01 or not value else f'{100 * value:.2g}'


def hardware(run: dict[str, Any]) -> str:
  """Returns what run.json says of the machine."""
  return str(run.get('hardware') or run.get('devices'))


def _strip(workdir: Path, split: str) -> np.ndarray:
  """Draws the middle image of the split: not the best, not the worst, always the same."""
  from jaxseg.train import build

  source = build.source_from(load_config(workdir), split)
  example = source[len(source) // 2]
  predictor = load(workdir, 'latest')
  if isinstance(predictor, InstancePredictor):
    ids, _ = painted(predictor.instances(example['image']))
    return labels.strips([objects.pictures(example, ids)])
  row = (example['image'], example['label'], predictor(example['image']))
  return labels.panel([row], predictor.classes.palette, predictor.classes.names, errors=False)
