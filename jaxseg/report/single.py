"""The report of one run, section by section."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from jaxseg import config as configs
from jaxseg.draw.labels import VOID_COLOR, WRONG_COLOR
from jaxseg.metrics.confusion import summarize
from jaxseg.metrics.measures import published_numbers, single_numbers
from jaxseg.predict.evaluate import by_class
from jaxseg.report import charts, parts
from jaxseg.report.collect import Run
from jaxseg.report.images import Images, Scored
from jaxseg.report.style import shade
from jaxseg.train.writer import duration

_MATRIX_CLASSES = 40  # more are not legible: only the largest confusions are listed
_CONFUSIONS = 8
_FEW_CLASSES = 8  # their bars leave room below for the list of confusions
_BREAK = ' \\\n  --'  # a flag a line, as a shell takes it


def page(run: Run, images: Images | None) -> str:
  """Returns the page; `images` None leaves the pictures out."""
  scores = _detailed(run, images)
  return parts.document(
    f'{run.name}: training report',
    [
      header(run),
      tiles(run),
      parts.section('Scores', scores_table(run)),
      parts.section('Curves', f'<div class="charts">{"".join(curves(run))}</div>'),
      parts.section('Classes', classes(run, scores)),
      pictures(run, images),
      parts.section('How it was made', *making(run)),
      footer(run),
    ],
  )


def header(run: Run) -> str:
  config = run.config
  options = parts.plain(config.model_options.to_dict())
  done = f'step {run.last_step:,} of {config.num_steps:,}'
  if run.last_step >= config.num_steps:
    done = f'{config.num_steps:,} steps, finished'
  return (
    f'<header><h1>{escape(run.name)}</h1><p class="soft">{escape(config.model)} on '
    f'{escape(config.dataset)} · {run.parameters:,} parameters · {done}<br>'
    f'<span class="small">{escape(options)}</span></p></header>'
  )


def tiles(run: Run) -> str:
  headline, paper = run.headline, run.config.paper or {}
  found = []
  for key, name in {**parts.SCORE_NAMES, **parts.MORE_NAMES}.items():
    if headline.get(key) is not None:
      found.append(parts.tile(name, parts.number(headline[key]), _beside(headline, paper, key)))
  rate, waiting = (run.median(f'time/{k}') for k in ('images_per_second', 'waiting_for_data'))
  if rate is not None:
    note = '' if waiting is None else f'waiting for data {waiting:.0%} of the time'
    found.append(parts.tile('images per second', f'{rate:.3g}', note))
    found.append(parts.tile('training time', duration(run.seconds), 'steps only'))
  where = ''
  if headline:
    where = f'Scores on <b>{escape(str(headline["split"]))}</b>'
    where += f', {headline["images"]} images' if 'images' in headline else ''
    where += f', {escape(headline["mode"])}' if headline.get('mode') else ''
    where += f', step {headline["step"]:,} ({escape(headline["origin"])}).'
    where = f'<p class="soft small">{where}</p>'
  return f'{where}<div class="tiles">{"".join(found)}</div>'


def _beside(headline: dict[str, Any], paper: Any, key: str) -> str:
  """The paper's number and how far off ours is."""
  published = paper.get(key) if paper else None
  if published is None:
    return ''
  split = paper.get('split', headline['split'])
  where = '' if split == headline['split'] else f' on {escape(split)}'
  difference = headline[key] - published
  kind = 'good' if difference >= 0 else 'bad'
  if where:  # another split: no verdict
    return f'paper {published:.4f}{where}'
  return f'paper {published:.4f} <span class="{kind}">{difference:+.4f}</span>'


def scores_table(run: Run) -> str:
  """A column for every evaluation, the best while training, and the paper."""
  columns = {}
  for result in run.evaluations.values():
    columns[', '.join(filter(None, (result['split'], result.get('mode'))))] = result
  if run.best:
    columns[f'{run.config.eval_split}, best in training'] = run.best
  found = {title: single_numbers(result) for title, result in columns.items()}
  paper = run.config.paper
  if published := published_numbers(paper):
    found[f'paper, {paper["split"]}' if paper.get('split') else 'paper'] = published
  if not found:
    return ''
  names = dict.fromkeys(
    (*parts.main_names(run.score), *(name for v in found.values() for name in v))
  )
  rows = [
    (
      f'<b>{escape(parts.score_name(name))}</b>',
      *(parts.score(v.get(name)) for v in found.values()),
    )
    for name in names
  ]
  for key in ('step', 'images'):
    if any(key in result for result in columns.values()):
      cells = [f'{r[key]:,}' if key in r else '' for r in columns.values()]
      rows.append((key, *cells, *[''] * (len(found) - len(cells))))
  source = f'<p class="soft small gap">Paper: {escape(str(paper.source))}</p>' if paper else ''
  return parts.card(parts.scrolled(parts.table(('', *found), rows)), source)


