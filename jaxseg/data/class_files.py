"""Reads lists of classes as tools write them: names, colours and mask ids.

    name                 one per line, the first is mask id 0 (also labelme's, with __ignore__ first)
    name r g b           also name,r,g,b (with a header: any order of columns), r g b name, name:r,g,b::
                         (CVAT's labelmap), name #rrggbb
    id,name              also id name, id: name, id. name, id | name; Roboflow's `Pixel Value, Class`
    id name r g b        also id r g b name, name id r g b
                         (with one more number, the fourth of a colour is its opacity)
    JSON, YAML           names; objects with name, color and id; {name: colour}, {name: id}, {id: name}

Blank lines, comments after # or // and a first line 'name' or 'class' are skipped. Numbers that could be
ids or parts of names are rejected, and so are duplicates.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.data import raw_files
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

Color = tuple[int, int, int]

_COLUMNS = {
  'name': ('name', 'class', 'label', 'class_name', 'classname', 'category', 'title', 'readable'),
  'color': ('color', 'colour', 'rgb', 'hex', 'color_rgb'),
  'id': ('id', 'index', 'value', 'pixel value', 'pixel_value', 'class_id', 'label_id', 'idx'),
  'r': ('r', 'red'),
  'g': ('g', 'green'),
  'b': ('b', 'blue'),
}
_HEADERS = (
  *(*_COLUMNS['name'], 'names', 'classes', 'labels', 'categories'),
  *('klasse', 'klassen', 'classe', 'clase', 'nom', 'nombre', 'nome', '类别', '名称'),
)
_YAML = re.compile(r'(names|classes|labels|categories|class_names)\s*:.*')
_HOLDERS = ('classes', 'labels', 'names', 'categories', 'class_names', 'id2label')
_RGB = r'[(\[]?\s*(\d+)\s*[\s,;]\s*(\d+)\s*[\s,;]\s*(\d+)\s*[)\]]?'
_OPAQUE = (  # a colour's fourth number, the opacity, if every line has one
  re.compile(r'(\D*(?:\d+[\s,;]+){3})255\b(\D*)'),
  re.compile(r'(\d+[\s,:;=]+[^\W\d]\D*(?:\d+[\s,;]+){3})(?:0|255)\b(\W*)'),
)
_REMARK = re.compile(r'\s+(?:#|//)\s.*$')
_ID = r'(?P<id>\d+)[\s,:;=]+'
_NUMBER = re.compile(r'(?<!\w)\d+(?!\w)')
_NUMBERED = (  # names with a possible id
  re.compile(r'(?P<id>\d+)(?:[\s):|=]|\.(?!\d)|\s+-\s)\s*(?P<rest>.*)'),
  re.compile(r'(?P<rest>.*?)[\s,;:=]\s*(?P<id>\d+)'),
)
_LINES = (  # the first that matches counts; groups are name, color, id
  re.compile(r'(?P<name>[^:]+):(?P<color>\d+,\d+,\d+)?:[^:]*:[^:]*'),
  re.compile(rf'{_ID}(?P<name>\D.*?)[\s,:;=]+(?P<color>{_RGB})'),
  re.compile(rf'{_ID}(?P<color>{_RGB})(?:[\s,;]+\d+(?:\.\d+)?)*[\s,:;=]+(?P<name>\D.*)'),
  re.compile(rf'(?P<name>\D*[^\d\s,:;=])[\s,:;=]+{_ID}(?P<color>{_RGB})'),
  re.compile(rf'(?P<name>.+?)[\s,:;=]+(?P<color>{_RGB})'),
  re.compile(r'(?P<name>.+?)[\s,:;=]+(?P<color>#[0-9a-fA-F]{6})'),
  re.compile(rf'(?P<color>{_RGB})[\s,:;=]+(?P<name>\D.*)'),
  re.compile(
    r'(?P<id>-?\d+)(?:\s*(?:[,:;=.)|]|[-=]>)\s*|\s+(?:-\s+)?)(?P<name>[^\d\s>=|-](?!.*[,;\t:=]\s*\d+$).*)'
  ),
  re.compile(r'(?P<name>[^,:;=\t]+)[,:;=\t]\s*(?P<id>\d+)'),
  re.compile(r'(?P<name>[^,;\t|]+)'),
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A listed class; `color` and `id` (of a mask's pixels) are None if not given."""

  name: str
  color: Color | None = None
  id: int | None = None


