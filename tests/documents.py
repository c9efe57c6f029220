"""Tables that tests write into docs/reliability.md, where an environment variable asks for that."""

from __future__ import annotations

import os
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / 'docs' / 'reliability.md'


def marks(name: str) -> tuple[str, str]:
  return f'<!-- {name}: begin -->', f'<!-- {name}: end -->'


def section(name: str, path: Path = DOCUMENT) -> str:
  """Returns what stands between a table's marks, '' where it has none."""
  begin, end = marks(name)
  text = path.read_text(encoding='utf-8') if path.is_file() else ''
  return text.partition(begin)[2].partition(end)[0]


def renew(variable: str, title: str, name: str, table: str) -> None:
  """Puts a table between its marks in the file that an environment variable names, if it does.

  Args:
    variable: of the environment, for example 'BAD_INPUT_TABLE'.
    title: of the section, which is added where the marks are not there yet.
    name: of the table, in its marks.
    table: Markdown, without the marks.
  """
  if not os.environ.get(variable):
    return
  path = Path(os.environ[variable])
  begin, end = marks(name)
  text = path.read_text(encoding='utf-8') if path.is_file() else '# Reliability\n'
  if begin not in text:
    text += f'\n## {title}\n\n{begin}{end}\n'
  head, _, rest = text.partition(begin)
  path.write_text(f'{head}{begin}\n{table}\n{end}{rest.partition(end)[2]}', encoding='utf-8')
