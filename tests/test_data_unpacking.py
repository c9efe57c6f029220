"""Archives made to do harm or damaged on the way: nothing is written outside, and nothing bad is kept."""

import gzip
import io
import os
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from jaxseg.data import archives, unpacking
from jaxseg.types import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
NAMES = ('a.tar', 'a.tar.gz', 'a.tar.bz2', 'a.tar.xz', 'a.zip')


def entry(name, kind=tarfile.REGTYPE, link='', size=0):
  info = tarfile.TarInfo(name)
  info.type, info.linkname, info.size = kind, link, size
  return info


def tar_of(path, *entries):
  with tarfile.open(path, 'w') as file:
    for info in entries:
      file.addfile(info, io.BytesIO(b'x' * info.size) if info.isreg() else None)
  return path


def good(path):
  """Writes an archive of two files in a folder."""
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
      for name in ('set/a', 'set/b'):
        file.writestr(name, CONTENT)
    return path
  kind = path.suffix.lstrip('.').replace('tar', '')
  with tarfile.open(path, f'w:{kind}') as file:
    for name in ('set/a', 'set/b'):
      file.addfile(entry(name, size=len(CONTENT)), io.BytesIO(CONTENT))
  return path


def unpacked(archive):
  """Unpacks into a folder beside; returns its files' content by name."""
  folder = archive.parent / 'cache' / 'new'
  folder.mkdir(parents=True)
  unpacking.unpack(archive, folder)
  return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('name', NAMES)
def test_good_archives(name, tmp_path):
  assert unpacked(good(tmp_path / name)) == {'set/a': CONTENT, 'set/b': CONTENT}


def test_an_encrypted_archive_is_told(tmp_path):
  path = good(tmp_path / 'a.zip')
  data = bytearray(path.read_bytes())
  for mark, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):  # the flags of the first member, twice
    data[data.index(mark) + place] |= 1
  path.write_bytes(data)
  with pytest.raises(UserError, match="cannot unpack .*a.zip: its member 'set/a' is encrypted"):
    unpacked(path)


def nest(depth=16):
  """The nest of Python 3.11.7's hole: short links stand for folders too long to be resolved."""
  path, entries = '', []
  for letter in 'abcdefghijklmnop'[:depth]:
    entries.append(entry(f'{path}{"d" * 247}', tarfile.DIRTYPE))
    entries.append(entry(f'{path}{letter}', tarfile.SYMTYPE, 'd' * 247))
    path += f'{"d" * 247}/'
  chain = '/'.join('abcdefghijklmnop'[:depth])
  return [
    *entries,
    entry(f'{chain}/{"l" * 254}', tarfile.SYMTYPE, '../' * depth),
    entry('escape', tarfile.SYMTYPE, f'{chain}/{"l" * 254}/../..'),
    entry('hard', tarfile.LNKTYPE, 'escape/victim'),
    entry('hard', size=4),
  ]


HOSTILE = {
  'a nest of long folders, links and a hard link': nest(),
  'parent folders': [entry('../../victim', size=4)],
  'a link out, and a file through it': [
    entry('out', tarfile.SYMTYPE, '../..'),
    entry('out/victim', size=4),
  ],
  'an absolute link, and a file through it': [
    entry('out', tarfile.SYMTYPE, 'TMP'),
    entry('out/victim', size=4),
  ],
  'a link to the victim, then a file of its name': [
    entry('link', tarfile.SYMTYPE, '../../victim'),
    entry('link', size=4),
  ],
  'a hard link to the victim': [entry('link', tarfile.LNKTYPE, '../../victim')],
  'an absolute hard link': [entry('link', tarfile.LNKTYPE, 'TMP/victim')],
  'a link to a link': [
    entry('a', size=4),
    entry('b', tarfile.SYMTYPE, 'a'),
    entry('c', tarfile.SYMTYPE, 'b'),
  ],
  'a link to a folder': [entry('d', tarfile.DIRTYPE), entry('link', tarfile.SYMTYPE, 'd')],
  'a link to nothing': [entry('link', tarfile.SYMTYPE, 'none')],
  'a device': [entry('null', tarfile.CHRTYPE)],
  'a pipe': [entry('pipe', tarfile.FIFOTYPE)],
  'a file in the place of a folder': [
    entry('a', size=4),
    entry('a/b', size=4),
  ],
  'the top as a file': [entry('.', size=4)],
}


@pytest.mark.parametrize('title', HOSTILE)
def test_nothing_is_written_outside(title, tmp_path):
  (tmp_path / 'victim').write_text('mine')
  for info in HOSTILE[title]:
    info.linkname = info.linkname.replace('TMP', str(tmp_path))
  archive = tar_of(tmp_path / 'a.tar', *HOSTILE[title])
  with pytest.raises(UserError, match=r'cannot unpack .*a\.tar: .*; download it again'):
    unpacked(archive)
  assert (tmp_path / 'victim').read_text() == 'mine'
  assert {p.name for p in tmp_path.iterdir()} == {'a.tar', 'cache', 'victim'}
  assert not [p for p in tmp_path.rglob('*') if p.is_symlink()]


def test_absolute_names_stay_inside(tmp_path):
  archive = tar_of(tmp_path / 'a.tar', entry(f'{tmp_path}/b', size=4), entry('./c', size=4))
  assert unpacked(archive) == {f'{str(tmp_path)[1:]}/b': b'xxxx', 'c': b'xxxx'}


