"""What is in the data, and is it sane: counts, pictures, and the files that cannot be used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from jaxseg import datasets
from jaxseg.data import cache, label_check, statistics, threads, watch
from jaxseg.data.objects import Instances, measure
from jaxseg.datasets import BadFiles, MissingSplit
from jaxseg.draw import labels
from jaxseg.draw.objects import overlay
from jaxseg.draw.sheet import contact_sheet, pick_samples
from jaxseg.train import build
from jaxseg.types import UserError

_SAMPLES = 12
_DRAWS = 2  # augmented views of each sample
_WHOLE = 'all'  # a dataset's name for its other splits together
_DARK = 64  # of 255: an image set whose brightest value is below it


@dataclasses.dataclass(frozen=True)
class Survey:
  """What one pass over a split has found.

  Attributes:
    histogram: of the labels.
    counts: int64 [n, c], pixels of each class in each example.
    sizes: (height, width) -> number of images.
    channels: int64 [channels, 256], pixels of each value.
    digests: hash of the decoded pixels -> names of the files that hold them.
    objects: by example, the pixels of each object and whether it is a crowd, int64 and bool [n];
      None where the data do not number their objects.
  """

  histogram: statistics.LabelHistogram
  counts: np.ndarray
  sizes: Counter
  channels: np.ndarray
  digests: dict[bytes, list[str]]
  objects: list[tuple[np.ndarray, np.ndarray]] | None = None


def survey(source, title: str) -> Survey:
  """Reads every example once, in a few threads, with a progress line of that title."""

  def look(i: int):
    example = source[i]
    image = np.ascontiguousarray(example['image'])
    digest = hashlib.blake2b(image, digest_size=16, person=f'{image.shape}'[:16].encode()).digest()
    bins = statistics.label_bins(example['label'])
    shape = image.shape[:2]
    values = statistics.channel_bins(image)
    return bins, shape, values, digest, str(example['file_name']), _objects(example)

  counter, counts, sizes, digests = statistics.LabelCounter(source.num_classes), [], Counter(), {}
  channels, objects = np.zeros((source.channels, 256), np.int64), []
  looked = threads.results(look, range(len(source)), name=getattr(source, 'file_name', None))
  with cache.progress_line(title) as progress:
    for i, (bins, size, values, digest, name, found) in enumerate(looked):
      counter.add(bins)
      counts.append(bins[: source.num_classes])
      sizes[size] += 1
      channels += values
      digests.setdefault(digest, []).append(name)
      objects += [] if found is None else [found]
      progress(i + 1, len(source))
  counts = np.array(counts)
  return Survey(counter.result(), counts, sizes, channels, digests, objects or None)


def _objects(example: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns pixels and crowd of an example's objects, None where it numbers none."""
  if 'instances' not in example:
    return None
  _, pixels = measure(example['instances'], len(example['instance_classes']))
  crowd = np.asarray(example.get('crowd', np.zeros(len(pixels), bool)))
  return pixels[pixels > 0], crowd[pixels > 0]


def check(config: ConfigDict, output: str | Path = 'data_check') -> dict[str, Any]:
  """Prints what is in the config's data and draws samples before and after augmentation.

  Args:
    config: complete and locked.
    output: folder for samples.png, augmented.png and data.json.

  Returns:
    What is in data.json: by split images, sizes, pixels by class, void share, mean and std; class
    weights, duplicates and problems.

  Raises:
    UserError: files that cannot be used or ids outside of the classes, after all were listed.
  """
  console = _console()
  folder = _make_folder(output)
  sources, problems = open_splits(config, console)
  surveys = {}
  for split, source in sources.items():
    with watch.patient(config.data_timeout):
      surveys[split] = survey(source, f'checking {config.dataset} {split}')
    problems += label_check.invalid_files(source, surveys[split].histogram)
  report = {'splits': {k: _facts(s, sources[k].class_names) for k, s in surveys.items()}}
  report |= {'duplicates': duplicates(surveys), 'problems': problems, 'class_weights': None}
  if sources:
    first = config.train_split if config.train_split in sources else next(iter(sources))
    weights = statistics.median_frequency_weights(surveys[first].histogram)
    report['class_weights'] = [round(float(w), 4) for w in weights]
    _print_tables(console, config, surveys, next(iter(sources.values())).class_names, report)
    for remark in (*remarks(surveys, report), *_room(config, report)):
      console.print(f'note: {remark}', soft_wrap=True)
    _draw(config, sources[first], surveys[first], folder)
    console.print(f'samples of {first}: {folder / "samples.png"}, {folder / "augmented.png"}')
  cache.write_text(folder / 'data.json', json.dumps(report, indent=2) + '\n')
  for problem in problems:
    console.print(f'bad: {problem}', soft_wrap=True)
  if problems:
    raise BadFiles(problems)
  return report


