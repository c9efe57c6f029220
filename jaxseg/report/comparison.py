"""Compares runs: scores, curves, classes and config differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxseg import config as configs
from jaxseg.config import parts
from jaxseg.metrics.score import columns, numbers
from jaxseg.predict.runs import unique_names
from jaxseg.report import render
from jaxseg.report.images import Comparison
from jaxseg.report.runs import RunSummary
from jaxseg.train import run_data

_SAME_TRUTH = ('border_weight', 'channels', 'white')  # options of data that do not change labels
Runs = Mapping[str, RunSummary]
Cell = tuple[str, bool]  # text, and whether it is the best


def by_name(runs: Sequence[RunSummary]) -> dict[str, RunSummary]:
  """Returns the runs in order, by unique names."""
  return dict(zip(unique_names([run.path for run in runs]), runs, strict=True))


def page(runs: Runs, images: Comparison | None = None) -> str:
  """Returns the page that compares runs, with pictures if there are `images`."""
  named, runs = runs, [*runs.values()]
  charts = {
    **{render.title(run.score): f'eval/{run.score}' for run in runs},
    'Training loss': 'train/loss',
    'Learning rate': 'train/learning_rate',
    'Images per second': 'time/images_per_second',
  }
  fair, rates = comparable(runs), [run.median('time/images_per_second') for run in runs]
  return render.render(
    'comparison.html',
    runs=named,
    images=images,
    legend=runs[0].experiment.task.legend(runs[0].classes),
    fair=fair,
    scores=scores(runs, fair),
    rates=ranked(rates, lambda rate: '–' if rate is None else f'{rate:.3g}'),
    curves=render.curves({name: run.records for name, run in named.items()}, charts),
    **classes(named, fair),
    differences=differences(runs),
  )


def scores(
  runs: Sequence[RunSummary], fair: bool
) -> list[tuple[str, list[Cell], list[float | None]]]:
  """Returns a row for each score: name, a cell for each run, and the papers' values, [] without any."""
  headlines, rows = [run.headline for run in runs], []
  results = [numbers(head) for head in headlines]
  for name in render.score_names((run.score for run in runs), headlines):
    values = [result.get(name) for result in results]
    cells = ranked(values, render.score, lower=render.lower_is_better(name), fair=fair)
    papers = [run.published.get(name) for run in runs]
    rows.append((name, cells, papers if any(p is not None for p in papers) else []))
  return rows


def comparable(runs: Sequence[RunSummary]) -> bool:
  """Returns whether all evaluated runs have scores of the same images in the same mode."""
  evaluated = [run for run in runs if run.headline]
  sets = {
    (*_data_of(run), run.headline['split'], run.headline.get('mode') or '') for run in evaluated
  }
  counts = {run.headline['images'] for run in evaluated if 'images' in run.headline}
  return len(sets) <= 1 and len(counts) <= 1 and _have_same_files(evaluated)


def _have_same_files(runs: Sequence[RunSummary]) -> bool:
  """Returns whether runs that read images alike were scored on the same files and labels, if known."""
  found: dict[Any, set[str]] = {}
  for run in runs:
    data = run.headline.get('data') or run_data.of_split(run.path, run.headline['split'])
    reading = run.experiment.channels, run.experiment.data.dtype, run.classes.names
    found.setdefault(reading, set()).update([data] if data else [])
  return all(len(kinds) <= 1 for kinds in found.values())


def share_images(runs: Sequence[RunSummary]) -> bool:
  """Returns whether the runs share score, classes and evaluation images."""
  return len({(*_data_of(r), r.settings.eval_split, r.score, r.classes.names) for r in runs}) == 1


def _data_of(run: RunSummary) -> tuple[str, ...]:
  """Returns a key of the labels that a run is scored against; includes the folder of users' own data."""
  data = run.experiment.data
  reads_folder = getattr(parts.load('datasets', data.name), 'NUM_CLASSES', None) is None
  options = {k: v for k, v in data.options.items() if k not in _SAME_TRUTH}
  return data.name, run.settings.data_dir if reads_folder else '', str(sorted(options.items()))


def ranked(
  values: Sequence[float | None],
  write: Callable[[float | None], str],
  *,
  lower: bool = False,
  fair: bool = True,
) -> list[Cell]:
  """Returns cells; if `fair`, marks the best value: the highest, or with `lower` the lowest."""
  known = [v for v in values if v is not None]
  top = (min if lower else max)(known) if fair and len(known) > 1 else None
  return [(write(v), v is not None and v == top) for v in values]


def classes(runs: Runs, fair: bool) -> dict[str, Any]:
  """Returns a table of each run's first per-class score, a row for each class."""
  columns_of = {name: next(iter(columns(run.headline).items()), None) for name, run in runs.items()}
  names = dict.fromkeys(render.title(column[0]) for column in columns_of.values() if column)
  every = [dict(column[1]) if column else {} for column in columns_of.values()]
  kinds = [run.classes for run in runs.values()]
  rows = [
    (
      name,
      color,
      ranked([values.get(name) for values in every], lambda v: render.number(v, 3), fair=fair),
    )
    for name, color in zip(kinds[0].names, kinds[0].palette, strict=True)
  ]
  return {
    'class_title': f'{" or ".join(names) or "Scores"} by class',
    'same_classes': all(kind.names == kinds[0].names for kind in kinds),
    'class_rows': rows if names else [],
    'not_evaluated': [name for name, column in columns_of.items() if not column],
  }


def differences(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
  """Returns the config keys that differ between runs, with each run's value."""
  named = [configs.flattened(run.experiment.config) for run in runs]
  rows = {
    key: [render.plain(config[key]) if key in config else '' for config in named]
    for key in sorted({key for config in named for key in config})
  }
  return {key: values for key, values in rows.items() if len(set(values)) > 1}
