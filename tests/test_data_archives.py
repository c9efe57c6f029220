"""Folders and archives: what is found where, unpacked once, and refused."""

import tarfile
import zipfile

import pytest

from jaxseg.data import archives
from jaxseg.data.problems import MissingSplit
from jaxseg.types import UserError


def _pack(root, name, content='word'):
  """Writes an archive whose only file is data/set/a.txt."""
  (root / 'data' / 'set').mkdir(parents=True)
  (root / 'data' / 'set' / 'a.txt').write_text(content)
  if name.endswith('.zip'):
    with zipfile.ZipFile(root / name, 'w') as file:
      file.write(root / 'data' / 'set' / 'a.txt', 'data/set/a.txt')
  else:
    with tarfile.open(root / name, 'w:gz' if name.endswith('z') else 'w') as file:
      file.add(root / 'data', 'data')
  (root / 'data').rename(root / 'elsewhere')


def _find(root, names, packed, **options):
  return archives.find([root / 'sub', root], names, packed, cache_dir=root / 'cache', **options)


@pytest.mark.parametrize('name', ['a.tar', 'a.tgz', 'a.zip'])
def test_archives_unpack_into_the_cache_once(tmp_path, name):
  _pack(tmp_path, name)
  folder = _find(tmp_path, ['data/set'], [name])
  assert (folder / 'a.txt').read_text() == 'word'
  assert folder.is_relative_to(tmp_path / 'cache')
  (folder / 'mark').touch()
  assert (_find(tmp_path, ['data/set'], [name]) / 'mark').exists()


def test_a_folder_is_preferred_to_an_archive(tmp_path):
  _pack(tmp_path, 'a.zip')
  (tmp_path / 'other').mkdir()
  assert _find(tmp_path, ['data/set', 'other'], ['a.zip']) == tmp_path / 'other'
  (tmp_path / 'sub' / 'other').mkdir(parents=True)
  assert _find(tmp_path, ['data/set', 'other'], ['a.zip']) == tmp_path / 'sub' / 'other'
  assert not (tmp_path / 'cache').exists()


def test_another_archive_is_unpacked_anew(tmp_path):
  (tmp_path / 'one').mkdir()
  (tmp_path / 'two').mkdir()
  _pack(tmp_path / 'one', 'a.tar', 'first')
  _pack(tmp_path / 'two', 'a.tar', 'second')
  for place, text in (('one', 'first'), ('two', 'second')):
    folder = archives.find(
      [tmp_path / place], ['data/set'], ['a.tar'], cache_dir=tmp_path / 'cache'
    )
    assert (folder / 'a.txt').read_text() == text


def test_flat_archives(tmp_path):
  _pack(tmp_path, 'a.zip')
  assert (_find(tmp_path, ['images'], ['a.zip'], flat=True) / 'data').is_dir()
  with pytest.raises(UserError, match=r'a\.zip holds no images/: it is another archive'):
    _find(tmp_path, ['images'], ['a.zip'])


def test_nothing_there(tmp_path):
  with pytest.raises(MissingSplit, match=r'none of x/, y\.zip in .*sub: put it there'):
    _find(tmp_path, ['x'], ['y.zip'])


@pytest.mark.parametrize('name', ['a.tar', 'a.tgz', 'a.zip'])
def test_damage(tmp_path, name):
  _pack(tmp_path, name, 'many words ' * 3000)
  data = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(data[: len(data) // 3])
  with pytest.raises(UserError, match=rf'cannot unpack .*{name}: .*; download it again'):
    _find(tmp_path, ['data/set'], [name])
  assert not list((tmp_path / 'cache').rglob('*.txt'))


def test_names_cannot_lead_out_of_the_cache(tmp_path):
  (tmp_path / 'evil.txt').write_text('x')
  with tarfile.open(tmp_path / 'a.tar', 'w') as file:
    file.add(tmp_path / 'evil.txt', '../../../evil2.txt')
  with pytest.raises(UserError, match='cannot unpack'):
    _find(tmp_path, ['data'], ['a.tar'])
  assert not list(tmp_path.rglob('evil2.txt'))


def test_data_root(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_DATA', str(tmp_path))
  assert archives.data_root() == tmp_path
  assert archives.data_root(tmp_path.parent) == tmp_path.parent
  monkeypatch.delenv('JAXSEG_DATA')
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(UserError, match=r'no data folder .*jaxseg_data.*JAXSEG_DATA'):
    archives.data_root()
  (tmp_path / 'jaxseg_data').mkdir()
  assert archives.data_root() == tmp_path / 'jaxseg_data'