def curves(run: Run) -> list[str]:
  losses = {k.removeprefix('train/'): run.curve(k) for k in _keys(run, 'train/loss')}
  if len(losses) == 2:  # the one term and the total are the same
    losses.pop(next(k for k in losses if k != 'loss'))
  scores = {name: run.curve(f'eval/{key}') for key, name in parts.main_names(run.score).items()}
  best = (parts.score_name(run.score), run.best['step']) if run.best else None
  return [
    charts.line_chart('Training loss', losses),
    charts.line_chart(f'Scores on {run.config.eval_split}', scores, unit_range=True, marked=best),
    charts.line_chart(
      'Learning rate', {'learning rate': run.curve('train/learning_rate')}, from_zero=True
    ),
    charts.line_chart(
      'Images per second',
      {'images per second': run.curve('time/images_per_second')},
      from_zero=True,
    ),
  ]


def _keys(run: Run, prefix: str) -> list[str]:
  found = dict.fromkeys(k for r in run.records for k in r if k.startswith(prefix))
  return sorted(found)


def _detailed(run: Run, images: Images | None) -> dict[str, Any]:
  """Per-class numbers and confusion matrix: from an evaluation, else from the scored images."""
  headline = run.headline
  if 'confusion' in headline or 'per_class_ap' in headline:
    counted = f'{headline.get("images", "all")} images'
    told = headline['split'], counted, headline.get('mode'), headline['origin']
    found = {**headline, 'where': ', '.join(filter(None, told))}
    return found | {k: np.array(headline[k]) for k in ('confusion',) if k in headline}
  if not images or images.confusion is None or not images.confusion.sum():
    return {}
  found = summarize(images.confusion, absent=run.config.absent)
  names = run.classes.names
  return {
    'per_class_iou': by_class(names, found['per_class_iou']),
    'per_class_accuracy': by_class(names, found['per_class_accuracy']),
    'confusion': images.confusion,
    'where': f'{images.split}, {len(images.scores)} of {images.total} images, step {images.step:,}',
  }


def classes(run: Run, scores: dict[str, Any]) -> str:
  """Bars for every class, and the confusion matrix beside them."""
  if not scores:
    return (
      f'<p class="soft">Not evaluated yet: <code>python launch/evaluate.py '
      f'--workdir={escape(str(run.path))}</code></p>'
    )
  if 'confusion' not in scores:
    return precision(run, scores)
  matrix = scores['confusion']
  total = max(int(matrix.sum()), 1)
  rows = [
    (
      parts.named(name, color),
      parts.bar(scores['per_class_iou'].get(name)),
      parts.number(scores['per_class_iou'].get(name), 3),
      parts.number(scores['per_class_accuracy'].get(name), 3),
      f'<td class="phoneless">{matrix[i].sum() / total:.1%}</td>',
    )
    for i, (name, color) in enumerate(zip(run.classes.names, run.classes.palette, strict=True))
  ]
  bars = parts.table(('class', '', 'IoU', 'accuracy', 'share'), rows)
  bars = bars.replace('<th scope="col">share', '<th scope="col" class="phoneless">share')
  where = f'<p class="soft small">{escape(scores["where"])}</p>'
  left, right = [parts.card(bars)], [confusion(run, matrix)]
  (left if len(rows) <= _FEW_CLASSES else right).append(confusions(run, matrix))
  columns = ''.join(f'<div class="stack">{"".join(column)}</div>' for column in (left, right))
  return f'{where}<div class="pair">{columns}</div>'


def precision(run: Run, scores: dict[str, Any]) -> str:
  """A bar for the mask AP of every class."""
  found = scores['per_class_ap']
  colors = dict(zip(run.classes.names, run.classes.palette, strict=True))
  rows = [
    (parts.named(name, colors[name]), parts.bar(value), parts.number(value, 3))
    for name, value in found.items()
  ]
  where = f'<p class="soft small">{escape(scores["where"])}</p>'
  return where + parts.card(parts.table(('class', '', 'mask AP'), rows))


def confusion(run: Run, matrix: np.ndarray) -> str:
  """The matrix in per cent of the true class, rows truth; '' for very many classes."""
  names = run.classes.names
  if len(names) > _MATRIX_CLASSES:
    return ''
  head = ''.join(f'<th class="column" scope="col"><span>{escape(n)}</span></th>' for n in names)
  lines = []
  for name, row in zip(names, matrix, strict=True):
    total = row.sum()
    cells = ''.join(_cell(count / total if total else None) for count in row)
    lines.append(
      f'<tr><th class="row" scope="row" title="{escape(name)}">{escape(name)}</th>{cells}</tr>'
    )
  grid = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
  note = '<p class="soft small">Rows: truth. Columns: prediction. Per cent of the true class.</p>'
  return parts.card('<figcaption>Confusion matrix</figcaption>', note, parts.scrolled(grid))


def _cell(share: float | None) -> str:
  if share is None:
    return '<td class="soft">–</td>'
  words = f'{100 * share:.0f}' if share >= 0.005 else ''
  return f'<td class="{shade(share)}">{words}</td>'


