"""Reads PyTorch's pickles of tensors without unpickling: interprets them opcode by opcode.

Python's unpickler imports and calls whatever a file names, and a few bytes can make it allocate any
amount of memory. Here only the opcodes needed for dictionaries of tensors are interpreted, the dozen names
in them are looked up in a table, and an opcode's argument is never longer than the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from jaxseg.types import UserError

_MOST_OPCODES = 1 << 20  # per pickle; a checkpoint of a thousand tensors has 50,000
_KEYS = (
  str,
  int,
  float,
  bool,
  type(None),
)  # of dictionaries; deeply nested tuples take for ever to hash
# Opcodes that push their argument.
_CONSTANTS = (
  'BINUNICODE',
  'SHORT_BINUNICODE',
  'BINUNICODE8',
  'UNICODE',
  'BININT',
  'BININT1',
  'BININT2',
)
_CONSTANTS += ('LONG1', 'LONG4', 'INT', 'LONG', 'BINFLOAT', 'FLOAT', 'SHORT_BINBYTES', 'BINBYTES')
_CONSTANTS += ('SHORT_BINSTRING', 'BINSTRING', 'STRING')
_PUSHED = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': set}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class PickleError(ValueError):
  """A damaged pickle, or one with more than a dictionary of tensors needs."""


def load(
  file: BinaryIO,
  names: Mapping[tuple[str, str], Any],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Returns the value of one pickle, and leaves the file's position after it.

  Args:
    file: open for reading, in memory.
    names: (module, name) -> its replacement, a function if it may be called.
    persistent: returns the value of a persistent id.

  Raises:
    UserError: a name that is not in `names`.
    PickleError: any other error.
  """
  machine = _Machine(names, persistent)
  try:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
      if number >= _MOST_OPCODES:
        raise PickleError(f'a pickle of more than {_MOST_OPCODES} opcodes')
      machine.follow(opcode.name, argument)
    [value] = machine.stack
    return value
  except UserError:
    raise
  except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
    raise PickleError(f'a pickle is damaged: {error}') from None


class _Machine:
  """A pickle machine: stack, positions of its marks, memo."""

  def __init__(self, names: Mapping[tuple[str, str], Any], persistent: Callable | None):
    self._names, self._persistent = names, persistent
    self.stack: list[Any] = []
    self._marks: list[int] = []
    self._memo: dict[int, Any] = {}

  def follow(self, name: str, argument: Any) -> None:
    stack = self.stack
    if name in _CONSTANTS:
      stack.append(argument)
    elif name in _PUSHED:
      stack.append(_PUSHED[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name == 'MARK':
      self._marks.append(len(stack))
    elif name in ('BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE'):
      self._memo[len(self._memo) if name == 'MEMOIZE' else argument] = stack[-1]
    elif name in ('BINGET', 'LONG_BINGET', 'GET'):
      stack.append(self._memo[argument])
    elif name in _TUPLES:
      count = _TUPLES[name]
      stack.append(tuple(self._pop(count)))
    elif name in ('TUPLE', 'LIST', 'DICT'):
      self._gather(name, self._to_mark())
    elif name in ('APPEND', 'APPENDS', 'ADDITEMS', 'SETITEM', 'SETITEMS'):
      count = {'APPEND': 1, 'SETITEM': 2}.get(name)
      self._add(self._pop(count) if count else self._to_mark())
    elif name not in ('PROTO', 'FRAME', 'STOP'):
      self._build(name, argument)

  def _build(self, name: str, argument: Any) -> None:
    """Executes the opcodes that construct objects."""
    if name == 'GLOBAL':
      self.stack.append(self._found(*argument.split(' ', 1)))
    elif name == 'STACK_GLOBAL':
      self.stack.append(self._found(*self._pop(2)))
    elif name == 'REDUCE':
      function, arguments = self._pop(2)
      self.stack.append(function(*arguments))
    elif name == 'BUILD':
      self._pop(1)  # attributes, such as a state_dict's _metadata
    elif name == 'BINPERSID' and self._persistent:
      [saved_id] = self._pop(1)
      self.stack.append(self._persistent(saved_id))
    else:
      raise PickleError(f'the opcode {name} has no place in a dictionary of tensors')

  def _pop(self, count: int) -> list[Any]:
    if len(self.stack) < count:
      raise PickleError('a pickle is damaged: its stack is empty')
    values = self.stack[-count:]
    del self.stack[-count:]
    return values

  def _to_mark(self) -> list[Any]:
    """Pops everything above the last mark."""
    place = self._marks.pop()
    values = self.stack[place:]
    del self.stack[place:]
    return values

  def _gather(self, name: str, values: list[Any]) -> None:
    self.stack.append({'TUPLE': tuple, 'LIST': list, 'DICT': dict}[name]())
    if name == 'TUPLE':
      self.stack[-1] = tuple(values)
    else:
      self._add(values)

  def _add(self, values: list[Any]) -> None:
    """Adds values to the list, or pairs to the dictionary, on top of the stack."""
    target = self.stack[-1]
    if isinstance(target, dict):
      for key, value in zip(values[::2], values[1::2], strict=True):
        target[_checked(key)] = value
    elif isinstance(target, list):
      target.extend(values)
    elif not isinstance(target, set):
      raise PickleError(f'a {type(target).__name__} takes no items')

  def _found(self, module: str, name: str) -> Any:
    if (module, name) not in self._names:
      raise UserError(
        f'it holds a Python object of type {module}.{name}, which could run any code: only '
        'tensors in dictionaries are read; save the state_dict alone'
      )
    return self._names[module, name]


def ordered(pairs: Sequence[Sequence[Any]] = ()) -> dict[Any, Any]:
  """Replaces collections.OrderedDict; Python 2 passes it the items, Python 3 adds them later."""
  made = {}
  for key, value in pairs:
    made[_checked(key)] = value
  return made


def whole_numbers(values: Any) -> tuple[int, ...]:
  """Replaces torch.Size."""
  if not isinstance(values, (tuple, list)) or not all(type(v) is int for v in values):
    raise PickleError('the size of a tensor is no list of whole numbers')
  return tuple(values)


def _checked(key: Any) -> Any:
  if not isinstance(key, _KEYS):
    raise PickleError(f'a key is a {type(key).__name__}, not a word or number')
  return key
