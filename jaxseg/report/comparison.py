"""Several runs side by side: scores, curves, classes, and where their configs differ."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from jaxseg.metrics.measures import published_numbers, single_numbers
from jaxseg.report import charts, parts, single
from jaxseg.report.collect import Run
from jaxseg.train.writer import duration

_SAME_TRUTH = ('border_weight', 'channels', 'white')  # options that change no label


def page(runs: Sequence[Run]) -> str:
  """Returns the page; runs stand in the order given."""
  names = unique_names(runs)
  drawn = ''.join(charts_of(runs, names))
  told = ''.join(made(run, name) for run, name in zip(runs, names, strict=True))
  return parts.document(
    f'{len(runs)} runs compared',
    [
      f'<header><h1>{len(runs)} runs side by side</h1>'
      f'<p class="soft">{escape(", ".join(names))}</p></header>',
      parts.section('Summary', summary(runs, names)),
      parts.section('Curves', f'<div class="charts">{drawn}</div>' if drawn else ''),
      parts.section(_class_title(runs), classes(runs, names)),
      parts.section('Where the configs differ', config_differences(runs, names)),
      parts.section('How they were made', f'<div class="stack">{told}</div>'),
      single.footer(runs[0]),
    ],
  )


def unique_names(runs: Sequence[Run]) -> list[str]:
  """Returns the folders' names, as much of the paths as tells them apart."""
  names = [run.name for run in runs]
  if len(set(names)) == len(names):
    return names
  common = os.path.commonpath([run.path for run in runs])
  return [os.path.relpath(run.path, common) for run in runs]


def summary(runs: Sequence[Run], names: Sequence[str]) -> str:
  heads = [run.headline for run in runs]
  fair = comparable(runs)
  rows = [
    ('scored on', *(_text(_scored_on(h) if h else '–') for h in heads)),
    ('step', *(_text(f'{h["step"]:,}' if h else '–') for h in heads)),
  ]
  scores = [single_numbers(head) for head in heads]
  papers = [published_numbers(run.config.paper) for run in runs]
  mains = [key for score in dict.fromkeys(r.score for r in runs) for key in parts.main_names(score)]
  for key in dict.fromkeys((*mains, *(k for found in scores for k in found))):
    name = escape(parts.score_name(key))
    lower = key.endswith(('error', 'disagreement'))
    values = [found.get(key) for found in scores]
    rows.append((f'<b>{name}</b>', *_ranked(values, parts.score, lower=lower, fair=fair)))
    published = [paper.get(key) for paper in papers]
    if any(p is not None for p in published):
      rows.append((f'<span class="soft">paper, {name}</span>', *map(parts.score, published)))
  rates = [run.median('time/images_per_second') for run in runs]
  rows += [
    ('parameters', *(f'{run.parameters:,}' for run in runs)),
    ('steps', *(f'{run.last_step:,} of {run.config.num_steps:,}' for run in runs)),
    ('images per second', *_ranked(rates, lambda v: '–' if v is None else f'{v:.3g}')),
    ('training time', *(duration(run.seconds) for run in runs)),
    ('devices', *(_text(str(run.run.get('devices', '–'))) for run in runs)),
  ]
  note = ''
  if not fair:
    note = '<p class="bad small">Scored on different data, splits or modes: not comparable as they stand.</p>'
  return parts.card(note, parts.scrolled(parts.table(('', *names), rows, 'wide runs')))


def comparable(runs: Sequence[Run]) -> bool:
  """Returns whether the runs that have scores have them of the same images, seen in the same way."""
  heads = [(run.config, run.headline) for run in runs if run.headline]
  data = {
    (
      config.dataset,
      config.data_dir if config.dataset == 'folder' else '',  # elsewhere it is one dataset's place
      str(sorted((k, v) for k, v in config.dataset_options.items() if k not in _SAME_TRUTH)),
      head['split'],
      head.get('mode') or '',
    )
    for config, head in heads
  }
  counted = {head['images'] for _, head in heads if 'images' in head}
  return len(data) <= 1 and len(counted) <= 1


