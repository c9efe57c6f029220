"""Loads named tensors into a network's variables, and raises an error for any that does not match.

Names that silently do not match are the classic way to "start from pretrained weights" that were never
loaded, so whatever is missing, left over or of another shape must be allowed explicitly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from jaxseg.pretrained.names import Converted, convert
from jaxseg.pretrained.readers import read
from jaxseg.types import Array, UserError

_SHOWN = 6  # names in an error message; the report has all of them
_Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class LoadReport:
  """The outcome for every name; shapes by full name such as 'params/conv1_1/kernel'.

  Attributes:
    matched: loaded.
    new: in the network, and keep their initial values, as allowed.
    unused: only in the tensors (or in `new` as well), as allowed.
    missing: only in the network: a surprise.
    unexpected: only in the tensors: a surprise.
    mismatched: name -> (shape in the network, shape of the tensor): a surprise.
    source: naming of the weights, if a file was read.
    needs: values of Model's fields that the source's network requires, see sources.Naming.
  """

  matched: _Shapes = dataclasses.field(default_factory=dict)
  new: _Shapes = dataclasses.field(default_factory=dict)
  unused: _Shapes = dataclasses.field(default_factory=dict)
  missing: _Shapes = dataclasses.field(default_factory=dict)
  unexpected: _Shapes = dataclasses.field(default_factory=dict)
  mismatched: dict[str, tuple] = dataclasses.field(default_factory=dict)
  source: str = ''
  needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def num_problems(self) -> int:
    return len(self.missing) + len(self.unexpected) + len(self.mismatched)

  def __str__(self) -> str:
    """A line of counts, then every name that was not simply loaded, with its shape."""
    names = ('matched', 'new', 'unused', 'missing', 'unexpected', 'mismatched')
    groups = {name: getattr(self, name) for name in names}
    counts = ', '.join(f'{len(group)} {name}' for name, group in groups.items())
    lines = [f'{self.source or "weights"}: {counts}']
    if self.needs:
      lines.append(f'  of a network with {", ".join(f"{k}={v!r}" for k, v in self.needs.items())}')
    for name in names[1:]:
      lines += [f'  {name} {_described(*item)}' for item in sorted(groups[name].items())]
    return '\n'.join(lines)


def load_into(
  variables: Mapping[str, Any],
  tensors: Mapping[str, Array],
  *,
  allow_new: Sequence[str] = (),
  allow_unused: Sequence[str] = (),
) -> tuple[dict[str, Any], LoadReport]:
  """Returns the variables with their values replaced by the tensors of the same name.

  A pattern is a regular expression that must match a whole name or whole leading parts of it, with or
  without the collection: 'score_.*', 'fc8', 'fc8/bias' and 'params/fc8/kernel'.

  Args:
    variables: nested dict {'params': ..., 'batch_stats': ...} of arrays (or of ShapeDtypeStructs,
      if nothing is new).
    tensors: full name 'params/conv1_1/kernel' -> array of the same shape, cast to the variable's dtype.
    allow_new: patterns of names that keep their initial values, even if there is a tensor for them.
    allow_unused: patterns of tensors that the network may lack.

  Returns:
    variables: the same nesting, numpy arrays where loaded, otherwise the values passed in.
    report: see LoadReport; without surprises.

  Raises:
    UserError: a name is missing, unexpected or of another shape without being allowed; a tensor has
      non-finite values; a pattern of allow_new matches nothing.
  """
  old = flatten(variables)
  _check_patterns(allow_new, old)
  report = LoadReport()
  for name, value in old.items():
    shape = tuple(value.shape)
    if matches(name, allow_new):
      report.new[name] = shape
    elif name not in tensors:
      report.missing[name] = shape
    elif (given := tuple(tensors[name].shape)) != shape:
      report.mismatched[name] = shape, given
    else:
      report.matched[name] = shape
  for name, value in tensors.items():
    if name not in old or name in report.new:
      expected = name in report.new or matches(name, allow_unused)
      (report.unused if expected else report.unexpected)[name] = tuple(value.shape)
  if report.num_problems:
    raise UserError(_complaint(report, allow_new, allow_unused))
  loaded = {name: _cast(name, tensors[name], old[name].dtype) for name in report.matched}
  return traverse_util.unflatten_dict(old | loaded, sep='/'), report


def open_weights(path: str | Path, variables: Mapping[str, Any]) -> Converted:
  """Reads a weight file and translates its names, a backbone's to the scope of the network's backbone.

  Raises:
    UserError: as read and convert.
  """
  with _named(path):
    converted = convert(read(path))
  inside = converted.is_backbone and 'backbone' in variables.get('params', {})
  return converted.in_scope('backbone') if inside else converted


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
  """Adds the file's name to errors."""
  try:
    yield
  except UserError as error:
    message = str(error)
    raise UserError(message if str(path) in message else f'{path}: {message}') from None


