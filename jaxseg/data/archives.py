"""Finds datasets in the data folder: as published folders, or in archives, which it unpacks."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from jaxseg import console, files
from jaxseg.data import cache, fingerprint, threads, unpacking
from jaxseg.data.problems import MissingSplit
from jaxseg.types import UserError


def data_root(data_dir: str | os.PathLike | None = None) -> Path:
  """Returns the folder of all datasets: `data_dir` if given, else $JAXSEG_DATA, else ~/jaxseg_data.

  Raises:
    UserError: the folder does not exist.
    StuckError: its disk does not answer.
  """
  root = files.to_path(data_dir or os.environ.get('JAXSEG_DATA') or '~/jaxseg_data')
  [there] = threads.results(lambda folder: folder.is_dir(), [root], name=str)
  if not there:
    raise UserError(
      f'no data folder {root}: give data_dir, or set JAXSEG_DATA to the folder that holds camvid/, '
      'isbi2012/, ...'
    )
  return root


def finder(
  folders: Sequence[str],
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> Callable[..., Path]:
  """Returns `find` for a dataset in one of these subfolders of the data folder, or directly in it."""
  root = data_root(data_dir)
  roots = [*(root / folder for folder in folders), root]
  return partial(find, roots, cache_dir=cache_dir, name=folders[0])


def find(
  roots: Sequence[Path],
  names: Sequence[str],
  archives: Sequence[str] = (),
  *,
  cache_dir: str | os.PathLike | None = None,
  flat: bool = False,
  name: str = '',
) -> Path:
  """Returns the first folder `root / name` that exists, else that of an unpacked archive.

  An archive is unpacked once, into the cache folder, which takes its space again.

  Args:
    roots: where to look, in order.
    names: folders relative to a root or an archive's top.
    archives: file names of tar (compressed or not) or zip archives in a root.
    cache_dir: default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    flat: whether an archive may hold the files without such a folder.
    name: the dataset's, for `data.py get`.

  Raises:
    MissingSplit: neither exists.
    UserError: the archive is damaged or has other content.
  """
  for folder in (root / inner for root in roots for inner in names):
    if folder.is_dir():
      return folder
  for archive in (root / packed for root in roots for packed in archives):
    if archive.is_file():
      unpacked = unpack(archive, cache_dir)
      inside = next((unpacked / inner for inner in names if (unpacked / inner).is_dir()), None)
      if inside is None and not flat:
        raise UserError(f'{archive} holds no {" and no ".join(names)}/: it is another archive')
      return inside or unpacked
  wanted = ', '.join([*(f'{folder}/' for folder in names), *archives])
  getting = f', get it with {console.command("data")} get {name}' if name else ''
  raise MissingSplit(f'none of {wanted} in {roots[0]}: put it there{getting}, or correct data_dir')


def unpack(archive: Path, cache_dir: str | os.PathLike | None = None) -> Path:
  """Unpacks a tar or zip archive into the cache, unless already done."""
  key = fingerprint.of_files([archive], 'unpacked', cache_dir)
  folder = cache.cache_root(cache_dir) / 'unpacked' / f'{archive.name}-{key}'
  if not folder.is_dir():
    cache.publish(folder, partial(unpacking.unpack, archive))
  return folder
