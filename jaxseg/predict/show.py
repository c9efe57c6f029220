"""Prints an evaluation as tables."""

from __future__ import annotations

from typing import Any

from jaxseg.console import Table, say
from jaxseg.metrics import score as scores

_WIDTH = 80


def print_scores(result: dict[str, Any], paper: dict[str, Any] | None) -> None:
  """Prints all scores beside the paper's, the per-class table, and breakdowns."""
  numbers, published = scores.numbers(result), scores.published(paper)
  published = {name: value for name, value in published.items() if name in numbers}
  title = f'{result["split"]}: {result["images"]} images, step {result["step"]}'
  say(', '.join(filter(None, (title, result['mode']))))
  table = Table()
  table.add_column('')
  table.add_column('ours', justify='right')
  if published:
    other = paper.get('split', result['split'])
    table.add_column('paper' + f', {other}' * (other != result['split']), justify='right')
  for name, value in numbers.items():
    beside = [_text(published.get(name))] if published else []
    table.add_row(name.replace('_', ' '), _text(value), *beside)
  say(table, width=_WIDTH)
  if published:
    say(f'paper: {paper["source"]}')
  columns = scores.columns(result)
  if columns:
    classes = next(iter(columns.values()))  # the first has all classes; AP has no background
    by_class = {k: {name: column.get(k) for name, column in columns.items()} for k in classes}
    say(_table('class', by_class), width=_WIDTH)
  for title, rows in scores.breakdowns(result).items():
    table = _table(title, rows)
    say(table, width=max(_WIDTH, 12 * len(table.columns)))


def _table(title: str, rows: dict[str, dict[str, float | None]]) -> Table:
  names = dict.fromkeys(name for row in rows.values() for name in row)
  table = Table(title, *(name.replace('_', ' ') for name in names))
  for row, values in rows.items():
    table.add_row(row, *(_text(values.get(name)) for name in names))
  return table


def _text(value: float | None) -> str:
  return '-' if value is None else f'{value:,}' if isinstance(value, int) else f'{value:.4f}'
