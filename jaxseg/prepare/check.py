"""Checks the data before training: counts, sample pictures and unusable files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import files
from jaxseg.config.parts import load
from jaxseg.console import Table, say
from jaxseg.data import label_check, threads
from jaxseg.data.augment import augmented
from jaxseg.data.objects import Objects
from jaxseg.data.problems import BadFiles, MissingSplit
from jaxseg.draw import labels
from jaxseg.draw.sheet import contact_sheet, pick_samples
from jaxseg.prepare.survey import Survey, survey
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

_REPORT = 'data.json'
_WRITTEN = (_REPORT, 'samples.png', 'augmented.png')
_SAMPLES = 12
_DRAWS = 2  # augmented views of each sample
_JOINED = 'all'  # a dataset's name for the union of its splits
_DARK = 64  # of 255: images whose brightest value is below it are reported


def check(experiment: Experiment, output: str | Path = 'data_check') -> dict[str, Any]:
  """Prints statistics of the experiment's data and draws samples before and after augmentation.

  Args:
    experiment: names the data.
    output: folder for samples.png, augmented.png and data.json.

  Returns:
    The contents of data.json: for each split the images, sizes, pixels per class, share of void, mean and
    std; class weights, duplicates and problems.

  Raises:
    UserError: unusable files or ids outside the classes, after listing all of them.
  """
  folder = _make_folder(output)
  sources, problems = open_splits(experiment)
  surveys = {}
  for split, source in sources.items():
    with threads.time_limit(experiment.data.timeout):
      surveys[split] = survey(source, f'checking {experiment.data.name} {split}')
    problems += label_check.invalid_files(source, surveys[split].histogram)
  report = {
    'splits': {split: s.facts(sources[split].class_names) for split, s in surveys.items()},
    'duplicates': duplicates(surveys),
    'problems': problems,
    'class_weights': None,
  }
  if sources:
    train = experiment.data.train_split
    first = train if train in sources else next(iter(sources))
    report['class_weights'] = list(surveys[first].class_weights)
  files.write_text(folder / _REPORT, json.dumps(report, indent=2) + '\n')
  if sources:
    _print_tables(experiment, surveys, report)
    for remark in remarks(experiment, surveys, report):
      say(f'note: {remark}')
    _draw(experiment, sources[first], surveys[first].counts, folder)
    say(f'samples of {first}: {folder / "samples.png"}, {folder / "augmented.png"}')
  for problem in problems:
    say(f'bad: {problem}')
  if problems:
    raise BadFiles(problems)
  return report


def prepare(experiment: Experiment) -> None:
  """Builds the records of all splits of the experiment's dataset and prints their paths.

  Raises:
    UserError: unusable files, after trying all splits.
  """
  sources, problems = open_splits(experiment)
  for split, source in sources.items():
    where = 'generated when read'
    if hasattr(source, 'path'):
      size = sum(p.stat().st_size for p in source.path.iterdir())
      where = f'{size / 1e6:.1f} MB in {source.path}'
    say(f'{split}: {len(source)} examples, {where}')
  if problems:
    raise BadFiles(problems)


def open_splits(experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
  """Opens every split of the dataset; those that the experiment uses must exist.

  Returns:
    Split -> source, and one line for each unusable file, even if several splits read it.
  """
  used = (experiment.data.train_split, experiment.settings.eval_split)
  known = [s for s in load('datasets', experiment.data.name).SPLITS if s != _JOINED]
  sources, problems = {}, []
  for split in dict.fromkeys((*known, *used)):
    try:
      sources[split] = experiment.source(split)
    except MissingSplit as error:
      if split in used:
        raise
      say(f'note: no split {split} ({error})')
    except BadFiles as error:
      problems += error.problems
  return sources, list(dict.fromkeys(problems))


def duplicates(surveys: Mapping[str, Survey]) -> list[str]:
  """Returns a line for each image that occurs, with identical pixels, in more than one split."""
  lines = []
  for (split, first), (other, second) in itertools.combinations(surveys.items(), 2):
    for digest in first.digests.keys() & second.digests.keys():
      lines.append(f'{split}/{first.digests[digest][0]} = {other}/{second.digests[digest][0]}')
  return sorted(lines)


def remarks(
  experiment: Experiment, surveys: Mapping[str, Survey], report: Mapping[str, Any]
) -> Iterator[str]:
  """Yields warnings: suspicious facts that do not prevent training."""
  if twice := report['duplicates']:
    more = f' and {len(twice) - 5} more' if len(twice) > 5 else ''
    yield f'{len(twice)} images stand in two splits: {", ".join(twice[:5])}{more}'
  for split, facts in report['splits'].items():
    if not facts['images']:
      yield f'{split} has no images'
      continue
    if facts['void'] > 0.5:
      yield f'{facts["void"]:.1%} of the pixels of {split} are void'
    if absent := [name for name, count in facts['pixels'].items() if not count]:
      yield f'classes that {split} never shows: {", ".join(absent)}'
    brightest = surveys[split].channels.high.max()
    if experiment.data.dtype == 'uint8' and brightest < _DARK:
      yield f'the images of {split} are dark: their brightest value is {brightest:g} of 255'
  split = experiment.data.train_split
  most = report['splits'].get(split, {}).get('objects', {}).get('most', 0)
  for transform in experiment.transforms:
    if isinstance(transform, Objects) and most > transform.max_instances:
      yield (
        f'an image of {split} shows {most} objects, config.loss.max_instances is '
        f'{transform.max_instances}: crops may show fewer, else training will stop there'
      )


def _print_tables(
  experiment: Experiment,
  surveys: Mapping[str, Survey],
  report: Mapping[str, Any],
) -> None:
  name, data = experiment.data.name, experiment.data
  table = Table('split', 'images', 'height x width', 'void', 'mean', 'std', title=name)
  for split, facts in report['splits'].items():
    mean, std = (' '.join(f'{v:.1f}' for v in facts[key]) for key in ('mean', 'std'))
    sizes = surveys[split].sizes_text()
    table.add_row(split, str(facts['images']), sizes, f'{facts["void"]:.1%}', mean, std)
  say(table)
  _print_objects(report)
  splits, weights = report['splits'].values(), report['class_weights']
  table = Table('class', *(f'{s}: pixels, images' for s in surveys), 'suggested weight')
  for k, name in enumerate(next(iter(splits))['pixels']):
    shares = []
    for facts in splits:
      share = facts['pixels'][name] / max(sum(facts['pixels'].values()), 1)
      shares.append(f'{share:7.2%} {facts["images_with"][name]:6d}')
    table.add_row(name, *shares, f'{weights[k]:.4f}')
  say(table)
  given = {'mean': data.mean, 'std': data.std}
  if 'class_weights' in experiment.config['loss']:
    flag = ','.join(f'{w:g}' for w in weights)
    say(f'suggested weights: --config.loss.class_weights={flag}')
    given = {'class_weights': experiment.config['loss']['class_weights']} | given
  for key, values in given.items():
    say(f'the config has {key} {_numbers(values)}')


def _print_objects(report: Mapping[str, Any]) -> None:
  """Prints object statistics, if objects are numbered."""
  by_split = {k: facts['objects'] for k, facts in report['splits'].items() if 'objects' in facts}
  if not by_split:
    return
  ranges = ('small', 'medium', 'large')
  table = Table('split', 'objects', 'crowds', 'in an image', *ranges, 'side: 5, 50, 95 %')
  for split, facts in by_split.items():
    middle = f'{facts["least"]} to {facts["most"]}, median {facts["median"]:g}'
    counts = (str(facts[key]) for key in ranges)
    sides = ', '.join(f'{side:g}' for side in facts['sides'])
    table.add_row(split, str(facts['objects']), str(facts['crowds']), middle, *counts, sides)
  say(table)


def _numbers(values: str | Sequence[float] | None) -> str:
  if isinstance(values, str):
    return values
  return ', '.join(f'{v:.4g}' for v in values or ()) or 'none'


def _draw(experiment: Experiment, source: Any, counts: np.ndarray, folder: Path) -> None:
  """Writes samples.png and, after the experiment's augmentation, augmented.png."""
  indices = pick_samples(counts, _SAMPLES)
  examples = list(threads.examples(source, indices, timeout=experiment.data.timeout))
  _save_sheet(folder / 'samples.png', experiment, source, examples)
  transforms = experiment.transforms[: -len(experiment.task.transforms) or None]
  drawn = []
  for index, example in zip(indices, examples, strict=True):
    for draw in range(_DRAWS):
      rng = np.random.default_rng((experiment.settings.seed, index, draw))
      drawn.append(augmented(example, transforms, rng))
  _save_sheet(folder / 'augmented.png', experiment, source, drawn)