def confusions(run: Run, matrix: np.ndarray) -> str:
  """The pairs of classes that most pixels are lost to."""
  names, wrong = run.classes.names, matrix * ~np.eye(len(matrix), dtype=bool)
  if len(names) < 3 or not wrong.sum():
    return ''
  rows = []
  for place in np.argsort(wrong, axis=None)[::-1][:_CONFUSIONS]:
    truth, predicted = np.unravel_index(place, wrong.shape)
    if count := wrong[truth, predicted]:
      pair = f'{escape(names[truth])} → {escape(names[predicted])}'
      rows.append((pair, f'{count / wrong.sum():.1%}', f'{count / matrix[truth].sum():.1%}'))
  head = ('truth → prediction', 'of all errors', 'of the class')
  return parts.card('<figcaption>Largest confusions</figcaption>', parts.table(head, rows))


def pictures(run: Run, images: Images | None) -> str:
  if images is None:
    return ''
  if images.problem:
    return parts.section(
      'Images', f'<p class="soft">No image could be read: {escape(images.problem)}</p>'
    )
  if not images.worst:
    return ''
  counted = f'{len(images.scores)} of {images.total}'
  median = float(np.median(images.scores))
  measure = {'IoU': 'mean IoU', 'AP': 'mask AP'}[images.measure]
  note = (
    f'<p class="soft small">{counted} images of {escape(images.split)} scored one by one with step '
    f'{images.step:,}: {measure} over the classes in the image, median {median:.3f}, from '
    f'{images.scores[0]:.3f} to {images.scores[-1]:.3f}.</p>'
  )
  key = [(name, color) for name, color in zip(run.classes.names, run.classes.palette, strict=True)]
  key += [('void', VOID_COLOR), ('wrong', WRONG_COLOR)]
  items = ''.join(f'<li>{parts.swatch(color)}{escape(name)}</li>' for name, color in key)
  legend = f'<ul class="legend key">{items}</ul>' if images.measure == 'IoU' else ''
  if len(images.scores) == len(images.worst) + len(images.best):
    every = (*images.worst, *reversed(images.best))
    return parts.section('Images, worst first', note, legend, _gallery(every, images.measure))
  return parts.section(
    'Worst images', note, legend, _gallery(images.worst, images.measure)
  ) + parts.section('Best images', _gallery(images.best, images.measure))


def _gallery(found: tuple[Scored, ...], measure: str) -> str:
  shots = (_shot(scored, measure) for scored in found)
  return f'<div class="pictures">{"".join(shots)}</div>'


def _shot(scored: Scored, measure: str) -> str:
  name, (width, height) = escape(scored.name), scored.size
  kind = ' class="px"' if max(width, height) <= 160 else ''
  shown = ''.join(
    f'<div><img{kind} src="{data}" alt="{title} of {name}" width="{width}" height="{height}">'
    f'<span>{title}</span></div>'
    for title, data in scored.pictures.items()
  )
  title = f'<div class="title"><span title="{name}">{name}</span><b>{measure} {scored.score:.3f}</b></div>'
  return parts.card(title, f'<div class="four">{shown}</div>', kind='shot')


def making(run: Run) -> list[str]:
  """Command, environment, revision and config."""
  told = run.run
  versions = told.get('versions', {})
  environment = parts.definitions(
    [
      ('started', told.get('started')),
      ('starts', len(told['sessions']) if len(told.get('sessions', [])) > 1 else None),
      ('devices', told.get('hardware')),
      ('system', told.get('system')),
      ('versions', ', '.join(f'{k} {v}' for k, v in versions.items())),
      ('git revision', revision(run)),
      ('folder', run.path),
    ]
  )
  return [
    '<div class="stack">',
    parts.card('<figcaption>Command</figcaption>', command(run)),
    parts.card('<figcaption>Environment</figcaption>', environment),
    parts.card('<figcaption>Config</figcaption>', config_table(run)),
    '</div>',
  ]


def command(run: Run) -> str:
  """The command that made the run, a flag a line."""
  text = run.run.get('command')
  if not text:
    return '<p class="soft">not recorded</p>'
  return f'<pre>{escape(text.replace(" --", _BREAK))}</pre>'


def revision(run: Run) -> str:
  git = run.run.get('git') or ''
  return f'{git[:-1]}, with uncommitted changes' if git.endswith('+') else git


def config_table(run: Run) -> str:
  """What the config says other than the defaults, and all of it folded away."""
  rows = [
    (escape(key), f'<td class="text"><code>{escape(parts.plain(value))}</code></td>')
    for key, value in changed(run.config.to_dict(), configs.base().to_dict()).items()
  ]
  return (
    '<p class="soft small">Keys that differ from the defaults.</p>'
    f'{parts.table(("", ""), rows)}<details><summary>All keys</summary>'
    f'<pre>{escape(configs.to_json(run.config))}</pre></details>'
  )


def changed(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
  """Returns the entries that differ; lists and tuples are the same."""

  def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

  return {k: v for k, v in config.items() if k not in base or listed(v) != listed(base[k])}


def footer(run: Run) -> str:
  return (
    '<footer>Written by jaxseg. This page is one file: it loads nothing, runs no script, and its '
    'content security policy forbids both.</footer>'
  )
