"""Groups of images: by a part of their file names, or by a column of a list."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jaxseg.train.build import Experiment
from jaxseg.types import UserError

OTHERS = 'others'  # of images that a pattern does not match


@dataclasses.dataclass(frozen=True)
class Grouping:
  """Says of which group an example is.

  Attributes:
    title: of the groups, such as 'camera'.
    pattern: of file names, whose first parentheses hold the group; '' where a list says it.
    groups: file name -> group.
  """

  title: str
  pattern: str = ''
  groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __call__(self, example: Mapping[str, Any]) -> str:
    """Returns the example's group. Raises UserError where the list does not have it."""
    name = str(example['file_name'])
    if self.pattern:
      match = re.search(self.pattern, name)
      return (match.group(1) if match else None) or OTHERS
    if name not in self.groups:
      raise UserError('is not in the list of --groups: add a line, or give a pattern')
    return self.groups[name]

  @classmethod
  def of(cls, text: str, experiment: Experiment) -> Grouping:
    """Returns the grouping that a flag gives.

    Args:
      text: a pattern of file names with parentheses, as in '^(.*)_[0-9]+'.
      experiment: of the run.

    Raises:
      UserError: a pattern that is none.
    """
    try:
      pattern = re.compile(text)
    except re.error as error:
      raise UserError(f'--groups={text}: {error}') from None
    if pattern.groups:
      return cls('group', text)
    raise UserError(f'--groups={text}: give a pattern with parentheses')
