"""Parts that a config names: finds them by module name and checks keyword arguments by their signatures.

The signature of a function or dataclass is the only place for an option's default and type;
`typing.Literal` lists its choices. Dataclass fields also have their ranges (fields.py).
"""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Literal

from jaxseg.config.fields import check_value
from jaxseg.types import UserError

_FLAX = ('self', 'parent', 'num_classes', 'norm', 'dtype')  # set by the code that builds the part


def did_you_mean(name: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f'; did you mean {close[0]!r}?' if close else ''


def names(package: str) -> list[str]:
  """Returns the names of the parts in jaxseg/<package>/: its public modules."""
  path = importlib.import_module(f'jaxseg.{package}').__path__
  return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith('_'))


def load(package: str, name: str, kind: str = '') -> types.ModuleType:
  """Returns the module jaxseg.<package>.<name>, or the user's own if the name has a dot.

  Args:
    package: such as 'models'.
    name: of its module, or a dotted import path.
    kind: what to call the part in a message; default: the package's name in the singular.

  Raises:
    UserError: no such module; the message lists them all.
  """
  kind = kind or package.removesuffix('s')
  if not isinstance(name, str):
    raise UserError(f'{kind} {name!r}: give the name of one')
  if '.' in name:
    return imported(name, kind)
  known = names(package)
  if name not in known:
    raise UserError(
      f'no {kind} {name!r}: choose one of {", ".join(known)}{did_you_mean(name, known)}'
    )
  return importlib.import_module(f'jaxseg.{package}.{name}')


def own_class(name: str, kind: str) -> type:
  """Returns a user's class with callable instances by its dotted path.

  Raises:
    UserError: there is none, or its module is not allowed; see `imported`.
  """
  return _own(name, kind, lambda found: isinstance(found, type) and _is_called(found), 'class')


def own_function(name: str, kind: str) -> Callable:
  """Returns a user's function by its dotted path; raises as `own_class`."""
  return _own(name, kind, inspect.isfunction, 'function')


def _own(name: str, kind: str, fits: Callable[[Any], bool], what: str) -> Any:
  module, _, own = name.rpartition('.')
  found = getattr(imported(module, kind, name), own, None)
  package = getattr(found, '__module__', '').split('.')[0]
  if package != module.split('.')[0] or not fits(found):
    raise UserError(f'{kind} {name!r}: {module} has no {what} of this name of its own')
  return found


def _is_called(cls: type) -> bool:
  return any('__call__' in vars(base) for base in cls.__mro__)


def imported(name: str, kind: str, shown: str = '') -> types.ModuleType:
  """Imports a user's module; since that runs it and configs may be untrusted, some are refused.

  Args:
    name: dotted.
    kind: what to call it in a message.
    shown: its name in the message, if different.

  Raises:
    UserError: there is none, or it is private or part of Python.
  """
  top, *rest = name.split('.')
  try:
    if not all(part.isidentifier() for part in (top, *rest)):
      raise ImportError('it is no dotted name')
    if top in sys.stdlib_module_names or any(part.startswith('_') for part in (top, *rest)):
      raise ImportError('it belongs to Python itself or is private')
    return importlib.import_module(name)
  except (ImportError, ValueError, SystemExit) as error:
    raise UserError(
      f'{kind} {(shown or name)!r} cannot be imported ({error}): give one of your own on the Python path'
    ) from error


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
  """Returns the options of a function or dataclass that a config may set by name."""
  listed = inspect.signature(function).parameters.values()
  skipped = _FLAX if hasattr(function, 'clone') else ('self',)  # flax.linen.Module
  skipped += ('name',) if hasattr(function, 'clone') else ()
  kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
  return {p.name: p for p in listed if p.name not in skipped and p.kind not in kinds}


def arguments(
  function: Callable, values: Mapping[str, Any], where: str, given: Iterable[str] = ()
) -> dict[str, Any]:
  """Returns `values` as keyword arguments for `function`, converted to its types and within its ranges.

  Args:
    function: or a dataclass.
    values: a group of a config.
    where: name of the group in messages, such as 'config.optim'.
    given: parameters that the caller sets, and a config may not.

  Raises:
    UserError: an unknown or missing name, or a value of a wrong type or out of range.
  """
  known = {k: p for k, p in parameters(function).items() if k not in given}
  kinds = {p.kind for p in inspect.signature(function).parameters.values()}
  takes_any = inspect.Parameter.VAR_KEYWORD in kinds
  for name in values:
    if name not in known and not (takes_any and name not in given):
      there = f'it has {", ".join(sorted(known))}' if known else 'it has no options'
      raise UserError(f'{where}.{name}: no such option; {there}{did_you_mean(name, known)}')
  try:
    hints = typing.get_type_hints(function)
  except (NameError, TypeError):
    hints = {}
  hints = hints or typing.get_type_hints(getattr(function, '__init__', function))
  empty = inspect.Parameter.empty
  for name, parameter in known.items():
    if parameter.default is empty and name not in values:
      raise UserError(f'{where}: {name} is missing, set {where}.{name}')
  likes = {name: parameter.default for name, parameter in known.items()}
  given = {
    name: coerced(value, hints.get(name, Any), f'{where}.{name}', likes.get(name, empty))
    for name, value in values.items()
  }
  for field in dataclasses.fields(function) if dataclasses.is_dataclass(function) else ():
    if field.name in given:
      check_value(field, given[field.name], where)
  return given


