"""Reads manifest.toml: sources, checksums and terms of datasets and weights."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name('manifest.toml')


@dataclasses.dataclass(frozen=True)
class RemoteFile:
  """A file; see the comments at the top of the manifest.

  Attributes:
    bytes: None if unknown.
    digest: see files.download.
  """

  name: str
  addresses: tuple[str, ...] = ()
  bytes: int | None = None
  digest: str = ''
  known: str = ''
  holds: tuple[str, ...] = ()
  when: tuple[str, ...] = ()

  def is_needed(self, splits: tuple[str, ...], options: Mapping[str, Any]) -> bool:
    """Returns whether a dataset with these options needs the file for any of the splits."""
    given = {f'split={split}' for split in splits} | {f'{k}={v}' for k, v in options.items()}
    return not self.when or bool(given & set(self.when))


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A dataset of jaxseg.datasets; see the comments at the top of the manifest."""

  name: str
  licence: str
  page: str
  files: tuple[RemoteFile, ...]
  steps: str = ''


@dataclasses.dataclass(frozen=True)
class Weights:
  """Published weights; see the comments at the top of the manifest."""

  name: str
  licence: str
  naming: str
  file: RemoteFile
  network: str = ''
  lacks: tuple[str, ...] = ()
  agree: bool = False
  package: str = ''
  extra: str = ''


@functools.cache
def datasets() -> Mapping[str, Dataset]:
  """Returns the datasets by name."""
  return {
    name: Dataset(name=name, **{**entry, 'files': tuple(map(_item, entry['files']))})
    for name, entry in _read()['datasets'].items()
  }


@functools.cache
def weights() -> Mapping[str, Weights]:
  """Returns the weights by name, in the manifest's order."""
  return {
    name: Weights(name=name, **_tuples({**entry, 'file': _item(entry['file'])}))
    for name, entry in _read()['weights'].items()
  }


def _item(entry: Mapping[str, Any]) -> RemoteFile:
  return RemoteFile(**_tuples(entry))


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
  return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}


def _read() -> dict[str, Any]:
  return tomllib.loads(_FILE.read_text(encoding='utf-8'))
