"""Groups images by a part of their file names, or by a column of the list they come from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jaxseg.data.archives import data_root
from jaxseg.data.pairing import read_column
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

OTHERS = 'others'  # images that the pattern does not match or the list does not name


@dataclasses.dataclass(frozen=True)
class Grouping:
  """Maps an example to its group.

  Attributes:
    title: of the groups, such as 'camera'.
    pattern: for file names, its first group being the group's name; '' to use `groups`.
    groups: file name -> group.
  """

  title: str
  pattern: str = ''
  groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __call__(self, example: Mapping[str, Any]) -> str:
    name = str(example['file_name'])
    if not self.pattern:
      return self.groups.get(name) or OTHERS
    match = re.search(self.pattern, name)
    return (match.group(1) if match else None) or OTHERS

  @classmethod
  def of(cls, text: str, experiment: Experiment) -> Grouping:
    """Parses the flag --groups.

    Args:
      text: a pattern for file names with parentheses, as in '^(.*)_[0-9]+', or a column of the list
        that the experiment's data come from, config.data.options.listed.
      experiment: of the run.

    Raises:
      UserError: neither.
    """
    try:
      is_pattern = bool(re.compile(text).groups)
    except re.error as error:
      raise UserError(f'--groups={text}: {error}') from None
    if is_pattern:
      return cls('group', text)
    listed = experiment.data.options.get('listed')
    if not listed:
      raise UserError(
        f"--groups={text}: give a pattern of file names with parentheses, as in '^(.*)_', or train on a "
        'list (data.py plan --list) and give one of its columns'
      )
    return cls(
      text, groups=read_column(data_root(experiment.settings.data_dir or None) / listed, text)
    )
