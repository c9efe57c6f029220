"""The pieces that pages are put together from: text in, HTML out, everything escaped here.

The policy of every page lets it load nothing but its own data URIs, run nothing, and take its style
from the one sheet whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from jaxseg.report.style import style

SCORE_NAMES = {
  'mean_iou': 'mean IoU',
  'pixel_accuracy': 'pixel accuracy',
  'mean_accuracy': 'mean accuracy',
  'frequency_weighted_iou': 'freq. weighted IoU',
}
AP_NAMES = {  # of instances
  'mask_ap': 'mask AP',
  'mask_ap50': 'mask AP50',
  'mask_ap75': 'mask AP75',
  'mask_ap_small': 'mask AP, small',
  'mask_ap_medium': 'mask AP, medium',
  'mask_ap_large': 'mask AP, large',
  'box_ap': 'box AP',
  'box_ap50': 'box AP50',
  'box_ap75': 'box AP75',
}
MORE_NAMES = {  # single numbers that some evaluations have
  **AP_NAMES,
  'dice': 'DICE',
  'seg': 'SEG',
  'boundary_f1': 'boundary F1',
  'f_score': 'mean F-score',
}


def document(title: str, body: Iterable[str]) -> str:
  """Returns a whole page."""
  sheet = style()
  digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
  policy = (
    f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
    "form-action 'none'"
  )
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
    f'<title>{escape(title)}</title>\n<style>{sheet}</style>\n</head>\n<body>\n<main>\n'
    + '\n'.join(filter(None, body))
    + '\n</main>\n</body>\n</html>\n'
  )


def section(title: str, *parts: str) -> str:
  """A heading over parts; '' where all of them are."""
  inside = '\n'.join(filter(None, parts))
  return f'<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>' if inside else ''


def card(*parts: str, kind: str = '') -> str:
  return f'<div class="card {kind}">{"".join(parts)}</div>'


def scrolled(inside: str) -> str:
  """Lets a wide table scroll within its card, so that the page never does."""
  return f'<div class="scroll">{inside}</div>'


def tile(name: str, value: str, note: str = '') -> str:
  """A number with its name; `note` is HTML."""
  note = f'<div class="note">{note}</div>' if note else ''
  return (
    f'<div class="card tile"><div class="name">{escape(name)}</div>'
    f'<div class="value">{escape(value)}</div>{note}</div>'
  )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = 'wide') -> str:
  """A table whose first column is row headings. Cells are HTML, `head` is text."""
  top = ''.join(f'<th scope="col">{escape(h)}</th>' for h in head)
  lines = []
  for first, *rest in rows:
    cells = ''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in rest)
    lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
  head_row = f'<thead><tr>{top}</tr></thead>' if any(head) else ''
  return f'<table class="{kind}">{head_row}<tbody>{"".join(lines)}</tbody></table>'


def definitions(pairs: Iterable[tuple[str, Any]]) -> str:
  """A list of terms with values; empty values are left out."""
  items = ''.join(
    f'<dt>{escape(term)}</dt><dd>{escape(str(value))}</dd>'
    for term, value in pairs
    if value not in (None, '')
  )
  return f'<dl>{items}</dl>' if items else ''


def bar(share: float | None) -> str:
  """A cell with a bar from 0 to 1; None is an empty one."""
  width = 100 * min(max(share or 0.0, 0.0), 1.0)
  return (
    '<td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
    f'<rect width="{width:.1f}" height="10"/></svg></td>'
  )


def swatch(color: Sequence[int]) -> str:
  red, green, blue = color
  return (
    f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" '
    f'fill="rgb({red},{green},{blue})"/></svg>'
  )


def named(name: str, color: Sequence[int]) -> str:
  """A class: its colour and its name on one line."""
  return f'<span class="named">{swatch(color)}<span>{escape(name)}</span></span>'


def number(value: float | None, digits: int = 4) -> str:
  """Writes a score; '–' where there is none."""
  return '–' if value is None or math.isnan(value) else f'{value:.{digits}f}'


def score(value: float | None) -> str:
  """Writes a score with four digits, also where it is a small error."""
  small = value is not None and 0 < abs(value) < 0.01
  return f'{value:.3g}' if small else number(value)


def main_names(score: str) -> dict[str, str]:
  """Returns the scores, by key, that belong beside the one that says how good a run is."""
  return AP_NAMES if score in AP_NAMES else SCORE_NAMES


def score_name(key: str) -> str:
  """Writes the name of a score for people."""
  return {**SCORE_NAMES, **MORE_NAMES}.get(key) or key.replace('_', ' ')


def plain(value: Any) -> str:
  """Writes a config's value as one would type it."""
  if isinstance(value, float):
    return f'{value:g}'
  if isinstance(value, (tuple, list)):
    return '(' + ', '.join(plain(v) for v in value) + ')'
  if isinstance(value, dict):
    return ', '.join(f'{k}={plain(v)}' for k, v in value.items())
  return repr(value) if value == '' else str(value)