def test_a_link_to_a_file_is_that_file(tmp_path):
  entries = [
    entry('d/link', tarfile.SYMTYPE, '../e/a'),
    entry('e/a', size=4),
    entry('hard', tarfile.LNKTYPE, 'e/a'),
  ]
  assert unpacked(tar_of(tmp_path / 'a.tar', *entries)) == dict.fromkeys(
    ('d/link', 'e/a', 'hard'), b'xxxx'
  )


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
  archive = tar_of(tmp_path / 'a.tar', entry('a', size=4), entry('a', size=2))
  assert unpacked(archive) == {'a': b'xx'}


@pytest.mark.parametrize('mode', [0o120777, 0o010644, 0o020644])
def test_links_and_devices_of_a_zip(mode, tmp_path):
  info = zipfile.ZipInfo('x')
  info.external_attr = mode << 16
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
    file.writestr(info, '../../victim')
  with pytest.raises(UserError, match="its member 'x' is (a link to '../../victim'|neither)"):
    unpacked(tmp_path / 'a.zip')


def test_a_zip_that_leads_out(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
    file.writestr('../../victim', 'x')
  with pytest.raises(UserError, match="'../../victim' leads out of it"):
    unpacked(tmp_path / 'a.zip')


@pytest.mark.parametrize('name', NAMES)
def test_a_cut_is_told(name, tmp_path):
  data = good(tmp_path / name).read_bytes()
  end = data.rstrip(b'\0') if name == 'a.tar' else data  # tarfile fills up to 10 KiB with zeros
  for kept in [*range(0, len(end), 97), len(end) - 1, *range(512, len(end), 512)]:
    (tmp_path / name).write_bytes(data[:kept])
    with pytest.raises(UserError, match='cannot unpack .*; download it again'):
      unpacked(tmp_path / name)
    for path in sorted((tmp_path / 'cache').rglob('*'), reverse=True):
      path.unlink() if path.is_file() else path.rmdir()


@pytest.mark.parametrize('name', NAMES)
def test_a_flipped_bit_is_told_or_harmless(name, tmp_path):
  """Of a plain tar only the headers have a checksum."""
  data, rng = good(tmp_path / name).read_bytes(), np.random.default_rng(1)
  right, told, flips = {'set/a': CONTENT, 'set/b': CONTENT}, 0, 150
  for number in range(flips):
    spoilt = bytearray(data)
    spoilt[rng.integers(len(data))] ^= 1 << rng.integers(8)
    place = tmp_path / f'{number}'
    place.mkdir()
    (place / name).write_bytes(spoilt)
    try:
      found = unpacked(place / name)
    except UserError as error:
      assert str(error).startswith('cannot unpack')
      told += 1
      continue
    if name != 'a.tar':
      assert found == right
    else:
      assert found.keys() == right.keys() and all(map(len, found.values()))
  assert told > (0 if name == 'a.tar' else flips * 0.6)


def test_a_header_that_claims_much_is_not_read(tmp_path):
  """A long name of 4 GB, all zeros: a few KB of gzip."""
  header = entry('././@LongLink', tarfile.GNUTYPE_LONGNAME, size=4 << 30).tobuf()
  with gzip.open(tmp_path / 'a.tgz', 'wb') as file:
    file.write(header + bytes(1 << 20))
  with pytest.raises(UserError, match='claims 4294967296 bytes'):
    unpacked(tmp_path / 'a.tgz')


def test_a_zip_that_does_not_fit_the_disk(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('a', bytes(1 << 20))
  data = bytearray((tmp_path / 'a.zip').read_bytes())
  at = data.rindex(b'PK\x01\x02')
  data[at + 24 : at + 28] = struct.pack('<I', 0xFFFFFFF0)
  (tmp_path / 'a.zip').write_bytes(data)
  usage = os.statvfs(tmp_path)
  says = 'bytes when it is unpacked' if usage.f_bavail * usage.f_frsize < 0xFFFFFFF0 else 'unpack'
  with pytest.raises(UserError, match=says):
    unpacked(tmp_path / 'a.zip')


def test_damage_leaves_nothing_in_the_cache(tmp_path):
  archive = good(tmp_path / 'a.tar.xz')
  archive.write_bytes(archive.read_bytes()[:-9])
  with pytest.raises(UserError, match='cannot unpack'):
    archives.unpack(archive, tmp_path / 'cache')
  left = [p for p in (tmp_path / 'cache').rglob('*') if p.is_file()]
  assert {p.parent.name for p in left} <= {'digests'}  # what is known of the archive itself


@pytest.mark.parametrize('name', ['a.tar', 'a.zip'])
def test_of_two_members_of_one_name_the_last_counts_and_is_told(name, tmp_path, capsys):
  archive = good(tmp_path / name)
  if name == 'a.zip':
    with zipfile.ZipFile(archive, 'a') as file, pytest.warns(UserWarning, match='Duplicate'):
      file.writestr('set/a', b'later')
  else:
    with tarfile.open(archive, 'a') as file:
      file.addfile(entry('./set/a', size=5), io.BytesIO(b'later'))
  assert unpacked(archive) == {'set/a': b'later', 'set/b': CONTENT}
  assert f'{name} holds set/a more than once: the last counts' in capsys.readouterr().err