def flatten(variables: Mapping[str, Any]) -> dict[str, Array]:
  """Returns nested variables, such as a checkpoint's, as 'params/conv1_1/kernel' -> array."""
  return traverse_util.flatten_dict(_as_dicts(variables), sep='/')


def _as_dicts(tree):
  return {k: _as_dicts(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree


def matches(name: str, patterns: Sequence[str]) -> bool:
  """Whether a full name 'params/conv1_1/kernel' matches one of load_into's patterns."""
  parts = name.split('/')
  leads = {'/'.join(parts[first:last]) for first in (0, 1) for last in range(2, len(parts) + 1)}
  return any(re.fullmatch(pattern, lead) for pattern in patterns for lead in leads)


def _check_patterns(patterns: Sequence[str], names: Mapping[str, Any]) -> None:
  if isinstance(patterns, str):
    raise UserError(f'the names expected to be new are one string {patterns!r}: give a tuple')
  for pattern in patterns:
    try:
      idle = not any(matches(name, (pattern,)) for name in names)
    except re.error as error:
      raise UserError(f'{pattern!r} is no regular expression: {error}') from None
    if idle:
      layers = sorted({name.split('/')[1] for name in names if '/' in name})
      raise UserError(
        f'{pattern!r} is expected to be new, but the network has no such name; its layers are '
        f'{", ".join(layers)}'
      )


def _cast(name: str, values: Array, dtype) -> np.ndarray:
  with np.errstate(over='ignore'):  # overflow is refused below
    values = np.asarray(values).astype(dtype, order='C')
  if not np.isfinite(values).all():
    raise UserError(f'{name} holds values that are not finite: the file is damaged')
  return values


def _described(name, value) -> str:
  if value and isinstance(value[0], tuple):
    return f'{name} {value[1]} where the network has {value[0]}'
  return f'{name} {value}'


def _complaint(report: LoadReport, allow_new: Sequence[str], allow_unused: Sequence[str]) -> str:
  parts = []
  for title, group in (
    ('missing in the weights', report.missing),
    ('unknown to the network', report.unexpected),
    ('of another shape', report.mismatched),
  ):
    if group:
      names = [_described(*item) for item in sorted(group.items())]
      more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
      parts.append(f'{len(names)} {title}: {", ".join(names[:_SHOWN])}{more}')
  new = _flag('init.new', allow_new, {**report.missing, **report.mismatched})
  unused = _flag('init.unused', allow_unused, report.unexpected)
  both = ' '.join(filter(None, (new, unused)))
  return (
    f'the weights do not fit ({len(report.matched)} names match). {"; ".join(parts)}: add '
    f'{both}, which lists what shall start anew (new) and what is to be ignored (unused)'
  )


def _flag(key: str, before: Sequence[str], names: Iterable[str]) -> str:
  """Returns the flag that also allows the layers of these names; '' if there are none."""
  layers = dict.fromkeys('/'.join(name.split('/')[1:-1]) or name for name in sorted(names))
  if not layers:
    return ''
  if len(layers) > _SHOWN:
    return f'--config.{key}=PATTERNS'
  return shlex.quote(f'--config.{key}={",".join([*before, *layers])}')