def prepare(config: ConfigDict) -> None:
  """Builds the records of all splits that the config's dataset has, and tells where they are.

  Raises:
    UserError: files that cannot be used, after all splits were tried.
  """
  console = _console()
  sources, problems = open_splits(config, console)
  for split, source in sources.items():
    if not hasattr(source, 'path'):
      console.print(f'{split}: {len(source)} examples, generated when read')
      continue
    size = sum(p.stat().st_size for p in source.path.iterdir())
    console.print(
      f'{split}: {len(source)} examples, {size / 1e6:.1f} MB in {source.path}', soft_wrap=True
    )
  if problems:
    raise BadFiles(problems)


def _console() -> Console:
  """Returns what prints names of files and classes as they are: '[b]' and ':car:' are no markup."""
  return Console(width=100, highlight=False, markup=False, emoji=False)


def open_splits(config: ConfigDict, console: Console) -> tuple[dict[str, Any], list[str]]:
  """Opens every split that there is; those that the config uses must be there.

  Returns:
    Split -> source, and a line for each file that cannot be used, however many splits read it.
  """
  used = (config.train_split, config.eval_split)
  known = [s for s in datasets.load(config.dataset).SPLITS if s != _WHOLE]
  sources, problems = {}, []
  for split in dict.fromkeys((*known, *used)):
    try:
      sources[split] = build.source_from(config, split)
    except MissingSplit as error:
      if split in used:
        raise
      console.print(f'note: no split {split} ({error})', soft_wrap=True)
    except BadFiles as error:
      problems += error.problems
  return sources, list(dict.fromkeys(problems))


def duplicates(surveys: dict[str, Survey]) -> list[str]:
  """Returns a line for each image whose pixels stand in more than one split."""
  lines = []
  names = list(surveys)
  for i, first in enumerate(names):
    for second in names[i + 1 :]:
      for digest in surveys[first].digests.keys() & surveys[second].digests.keys():
        a, b = (surveys[s].digests[digest][0] for s in (first, second))
        lines.append(f'{first}/{a} = {second}/{b}')
  return sorted(lines)


def remarks(surveys: dict[str, Survey], report: dict[str, Any]) -> list[str]:
  """Returns what a person should look at although training would go on."""
  found = []
  if twice := report['duplicates']:
    more = f' and {len(twice) - 5} more' if len(twice) > 5 else ''
    found.append(f'{len(twice)} images stand in two splits: {", ".join(twice[:5])}{more}')
  for split, facts in report['splits'].items():
    if facts['void'] > 0.5:
      found.append(f'{facts["void"]:.1%} of the pixels of {split} are void')
    if absent := [name for name, count in facts['pixels'].items() if not count]:
      found.append(f'classes that {split} never shows: {", ".join(absent)}')
    brightest = int(np.flatnonzero(surveys[split].channels.any(axis=0))[-1])
    if brightest < _DARK:
      found.append(
        f'the images of {split} are dark: their brightest value is {brightest} of 255; for 16-bit '
        'files of 12-bit cameras set dataset_options.white=4095'
      )
  return found


def _room(config: ConfigDict, report: dict[str, Any]) -> list[str]:
  """Returns a line where training images may show more objects than a step has room for."""
  most = report['splits'].get(config.train_split, {}).get('objects', {}).get('most', 0)
  if config.task != 'instance' or most <= config.max_instances:
    return []
  return [
    f'an image of {config.train_split} shows {most} objects, config.max_instances is '
    f'{config.max_instances}: crops may show fewer, else training will stop there'
  ]


def sizes_text(sizes: Counter) -> str:
  """Returns text such as '480x360' or '256x256 (30), 520x696 (7), 3 more' (height x width)."""
  shown = [f'{h}x{w}' for (h, w), _ in sizes.most_common(3)]
  if len(sizes) > 1:
    shown = [f'{s} ({n})' for s, (_, n) in zip(shown, sizes.most_common(3), strict=True)]
  return ', '.join(shown + ([f'{len(sizes) - 3} more sizes'] if len(sizes) > 3 else []))


