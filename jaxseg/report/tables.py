"""Generates the tables of docs/results.md from run folders."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxseg import config as configs
from jaxseg import console, files
from jaxseg.config.config_files import baselines
from jaxseg.console import duration
from jaxseg.draw import labels
from jaxseg.metrics.score import numbers, published
from jaxseg.predict.ensemble import load
from jaxseg.report.figures import draw
from jaxseg.report.render import title
from jaxseg.report.runs import RunSummary, collect
from jaxseg.types import UserError

_BASELINES = (
  'baseline',
  'config',
  'parameters',
  'paper',
  'ours',
  'hardware',
  'training',
  'command',
)


def write(
  workdirs: Sequence[str],
  output: str | None,
  split: str,
  *,
  table: str | None = None,
  modes: bool = False,
  pictures: str | None = None,
) -> None:
  """Prints rows of runs with their common scores, or writes them into a Markdown file.

  Args:
    workdirs: trained folders with eval/<split>.json (launch/evaluate.py).
    output: a Markdown file with the lines `<!-- results TABLE -->` and `<!-- end -->`, whose rows in
      between are replaced; None: prints them.
    split: of the scores.
    table: name of the file's table; None: the split's name.
    modes: adds rows for evaluations of the split in other modes: scales, flips, ensembles or a
      temperature.
    pictures: folder for a strip (image, truth, prediction, errors) of each run; None: no pictures.
      Only a picture that `output` links to is replaced.

  Raises:
    UserError: a run that was not evaluated, a file without the markers, or another file of a
      picture's name.
  """
  runs = [collect(Path(workdir)) for workdir in workdirs]
  shown = [(run, result) for run in runs for result in _evaluations(run, split, modes)]
  scores = common_scores(shown)
  if len({result['data'] for _, result in shown if result.get('data')}) > 1:
    console.say('note      not all rows are scored on the same files and labels', error=True)
  strips = _strips(runs, files.absolute(pictures), output) if pictures else {}
  for run in runs if strips else ():
    _draw(run, run.evaluations[split], strips[run.path])
  rows = [_row(run, result, scores, strips.get(run.path)) for run, result in shown]
  head = ('run', 'split', *map(title, scores), 'paper', 'hardware', 'training', 'command')
  show(output, table or split, head, rows)


def write_baselines(output: str | None, workdirs: Sequence[str] = ()) -> None:
  """Prints or writes the papers' baselines: published scores, and our run of the recipe or "not run".

  A baseline is a variant that a config file lists in BASELINES; the table's marker is `baselines`.

  Args:
    output: see `write`.
    workdirs: trained and evaluated folders; one trained with exactly a baseline's --config, and no
      key changed, fills that baseline's row.

  Raises:
    UserError: a run that was not evaluated or is not a baseline, or a file without the markers.
  """
  runs = {_spec_of(run): run for run in (collect(Path(workdir)) for workdir in workdirs)}
  known = dict(baselines())
  for spec, run in runs.items():
    if spec not in known:
      raise UserError(
        f'{run.path} was not trained by a baseline of configs/ as it stands: leave it out here'
      )
  rows = [_baseline(spec, heading, runs.get(spec)) for spec, heading in known.items()]
  show(output, 'baselines', _BASELINES, rows)


def show(
  output: str | None, table: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
  """Prints a table, or puts it into a Markdown file; see `replace_table`."""
  if output:
    replace_table(output, table, head, rows)
  else:
    console.say(*_lines(head, rows))


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  lines = [f'| {" | ".join(map(_cell_text, cells))} |' for cells in (head, *rows)]
  return [lines[0], '|---' * len(head) + '|', *lines[1:]]


def _cell_text(text: str) -> str:
  """Escapes a run's text for a table cell, since the run may be a stranger's."""
  return ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')


def replace_table(
  output: str, table: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
  """Puts a table between `<!-- results TABLE -->` and `<!-- end -->` of a Markdown file.

  Raises:
    UserError: the file cannot be read or has no such markers.
  """
  file, begin, end = files.to_path(output), f'<!-- results {table} -->', '<!-- end -->'
  try:
    before, _, rest = files.read_text(file).partition(begin)
  except FileNotFoundError as error:
    raise UserError(f'--output={output}: {error.strerror}; name a file with {begin}') from None
  between, ended, after = rest.partition(end)
  if not ended or '<!-- results ' in between:
    raise UserError(f'{output} needs the lines {begin} and {end}, and between them no other table')
  files.write_text(file, '\n'.join([before + begin, *_lines(head, rows), end + after]))


def _evaluations(run: RunSummary, split: str, modes: bool) -> list[Mapping]:
  """Returns the plain evaluation of a split, followed by the others if `modes`.

  Raises:
    UserError: no plain evaluation.
  """
  if split not in run.evaluations:
    raise UserError(
      f'{run.path} has no scores on {split}: {console.command("evaluate")} --workdir={run.path} '
      f'--split={split}'
    )
  others = [r for name, r in run.evaluations.items() if r['split'] == split and name != split]
  return [run.evaluations[split], *others * modes]


def common_scores(shown: Sequence[tuple[RunSummary, Mapping]]) -> list[str]:
  """Returns the scores that all evaluations have.

  Raises:
    UserError: an evaluation lacks the others' headline score.
  """
  results = [numbers(result) for _, result in shown]
  scores = [name for name in results[0] if all(name in result for result in results)]
  # Class maps can be scored as objects, but not the reverse.
  leading = min((run for run, _ in shown), key=lambda run: run.experiment.task.maps).score
  for (run, evaluation), result in zip(shown, results, strict=True):
    if leading not in result:
      split = evaluation['split']
      raise UserError(
        f'{run.path}/eval/{split}.json has no {title(leading)}: {console.command("evaluate")} '
        f'--workdir={run.path} --split={split} --scores=components'
      )
  return scores


def _strips(runs: Sequence[RunSummary], folder: Path, output: str | None) -> dict[Path, Path]:
  """Returns the file of each run's picture, by the run's path; see `write`."""
  strips = {run.path: folder / f'{run.name}.png' for run in runs}
  if twice := [path for path, count in Counter(strips.values()).items() if count > 1]:
    raise UserError(f'several runs would have the picture {twice[0]}: rename a folder')
  linked = files.read_text(files.to_path(output)) if output else ''
  for strip in strips.values():
    if strip.exists() and f' ([picture]({strip.name})) |' not in linked:
      raise UserError(
        f'{strip} exists, and no table of {output or "--output"} links to it: move it away, or choose '
        'another folder for --pictures'
      )
  return strips


def _row(run: RunSummary, result: Mapping, scores: Sequence[str], strip: Path | None) -> list[str]:
  values, split, mode = numbers(result), result['split'], result.get('mode')
  picture = f' ([picture]({strip.name}))' if strip and not mode else ''
  return [
    f'{run.name}{f" {mode}" if mode else ""}{picture}',
    f'{split}, {result["images"]} images, step {result["step"]}',
    *(_cell(name, values[name]) for name in scores),
    beside(run.settings.paper, result, scores),
    *_making(run),
  ]


def _cell(name: str, value: float | None) -> str:
  """Formats a score in per cent, a log-likelihood in nats."""
  if value is None:
    return '-'
  return f'{value:.3f}' if name == 'nll' else f'{100 * value:.1f}'


def _draw(run: RunSummary, evaluation: Mapping, file: Path) -> None:
  """Draws the middle image of the split, to avoid cherry-picking, as the scored step predicts it."""
  source = run.experiment.source(evaluation['split'], run.classes.names)
  example = source[len(source) // 2]
  predict = load(run.path, str(evaluation['step'])).predict
  picture = draw(run.experiment.task, predict, [example], run.classes)
  file.parent.mkdir(parents=True, exist_ok=True)
  with files.new_file(file) as part:
    labels.save(part, picture)


def beside(paper: Mapping | None, result: Mapping, shown: Sequence[str]) -> str:
  """Formats the paper's scores, with ours of the same name if the row does not show it.

  Args:
    paper: of the config.
    result: of an evaluation.
    shown: names of the scores in the row.
  """
  ours, texts = numbers(result), []
  for name, value in published(paper).items():
    ours_text = '' if name in shown else f' (ours {percent(ours.get(name))})'
    texts.append(f'{title(name)} {percent(value)}{ours_text}')
  if not texts:
    return 'none published'
  split = paper.get('split', result['split'])
  where = '' if split == result['split'] else f' on {split}'
  return f'{", ".join(texts)}{where}: {paper["source"]}'


def percent(value: float | None) -> str:
  """Formats a fraction in per cent with one decimal, small ones (an error of 0.04 %) with two digits."""
  if value is None:
    return 'not measured'
  return f'{100 * value:.1f}' if abs(value) >= 0.01 or not value else f'{100 * value:.2g}'


def _making(run: RunSummary) -> tuple[str, str, str]:
  """Returns the hardware, duration and command of a training."""
  made = run.provenance
  hardware = str(made.get('hardware') or made.get('devices'))
  # The workdir's path on that machine is private, and not part of the recipe.
  command = re.sub(r'(--workdir=)/(?:[^\s\']*/)?', r'\1runs/', str(made.get('command')))
  return hardware, f'{run.last_step} steps in {duration(run.seconds)}', f'`{command}`'


def _baseline(spec: str, heading: str, run: RunSummary | None) -> list[str]:
  paper = configs.settings(configs.plain(configs.load(spec))).paper or {}
  name = Path(spec).name.replace('.py', '')
  scores = ', '.join(_listed(published(paper))) or 'no score'
  where = f' on {paper["split"]}' if published(paper) and 'split' in paper else ''
  source = f': {paper["source"]}' if paper else ''
  parameters = f'{paper["params"]:,}' if 'params' in paper else '-'
  row = [heading, f'`{name}`', parameters, scores + where + source]
  if run is None:
    folder = ''.join(c if c.isalnum() else '_' for c in name)
    command = f'`python launch/train.py --config={spec} --workdir=runs/{folder}`'
    return [*row, 'not run', '-', '-', command]
  if not run.evaluations:
    raise UserError(
      f'{run.path} has no scores: {console.command("evaluate")} --workdir={run.path} --step=latest'
    )
  result = run.headline
  counted = f'({result["split"]}, {result["images"]} images, step {result["step"]})'
  return [*row, f'{", ".join(_listed(numbers(result)))} {counted}', *_making(run)]


def _listed(scores: Mapping[str, float | None]) -> list[str]:
  return [f'{title(name)} {percent(value)}' for name, value in scores.items()]


def _spec_of(run: RunSummary) -> str:
  """Returns the run's --config, with every key that its command changed."""
  try:
    words = shlex.split(run.provenance.get('command', ''))
  except ValueError:  # a damaged command
    return ''
  flags = [word for word in words if word.startswith(('--config=', '--config.'))]
  return ' '.join(flags).removeprefix('--config=')