def read(path: Path) -> list[Entry]:
  """Reads a list of classes.

  Raises:
    UserError: a line or JSON entry of none of the forms above, which it names.
  """
  text = raw_files.read_text(path).strip()
  if text[:1] in ('{', '['):
    return _of_json(_parsed(text, path), str(path))
  lines = [(n, line.strip()) for n, line in enumerate(re.split('\r\n?|\n', text), start=1)]
  lines = [(n, _REMARK.sub('', line)) for n, line in lines]
  if remarks := [line for _, line in lines if re.match(r'#\w', line)]:
    warn_once([f'{path}: lines that begin with # are no classes: {abbreviate(remarks, 3)}'])
  lines = [
    (n, line.rstrip(' ,;')) for n, line in lines if line and not line.startswith(('#', '//'))
  ]
  for opaque in _OPAQUE:
    if all(opaque.fullmatch(line) for _, line in lines):
      lines = [(n, opaque.sub(r'\1\2', line).rstrip(' ,;')) for n, line in lines]
  if lines and (lines[0][1].startswith('- ') or _YAML.fullmatch(lines[0][1])):
    return _of_json(raw_files.read_yaml(path), str(path))
  if lines and (table := _of_table(lines, path)):
    return table
  if lines and set(re.split(r'[\s_]+', lines[0][1].lower().rstrip(' :'))) <= {*_HEADERS}:
    lines = lines[1:]
  entries = [_of_line(line, f'{path}, line {n}') for n, line in lines]
  numbered = [entry.id is not None for entry in entries]
  same = len({entry.name for entry in entries}) < len(entries) and entries[0].color
  if any(numbered) and (same or not all(numbered)):  # names that begin or end with a number
    entries = [
      _of_line(line, '', numbers=False) if has_id else entry
      for (_, line), entry, has_id in zip(lines, entries, numbered, strict=True)
    ]
  if not same and not all(numbered):
    _check_order([entry.name for entry in entries], path)
  if all(numbered) and entries and not same:
    _check_fourth(entries, path)
  return entries


def _parsed(text: str, path: Path) -> Any:
  """Parses JSON. Raises UserError if it is invalid."""
  try:
    return files.parsed(text)
  except ValueError as error:
    raise UserError(f'{path} is no JSON ({error}): restore it, or write one class a line') from None


def _check_order(names: Sequence[str], path: Path) -> None:
  """Rejects names with numbers that may be ids: distinct ones that do not increase from line to line.

  Numbers before or after names that differ without them may be ids, unless they are 0, 1, 2 ...
  """
  numbers = [int(found[0]) for name in names if (found := _NUMBER.search(name))]
  rising = all(a < b for a, b in itertools.pairwise(numbers))
  wrong = len(numbers) == len(names) == len({*numbers}) and not rising
  for form in _NUMBERED:
    found = [match for name in names if (match := form.fullmatch(name))]
    differ = len(found) == len(names) == len({match['rest'] for match in found})
    wrong |= differ and [int(match['id']) for match in found] != [*range(len(names))]
  if wrong:
    raise UserError(
      f"{path}: are the numbers in names such as {names[0]!r} ids? Begin with a line 'id,name', and write "
      'the id of each class, a comma and its name below'
    )


def _check_fourth(entries: Sequence[Entry], path: Path) -> None:
  """Rejects lines of four numbers whose last, and not first, looks like the id."""
  if not all(entry.color for entry in entries):
    return
  lasts, first = {entry.color[2] for entry in entries}, max(entry.id for entry in entries)
  if len(lasts) == len(entries) and max(lasts) < first:
    raise UserError(
      f"{path}: which number of {entries[0].name!r} is its id? Begin with a line 'id,name,r,g,b', and write "
      'these of each class below'
    )


def _of_line(line: str, where: str, *, numbers: bool = True) -> Entry:
  """Returns a line's entry; without `numbers` no part of it is an id."""
  forms = (form for form in _LINES if numbers or 'id' not in form.groupindex)
  found = next((m for form in forms if (m := form.fullmatch(line))), None)
  if not found and not numbers:
    return Entry(line)
  if not found:
    raise UserError(
      f'{where}: got {line!r}; a line is name, name r g b, name,r,g,b, name:r,g,b:: or id,name'
    )
  parts = {'color': None, 'id': None} | found.groupdict()
  color = _color(parts['color'], where)
  return Entry(
    parts['name'].strip().strip('"\''), color, None if parts['id'] is None else int(parts['id'])
  )


