"""Unpacks untrusted archives: never writes outside the folder, and reports damage.

No symbolic link is created, so that none can be followed: links to files in the archive become hard
links. Links to links, to folders and to the outside are rejected, as are devices.

Everything is read to the end, where zip, gzip, bzip2 and xz have their checksums; members must have
their declared sizes, and a tar its end mark. A plain tar has no checksums of its content.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxseg import files
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

_COMPRESSED = {
  b'\x1f\x8b': gzip.open,
  b'BZh': bz2.open,
  b'\xfd7zXZ\x00': lzma.open,
  b'\x5d\x00\x00': lzma.open,
}
_ANY_SIZE = 1 << 62
_PIECE = 1 << 20
_LONGEST_HEADER = 1 << 24  # bytes that tarfile may read at once
_LONGEST_TARGET = 4096
_ENCRYPTED = 1  # a bit of a zip member's flags


class _Damage(ValueError):
  """A damaged or malicious archive."""


@dataclasses.dataclass(frozen=True)
class _Member:
  """An entry of an archive.

  Attributes:
    name: relative to the archive's top, without '..'; '' is the top itself.
    size: of a file, in bytes.
    open: opens a file's content, None for folders and links.
    target: of a link, the name that it points to.
  """

  name: str
  size: int = 0
  open: Callable[[], BinaryIO] | None = None
  target: str | None = None


def unpack(archive: Path, folder: Path) -> None:
  """Unpacks a zip archive (by its suffix) or a tar, compressed or not (by its first bytes).

  Args:
    archive: local or in a bucket.
    folder: an empty one, which no other process writes to.

  Raises:
    UserError: it is damaged, or would write outside the folder.
    OSError: the disk is full.
  """
  members = _of_zip if archive.suffix.lower() == '.zip' else _of_tar
  try:
    with files.local_copy(archive) as path:
      twice = sorted(_write(members(path, folder), folder))
  except OSError as error:
    if error.errno in files.FULL:
      raise OSError(error.errno, error.strerror, str(folder.parent)) from None
    raise _told(archive, error.strerror or str(error)) from None
  except MemoryError:
    raise
  except UserError:
    raise
  except Exception as error:  # the formats' readers raise many types
    raise _told(archive, str(error) or type(error).__name__) from None

  if twice:
    warn_once([f'{archive} holds {abbreviate(twice, 3)} more than once: the last counts'])


def _told(archive: Path, reason: str) -> UserError:
  first = reason.splitlines()[0].rstrip(':')
  return UserError(f'cannot unpack {archive}: {first}; download it again')


def _write(members: Iterator[_Member], folder: Path) -> set[str]:
  """Writes the members of an archive; returns the names of repeated files."""
  written, twice, links = set(), set(), []
  for member in members:
    path = folder / member.name
    if member.target is not None:
      links.append(member)
    elif member.open is None:
      path.mkdir(parents=True, exist_ok=True)
    else:
      _make_parent(path, folder)
      if member.name in written:  # the last one counts, as in other tools
        path.unlink()
        twice.add(member.name)
      _copy(member, path)
      written.add(member.name)
  for link in links:
    if link.target not in written:
      raise _Damage(
        f'its member {link.name!r} is a link to {link.target!r}, which is no file in it'
      )
    path = folder / link.name
    _make_parent(path, folder)
    os.link(folder / link.target, path)
  return twice


def _make_parent(path: Path, folder: Path) -> None:
  """Creates a file's folder, which must be inside `folder` with all links resolved."""
  parent = path.parent
  parent.mkdir(parents=True, exist_ok=True)
  if not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder)):
    raise _Damage(f'its member {path.name!r} would be written outside')


def _copy(member: _Member, path: Path) -> None:
  left = member.size
  with member.open() as source, path.open('xb') as target:
    while piece := source.read(_PIECE):
      left -= len(piece)
      target.write(piece)
  if left:
    raise _Damage(f'its member {member.name!r} has {member.size - left} of {member.size} bytes')


def _inside(name: str) -> str:
  """Returns a member's name relative to the top. Raises _Damage if it is outside."""
  parts = [part for part in name.split('/') if part not in ('', '.')]
  if '..' in parts or '\0' in name:
    raise _Damage(f'its member {name!r} leads out of it')
  return '/'.join(parts)


def _of_tar(path: Path, _: Path) -> Iterator[_Member]:
  with files.opened(path, _ANY_SIZE) as raw:
    head = raw.read(6)
    raw.seek(0)
    opener = next((o for magic, o in _COMPRESSED.items() if head.startswith(magic)), None)
    with _Pieces(opener(raw)) if opener else _Pieces(raw) as stream:
      with tarfile.TarFile(fileobj=stream) as file:
        while (member := file.next()) is not None:
          yield _tar_member(file, member)
          file.members.clear()  # else tarfile keeps all of them
      if stream.last != bytes(tarfile.BLOCKSIZE):  # tarfile treats a bad header as the end
        raise _Damage('it is cut short, or its list of members is damaged')
      while stream.read(_PIECE):
        pass  # to reach the checksum


def _tar_member(file: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
  name = _inside(member.name)
  if member.isdir():
    return _Member(name)
  if member.isreg() and not member.issparse() and name:
    return _Member(name, member.size, lambda: file.extractfile(member))
  if member.islnk() or member.issym():
    beside = '' if member.islnk() else posixpath.dirname(name)
    return _Member(name, target=posixpath.normpath(posixpath.join(beside, member.linkname)))
  raise _Damage(f'its member {member.name!r} is neither a file nor a folder')


def _of_zip(path: Path, folder: Path) -> Iterator[_Member]:
  with files.opened(path, _ANY_SIZE) as raw, zipfile.ZipFile(raw) as file:
    size, free = sum(info.file_size for info in file.infolist()), shutil.disk_usage(folder).free
    if size > free:
      raise UserError(
        f'{path} has {size:,} bytes when it is unpacked, and {free:,} are free in {folder.parent}: make '
        'room there, or set JAXSEG_CACHE to a folder on another disk'
      )
    for info in file.infolist():
      if info.flag_bits & _ENCRYPTED:
        raise _Damage(f'its member {info.filename!r} is encrypted')
      name, kind = _inside(info.filename), stat.S_IFMT(info.external_attr >> 16)
      if info.is_dir():
        yield _Member(name)
      elif kind == stat.S_IFLNK:
        with file.open(info) as source:
          target = os.fsdecode(source.read(_LONGEST_TARGET))
        beside = posixpath.join(posixpath.dirname(name), target)
        yield _Member(name, target=posixpath.normpath(beside))
      elif kind in (0, stat.S_IFREG) and name:
        yield _Member(name, info.file_size, lambda info=info: file.open(info))
      else:
        raise _Damage(f'its member {info.filename!r} is neither a file nor a folder')


class _Pieces:
  """Limits the size of reads from a stream, as a header may claim any length.

  Attributes:
    last: bytes of the last read.
  """

  def __init__(self, stream: Any):
    self._stream, self.last = stream, b''

  def __enter__(self) -> _Pieces:
    return self

  def __exit__(self, *_) -> None:
    self._stream.close()

  def read(self, size: int) -> bytes:
    if size > _LONGEST_HEADER:
      raise _Damage(f'a header of it claims {size} bytes')
    self.last = self._stream.read(size)
    return self.last

  def seek(self, position: int) -> None:
    self._stream.seek(position)

  def tell(self) -> int:
    return self._stream.tell()