def defaults(function: Callable, given: Iterable[str] = ()) -> dict[str, Any]:
  """Returns the options with their defaults, without those that have none."""
  values = {}
  for name, parameter in parameters(function).items():
    value = parameter.default
    if name not in given and value is not inspect.Parameter.empty:
      values[name] = {} if _is_factory(value) else value
  return values


def _is_factory(value: Any) -> bool:
  """Whether this is the marker of a dataclass's default_factory: here always dict."""
  return type(value).__name__ == '_HAS_DEFAULT_FACTORY_CLASS'


def coerced(value: Any, hint: Any, where: str, like: Any = inspect.Parameter.empty) -> Any:
  """Converts a value to the type of `hint`: 1 to 1.0, a list to a tuple, 'true' to True.

  Raises:
    UserError: it has another type, or is not among the hint's choices.
  """
  try:
    return _coerced(value, hint)
  except (TypeError, ValueError):
    pass
  if typing.get_origin(hint) is Literal:
    raise UserError(
      f'{where}={value!r}: choose one of {", ".join(map(str, typing.get_args(hint)))}'
    )
  example = '' if like is inspect.Parameter.empty or _is_factory(like) else f', as in {like!r}'
  raise UserError(f'{where}={value!r}: expected {_described(hint)}{example}')


def _coerced(value: Any, hint: Any) -> Any:
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any or hint is inspect.Parameter.empty or origin is Callable or hint is Callable:
    return value
  if origin in (typing.Union, types.UnionType):
    return _first_that_fits(value, inner)
  if hint in (None, type(None)):
    return _require(value, value is None)
  if origin is Literal:
    return _require(value, value in inner and not isinstance(value, bool))
  if hint is bool:
    words = {'true': True, 'false': False}
    value = words.get(value.lower(), value) if isinstance(value, str) else value
    return bool(_require(value, value in (0, 1) and not isinstance(value, float)))
  if hint is int:
    return int(_require(value, isinstance(value, Integral) and not isinstance(value, bool)))
  if hint is float:
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return float(_require(value, fits))
  if origin is tuple and not inner:  # tuple[()]
    return tuple(_require(value, isinstance(value, (tuple, list)) and not len(value)))
  if hint is tuple or origin is tuple:
    return _tuple(value, inner)
  if hint is str and isinstance(value, int) and not isinstance(value, bool):
    return str(value)  # a string of digits, such as the split 2012
  if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
    return dict(_require(value, isinstance(value, Mapping)))
  if isinstance(hint, type) and hint is not object:
    return _require(value, isinstance(value, hint))
  return value


def _require(value: Any, fits: bool) -> Any:
  if not fits:
    raise TypeError
  return value


def _first_that_fits(value: Any, hints: tuple[Any, ...]) -> Any:
  for hint in sorted(hints, key=lambda h: h in (str, tuple) or typing.get_origin(h) is tuple):
    try:
      return _coerced(value, hint)
    except (TypeError, ValueError):
      continue
  raise TypeError


def _tuple(value: Any, inner: tuple[Any, ...]) -> tuple:
  """A string such as 'a,b' is a tuple of strings; a single value is repeated for a fixed length."""
  if isinstance(value, str):
    _require(value, not inner or inner[0] is str)
    value = tuple(part.strip() for part in value.split(',') if part.strip())
  fixed = bool(inner) and inner[-1] is not Ellipsis
  if not isinstance(value, (tuple, list)):
    value = (value,) * (len(inner) if fixed else 1)
  if not inner:
    return _frozen(value)
  if fixed:
    _require(value, len(value) == len(inner))
    return tuple(_coerced(v, hint) for v, hint in zip(value, inner, strict=True))
  return tuple(_coerced(v, inner[0]) for v in value)


def _frozen(value: Any) -> Any:
  return tuple(map(_frozen, value)) if isinstance(value, (tuple, list)) else value


def _described(hint: Any) -> str:
  """Describes a type for users."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  simple = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a word',
    type(None): 'None',
  }
  if hint in simple:
    return simple[hint]
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(_described(h) for h in inner)
  if origin is Literal:
    return f'one of {", ".join(map(str, inner))}'
  if origin is tuple and inner:
    each = 'words' if inner[0] is str else 'whole numbers' if inner[0] is int else 'numbers'
    return f'{each}, one after another' if inner[-1] is Ellipsis else f'{len(inner)} {each}'
  if origin is tuple or hint is tuple:
    return 'a tuple'
  return 'a group of options' if isinstance(origin or hint, type) else str(hint)
