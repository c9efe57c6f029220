"""Errors of datasets that a caller can distinguish."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from jaxseg import console
from jaxseg.data import threads
from jaxseg.data.progress import with_progress
from jaxseg.types import UserError


class MissingSplit(UserError):
  """A split that the dataset supports, but whose files are missing."""


class BadFiles(UserError):
  """Files that cannot be used.

  Attributes:
    problems: one line per file; the error's own text is the first and the number of others.
    items: the item of each line, if a set was read item by item.
  """

  def __init__(self, problems: Sequence[str], items: Sequence[Any] = ()):
    self.problems, self.items = tuple(problems), tuple(items)
    more = len(self.problems) - 1
    listed = (
      f' (and {more} more like it: {console.command("data")} check lists them)' if more else ''
    )
    super().__init__(self.problems[0] + listed)


def read_all(
  read: Callable[[Any], Any], items: Sequence[Any], name: Callable[[Any], str], title: str
) -> Iterator[Any]:
  """Yields read(item) of each item in order, read in threads, up to the first that fails.

  Raises:
    BadFiles: at the end, with all UserErrors of `read`, so that the user sees all bad files at once.
  """

  def attempt(item: Any) -> Any:
    try:
      return read(item)
    except UserError as error:
      return error

  problems: list[tuple[str, Any]] = []
  results = threads.results(attempt, items, name=name)
  for item, result in zip(items, with_progress(title, results, len(items)), strict=True):
    if isinstance(result, UserError):
      problems.append((str(result), item))
    elif not problems:
      yield result
  if problems:
    raise BadFiles(*zip(*problems, strict=True))


def abbreviate(values: Sequence[Any], limit: int = 8) -> str:
  """Returns text such as '3, 5, 9 and 4 more'."""
  text = ', '.join(map(str, values[:limit]))
  return text + (f' and {len(values) - limit} more' if len(values) > limit else '')


def check_choice(dataset: str, what: str, value: Any, allowed: Collection[Any]) -> None:
  """Raises UserError if an option of a dataset is not allowed."""
  if value not in allowed:
    raise UserError(f'{dataset} has no {what} {value!r}: use one of {", ".join(map(str, allowed))}')


def check_split(dataset: str, split: str, splits: Sequence[str], hidden: str = '') -> None:
  """Raises UserError if a dataset has no such split; `hidden` says why it has no 'test'."""
  if split == 'test' and hidden:
    raise UserError(f"{dataset}: {hidden}; use 'val', or predict")
  check_choice(dataset, 'split', split, splits)


def warn_once(lines: Iterable[str]) -> None:
  """Prints lines to standard error, each only once, as several splits of a folder repeat them."""
  for line in lines:
    _say_once(line)


@functools.cache
def _say_once(line: str) -> None:
  console.say(line, error=True)
