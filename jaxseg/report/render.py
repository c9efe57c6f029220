"""Renders pages from templates; jinja2 escapes all values, pictures are data URIs.

Every page's content security policy allows only its data URIs and the one style sheet with the given
hash, and no scripts.
"""

import base64
import fnmatch
import functools
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from markupsafe import Markup

from jaxseg.console import duration
from jaxseg.draw import plots
from jaxseg.metrics.score import numbers

_UPPER = re.compile(r'\b(ap\d*|f1|seg|dice|ece|nll|aurc)\b')
_ERRORS = (
  'error',
  'disagreement',
  'ece',
  'nll',
  'aurc',
)  # ends of names of scores that count what is wrong


def render(template: str, **values: Any) -> str:
  """Returns a page.

  Args:
    template: a file of templates/.
    **values: of the template's variables.
  """
  templates = _templates()
  sheet = Markup(templates.loader.get_source(templates, 'style.css')[0])
  digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
  return templates.get_template(template).render(sheet=sheet, digest=digest, **values)


@functools.cache
def _templates() -> Any:
  import jinja2

  templates = jinja2.Environment(
    loader=jinja2.PackageLoader('jaxseg.report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  for function in (title, score, number, cell, numbers, described, plain, duration):
    templates.filters[function.__name__] = function
  templates.tests['lower_is_better'] = lower_is_better
  return templates


def title(name: str) -> str:
  """Formats the name of a score: 'mean_iou' as 'mean IoU', 'mask_ap50' as 'mask AP50'."""
  words = _UPPER.sub(lambda word: word[0].upper(), name.replace('_', ' '))
  return re.sub(r'\biou\b', 'IoU', words)


def number(value: float | None, digits: int = 4) -> str:
  """Formats a number, None and nan as '–'."""
  return '–' if value is None or math.isnan(value) else f'{value:.{digits}f}'


def score(value: float | None) -> str:
  """Formats a score with four decimals, a small error with three significant digits."""
  return f'{value:.3g}' if value is not None and 0 < abs(value) < 0.01 else number(value)


def cell(value: float | None) -> str:
  """Formats a number of a breakdown, counts without decimals."""
  return f'{value:,}' if isinstance(value, int) else number(value, 3)


def described(result: Mapping[str, Any]) -> str:
  """Describes an evaluation's images and mode."""
  counted = f'{result["images"]:,} images' if 'images' in result else ''
  return ', '.join(filter(None, (result['split'], counted, result.get('mode'))))


def plain(value: Any) -> str:
  """Formats a config's value as on the command line."""
  if isinstance(value, float):
    return f'{value:g}'
  if isinstance(value, (tuple, list)):
    return f'({", ".join(map(plain, value))})'
  if isinstance(value, Mapping):
    return ', '.join(f'{k}={plain(v)}' for k, v in value.items())
  return repr(value) if value == '' else str(value)


def lower_is_better(name: str) -> bool:
  """Whether a score is an error."""
  return name.endswith(_ERRORS)


def score_names(first: Iterable[str], results: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns the names of all scores in results, `first` (the headlines) at the front."""
  return list(dict.fromkeys((*first, *(name for result in results for name in numbers(result)))))


def data_uri(data: bytes, kind: str) -> str:
  """Returns an image file's bytes as a data URI; `kind` is, for example, 'png' or 'svg+xml'."""
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def plot(draw: Callable, *arguments: Any, **options: Any) -> str:
  """Calls a function of jaxseg.draw.plots, and returns the plot as the data URI of an SVG."""
  file = io.BytesIO()
  draw(file, *arguments, svg=True, **options)
  return data_uri(file.getvalue(), 'svg+xml')


def curves(
  runs: Mapping[str, list[dict[str, float]]],
  charts: Mapping[str, str],
  marked: tuple[str, float] | None = None,
) -> dict[str, str]:
  """Plots values of metrics.jsonl against the step, a line for each value and run.

  Args:
    runs: name -> records.
    charts: title -> pattern of its values' names, such as 'train/loss*'.
    marked: (name, step) of a point to circle.

  Returns:
    title -> data URI, without empty charts.
  """
  drawn = {}
  for heading, pattern in charts.items():
    records = [
      {'step': record['step'], **{f'{run}{key}': record[key] for key in chosen}}
      for run, lines in ((f'{name}: ' if len(runs) > 1 else '', r) for name, r in runs.items())
      for record in lines
      if (chosen := fnmatch.filter(record, pattern))
    ]
    if records:
      drawn[heading] = plot(plots.save_curves, records, marked=marked)
  return drawn