def _of_table(lines: Sequence[tuple[int, str]], path: Path) -> list[Entry] | None:
  """Returns the entries of a table whose first line names the columns, None if it does not."""
  separator = max(',;\t', key=lines[0][1].count)
  blank = separator not in lines[0][1]
  rows = [
    line.split() if blank else raw_files.cells_of([line], separator, path)[0] for _, line in lines
  ]
  header = [cell.lower() for cell in rows[0]]
  places = {k: next((header.index(n) for n in v if n in header), None) for k, v in _COLUMNS.items()}
  if len(header) < 2 or places['name'] is None or sum(p is not None for p in places.values()) < 2:
    return None
  used = [header[place] for place in places.values() if place is not None]
  if twice := next((name for name in used if header.count(name) > 1), None):
    raise UserError(f'{path} has the column {twice!r} twice: keep one')
  for (number, line), row in zip(lines[1:], rows[1:], strict=True):
    if len(row) > len(header):
      raise UserError(f'{path}, line {number}: {line!r} has more cells than the first line')
    _one_id(dict(zip(header, row, strict=False)), f'{path}, line {number}')
  return [
    _of_cells({k: row[p] for k, p in places.items() if p is not None and p < len(row)}, where)
    for row, where in zip(rows[1:], (f'{path}, line {n}' for n, _ in lines[1:]), strict=True)
  ]


def _one_id(row: Mapping[str, Any], where: str) -> None:
  """Rejects a row with several id columns that differ."""
  ids = {name: row[name] for name in _COLUMNS['id'] if name in row}
  if len({*map(str, ids.values())}) > 1:
    raise UserError(f'{where}: {", ".join(ids)} number the class differently: keep one of them')


def _of_cells(cells: Mapping[str, Any], where: str) -> Entry:
  """Returns the entry of a table's row or of a JSON object, by the keys of _COLUMNS."""
  color = cells.get('color')
  if 'r' in cells:
    color = [cells.get(channel) for channel in 'rgb']
  number = cells.get('id')
  if not isinstance(cells.get('name'), str) or not cells['name']:
    raise UserError(f'{where}: a class has no name')
  if number is not None and not re.fullmatch(r'-?\d+', str(number)):
    raise UserError(f'{where}: id {number!r} of {cells["name"]} is no whole number')
  return Entry(cells['name'], _color(color, where), None if number is None else int(number))


def _color(value: Any, where: str) -> Color | None:
  """Reads 'r,g,b', '#rrggbb' or three numbers of 0..255."""
  if value is None or value == '':
    return None
  text = str(value).strip()
  if re.fullmatch('#[0-9a-fA-F]{6}', text):
    return tuple(bytes.fromhex(text[1:]))
  numbers = [int(n) for n in re.findall(r'\d+', text)]
  if len(numbers) != 3 or re.search(r'[-.]', text):
    raise UserError(f'{where}: {text!r} is no colour: give r,g,b of 0..255 or #rrggbb')
  if max(numbers) > 255:
    raise UserError(f'{where}: colour {tuple(numbers)} is outside of 0..255')
  return tuple(numbers)


def _of_json(value: Any, where: str) -> list[Entry]:
  if isinstance(value, Mapping):
    keys = {'names': 'name', 'palette': 'color', 'ids': 'id'}
    lists = {cell: value[k] for k, cell in keys.items() if value.get(k) and type(value[k]) is list}
    if 'name' in lists and len(lists) > 1:  # such as a run's own classes.json
      if len({*map(len, lists.values())}) > 1:
        raise UserError(f'{where}: names, palette and ids must be of one length')
      rows = zip(*lists.values(), strict=True)
      return [_of_cells(dict(zip(lists, c, strict=True)), where) for c in rows]
    holder = next((value[k] for k in _HOLDERS if isinstance(value.get(k), (list, Mapping))), None)
    if holder is not None:
      return _of_json(holder, where)
    return [_of_item(str(key), item, where) for key, item in value.items()]
  if not isinstance(value, list):
    raise UserError(f'{where}: {str(value)[:40]!r} is no list of classes')
  return [_of_item(None, item, where) for item in value]


def _of_item(key: str | None, item: Any, where: str) -> Entry:
  """Returns the entry of {key: item}, or of an item of a list."""
  if isinstance(item, Mapping):
    _one_id(item, where)
    cells = {k: item[n] for k, names in _COLUMNS.items() for n in names[::-1] if n in item}
    if item and not cells:
      raise UserError(f'{where}: {str(item)[:40]!r} has no name, colour or id of a class')
    item_of_key = {} if key is None else {'id' if key.isdigit() else 'name': key}
    return _of_cells(item_of_key | cells, where)
  if key is None:
    return _of_cells({'name': item}, where)
  if key.isdigit() and isinstance(item, str):
    return _of_cells({'id': key, 'name': item}, where)
  if isinstance(item, int) and not isinstance(item, bool):
    return _of_cells({'name': key, 'id': item}, where)
  return _of_cells({'name': key, 'color': item}, where)