def _save_sheet(
  file: Path, experiment: Experiment, source: Any, examples: Sequence[dict[str, Any]]
) -> None:
  """Draws examples; for a task without class colours the truth is drawn into the images."""
  task, captions = experiment.task, [_caption(example) for example in examples]
  if not task.class_colors:
    examples = [{**e, 'image': task.draw(e, None, source)['truth']} for e in examples]
  sheet = contact_sheet(examples, source.palette, source.class_names, captions)
  with files.new_file(file) as part:
    labels.save(part, sheet)


def _caption(example: Mapping[str, Any]) -> str:
  height, width = example['label'].shape
  weight = f'  weight to {example["weight"].max():.1f}' if 'weight' in example else ''
  return f'{example["file_name"]}  {height}x{width}{weight}'


def _is_report(file: Path) -> bool:
  try:
    return {*files.read_json(file)} == {'splits', 'duplicates', 'problems', 'class_weights'}
  except (OSError, UserError, TypeError):
    return False


def _make_folder(output: str | Path) -> Path:
  folder = files.to_path(output)
  folder = files.absolute(folder) if '..' in folder.parts else folder
  others = [name for name in _WRITTEN if (folder / name).exists()]
  if others and not _is_report(folder / _REPORT):
    raise UserError(
      f'--output={output} holds a {others[0]} that no check wrote: choose another folder'
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not files.is_remote(folder):
      with files.scratch_folder(folder):  # can be written; os.access says yes of /proc
        pass
  except OSError as error:
    raise UserError(
      f'--output={output}: {error.strerror}; choose a folder that can be written'
    ) from None
  return folder