def object_facts(objects: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
  """Returns how many objects there are, by image and by COCO's ranges of area, crowds left out.

  Args:
    objects: of each image, pixels and crowd of its objects, [n] each.

  Returns:
    objects, crowds; least, median and most of an image; small (below 32 x 32 pixels),
    medium and large (from 96 x 96); sides: 5, 50 and 95 per cent of the square roots of areas.
  """
  counts = [int((~crowd).sum()) for _, crowd in objects]
  areas = np.concatenate([pixels[~crowd] for pixels, crowd in objects])
  small, medium = int((areas < 32**2).sum()), int((areas < 96**2).sum())
  sides = np.percentile(np.sqrt(areas), (5, 50, 95)) if areas.size else np.zeros(3)
  return {
    'objects': len(areas),
    'crowds': int(sum(crowd.sum() for _, crowd in objects)),
    'least': min(counts),
    'median': float(np.median(counts)),
    'most': max(counts),
    'small': small,
    'medium': medium - small,
    'large': len(areas) - medium,
    'sides': [round(float(side), 1) for side in sides],
  }


def _facts(found: Survey, class_names: Sequence[str]) -> dict[str, Any]:
  objects = {} if found.objects is None else {'objects': object_facts(found.objects)}
  mean, std = statistics.moments(found.channels)
  histogram = found.histogram
  return {
    'images': histogram.num_images,
    'sizes': {f'{h}x{w}': n for (h, w), n in found.sizes.most_common()},
    'pixels': dict(zip(class_names, histogram.counts.tolist(), strict=True)),
    'images_with': dict(zip(class_names, histogram.images.tolist(), strict=True)),
    'void': histogram.void_share,
    'mean': [round(float(v), 2) for v in mean],
    'std': [round(float(v), 2) for v in std],
    **objects,
  }


def _print_tables(console, config, surveys, class_names, report) -> None:
  table = Table('split', 'images', 'height x width', 'void', 'mean', 'std', title=config.dataset)
  for split, facts in report['splits'].items():
    mean, std = (' '.join(f'{v:.1f}' for v in facts[key]) for key in ('mean', 'std'))
    sizes = sizes_text(surveys[split].sizes)
    table.add_row(split, str(facts['images']), sizes, f'{facts["void"]:.1%}', mean, std)
  console.print(table)
  _print_objects(console, report)
  table = Table('class', *(f'{s}: pixels, images' for s in surveys), 'suggested weight')
  for k, name in enumerate(class_names):
    shares = []
    for found in surveys.values():
      counts, images = found.histogram.counts, int(found.histogram.images[k])
      shares.append(f'{counts[k] / max(counts.sum(), 1):7.2%} {images:6d}')
    table.add_row(name, *shares, f'{report["class_weights"][k]:.4f}')
  console.print(table)
  weights = ','.join(f'{w:g}' for w in report['class_weights'])
  console.print(f'median-frequency weights: --config.class_weights={weights}', soft_wrap=True)
  for key in ('class_weights', 'mean', 'std'):
    console.print(f'the config has {key} {_numbers(config[key])}', soft_wrap=True)


def _print_objects(console: Console, report: dict[str, Any]) -> None:
  """Prints what is known of objects, where they are numbered."""
  found = {
    split: facts['objects'] for split, facts in report['splits'].items() if 'objects' in facts
  }
  if not found:
    return
  table = Table(
    'split', 'objects', 'crowds', 'in an image', 'small', 'medium', 'large', 'side: 5, 50, 95 %'
  )
  for split, facts in found.items():
    middle = f'{facts["least"]} to {facts["most"]}, median {facts["median"]:g}'
    sizes = (str(facts[key]) for key in ('small', 'medium', 'large'))
    sides = ', '.join(f'{side:g}' for side in facts['sides'])
    table.add_row(split, str(facts['objects']), str(facts['crowds']), middle, *sizes, sides)
  console.print(table)


def _numbers(values: Any) -> str:
  if isinstance(values, str):
    return values
  return ', '.join(f'{v:.4g}' for v in values) or 'none'


def _draw(config: ConfigDict, source, found: Survey, folder: Path) -> None:
  """Writes samples.png and, after the config's augmentation, augmented.png."""
  places = pick_samples(found.counts, _SAMPLES)
  examples = list(threads.examples(source, places, timeout=config.data_timeout))
  captions = [_caption(e) for e in examples]
  sheet = contact_sheet(_shown(config, examples), source.palette, source.class_names, captions)
  labels.save(folder / 'samples.png', sheet)
  moves = [t for t in build.transforms_from(config) if not isinstance(t, Instances)]
  changed = []
  for place, example in zip(places, examples, strict=True):
    for draw in range(_DRAWS):
      rng = np.random.default_rng((config.seed, place, draw))
      result = example
      for move in moves:
        result = move(result, rng)
      changed.append(result)
  captions = [_caption(e) for e in changed]
  sheet = contact_sheet(_shown(config, changed), source.palette, source.class_names, captions)
  labels.save(folder / 'augmented.png', sheet)


def _shown(config: ConfigDict, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Tints the instances in the images, where they are what is learnt."""
  if config.task != 'instance':
    return list(examples)
  return [{**e, 'image': overlay(e['image'], e['instances'])} for e in examples]


def _caption(example: dict[str, Any]) -> str:
  height, width = example['label'].shape
  weight = f'  weight to {example["weight"].max():.1f}' if 'weight' in example else ''
  return f'{example["file_name"]}  {height}x{width}{weight}'


def _make_folder(output: str | Path) -> Path:
  folder = Path(output).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
      raise PermissionError(13, 'Permission denied')
  except OSError as error:
    raise UserError(
      f'--output={output}: {error.strerror}; choose a folder that can be written'
    ) from None
  return folder