def _scored_on(head: dict[str, Any]) -> str:
  """Says of which images, in which mode and where from."""
  counted = f'{head["images"]:,} images' if 'images' in head else ''
  return (
    ', '.join(filter(None, (head['split'], counted, head.get('mode')))) + f' ({head["origin"]})'
  )


def _text(value: str) -> str:
  return f'<td class="small">{escape(value)}</td>'


def _ranked(
  values: Sequence[float | None],
  write: Callable[[float | None], str],
  *,
  lower: bool = False,
  fair: bool = True,
) -> list[str]:
  """Cells with the best value in bold, the highest or, with `lower`, the lowest; none where not `fair`."""
  known = [v for v in values if v is not None]
  top = (min if lower else max)(known) if fair and len(known) > 1 else None
  return [
    f'<td class="best">{write(v)}</td>' if v == top and v is not None else write(v) for v in values
  ]


def _class_title(runs: Sequence[Run]) -> str:
  kinds = {'mean_iou': 'Intersection over union', 'mask_ap': 'Mask AP'}
  return f'{" or ".join(dict.fromkeys(kinds[run.score] for run in runs))} by class'


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def charts_of(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
  def of(key: str) -> dict[str, Any]:
    return {name: run.curve(key) for name, run in zip(names, runs, strict=True)}

  return [
    *(
      charts.line_chart(_capital(parts.score_name(key)), of(f'eval/{key}'), unit_range=True)
      for key in dict.fromkeys(run.score for run in runs)
    ),
    charts.line_chart('Training loss', of('train/loss')),
    charts.line_chart('Learning rate', of('train/learning_rate'), from_zero=True),
    charts.line_chart('Images per second', of('time/images_per_second'), from_zero=True),
  ]


def classes(runs: Sequence[Run], names: Sequence[str]) -> str:
  """A row a class, for runs that share their classes; those without an evaluation have no numbers."""
  found = [run.headline.get('per_class_iou') or run.headline.get('per_class_ap') for run in runs]
  if not any(found):
    return (
      '<p class="soft">None of the runs was evaluated: <code>python launch/evaluate.py '
      '--workdir=DIR</code></p>'
    )
  first = runs[0].classes
  if any(run.classes.names != first.names for run in runs):
    return '<p class="soft">The runs have different classes.</p>'
  fair = comparable(runs)
  rows = [
    (
      parts.named(name, color),
      *_ranked([(f or {}).get(name) for f in found], lambda v: parts.number(v, 3), fair=fair),
    )
    for name, color in zip(first.names, first.palette, strict=True)
  ]
  missing = ', '.join(escape(name) for name, f in zip(names, found, strict=True) if not f)
  note = f'<p class="soft small gap">Not evaluated: {missing}.</p>' if missing else ''
  return parts.card(parts.scrolled(parts.table(('', *names), rows, 'wide runs')), note)


def config_differences(runs: Sequence[Run], names: Sequence[str]) -> str:
  """Every key that is not the same in all, options one by one."""
  flat = [_flattened(run.config.to_dict()) for run in runs]
  keys = sorted({key for config in flat for key in config})
  rows = []
  for key in keys:
    values = ['' if key not in config else parts.plain(config[key]) for config in flat]
    if len(set(values)) > 1:
      cells = (f'<td class="text"><code>{escape(v)}</code></td>' for v in values)
      rows.append((escape(key), *cells))
  if not rows:
    return '<p class="soft">All keys are the same.</p>'
  return parts.card(parts.scrolled(parts.table(('', *names), rows, 'wide texts runs')))


def _flattened(config: dict[str, Any]) -> dict[str, Any]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict):
      flat |= {f'{key}.{name}': inner for name, inner in value.items()}
    else:
      flat[key] = list(value) if isinstance(value, tuple) else value
  return flat


def made(run: Run, name: str) -> str:
  told = run.run
  shown = parts.definitions(
    [
      ('started', told.get('started')),
      ('devices', told.get('hardware')),
      ('versions', ', '.join(f'{k} {v}' for k, v in told.get('versions', {}).items())),
      ('git revision', single.revision(run)),
      ('folder', run.path),
    ]
  )
  head = f'<figcaption>{escape(name)}</figcaption>{single.command(run)}'
  return parts.card(head, f'<div class="gap">{shown}</div>')
