"""Cache keys: digests of files' content, and of the code that reads them.

Digests are cached. A file is read again only if its size, mtime, ctime or inode differs: as programs
cannot set ctime, this detects changed bytes with unchanged size and mtime.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.data import cache, threads
from jaxseg.data.problems import BadFiles
from jaxseg.types import UserError

_PART = 1 << 20  # bytes read at once
_LIMIT = 1 << 50
_Known = list[Any]  # a file's stat fields, and the digest of its content


def of_files(paths: Sequence[Path], facts: Any, cache_dir: str | os.PathLike | None = None) -> str:
  """Returns a digest, 16 hex digits, of files' paths and content and any JSON-able facts; see contents."""
  return of_contents(paths, contents(paths, cache_dir), facts)


def of_contents(paths: Sequence[Path], digests: Sequence[str], facts: Any) -> str:
  """Same as `of_files`, for known digests of the content."""
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
  for path, content in zip(paths, digests, strict=True):
    digest.update(os.fsencode(path if files.is_remote(path) else path.absolute()))
    digest.update(f'|{content}\n'.encode())  # a path may be invalid Unicode
  return digest.hexdigest()[:16]


def contents(paths: Sequence[Path], cache_dir: str | os.PathLike | None = None) -> list[str]:
  """Returns a digest of each file's content; for one in a bucket, its size and time.

  Raises:
    BadFiles: missing or unreadable files.
  """
  name = hashlib.sha256(b'\n'.join(os.fsencode(path) for path in paths)).hexdigest()[:16]
  memory = cache.cache_root(cache_dir) / 'digests' / f'{name}.json'
  before: list[_Known] = cache.load(memory)
  if not (isinstance(before, list) and len(before) == len(paths)):
    before = [None] * len(paths)

  def look(item: tuple[Path, _Known]) -> _Known | UserError:
    try:
      return _known(*item)
    except UserError as error:
      return error

  items = list(zip(paths, before, strict=True))
  found = list(threads.results(look, items, name=lambda item: str(item[0])))
  wrong = [(str(f), path) for f, path in zip(found, paths, strict=True) if isinstance(f, UserError)]
  if wrong:
    raise BadFiles(*zip(*wrong, strict=True))
  if found != before:
    cache.save(memory, found)
  return [known[-1] for known in found]


def _known(path: Path, before: _Known) -> _Known:
  try:
    stat = path.stat()
    if files.is_remote(path):
      return [f'{stat.length}-{stat.mtime}']
    now = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    if isinstance(before, list) and before[:-1] == now:
      return before
    return [*now, _digest(path, stat.st_size)]
  except FileNotFoundError:
    raise UserError(f'missing file: {path}') from None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from None


def _digest(path: Path, size: int) -> str:
  """Returns the digest of a file's content, or of the names in a folder."""
  digest = hashlib.blake2b(str(size).encode(), digest_size=8)
  if path.is_dir():
    digest.update(b'/'.join(os.fsencode(name) for name in sorted(os.listdir(path))))
    return digest.hexdigest()
  with files.opened(path, _LIMIT) as file:
    while part := file.read(_PART):
      digest.update(part)
  return digest.hexdigest()


def of_code(function: Callable) -> str:
  """Returns a digest, 16 hex digits, of a function's module and those it uses, of its package and jaxseg's."""
  digest = hashlib.sha256()
  for module in sorted(_modules(_functions(function)), key=lambda module: module.__name__):
    digest.update(_source(module.__name__, getattr(module, '__file__', None)))
  for one in _functions(function):
    if getattr(sys.modules.get(one.__module__), '__file__', None) is None:  # such as in a notebook
      digest.update(_typed_in(one))
  return digest.hexdigest()[:16]


def _typed_in(function: Callable) -> bytes:
  code = getattr(function, '__code__', None)
  return _compiled(code) if code else repr(type(function)).encode()


def _compiled(code: types.CodeType) -> bytes:
  """Returns a function's bytecode and constants; its source is not reliable after `exec`."""
  constants = (
    _compiled(c) if isinstance(c, types.CodeType) else repr(c).encode() for c in code.co_consts
  )
  return b'|'.join([code.co_code, repr(code.co_names).encode(), *constants])


def _functions(value: Any) -> list[Callable]:
  """Returns a function, or those that a functools.partial consists of."""
  if isinstance(value, functools.partial):
    parts = (value.func, *value.args, *value.keywords.values())
    return [f for part in parts if callable(part) for f in _functions(part)]
  return [value if hasattr(value, '__module__') else type(value)]


def _modules(functions: Sequence[Callable]) -> set[types.ModuleType]:
  """Returns the functions' modules and their imports from the same packages and from jaxseg's readers."""
  own = {f.__module__.partition('.')[0] for f in functions} - {'jaxseg'}
  todo, seen = [f.__module__ for f in functions], set()
  while todo:
    module = sys.modules.get(todo.pop())
    if module is None or module in seen:
      continue
    seen.add(module)
    names = (getattr(v, '__module__', None) or getattr(v, '__name__', '') for v in _values(module))
    todo += [n for n in names if _is_reader(n) or n.partition('.')[0] in own]
  return seen


def _values(module: types.ModuleType) -> Iterator[Any]:
  yield from (v for v in vars(module).values() if isinstance(v, types.ModuleType) or callable(v))


def _is_reader(name: str) -> bool:
  return name.startswith(('jaxseg.data.', 'jaxseg.datasets.'))


@functools.cache
def _source(name: str, file: str | None) -> bytes:
  try:
    return name.encode() + Path(file).read_bytes() if file else name.encode()
  except OSError:  # in a zip file, or deleted
    return name.encode()
